"""Utterances of any data set with audio and text, found by the types and usual names of its columns.

A column of audio is a struct with `bytes` in it (`{bytes, path}`, as `datasets` stores the feature Audio). Of the
audio only the paths are read here; clips are decoded when they become rows.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rba_bench.audio.arrow_files import SUFFIX, open_arrow
from rba_bench.errors import UserError, first_line
from rba_bench.metrics.languages import short
from rba_bench.synthesis.data_files import data_files, dataset_commit
from rba_bench.synthesis.synthesis_recipe import SourceOptions
from rba_bench.synthesis.units import text_id
from rba_bench.synthesis.utterances import Utterance

if TYPE_CHECKING:
    import pyarrow as pa

# Names of columns in the sets that are used most, the better text first: FLEURS has `transcription` in lower case
# without punctuation beside `raw_transcription`, VoxPopuli `normalized_text` beside `raw_text`.
AUDIO_NAMES = ("audio", "speech", "wav", "clip")
TEXT_NAMES = (
    "sentence", "raw_transcription", "transcription", "transcript", "raw_text", "text", "normalized_text",
)  # fmt: skip
VOICE_NAMES = ("client_id", "speaker_id", "speaker", "spk_id", "voice")
_LONGEST_NAME = 64  # characters of a speaker or of a clip's name
_QUOTED = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)


@dataclass(frozen=True)
class SpeechColumns:
    """The columns that are read.

    Attributes:
        audio: The clips.
        text: What is said in them.
        voice: The speakers; None where no column names them.
    """

    audio: str
    text: str
    voice: str | None


@dataclass(frozen=True, slots=True)
class _Row:
    """A row without its clip."""

    file: Path
    row: int
    text: str
    voice: str
    clip_name: str


def dataset_utterances(source: SourceOptions) -> Iterator[Utterance]:
    """Utterances of `source.dataset`, once for each target language; those without a transcript too.

    Raises:
        MissingPrerequisite, UserError: as of `data_files`, or a column is not there.
    """
    columns: SpeechColumns | None = None
    rows: list[_Row] = []
    for file in data_files(source):
        schema = _schema(file)
        columns = columns or find_columns(schema, source, file)
        _refuse_other_columns(schema, columns, file)
        rows += islice(_rows(file, columns), None if source.limit is None else source.limit - len(rows))
        if source.limit is not None and len(rows) >= source.limit:
            break  # further files need not be there
    for source_lang, target_lang in source.directions():
        for number, row in enumerate(rows):
            yield Utterance(
                id=f"{row.clip_name or text_id(row.text)}-{number}-{target_lang}",
                path=str(row.file),
                transcript=row.text,
                source_lang=short(source_lang),
                target_lang=short(target_lang),
                voice=row.voice,
                row=row.row,
                column=columns.audio if columns is not None else "audio",
            )


def dataset_facts(source: SourceOptions | None, utterances: Sequence[Utterance]) -> dict[str, Any] | None:
    """Which data set was read, for the manifest; None where the recordings come from elsewhere.

    Args:
        source: Names it.
        utterances: What was read of it.
    """
    if source is None or not source.dataset:
        return None
    commit, file = dataset_commit(source), Path(utterances[0].path)
    return {
        "dataset": list(source.dataset),
        **({} if commit is None else {"revision": commit}),
        "config": source.config,
        "split": source.split,
        "columns": asdict(find_columns(_schema(file), source, file)),
        "utterances": len(utterances),
    }


def find_columns(schema: "pa.Schema", source: SourceOptions, file: Path) -> SpeechColumns:
    """The columns of audio and text: those that are named, else by their type and usual names.

    Args:
        schema: Of the file.
        source: Names columns, or none.
        file: Is named in errors.

    Raises:
        UserError: a named column is not there or of another type, or it is not clear which one is meant.
    """
    texts = [field.name for field in schema if _is_text(field.type)]
    audio = _choose(schema, file, "audio", source.audio_column, _audio_columns(schema), AUDIO_NAMES)
    text = _choose(schema, file, "text", source.text_column, texts, TEXT_NAMES)
    voices = {name.lower(): name for name in schema.names if not _is_nested(schema.field(name).type)}
    return SpeechColumns(audio, text, next((voices[name] for name in VOICE_NAMES if name in voices), None))


def _choose(
    schema: "pa.Schema",
    file: Path,
    what: str,
    named: str | None,
    fitting: Sequence[str],
    usual: Sequence[str],
) -> str:
    there = ", ".join(f"{field.name} ({_type_name(field.type)})" for field in schema)
    if named is not None:
        if named in fitting:
            return named
        problem = "no column" if named not in schema.names else f"no {what} in the column"
        raise UserError(f"source.{what}_column: {file.name} has {problem} {named!r}; it has {there}")
    by_name = {name.lower(): name for name in fitting}
    found = next((by_name[name] for name in usual if name in by_name), None)
    if found is None and len(fitting) == 1:
        found = fitting[0]
    if found is None:
        problem = (
            f"which column of {file.name} holds the {what}?" if fitting else f"{file.name} has no {what}:"
        )
        fix = f"; set source.{what}_column" if fitting else ""
        raise UserError(f"{problem} it has {there}{fix}")
    return found


def _type_name(kind: "pa.DataType") -> str:
    text = str(kind)
    return text if len(text) <= 40 else text[:37] + "..."


def _audio_columns(schema: "pa.Schema") -> list[str]:
    """Columns `{bytes, path}`; an image is stored in the same way, and `datasets` writes down which is which."""
    import pyarrow as pa

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: feature.get("_type") for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        kinds = {}
    return [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and field.type.get_field_index("bytes") >= 0
        and kinds.get(field.name, "Audio") == "Audio"
    ]


def _is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain))


def _is_nested(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_nested(kind))


def _refuse_other_columns(schema: "pa.Schema", columns: SpeechColumns, file: Path) -> None:
    missing = [name for name in (columns.audio, columns.text) if name not in schema.names]
    if missing:
        raise UserError(f"{file} lacks the columns {', '.join(missing)}, which the files before it have")


def _schema(file: Path) -> "pa.Schema":
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == SUFFIX:
        return open_arrow(file).schema
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): get it again") from error


def _rows(file: Path, columns: SpeechColumns) -> Iterator[_Row]:
    number = 0
    for batch in _batches(file, columns):
        texts = batch.column(columns.text).to_pylist()
        voices = [None] * len(texts)
        if columns.voice in batch.schema.names:
            voices = batch.column(columns.voice).to_pylist()
        for text, voice, path in zip(texts, voices, _clip_paths(batch, columns.audio), strict=True):
            name = PurePosixPath(str(path or "")).stem[:_LONGEST_NAME]
            speaker = "" if voice is None else str(voice)[:_LONGEST_NAME]
            yield _Row(file, number, _unquoted(text or ""), speaker, name)
            number += 1


def _batches(file: Path, columns: SpeechColumns) -> Iterator["pa.RecordBatch"]:
    """The columns but for the bytes of the clips, some rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [name for name in (columns.text, columns.voice) if name is not None]
    if file.suffix == SUFFIX:
        table = open_arrow(file)
        there = [name for name in names if name in table.schema.names]
        yield from table.select([*there, columns.audio]).to_batches()
        return
    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            schema = parquet.schema_arrow
            wanted = [name for name in names if name in schema.names]
            if schema.field(columns.audio).type.get_field_index("path") >= 0:
                wanted.append(f"{columns.audio}.path")
            yield from parquet.iter_batches(columns=wanted, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}): get it again") from error


def _clip_paths(batch: "pa.RecordBatch", audio: str) -> list[str | None]:
    import pyarrow.compute as pc

    if audio not in batch.schema.names or batch.schema.field(audio).type.get_field_index("path") < 0:
        return [None] * batch.num_rows
    return list(pc.struct_field(batch.column(audio), "path").to_pylist())


def _unquoted(text: str) -> str:
    """A text without the quoting of the CSV file that it comes from, as many of Common Voice have it."""
    match = _QUOTED.fullmatch(text.strip())
    return match[1].replace('""', '"') if match else text
