"""Earlier turns of a dialogue: the column `turns` of an alignment set of version 2.

    turns: list<struct<instruction: string, response: string, audio: struct<bytes: binary, path: string>>>

One entry for each exchange before the row's own, in order: what the user said, what the teacher answered, and the clip
of what was said, null where only its words are known. Rows in memory hold the texts; clips are read when they are asked
for (`turn_clips`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.audio.clips import AudioRef, decode_clip
from rba_bench.audio.parquet import FILES, stored_bytes
from rba_bench.errors import AudioError, UserError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

TURNS = "turns"
# Names that writers of parquet give the entries of a list: the standard's, older pyarrow's, Spark's and Hive's
_ENTRIES = ("list.element", "list.item", "array", "bag.array_element")
# The texts of the column without its clips, by their paths in a parquet file
TURN_TEXTS = tuple(f"{TURNS}.{entry}.{name}" for entry in _ENTRIES for name in ("instruction", "response"))


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier exchange of a dialogue.

    Attributes:
        instruction: What the user said.
        response: What the teacher answered.
    """

    instruction: str
    response: str


def turn_field() -> "tuple[str, pa.DataType, dict[str, Any]]":
    """Name, type in arrow and feature in `datasets` of the column; the audio stays encoded."""
    import pyarrow as pa

    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    entry = pa.struct([("instruction", pa.string()), ("response", pa.string()), ("audio", audio)])
    text = {"dtype": "string", "_type": "Value"}
    feature = {"instruction": text, "response": text, "audio": {"decode": False, "_type": "Audio"}}
    return TURNS, pa.list_(entry), {"feature": feature, "_type": "List"}


def read_turns(value: Iterable[Mapping[str, Any] | None] | None) -> tuple[Turn, ...]:
    """The turns of one cell of the column, with or without their clips."""
    entries = [entry or {} for entry in value or ()]
    return tuple(Turn(entry.get("instruction") or "", entry.get("response") or "") for entry in entries)


def turns_type_fault(kind: "pa.DataType") -> str:
    """What is wrong with the type of a column `turns`, "" if nothing is."""
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    entry = kind.value_type if is_list else kind
    if not is_list or not pa.types.is_struct(entry):
        return f"is of type {kind}, not a list of structs"
    for name in ("instruction", "response"):
        place = entry.get_field_index(name)
        kinds = (pa.types.is_string, pa.types.is_large_string)
        if place < 0 or not any(is_kind(entry.field(place).type) for is_kind in kinds):
            return f"has entries without a string {name!r}"
    return ""


def check_turns(files: Iterable[Path], decode: bool = True) -> bool:
    """Check the earlier turns in the parquet files of a set: their texts, and that their clips can be decoded.

    Args:
        files: With a column `turns` or without.
        decode: Whether to decode the clips.

    Returns:
        Whether there are any turns.

    Raises:
        UserError: A turn without its texts, or with a clip that is no audio; the row is named.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = False
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                groups = file.metadata.num_row_groups if TURNS in file.schema_arrow.names else 0
                for group in range(groups):
                    table = file.read_row_group(group, columns=["id", TURNS], use_threads=False)
                    for record in table.to_pylist():
                        entries = record[TURNS] or ()
                        found = found or bool(entries)
                        if fault := _fault(path, entries, decode):
                            raise UserError(f"{record['id']} of {path}: {fault}")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read ({first_line(error)})") from error
    return found


def _fault(path: Path, entries: Iterable[Mapping[str, Any] | None], decode: bool) -> str:
    """What is wrong with the earlier turns of a row, "" if nothing is."""
    for number, entry in enumerate(entries, 1):
        for name in ("instruction", "response"):
            if entry is None or not (entry[name] or "").strip():
                return f"earlier turn {number} has no {name}"
        audio = (entry or {}).get("audio") or {}
        data = stored_bytes(path, audio)
        try:
            if data is None and audio.get("path"):
                return f"the clip of earlier turn {number} is a file that is not there: {audio['path']}"
            if data is not None and decode:
                decode_clip(data)
        except AudioError as error:
            return f"the clip of earlier turn {number} cannot be used: {first_line(error)}"
    return ""


def turn_clips(ref: AudioRef) -> tuple[bytes | None, ...]:
    """Encoded clips of the earlier turns of a row, in order; None for a turn of which there is no recording.

    Args:
        ref: The reference of the row's own clip: `AlignmentRow.audio`.

    Raises:
        UserError: The file cannot be read, or has no such row.
    """
    import pyarrow as pa

    path = Path(ref.path)
    if ref.row is None:
        return ()
    try:
        _, opened = FILES.get(path)
        if TURNS not in opened.file.schema_arrow.names:
            return ()
        group = opened.row_group(ref.row)
        with opened.lock:
            column = opened.file.read_row_group(group, columns=[TURNS], use_threads=False).column(TURNS)
        entries = column[ref.row - int(opened.starts[group])].as_py() or ()
        return tuple(stored_bytes(path, (entry or {}).get("audio")) for entry in entries)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}): restore it or make it again"
        ) from error
