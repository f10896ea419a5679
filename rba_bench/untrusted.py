"""What somebody else wrote: text made fit to be shown, and files read within bounds.

Text in a record, a manifest or a server's error: `printable` is for a terminal (one line without escapes, overrides of
direction, or characters that nobody can see), `plain` for tables and pages as well (nothing in it is taken for HTML, a
link, a code span, or markup). Whatever is replaced leaves a mark (U+FFFD), so two names that differ in invisible
characters do not look the same.

Files: a record can be a link to another file, a gigabyte of nothing, text that unpacks to a terabyte, or JSON whose
numbers and nesting break a reader. Each of these becomes one line for the user and costs no memory.
"""

import json
import math
import os
import re
import stat
import unicodedata
import zlib
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError

LIMIT = 200  # characters of a name, a reason, a signature on a page
MARK = "\ufffd"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (bidi), surrogate, private, unassigned
_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them between their letters
_STACKED = 4  # combining marks on one letter; more of them cover the lines around
_ASCII = re.compile(r"[ -~]*")
_NOT_ASCII = re.compile(r"[^ -~\n]")
_SCHEME = re.compile(r"\b(javascript|vbscript|data|file)\s*:", re.IGNORECASE)
_ADDRESS = re.compile(r":(?=//)|\bwww(?=\.)", re.IGNORECASE)
_LINK = re.compile(r"\](?=[(\[:])")
_LOOK_ALIKES = str.maketrans({"<": "‹", ">": "›", "`": "'"})
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*%?")
_FORMULA = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"  # as spreadsheets read them, full-width forms included
MAX_JSON = 32 * 2**20  # bytes of one JSON file; the largest record so far has 90 kB
MAX_TEXT = 2**30  # bytes of samples, unpacked
RATIO = 100  # text packs tenfold; what unpacks to more than this times its size is no text
FREE = 16 * 2**20  # bytes that any packed file may unpack to
DIGITS = 40  # of an integer; seeds have 20
DEEPEST = 64  # levels of JSON; what walks through it must not depend on how much of the stack is left
_BLOCK = 2**20
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")  # perhaps with the other half
# Windows has neither of the first two, and alone has the third, without which it changes line ends.
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_PLAINLY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def printable(text: object, limit: int | None = None) -> str:
    """One line of `text` without control characters, invisible ones, or more than `limit` characters."""
    line = str(text)
    if not _ASCII.fullmatch(line):
        line = "".join(_visible(line, place) for place in range(len(line)))
    line = " ".join(line.split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def plain(text: object, limit: int = LIMIT) -> str:
    """`printable` text that Markdown, HTML and a terminal show as it is, without links of its own."""
    line = printable(text, limit).translate(_LOOK_ALIKES)
    line = _SCHEME.sub(r"\1 :", line)
    return _LINK.sub("] ", _ADDRESS.sub(lambda match: match[0] + " ", line))


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: such text gets an apostrophe in front, numbers stay."""
    if not isinstance(value, str):
        return value
    start = value.lstrip()
    harmless = not start or start[0] not in _FORMULA or start == "-" or _NUMBER.fullmatch(start)
    return value if harmless and not value.startswith(("\t", "\r")) else "'" + value


def visible_text(text: str) -> str:
    """`text` without control characters and invisible ones; its lines and spaces stay."""
    if _ASCII.fullmatch(text.replace("\n", "")):
        return text
    return "".join("\n" if text[place] == "\n" else _visible(text, place) for place in range(len(text)))


def json_safe(text: str) -> str:
    """JSON text whose characters can all be seen: others become escapes, which readers take for the same."""
    return _NOT_ASCII.sub(lambda letter: _json_letter(letter[0]), text)


def _json_letter(letter: str) -> str:
    if unicodedata.category(letter) not in (*_HIDDEN, "Zl", "Zp"):
        return letter
    units = letter.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _visible(text: str, place: int) -> str:
    """The letter at `place` as it may be shown there: itself, a space, a mark, or nothing."""
    letter = text[place]
    if letter.isspace():
        return " "
    kind = unicodedata.category(letter)
    if letter in _JOINERS:
        neighbours = (text[place - 1 : place], text[place + 1 : place + 2])
        return letter if all(each and ord(each) > 127 for each in neighbours) else MARK
    if kind in _HIDDEN:
        return MARK
    before = text[max(0, place - _STACKED) : place]
    if kind != "Mn" or len(before) < _STACKED:
        return letter
    return "" if all(unicodedata.category(each) == "Mn" for each in before) else letter


def read_untrusted_file(path: Path, limit: int = MAX_JSON) -> bytes:
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
        kind = "is a link: copy the file itself here" if os.path.islink(path) else f"cannot be read ({error})"
        raise UserError(f"{path} {kind}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not an ordinary file")
    with open(descriptor, "rb") as handle:
        data = handle.read(min(limit, facts.st_size) + 1)  # as much room is made as is asked for
    if len(data) > limit:
        raise UserError(
            f"{path} is larger than {limit // 2**20} MiB, the largest size for a file of its kind"
        )
    return data


def unpack_gzip(data: bytes, path: Path, limit: int = MAX_TEXT) -> bytes:
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
                    raise UserError(f"{path} unpacks to more than {most // 2**20} MiB, so it is refused")
                pieces.append(piece)
            if not unpacker.eof:
                raise UserError(f"{path} is damaged: it ends too early")
    except zlib.error as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return b"".join(pieces)


def parse_untrusted_json(data: bytes | str) -> Any:
    """Parsed JSON that any reader agrees on.

    Raises:
        ValueError: not JSON, not UTF-8, NaN or infinite numbers, integers of more than 40 digits, a key that occurs
            twice, half of a surrogate pair, or too deep.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark")
        value = _DECODER.decode(text)
        if ("\\u" in text and _HALF_PAIR.search(text)) or (isinstance(data, str) and not text.isascii()):
            json.dumps(value, ensure_ascii=False).encode()
        _check_depth(value, text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    except UnicodeError as error:
        raise ValueError(f"text that is not Unicode: {getattr(error, 'reason', error)}") from error
    return value


def read_untrusted_json(path: Path) -> Any:
    """`parse_untrusted_json` of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: see `parse_untrusted_json`.
        UserError: see `read_untrusted_file`.
    """
    return parse_untrusted_json(read_untrusted_file(path))


def _check_depth(value: Any, text: str) -> None:
    """Raise RecursionError for more than `DEEPEST` levels of lists and mappings."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        items = (item for each in level for item in (each.values() if isinstance(each, dict) else each))
        level = [item for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise RecursionError


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that JSON allows")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _short_integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"an integer of {len(text)} digits; at most {DIGITS} are allowed")
    return int(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} occurs twice")
    return values


_DECODER = json.JSONDecoder(  # made once: a record has a line for each of thousands of answers
    parse_constant=_refuse_constant,
    parse_float=_finite_number,
    parse_int=_short_integer,
    object_pairs_hook=_unique_keys,
)
