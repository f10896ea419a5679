"""A clip by reference: what it is (hash, rate, duration) and where it lies; samples are decoded when needed.

Task documents, requests and records carry an `AudioRef`, never samples. A clip lies in an audio file of its
own or in one row of a parquet file with a column `audio {bytes, path}` (what `datasets` calls an undecoded
Audio feature). `rba_bench.audio.decoding` turns its bytes into samples.
"""

import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rba_bench.audio.decoding import (
    CLIP_BYTES,
    SAMPLING_RATE,
    decode_at_own_rate,
    decode_clip,
    max_clip_seconds,
    measure_clip,
)
from rba_bench.audio.parquet import FILES, OpenFile, RowGroupCache, nothing_stored, stored_bytes
from rba_bench.errors import AudioError, MissingPrerequisite, UserError, first_line
from rba_bench.files import sha256_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "SAMPLING_RATE",
    "AudioError",
    "AudioRef",
    "clip_columns",
    "clip_file",
    "decode_clip",
    "encode_flac",
    "load_clip",
    "max_clip_seconds",
    "measure_clip",
    "read_clip_bytes",
]

CACHE_BYTES = 32 * 2**20  # row groups kept in memory; readers go through a set in windows


@dataclass(frozen=True)
class AudioRef:
    """Where a clip is and what it must be.

    Attributes:
        sha256: hash of the encoded bytes (of the file, or of `audio.bytes` in the parquet row).
        sampling_rate: Hz of the stored clip.
        duration: seconds of the sound in it.
        path: audio file, or parquet file where `row` is set.
        row: row of the parquet file, counted over all its row groups; None for an audio file.
        column: column of the parquet file that holds `{bytes, path}`.
    """

    sha256: str
    sampling_rate: int
    duration: float
    path: str
    row: int | None = None
    column: str = "audio"

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "AudioRef":
        """The inverse of `to_dict`. Raises UserError for missing or unknown keys."""
        names = {field.name for field in fields(cls)}
        missing = {"sha256", "sampling_rate", "duration", "path"} - value.keys()
        if missing or value.keys() - names:
            raise UserError(f"not an audio reference: {sorted(value)}; it needs {sorted(names)}")
        return cls(**value)

    @classmethod
    def of(cls, data: bytes, path: Path | str, row: int | None = None) -> "AudioRef":
        """The reference of encoded bytes that lie at `path` (and `row`). Raises AudioError if unreadable."""
        rate, frames = measure_clip(data)
        return cls(sha256_bytes(data), rate, frames / rate, str(path), row)


def load_clip(ref: AudioRef, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Samples of a clip: float32 mono at `sampling_rate` Hz, shape [n].

    Raises:
        MissingPrerequisite: the file is not there.
        UserError: the file is damaged, or holds another clip than the reference says.
        AudioError: the right bytes, but no usable sound in them.
    """
    data = read_clip_bytes(ref)
    sha256 = sha256_bytes(data)
    if sha256 != ref.sha256:
        raise UserError(
            f"{_place(ref)} is damaged or was replaced: sha256 {sha256[:12]}..., "
            f"expected {ref.sha256[:12]}...; restore the file or make it again"
        )
    try:
        return decode_clip(data, sampling_rate)
    except AudioError as error:
        name = Path(ref.path).name  # without its folder: the message goes into records
        raise AudioError(f"{name if ref.row is None else f'row {ref.row} of {name}'}: {error}") from error


def read_clip_bytes(ref: AudioRef) -> bytes:
    """Encoded bytes of a clip, unchecked. Raises MissingPrerequisite, UserError or AudioError as `load` does."""
    path = Path(ref.path)
    if not path.is_file():
        raise MissingPrerequisite(f"no audio at {path}: the data folder was moved or not made yet")
    try:
        if ref.row is None and path.stat().st_size > CLIP_BYTES:
            raise AudioError(f"{path.name} has {path.stat().st_size} bytes, more than {CLIP_BYTES}: split it")
        return path.read_bytes() if ref.row is None else _CLIPS.clip(path, ref.row, ref.column)
    except OSError as error:
        raise UserError(f"cannot read {_place(ref)}: {error.strerror or error}") from error


def encode_flac(wave: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> bytes:
    """FLAC bytes (16-bit PCM, mono) of float samples, clipped to [-1, 1]; equal samples give equal bytes.

    Encoding what was decoded from here changes nothing: samples are multiples of 2**-15.

    Raises:
        AudioError: not one-dimensional, empty, or samples that are not finite.
    """
    import soundfile as sf

    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise AudioError(f"cannot encode samples of shape {wave.shape}: want finite numbers in one dimension")
    integers = np.clip(np.rint(wave.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    sf.write(buffer, integers, sampling_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def clip_columns(wave: np.ndarray, name: str) -> dict[str, Any]:
    """The columns that hold a clip in a parquet row: FLAC bytes, their hash, rate in Hz and duration in seconds.

    Args:
        wave: float mono samples at SAMPLING_RATE, shape [n].
        name: of the row; the stored path is `NAME.flac`.

    Raises:
        AudioError: as of `encode_flac`.
    """
    data = encode_flac(wave, SAMPLING_RATE)
    return {
        "audio": {"bytes": data, "path": f"{name}.flac"},
        "audio_sha256": sha256_bytes(data),
        "sampling_rate": SAMPLING_RATE,
        "duration": len(wave) / SAMPLING_RATE,
    }


def clip_file(data: bytes) -> tuple[bytes, str]:
    """A stored clip as the content of a file that browsers and trainers read, and the ending of its name.

    FLAC and WAV stay as they are; anything else becomes FLAC.

    Raises:
        AudioError: it has to be decoded and cannot.
    """
    if data[:4] == b"fLaC":
        return data, "flac"
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return data, "wav"
    return encode_flac(*decode_at_own_rate(data)), "flac"


def _place(ref: AudioRef) -> str:
    return ref.path if ref.row is None else f"row {ref.row} of {ref.path}"


class _ClipCache(RowGroupCache):
    """The audio bytes of the row groups read last: a shard of real speech does not fit in memory."""

    def clip(self, path: Path, row: int, column: str = "audio") -> bytes:
        """Bytes of the clip in `row`. Raises UserError if there is no such row, AudioError if it is empty."""
        import pyarrow as pa

        try:
            values, place = self.find(path, row, (column,))
        except (pa.ArrowException, OSError) as error:  # arrow reports torn pages as OSError
            raise UserError(f"{path} is damaged ({first_line(error)}); make it again") from error
        value = values[place].as_py()
        data = stored_bytes(path, value)
        if data is None:
            raise AudioError(nothing_stored(path, row, value))
        return data

    def read(self, path: Path, opened: OpenFile, group: int, columns: tuple[str, ...]) -> "pa.ChunkedArray":
        """The `bytes` and, where there are any, the `path`s of the audio column; other columns are left alone."""
        import pyarrow as pa

        [column] = columns
        schema = opened.file.schema_arrow
        kind = schema.field(column).type if column in schema.names else None
        if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            raise UserError(f"{path} has no column `{column}` with `bytes` in it")
        parts = [f"{column}.{name}" for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
        return opened.file.read_row_group(group, columns=parts, use_threads=False).column(column)


_CLIPS = _ClipCache(CACHE_BYTES, FILES)
