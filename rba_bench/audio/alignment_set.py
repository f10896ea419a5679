"""The alignment set on disk: what synthesis writes, what training reads.

    DIR/manifest.json              provenance, counts, checksums of the shards
    DIR/shards/part-00000.parquet  one row per clip, columns of `schema()`

One *group* is one instruction (with its response), spoken by several voices. Rows are kept light: the audio
stays in the parquet file and is read through `AudioRef` (`rba_bench.audio.clips.load`) when a clip is needed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.audio.clips import AudioRef
from rba_bench.errors import UserError
from rba_bench.files import read_json, sha256_file, sha256_json

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
ROW_GROUP_SIZE = 64  # rows; a reader of one clip loads one row group
SPLITS = ("train", "validation")
_TEXT = (
    *("id", "group_id", "kind", "prompt", "instruction", "response", "source_lang", "target_lang"),
    *("topic", "difficulty", "voice", "audio_sha256", "split"),
)


@dataclass(frozen=True, slots=True)
class AlignmentRow:
    """One clip: an instruction in one voice, and the teacher's response to the instruction."""

    id: str
    group_id: str
    kind: str  # instruct | qa | s2tt
    prompt: str  # text beside the audio, "" for instruct and qa
    instruction: str  # what is spoken
    response: str
    source_lang: str
    target_lang: str
    topic: str
    difficulty: str
    voice: str
    split: str  # train | validation
    audio: AudioRef
    duration: float  # seconds

    @property
    def user_text(self) -> str:
        """The user turn as a text model reads it: prompt and instruction."""
        return f"{self.prompt} {self.instruction}".strip()


def schema() -> "pa.Schema":
    """Columns of a shard; the embedded features make `datasets` leave the audio undecoded (no torchcodec)."""
    import pyarrow as pa

    fields: list[tuple[str, pa.DataType, dict[str, Any]]] = [
        (name, pa.string(), {"dtype": "string", "_type": "Value"}) for name in _TEXT
    ]
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields.append(("audio", audio, {"decode": False, "_type": "Audio"}))
    fields.append(("sampling_rate", pa.int32(), {"dtype": "int32", "_type": "Value"}))
    for name in ("duration", "snr_db", "speed", "asr_wer"):  # seconds, decibels, factor, word error rate
        fields.append((name, pa.float64(), {"dtype": "float64", "_type": "Value"}))
    for name in ("noise_colour", "asr_text"):
        fields.append((name, pa.string(), {"dtype": "string", "_type": "Value"}))
    features = {name: feature for name, _, feature in fields}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, kind) for name, kind, _ in fields], metadata=metadata)


@dataclass(frozen=True)
class AlignmentSet:
    """A finished alignment set; open it with `AlignmentSet.open`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> "AlignmentSet":
        """Read the manifest and, with `verify`, check every shard against its checksum.

        Raises:
            UserError: no alignment set there, an unfinished or damaged one, or one of a newer format.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        if verify:
            for name, expected in manifest["checksums"].items():
                _verify(folder, name, expected)
        return cls(folder, manifest)

    @property
    def sha256(self) -> str:
        """Identity of the content: hash of the shards' checksums (folder and date do not matter)."""
        return sha256_json(self.manifest["checksums"])

    @property
    def shards(self) -> list[Path]:
        """Paths of the parquet files, in order."""
        return [self.path / name for name in sorted(self.manifest["checksums"])]

    def rows(self, split: str | None = None) -> list[AlignmentRow]:
        """Rows of one split ("train", "validation") or of all, in the order of the shards."""
        if split is not None and split not in SPLITS:
            raise UserError(f"unknown split {split!r}; valid: {', '.join(SPLITS)}")
        return [row for row in self._all if split is None or row.split == split]

    def groups(self, split: str | None = None) -> dict[str, list[AlignmentRow]]:
        """Rows by group id (one instruction, its voices), groups in the order of the shards."""
        grouped: dict[str, list[AlignmentRow]] = {}
        for row in self.rows(split):
            grouped.setdefault(row.group_id, []).append(row)
        return grouped

    @cached_property
    def _all(self) -> list[AlignmentRow]:
        return [row for shard in self.shards for row in _read_shard(shard)]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"no finished alignment set in {folder}: make it with `rba-bench synth --out {folder}`"
        )
    try:
        manifest = read_json(path)
        version, status, checksums = (manifest[key] for key in ("schema_version", "status", "checksums"))
        complete = status == "complete" and isinstance(checksums, dict) and bool(checksums)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); run `rba-bench synth` again") from error
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has format {version}, this rba-bench reads {SCHEMA_VERSION}; synthesise the set again"
        )
    if not complete:
        raise UserError(
            f"{folder} is unfinished (status {status!r}); run `rba-bench synth --out {folder}` again"
        )
    return manifest


def _verify(folder: Path, name: str, expected: str) -> None:
    shard = folder / name
    if not shard.is_file():
        raise UserError(f"shard {shard} is missing; run `rba-bench synth --out {folder}` again to make it")
    if sha256_file(shard) != expected:
        raise UserError(f"shard {shard} is damaged; run `rba-bench synth --out {folder}` again to repair it")


def _read_shard(shard: Path) -> Iterator[AlignmentRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*_TEXT, "sampling_rate", "duration"]
    try:
        with pq.ParquetFile(shard) as file:
            if missing := sorted(set(columns) - set(file.schema_arrow.names)):
                raise UserError(f"shard {shard} lacks the column(s) {', '.join(missing)}")
            table = file.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shard {shard} cannot be read ({' '.join(str(error).split())})") from error
    for number, record in enumerate(table.to_pylist()):
        audio = AudioRef(
            sha256=record.pop("audio_sha256"),
            sampling_rate=record.pop("sampling_rate"),
            duration=record["duration"],
            path=str(shard),
            row=number,
        )
        yield AlignmentRow(audio=audio, **record)
