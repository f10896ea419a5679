"""Local copies of public data sets with their exact layout: espeak speech in the columns and encodings of the Hub."""

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

from rba_bench.audio.espeak import BANKS, SAMPLING_RATE, speak


@lru_cache(maxsize=256)
def said(text: str, voice: int = 0) -> np.ndarray:
    """`text` in one of the test voices."""
    return speak(text, "en", BANKS["base"][voice % len(BANKS["base"])])


def encoded(text: str, kind: str = "WAV", subtype: str | None = None, voice: int = 0) -> bytes:
    """An audio file in which `text` is said."""
    buffer = io.BytesIO()
    sf.write(buffer, said(text, voice), SAMPLING_RATE, format=kind, subtype=subtype)
    return buffer.getvalue()


def audio_cell(data: bytes, name: str) -> dict[str, Any]:
    """What the Hub stores in an Audio column."""
    return {"bytes": data, "path": name}


def write_parquet(
    path: Path, rows: Sequence[Mapping[str, Any]], audio: Sequence[str] = ("audio",), per_group: int = 100
) -> Path:
    """Rows as `datasets` pushes them: columns typed by value, Audio features in the schema's metadata."""
    table = _with_features(pa.Table.from_pylist([dict(row) for row in rows]), audio)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=per_group)
    return path


def write_arrow(path: Path, rows: Sequence[Mapping[str, Any]], audio: Sequence[str], batch: int = 3) -> Path:
    """Rows as `Dataset.save_to_disk` writes them: an Arrow stream."""
    table = _with_features(pa.Table.from_pylist([dict(row) for row in rows]), audio)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def _with_features(table: pa.Table, audio: Sequence[str]) -> pa.Table:
    features = {name: {"sampling_rate": SAMPLING_RATE, "_type": "Audio"} for name in audio}
    features |= {
        name: {"dtype": "string", "_type": "Value"} for name in table.column_names if name not in audio
    }
    for name in audio:  # a column of clips of which some are broken still has this type
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = table.set_column(table.column_names.index(name), name, table.column(name).cast(kind))
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
