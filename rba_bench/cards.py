"""Cards: the README.md of a checkpoint or an alignment set, with front matter that the Hub reads.

    ---
    base_model: ...                     some keys are ours to renew, the user's stay byte by byte
    ---
    <!-- rba-bench:about ... -->        between such marks the text is ours and is renewed
    ...
    <!-- /rba-bench:about -->

Everything else in the file belongs to its owner. A README without marks is changed only on request (`adopt`).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import write_atomic
from rba_bench.untrusted import plain

CARD = "README.md"
NOTE = "written by rba-bench and renewed by it: keep your own text outside of these marks"
LONGEST_CELL = 2000  # characters
_FRONT = re.compile(r"---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"[^\s#-]")  # how a line of front matter begins that belongs to nothing above it
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def write_card(
    folder: Path | str,
    metadata: Mapping[str, Any],
    sections: Mapping[str, str],
    renewed: Iterable[str] = (),
    adopt: bool = False,
) -> bool:
    """Write a card, or renew our sections in an existing one.

    Args:
        folder: of the checkpoint or the set.
        metadata: front matter of a new card; values are JSON values.
        sections: text by name, in the order of a new card; a section that the card does not have yet is put at its end.
        renewed: keys of `metadata` that are replaced in an existing card; None as a value removes the key.
        adopt: also put sections at the end of a card that has none of our marks.

    Returns:
        Whether the folder has a card of ours now; False for a README of somebody else, which stays as it is.

    Raises:
        UserError: the front matter of the card that is there is no YAML mapping.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        write_atomic(path, new_card(metadata, sections))
        return True
    old = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    if not adopt and not is_ours(old):
        return False
    new = _with_metadata(old, {key: metadata.get(key) for key in renewed}, path)
    for name, text in sections.items():
        new = _with_section(new, name, text)
    if new != old:
        write_atomic(path, new)
    return True


def new_card(metadata: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """The text of a card where there is none yet."""
    body = "\n\n".join(_marked(name, text) for name, text in sections.items())
    return f"---\n{_yaml(metadata)}---\n\n{body}\n"


def is_ours(text: str) -> bool:
    """Whether a card holds a section that rba-bench wrote."""
    return re.search(r"^<!-- rba-bench:\w+:", text, re.MULTILINE) is not None


def front_matter(path: Path | str) -> dict[str, Any]:
    """What stands in the front matter of a card; empty where there is no card or no front matter.

    Raises:
        UserError: it is no YAML mapping.
    """
    file = Path(path)
    if not file.is_file():
        return {}
    match = _FRONT.match(file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n"))
    return {} if match is None else _parse_front(match[1], file)


def without_paths(value: Any) -> Any:
    """JSON values with only the last part of each absolute path, so that a card does not show where files lay.

    The parts of a model's name (`text:PATH`, `cascade:small+PATH`) are treated alike.
    """
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return last_part(value) if isinstance(value, str) else value


def last_part(text: str) -> str:
    """`text`, or its last part where it is an absolute path."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("text", "cascade"):
        return scheme + colon + "+".join(last_part(part) for part in rest.split("+"))
    if "\n" in text or len(text) < 2:
        return text
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(text)
        if path.is_absolute() or text.startswith("~"):
            return path.name or text
    return text


def table(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; nothing in a cell is taken for markup."""
    lines = [[cell(value) for value in row] for row in (columns, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def languages(*counted: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """The codes among names of languages, sorted, as front matter takes them."""
    return sorted({code for names in counted for code in names if _LANGUAGE.fullmatch(code)})


def cell(value: object) -> str:
    """A value as the text of one cell, or of a heading."""
    return plain(value, LONGEST_CELL).replace("|", "\\|")


def _yaml(metadata: Mapping[str, Any]) -> str:
    from huggingface_hub.utils import yaml_dump

    return yaml_dump({key: value for key, value in metadata.items() if value is not None}, sort_keys=False)


def _marked(name: str, text: str) -> str:
    return f"<!-- rba-bench:{name}: {NOTE} -->\n\n{text.strip()}\n\n<!-- /rba-bench:{name} -->"


def _with_section(card: str, name: str, text: str) -> str:
    marked = _marked(name, text)
    section = re.compile(rf"^<!-- rba-bench:{name}: .*?^<!-- /rba-bench:{name} -->", re.DOTALL | re.MULTILINE)
    if section.search(card):
        return section.sub(lambda _: marked, card, count=1)
    return f"{card.rstrip()}\n\n{marked}\n"


def _with_metadata(card: str, values: Mapping[str, Any], path: Path) -> str:
    """The card with some keys of its front matter replaced, added or (None) removed; all other lines as they were."""
    match = _FRONT.match(card)
    front, body = (match[1], card[match.end() :]) if match else ("", "\n" + card)
    before = _parse_front(front, path)
    for key, value in values.items():
        front = _with_key(front, key, "" if value is None else _yaml({key: value}))
    after = _parse_front(front, path)
    if {key: before.get(key) for key in before.keys() - values.keys()} != {
        key: after.get(key) for key in after.keys() - values.keys()
    }:  # front matter in flow style, say
        raise UserError(f"the front matter of {path} cannot be edited line by line: write one key a line")
    return f"---\n{front}---\n{body}" if front else card


def _with_key(front: str, key: str, new: str) -> str:
    """Front matter with the lines `new` in the place of a key and its value, at the end if it has no such key."""
    lines, inside, placed = [], False, False
    for line in front.splitlines(keepends=True):
        if _KEY.match(line):
            inside = line.startswith(f"{key}:")
            if inside and not placed:
                lines.append(new)
                placed = True
        elif line.startswith("#"):
            inside = False
        if not inside:
            lines.append(line)
    return "".join([*lines, *([] if placed else [new])])


def _parse_front(front: str, path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(front) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the front matter of {path} is not valid YAML ({plain(reason)}): correct it"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"the front matter of {path} must hold `key: value` lines: correct it")
    return values
