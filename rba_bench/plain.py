"""Text that somebody else wrote (in a record, a manifest, a server's error), made fit to be shown.

`printable` is for a terminal: one line without escapes, overrides of direction, or characters that nobody can see.
`plain` is for tables and pages as well: nothing in it is taken for HTML, a link, a code span, or markup. What is
replaced leaves a mark (U+FFFD), so two names that differ in what cannot be seen do not look the same.
"""

import re
import unicodedata

LIMIT = 200  # characters of a name, a reason, a signature on a page
MARK = "\ufffd"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (bidi), surrogate, private, unassigned
_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji need them between their letters
_STACKED = 4  # combining marks on one letter; more of them cover the lines around
_ASCII = re.compile(r"[ -~]*")
_SCHEME = re.compile(r"\b(javascript|vbscript|data|file)\s*:", re.IGNORECASE)
_ADDRESS = re.compile(r":(?=//)|\bwww(?=\.)", re.IGNORECASE)
_LINK = re.compile(r"\](?=[(\[:])")
_LOOK_ALIKES = str.maketrans({"<": "‹", ">": "›", "`": "'"})
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*%?")
_FORMULA = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"  # as spreadsheets read them, full-width forms included


def printable(text: object, limit: int | None = None) -> str:
    """One line of `text` without control characters, invisible ones, or more than `limit` characters."""
    line = str(text)
    if not _ASCII.fullmatch(line):
        line = "".join(_shown(line, place) for place in range(len(line)))
    line = " ".join(line.split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def plain(text: object, limit: int = LIMIT) -> str:
    """`printable` text that Markdown, HTML and a terminal show as it is, without links of its own."""
    line = printable(text, limit).translate(_LOOK_ALIKES)
    line = _SCHEME.sub(r"\1 :", line)
    return _LINK.sub("] ", _ADDRESS.sub(lambda found: found[0] + " ", line))


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: such text gets an apostrophe in front, numbers stay."""
    if not isinstance(value, str):
        return value
    start = value.lstrip()
    harmless = not start or start[0] not in _FORMULA or start == "-" or _NUMBER.fullmatch(start)
    return value if harmless and not value.startswith(("\t", "\r")) else "'" + value


def clean(text: str) -> str:
    """`text` without control characters and invisible ones; its lines and spaces stay."""
    if _ASCII.fullmatch(text.replace("\n", "")):
        return text
    return "".join("\n" if text[place] == "\n" else _shown(text, place) for place in range(len(text)))


def json_safe(text: str) -> str:
    """JSON text whose characters can all be seen: others become escapes, which readers take for the same."""
    if _ASCII.fullmatch(text.replace("\n", "")):
        return text
    return "".join(_escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if letter == "\n" or unicodedata.category(letter) not in (*_HIDDEN, "Zl", "Zp"):
        return letter
    units = letter.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _shown(text: str, place: int) -> str:
    letter = text[place]
    if letter.isspace():
        return " "
    kind = unicodedata.category(letter)
    if letter in _JOINERS:
        around = (text[place - 1 : place], text[place + 1 : place + 2])
        return letter if all(side and ord(side) > 127 for side in around) else MARK
    if kind in _HIDDEN:
        return MARK
    before = text[max(0, place - _STACKED) : place]
    if (
        kind == "Mn"
        and len(before) == _STACKED
        and all(unicodedata.category(each) == "Mn" for each in before)
    ):
        return ""
    return letter
