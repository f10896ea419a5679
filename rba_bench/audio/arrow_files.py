"""Arrow files as `datasets` keeps them (`Dataset.save_to_disk`, its cache): mapped into memory, read row by row.

They are streams of record batches, https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format. What is not
asked for stays on disk.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rba_bench.audio.parquet import nothing_stored, stored_bytes
from rba_bench.errors import AudioError, MissingPrerequisite, UserError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".arrow"
_OPEN_TABLES = 8


def open_arrow(path: Path) -> "pa.Table":
    """All rows of a file, mapped into memory.

    Raises:
        MissingPrerequisite: it is not there.
        UserError: it is damaged.
    """
    import pyarrow as pa

    try:
        stat = path.stat()
        return _mapped(path, stat.st_size, stat.st_mtime_ns)
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"no audio at {path}: the data folder was moved or not made yet") from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}): get it again") from error


@lru_cache(maxsize=_OPEN_TABLES)
def _mapped(path: Path, _size: int, _changed_ns: int) -> "pa.Table":
    import pyarrow as pa

    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def arrow_clip(path: Path, row: int, column: str) -> bytes:
    """Encoded bytes of the clip in a row, whose cell is `{bytes, path}`.

    Raises:
        MissingPrerequisite, UserError: as of `open_arrow`, or the file has no such row.
        AudioError: the row holds none.
    """
    table = open_arrow(path)
    if not 0 <= row < table.num_rows:
        raise UserError(f"{path} has {table.num_rows} rows, no row {row}: it was replaced")
    value = table.column(column)[row].as_py()
    try:
        data = stored_bytes(path, value)
    except OSError as error:
        raise UserError(f"cannot read the clip of row {row} of {path}: {error.strerror or error}") from error
    if data is None:
        raise AudioError(nothing_stored(path, row, value))
    return data
