"""Files that somebody else wrote: read within bounds, and refused where they are not what they should be.

A record can be a link to another file, a gigabyte of nothing, text that unpacks to a terabyte, or JSON whose numbers
and nesting break a reader. Each of these is one line for the user and no memory.
"""

import json
import math
import os
import stat
import zlib
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError

MAX_JSON = 32 * 2**20  # bytes of one JSON file; the largest record so far has 90 kB
MAX_TEXT = 2**30  # bytes of samples, unpacked
RATIO = 100  # text packs tenfold; what unpacks to more than this times its size is no text
FREE = 16 * 2**20  # bytes that any packed file may unpack to
DIGITS = 40  # of an integer; seeds have 20
_BLOCK = 2**20
# Windows has neither of the first two, and alone has the third, without which it changes line ends.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_PLAINLY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_file(path: Path, limit: int = MAX_JSON) -> bytes:
    """Content of an ordinary file of at most `limit` bytes.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is a link, a device or a pipe, is larger, or cannot be read.
    """
    try:
        if not _NO_LINKS and path.is_symlink():
            raise OSError("links are not followed")
        descriptor = os.open(path, os.O_RDONLY | _NO_LINKS | _PLAINLY)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        kind = "is a link: copy the file itself here" if _is_link(path) else f"cannot be read ({error})"
        raise UserError(f"{path} {kind}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not an ordinary file")
    with open(descriptor, "rb") as handle:
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise UserError(f"{path} is larger than {limit // 2**20} MiB, which no file of its kind is")
    return data


def unpack(data: bytes, path: Path, limit: int = MAX_TEXT) -> bytes:
    """Content of a gzip file, unpacked block by block.

    Raises:
        UserError: it is damaged, or unpacks to far more than text can.
    """
    most = min(limit, max(FREE, RATIO * len(data)))
    pieces: list[bytes] = []
    size = 0
    try:
        while data:  # a gzip file may have several members
            unpacker = zlib.decompressobj(wbits=31)
            while data and not unpacker.eof:
                piece = unpacker.decompress(data, _BLOCK)
                data = unpacker.unconsumed_tail or unpacker.unused_data
                size += len(piece)
                if size > most:
                    raise UserError(f"{path} unpacks to more than {most // 2**20} MiB: refused")
                pieces.append(piece)
            if not unpacker.eof:
                raise UserError(f"{path} is damaged: it ends too early")
    except zlib.error as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return b"".join(pieces)


def parse_json(data: bytes | str) -> Any:
    """Parsed JSON that any reader agrees on.

    Raises:
        ValueError: not JSON, not UTF-8, NaN or infinite numbers, integers of more than 40 digits, a key that stands
            twice, half of a surrogate pair, or too deep.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_once,
        )
        if "\\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    except UnicodeError as error:
        raise ValueError(f"text that is not Unicode: {getattr(error, 'reason', error)}") from error
    return value


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """`parse_json` of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: see `parse_json`.
        UserError: see `read_file`.
    """
    return parse_json(read_file(path, limit))


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _short(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return found
