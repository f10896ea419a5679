"""Shards and manifest of an alignment set.

Every parquet shard is written in one piece with a marker beside it, so a killed run loses at most one shard. The marker
`done/part-00000.json` holds the shard's checksum and a hash of everything that went into it; a later run keeps a shard
whose marker, plan and bytes agree, and makes any other again. Equal plans give equal bytes. The manifest says where the
set comes from and what is in it; it is written last.
"""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import rba_bench
from rba_bench.audio.alignment_set import MANIFEST, ROW_GROUP_SIZE, SCHEMA_VERSION, shard_schema
from rba_bench.audio.speech_engines import VOICE_BANKS
from rba_bench.files import (
    read_json,
    read_jsonl,
    sha256_bytes,
    sha256_file,
    sha256_json,
    sweep,
    write_atomic,
    write_json,
)
from rba_bench.machine import package_version
from rba_bench.progress import bar, say
from rba_bench.synthesis.collection import ANSWERS, INSTRUCTIONS, Unit
from rba_bench.synthesis.filters import ANSWER_REASONS, INSTRUCTION_REASONS, KEPT
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS, DONE = "shards", "done"
WORKERS = min(4, os.cpu_count() or 1)  # threads: synthesis, noise and FLAC run outside the interpreter lock
_COUNTED = ("kind", "topic", "difficulty", "split", "voice", "source_lang", "target_lang", "noise_colour")
_PACKAGES = ("espeakng-loader", "numpy", "pyarrow", "soundfile", "soxr", "torch", "transformers")


class RowMaker(Protocol):
    """Makes the rows of a unit: by speaking it, or from a recording."""

    name: str
    version: str

    def plan(self, units: Sequence[Unit]) -> dict[str, Any]:
        """Everything beside the units that decides the rows, as JSON values."""
        ...

    def rows(self, unit: Unit) -> list[dict[str, Any]]:
        """Rows of the unit, with the columns of `alignment_set.shard_schema()`; those left out are null."""
        ...


def write_shards(units: list[Unit], recipe: SynthesisRecipe, maker: RowMaker, out: Path) -> dict[str, str]:
    """Make the rows of all units, shard by shard; finished shards of an earlier run are kept.

    Returns:
        Checksums (hex SHA-256) by file name relative to `out`.
    """
    sweep(out / SHARDS)  # half-written files of a killed run
    checksums = {}
    starts = range(0, len(units), recipe.shard_size)
    with bar("speaking", len(units), unit="instructions") as advance, ThreadPoolExecutor(WORKERS) as pool:
        for number, start in enumerate(starts):
            part = units[start : start + recipe.shard_size]
            name = f"{SHARDS}/part-{number:05d}.parquet"
            decides = {"rba_bench": rba_bench.__version__, "units": [asdict(unit) for unit in part]}
            plan = sha256_json({**decides, **maker.plan(part)})
            done = finished_shard(out, name, plan)
            if done is None:
                rows: list[dict[str, Any]] = []
                for clips in pool.map(maker.rows, part):
                    rows += clips
                    advance(1)
                done = write_shard(
                    out,
                    name,
                    plan,
                    parquet_bytes(rows, shard_schema(scored=any("constraints" in row for row in rows))),
                    rows=len(rows),
                )
            else:
                advance(len(part))
            checksums[name] = str(done["sha256"])
    return checksums


def finished_shard(out: Path, name: str, plan: str) -> dict[str, Any] | None:
    """The marker of a shard of `out` that need not be made again, else None.

    Args:
        out: Folder of the set.
        name: Of the shard, relative to `out`.
        plan: Hash of everything that decides its rows.
    """
    shard, marker = out / name, _marker(out, name)
    if not marker.is_file() or not shard.is_file():
        return None
    try:
        done: dict[str, Any] = read_json(marker)
        kept = done["plan"] == plan and sha256_file(shard) == done["sha256"]
    except (ValueError, KeyError, TypeError):
        kept = False
    if not kept:
        say(f"{shard} is damaged or out of date: making it again")
        return None
    return done


def write_shard(out: Path, name: str, plan: str, data: bytes, **facts: Any) -> dict[str, Any]:
    """Write a shard and then its marker, which holds `facts` too; returns the marker. Arguments as above."""
    done = {"sha256": sha256_bytes(data), "plan": plan, **facts}
    write_atomic(out / name, data)
    write_json(_marker(out, name), done)
    return done


def _marker(out: Path, name: str) -> Path:
    return out / DONE / f"{Path(name).stem}.json"


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


def write_manifest(
    recipe: SynthesisRecipe,
    teacher: dict[str, Any],
    template: str,
    maker: RowMaker,
    checksums: dict[str, str],
    out: Path,
) -> dict[str, Any]:
    """Describe the finished shards of `out`; `teacher` is its identity, `template` its pre-query template."""
    versions = {"rba_bench": rba_bench.__version__, "python": platform.python_version()}
    versions |= {package: package_version(package) or "absent" for package in _PACKAGES}
    templates = {"pre_query_template": template, "template_sha256": sha256_bytes(template.encode())}
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.resolved(),
        "teacher": teacher | templates,
        "sampling": {
            part: {
                name: getattr(recipe, f"{part}_{name}") for name in ("temperature", "top_p", "max_new_tokens")
            }
            for part in ("instruction", "response")
        },
        "seeds": {
            "seed": recipe.seed,
            "rule": "stable_seed(purpose, seed, candidate index or group id, voice)",
        },
        "filters": {
            "instructions": _count_decisions(out / INSTRUCTIONS, INSTRUCTION_REASONS),
            "answers": _count_decisions(out / ANSWERS, ANSWER_REASONS),
        },
        "tts": {
            "engine": maker.name,
            "version": maker.version,
            "voices": [] if recipe.source else [voice.name for voice in VOICE_BANKS[recipe.voice_bank]],
        },
        "asr": None,
        "counts": count_clips(out, checksums),
        "versions": versions,
        "logs": {name: sha256_file(out / name) for name in (INSTRUCTIONS, ANSWERS) if (out / name).is_file()},
        "checksums": checksums,
    }
    if recipe.source is not None:
        kept = manifest["filters"]["answers"][KEPT]
        manifest["counts"]["left_out_speech"] = kept - manifest["counts"]["groups"]  # too long, or no sound
    write_json(out / MANIFEST, manifest)
    return manifest


def _count_decisions(log: Path, meanings: dict[str, str]) -> dict[str, Any]:
    """How many were kept and dropped, by reason; every reason is listed, with 0 too."""
    reasons = Counter(record["reason"] for record in read_jsonl(log))
    dropped = {reason: {"n": reasons[reason], "meaning": meaning} for reason, meaning in meanings.items()}
    return {"n": reasons.total(), KEPT: reasons[KEPT], "dropped": dropped}


def count_clips(out: Path, checksums: dict[str, str]) -> dict[str, Any]:
    """Groups, clips, hours and clips by label, counted on what is on disk."""
    import pyarrow.parquet as pq

    groups: set[str] = set()
    seconds, clips = 0.0, 0
    by: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for name in checksums:
        table = pq.read_table(out / name, columns=["group_id", "duration", *_COUNTED])
        groups.update(table["group_id"].to_pylist())
        seconds += sum(table["duration"].to_pylist())
        clips += table.num_rows
        for column in _COUNTED:
            by[column].update(str(value) for value in table[column].to_pylist())
    tallies = {f"clips_by_{column}": dict(sorted(counter.items())) for column, counter in by.items()}
    return {"groups": len(groups), "clips": clips, "hours": round(seconds / 3600, 4), **tallies}
