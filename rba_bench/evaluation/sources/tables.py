"""Clips by reference from parquet files, audio files and archives, without ever holding the audio of a whole set.

A clip whose bytes cannot be decoded stays in the set (duration 0): its item becomes `not_heard`, which is counted.
"""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rba_bench.audio.clips import AudioError, AudioRef
from rba_bench.audio.decoding import decoding_signature
from rba_bench.audio.parquet import nothing_stored, stored_bytes
from rba_bench.errors import UserError
from rba_bench.files import cache_dir, read_json, sha256_bytes, sha256_json, write_json
from rba_bench.progress import bar

ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a clip lies and what it is.

    Attributes:
        sha256: Hash of the encoded bytes.
        sampling_rate: Hz as stored, 0 if unreadable.
        duration: Seconds, 0.0 if unreadable.
        path: Audio or parquet file, absolute.
        row: Row of the parquet file, None for an audio file.
        fault: Why the clip cannot be decoded, "" if it can.
        column: Column of the parquet file.
    """

    sha256: str
    sampling_rate: int
    duration: float
    path: str
    row: int | None = None
    fault: str = ""
    column: str = "audio"

    @classmethod
    def of(
        cls, data: bytes | None, path: Path | str, row: int | None = None, column: str = "audio"
    ) -> "Clip":
        """The clip in encoded bytes that lie at `path`."""
        try:
            ref = AudioRef.of(data or b"", path, row)
        except AudioError as error:
            return cls(sha256_bytes(data or b""), 0, 0.0, str(path), row, str(error), column)
        return cls(ref.sha256, ref.sampling_rate, ref.duration, str(path), row, "", column)

    def reference(self, transcript: str = "") -> dict[str, Any]:
        """The `audio` entry of a document."""
        entry = {
            "sha256": self.sha256,
            "sampling_rate": self.sampling_rate,
            "duration": self.duration,
            "path": self.path,
            "row": self.row,
            "transcript": transcript,
        }
        return entry if self.column == "audio" else {**entry, "column": self.column}


def parquet_rows(
    files: Sequence[Path], columns: Sequence[str], audio: str = "audio"
) -> Iterator[tuple[dict[str, Any], Clip]]:
    """Rows of parquet files with an undecoded Audio column `{bytes, path}`.

    Args:
        files: Parquet files of one split, in order.
        columns: Columns wanted beside the audio.
        audio: Name of the audio column.

    Yields:
        The wanted columns of a row, and its clip.

    Raises:
        UserError: a file is not parquet, is damaged, or lacks a column.
    """
    for file in files:
        texts = read_columns(file, columns)
        clips = _clips(file.resolve(), audio)
        if len(texts) != len(clips):
            raise UserError(f"{file} is damaged: {len(texts)} rows of text, {len(clips)} clips")
        yield from zip(texts, clips, strict=True)


def read_columns(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Text columns of a parquet file as rows. Raises UserError as `parquet_rows` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        present = pq.read_schema(file).names
        if missing := [name for name in columns if name not in present]:
            raise UserError(
                f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(present)}: "
                "is it of another data set or revision?"
            )
        if not columns:
            return [{} for _ in range(count_rows(file))]
        return list(pq.read_table(file, columns=list(columns)).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): get it again") from error


def file_clip(path: Path | str) -> Clip:
    """The clip in an audio file. Raises UserError if it cannot be read."""
    file = Path(path).resolve()
    try:
        return Clip.of(file.read_bytes(), file)
    except OSError as error:
        raise UserError(f"cannot read audio file {file}: {error.strerror or error}") from error


def unpack_archive(archive: Path) -> Path:
    """Folder with the content of a tar archive, unpacked into the cache once.

    Raises:
        UserError: it is not an archive, or a member would leave the folder.
    """
    stat = archive.resolve().stat()
    key = sha256_json([str(archive.resolve()), stat.st_size, stat.st_mtime_ns])[:16]
    folder = cache_dir() / "unpacked" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        os.replace(scratch, folder)
    except (tarfile.TarError, OSError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if folder.is_dir():  # another process was faster
            return folder
        raise UserError(f"cannot unpack {archive}: {error}") from error
    return folder


def _clips(file: Path, audio: str) -> list[Clip]:
    """Clips of one parquet file; hashes and durations are remembered by path, size and time of the file."""
    stat = file.stat()
    key = sha256_json([str(file), stat.st_size, stat.st_mtime_ns, audio, decoding_signature()])
    index = cache_dir() / "index" / f"{key[:24]}.json"
    if index.is_file():
        try:
            entries = read_json(index)
            return [
                Clip(sha, rate, seconds, str(file), row, fault, audio)
                for sha, rate, seconds, row, fault in entries
            ]
        except (ValueError, TypeError):
            index.unlink()  # made again below
    embedded = True
    with bar(f"index of {file.name}", count_rows(file), 0, "clips") as advance:
        clips = []
        for row, value in enumerate(_audio_cells(file, audio)):
            data = stored_bytes(file, value)
            clip = Clip.of(data, file, row, audio)
            clips.append(clip if data is not None else replace(clip, fault=nothing_stored(file, row, value)))
            beside = value is not None and not value["bytes"] and bool(value.get("path"))
            embedded = embedded and not beside
            advance(1)
    if embedded:  # files beside may come, go and change without the parquet file knowing
        write_json(index, [[c.sha256, c.sampling_rate, c.duration, c.row, c.fault] for c in clips])
    return clips


def count_rows(file: Path) -> int:
    """Rows of a parquet file. Raises UserError if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): get it again") from error


def _audio_cells(file: Path, audio: str) -> Iterator[dict[str, Any] | None]:
    """`{bytes, path}` of every row, `path` where the file has it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, pre_buffer=False) as table:
            schema = table.schema_arrow
            kind = schema.field(audio).type if audio in schema.names else None
            if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise UserError(f"{file} has no column {audio!r} with `bytes` in it")
            parts = [f"{audio}.{name}" for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=parts):
                for value in batch.column(0):
                    yield value.as_py()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): get it again") from error
