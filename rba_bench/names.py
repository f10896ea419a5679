"""Names that become paths: which ones may be taken as they stand, how others are written, and what stays inside.

A task, a run id, or a model's name may come from a file that somebody else wrote. As a path it could climb out of a
folder, replace it (an absolute path), or be one that another system cannot store (`CON`, a trailing dot).
"""

import re
import unicodedata
from pathlib import Path, PurePosixPath

from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes

LONGEST = 200  # characters of an identifier; file names hold 255 bytes
LONGEST_PART = 255  # bytes
LONGEST_FOLDER = 120  # bytes of a folder's name
# An identifier: the same on every file system, in every table, in every script. Letters of other alphabets look like
# these and are not.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+=-]{{0,{LONGEST - 1}}}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|\Z)", re.IGNORECASE)


def is_name(text: object) -> bool:
    """Whether `text` is an identifier that may stand in a path as it is."""
    return (
        isinstance(text, str)
        and bool(_NAME.fullmatch(text))
        and text[-1] != "."
        and not _RESERVED.match(text)
    )


def check_name(text: str) -> str:
    """`text`, for pydantic. Raises ValueError where it is no identifier."""
    if not is_name(text):
        raise ValueError(f"{text[:60]!r} is no name: use letters, digits and . _ + = - (at most {LONGEST})")
    return text


def folder_name(text: str) -> str:
    """`text` as the name of one folder: letters of any alphabet, digits and `.=+-_`.

    A name that had to be changed ends in a hash of what it was, so that `a/b` and `a-b` do not share a folder.
    """
    safe = re.sub(r"[^\w.=+-]+", "-", unicodedata.normalize("NFC", text)).strip("-.")
    while len(safe.encode(errors="replace")) > LONGEST_FOLDER:
        safe = safe[:-1]
    if safe == text and safe and not _RESERVED.match(safe):
        return safe
    return f"{safe or 'name'}-{sha256_bytes(text.encode(errors='surrogatepass'))[:8]}"


def is_below(name: object) -> bool:
    """Whether a path in somebody's list stays below the folder of the list: relative, and without `..`.

    Links are not followed: the cache of the Hub keeps every file of a data set as a link.
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts != ()


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, where that lies below the folder, links followed.

    Raises:
        UserError: it does not, or no such path can be.
    """
    if any(len(part.encode(errors="replace")) > LONGEST_PART for part in name.split("/")):
        raise UserError(f"{name[:80]!r}... is too long for a file name")
    try:
        target, root = folder / name, folder.resolve()
        found = target.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, too long a name, links in a circle
        raise UserError(f"{name[:80]!r} is no path inside {folder}: {error}") from error
    if found == root or not found.is_relative_to(root):
        raise UserError(f"{name[:80]!r} leads out of {folder}: refused")
    return target
