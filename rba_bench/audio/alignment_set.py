"""The alignment set on disk: what synthesis writes, what training reads.

    DIR/manifest.json              provenance, counts, checksums of the shards
    DIR/shards/part-00000.parquet  one row per clip, columns of `schema()`

One *group* is one instruction (with its response), spoken by several voices. Rows are kept light: the audio
stays in the parquet file and is read through `AudioRef` (`rba_bench.audio.clips.load_clip`) when a clip is needed.

A group may be the last exchange of a dialogue. Its earlier exchanges are then in the column `turns`, and the format of
the set is version 2; `instruction`, `response` and `audio` are those of the last turn. A set without dialogues is
written as version 1, byte for byte as before there was a second one.

`AlignmentSet` holds all rows of a set that fits in memory; `rba_bench.audio.alignment_index` reads group by group.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.assets import resolve_alignment_set
from rba_bench.audio.clips import AudioRef
from rba_bench.audio.turns import TURN_TEXTS, Turn, read_turns, turn_field
from rba_bench.cards import last_path_part
from rba_bench.errors import UserError
from rba_bench.files import is_below, read_json, sha256_file, sha256_json
from rba_bench.untrusted import plain

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
SEALED = "sealed"  # in the manifest of a set that another tool made
SCHEMA_VERSION = 1  # of a set without dialogues
DIALOGUE_VERSION = 2  # of a set with rows that have `turns`
ROW_GROUP_SIZE = 64  # rows; a reader of one clip loads one row group
SPLITS = ("train", "validation")
_TEXT = (
    *("id", "group_id", "kind", "prompt", "instruction", "response", "source_lang", "target_lang"),
    *("topic", "difficulty", "voice", "audio_sha256", "split"),
)
COLUMNS = (*_TEXT, "sampling_rate", "duration")  # what an AlignmentRow is made of
# the same, where a set has them; pyarrow passes over those it does not find
OPTIONAL = ("references", "constraints", *TURN_TEXTS)


@dataclass(frozen=True, slots=True)
class AlignmentRow:
    """One clip: an instruction in one voice, and the teacher's response to the instruction.

    Of a dialogue it is the last exchange; those before it are `turns`.
    """

    id: str
    group_id: str
    kind: str  # instruct | qa | s2tt | ifeval
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
    references: tuple[str, ...] = ()  # correct answers, where they are known beside the teacher's
    # JSON of what `metrics.ifeval.if_rate` checks; "" where nothing is to be checked
    constraints: str = ""
    turns: tuple[Turn, ...] = ()  # earlier exchanges of a dialogue, in order

    @property
    def user_text(self) -> str:
        """The user turn as a text model reads it: prompt and instruction.

        Raises:
            UserError: the row ends a dialogue, which is more than one text.
        """
        if self.turns:
            raise UserError(
                f"row {self.id} ends a dialogue of {len(self.turns) + 1} turns, and what would read it here takes one "
                "turn: use a set without the column `turns`"
            )
        return self.last_user_text

    @property
    def last_user_text(self) -> str:
        """`user_text` without regard to earlier turns, for whoever reads these too."""
        return f"{self.prompt} {self.instruction}".strip()


def schema_version(has_turns: bool) -> int:
    """Version of the format of a set, for its manifest.

    Args:
        has_turns: whether some row has earlier turns.
    """
    return DIALOGUE_VERSION if has_turns else SCHEMA_VERSION


def shard_schema(scored: bool = False, turns: bool = False, augmented: bool = False) -> "pa.Schema":
    """Columns of a shard; the embedded features make `datasets` leave the audio undecoded (no torchcodec).

    Args:
        scored: with the columns `references` and `constraints`.
        turns: with the column `turns`; all shards of a set of version 2 have it.
        augmented: with the column `augmentation`, JSON of what was done to the clip.
    """
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
    if scored:
        text = {"dtype": "string", "_type": "Value"}
        fields.append(("references", pa.list_(pa.string()), {"feature": text, "_type": "List"}))
        fields.append(("constraints", pa.string(), text))
    if augmented:
        fields.append(("augmentation", pa.string(), {"dtype": "string", "_type": "Value"}))
    if turns:
        fields.append(turn_field())
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

        Args:
            path: Its folder, or `asset:NAME` of one that comes with rba-bench.
            verify: Whether to hash the shards.

        Raises:
            UserError: no alignment set there, an unfinished or damaged one, or one of a newer format.
        """
        folder = resolve_alignment_set(path)
        manifest = _read_manifest(folder)
        if verify:
            for name in manifest["checksums"]:
                _verify(folder, name, manifest)
        return cls(folder, manifest)

    @property
    def sha256(self) -> str:
        """Identity of the content: hash of the shards' checksums (folder and date do not matter)."""
        return sha256_json(self.manifest["checksums"])

    @property
    def has_turns(self) -> bool:
        """Whether rows may end a dialogue: the set is of version 2."""
        return int(self.manifest["schema_version"]) >= DIALOGUE_VERSION

    @property
    def origin(self) -> dict[str, str]:
        """Who made the set: teacher and speech, as far as its manifest says so; no paths."""
        teacher, tts = (self.manifest.get(key) for key in ("teacher", "tts"))
        facts: dict[str, Any] = {}
        if isinstance(teacher, dict):
            facts |= {"teacher": teacher.get("name"), "teacher_weights_sha256": teacher.get("weights_sha256")}
        if isinstance(tts, dict):
            facts["speech"] = " ".join(str(tts[key]) for key in ("engine", "version") if tts.get(key))
        return {key: last_path_part(str(value)) for key, value in facts.items() if value}

    @cached_property
    def names(self) -> list[str]:
        """Names of the parquet files relative to the folder, in order."""
        return sorted(self.manifest["checksums"])

    @cached_property
    def shards(self) -> list[Path]:
        """Paths of the parquet files, in order."""
        return [self.path / name for name in self.names]

    def verify(self, number: int) -> None:
        """Hash shard `number` and compare. Raises UserError if it is absent or not what the manifest says."""
        _verify(self.path, self.names[number], self.manifest)

    def rows(self, split: str | None = None) -> list[AlignmentRow]:
        """Rows of one split ("train", "validation") or of all, in the order of the shards."""
        if split is not None and split not in SPLITS:
            raise UserError(f"unknown split {split!r}; valid: {', '.join(SPLITS)}")
        return [row for row in self._rows if split is None or row.split == split]

    def groups(self, split: str | None = None) -> dict[str, list[AlignmentRow]]:
        """Rows by group id (one instruction, its voices), groups in the order of the shards."""
        grouped: dict[str, list[AlignmentRow]] = {}
        for row in self.rows(split):
            grouped.setdefault(row.group_id, []).append(row)
        return grouped

    @cached_property
    def _rows(self) -> list[AlignmentRow]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows: list[AlignmentRow] = []
        for shard in self.shards:
            try:
                with pq.ParquetFile(shard) as file:
                    refuse_missing(shard, file.schema_arrow.names)
                    table = file.read(columns=[*COLUMNS, *OPTIONAL])
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"shard {shard} cannot be read ({' '.join(str(error).split())})") from error
            rows += (make_row(record, str(shard), number) for number, record in enumerate(table.to_pylist()))
        return rows


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
    if version not in (SCHEMA_VERSION, DIALOGUE_VERSION):
        raise UserError(
            f"{path} has format {version}, this rba-bench reads {SCHEMA_VERSION} and {DIALOGUE_VERSION}: use a newer "
            "rba-bench, or synthesise the set again"
        )
    if isinstance(checksums, dict) and (outside := [name for name in checksums if not is_below(name)]):
        raise UserError(f"{path} lists {plain(outside[0])!r}, which is no file below {folder}: refused")
    if not complete:
        raise UserError(
            f"{folder} is unfinished (status {status!r}); run `rba-bench synth --out {folder}` again"
        )
    return manifest


def _verify(folder: Path, name: str, manifest: dict[str, Any]) -> None:
    shard = folder / name
    repeat = f"run `rba-bench synth --out {folder}` again"
    restore = "restore the file, or run `rba-bench synth --seal` on the folder again"
    if not shard.is_file():
        raise UserError(
            f"shard {shard} is missing; {restore if manifest.get(SEALED) else repeat + ' to make it'}"
        )
    if sha256_file(shard) != manifest["checksums"][name]:
        fix = restore if manifest.get(SEALED) else f"{repeat} to repair it"
        raise UserError(f"shard {shard} is damaged; {fix}")


def refuse_missing(shard: Path, present: Iterable[str]) -> None:
    """Raise UserError where a shard lacks columns that a row is made of."""
    if missing := sorted(set(COLUMNS) - set(present)):
        raise UserError(f"shard {shard} lacks the column(s) {', '.join(missing)}")


def make_row(record: dict[str, Any], shard: str, number: int) -> AlignmentRow:
    """The row of a record of COLUMNS and OPTIONAL that lies in row `number` of a shard; the record is used up."""
    audio = AudioRef(
        sha256=record.pop("audio_sha256"),
        sampling_rate=record.pop("sampling_rate"),
        duration=record["duration"],
        path=shard,
        row=number,
    )
    record["references"] = tuple(record.get("references") or ())
    record["constraints"] = record.get("constraints") or ""
    record["turns"] = read_turns(record.get("turns"))
    return AlignmentRow(audio=audio, **record)
