"""Files that the stages of synthesis hand on to each other, each with a marker.

    OUT/ask/ask-00000.jsonl.gz          candidates: instructions, why they were dropped, answers
    OUT/filter/filter-00000.jsonl.gz    what became of each candidate; kept ones as units
    OUT/filter/state-00000.npz          hashes of the texts kept in this shard, by which later ones are compared
    OUT/shards/part-00000.parquet       clips
    OUT/done/<name>.json                marker: checksum, plan, counts

A file is written in one piece, and its marker after it, so a killed run loses at most the files under way. The plan is
a hash of everything that decides the content; a later run keeps a file whose marker, plan and bytes agree, and makes
any other again. MAKER is part of every plan, the version of the package is not: a half-made set outlives an update.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.audio.alignment_set import ROW_GROUP_SIZE
from rba_bench.files import read_json, sha256_bytes, sha256_file, sha256_json, write_atomic, write_json
from rba_bench.progress import say

if TYPE_CHECKING:
    import pyarrow as pa

MAKER = 1  # raise it when equal settings give other content
ASK, FILTER, SHARDS, DONE = "ask", "filter", "shards", "done"


def asked_name(number: int) -> str:
    """File of a shard of candidates, relative to the set's folder."""
    return f"{ASK}/ask-{number:05d}.jsonl.gz"


def filtered_name(number: int) -> str:
    """File of what became of a shard's candidates."""
    return f"{FILTER}/filter-{number:05d}.jsonl.gz"


def state_name(number: int) -> str:
    """File of the hashes of a shard's texts."""
    return f"{FILTER}/state-{number:05d}.npz"


def clips_name(number: int) -> str:
    """File of a shard of clips."""
    return f"{SHARDS}/part-{number:05d}.parquet"


def make_plan(*content: Any) -> str:
    """Hash of everything that decides a file, given as JSON values."""
    return sha256_json([MAKER, *content])


def finished_shard(out: Path, name: str, plan: str) -> dict[str, Any] | None:
    """The marker of a file of `out` that need not be made again, else None.

    Args:
        out: Folder of the set.
        name: Of the file, relative to `out`.
        plan: Hash of everything that decides its content.
    """
    file, marker = out / name, _marker(out, name)
    if not marker.is_file() or not file.is_file():
        return None
    try:
        done: dict[str, Any] = read_json(marker)
        kept = done["plan"] == plan and sha256_file(file) == done["sha256"]
    except (ValueError, KeyError, TypeError):
        kept = False
    if not kept:
        say(f"{file} is damaged or out of date: making it again")
        return None
    return done


def known_fact(out: Path, name: str, key: str) -> Any:
    """What the marker of a file says under a key; None without a readable marker."""
    try:
        return read_json(_marker(out, name))[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_shard(out: Path, name: str, plan: str, data: bytes, **facts: Any) -> dict[str, Any]:
    """Write a file and then its marker, which holds `facts` too; returns the marker. Arguments as above."""
    done = {"sha256": sha256_bytes(data), "plan": plan, **facts}
    write_atomic(out / name, data)
    write_json(_marker(out, name), done)
    return done


def _marker(out: Path, name: str) -> Path:
    return out / DONE / f"{Path(name).name.partition('.')[0]}.json"


def record_bytes(records: Iterable[dict[str, Any]]) -> bytes:
    """Records as packed JSON lines; equal records give equal bytes."""
    lines = "".join(
        json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records
    )
    return gzip.compress(lines.encode(), compresslevel=6, mtime=0)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a file that `record_bytes` made and a marker vouches for."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def parquet_bytes(rows: list[dict[str, Any]], columns: "pa.Schema") -> bytes:
    """One parquet file of `columns`; equal rows give equal bytes for one version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [field.name for field in columns if field.type == pa.string()]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, schema=columns)
    # Dictionaries for the text columns only: one over the audio bytes would cost memory for nothing.
    pq.write_table(table, sink, row_group_size=ROW_GROUP_SIZE, compression="zstd", use_dictionary=texts)
    return sink.getvalue().to_pybytes()
