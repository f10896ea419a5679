"""Cards: the README.md of a checkpoint or an alignment set, with YAML front matter that the Hub reads.

    ---
    base_model: ...                     some keys are renewed; the lines of all others stay as they are
    ---
    <!-- rba-bench:about ... -->        a section: its text is renewed
    ...
    <!-- /rba-bench:about -->

Everything else in the file belongs to the user. A README without sections is changed only on request (`adopt`).
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
_SECTION = r"^<!-- rba-bench:{name}: .*?^<!-- /rba-bench:{name} -->"
_FLAGS = re.DOTALL | re.MULTILINE
_FRONT = re.compile(r"---\n(.*?)^---\n", _FLAGS)
_KEY = re.compile(r"[^\s#-]")  # the first character of a line with a top-level key


def write_card(
    folder: Path | str,
    metadata: Mapping[str, Any],
    sections: Mapping[str, str],
    renewed: Iterable[str] = (),
    adopt: bool = False,
) -> bool:
    """Write a card, or renew the sections of an existing card.

    Args:
        folder: of the checkpoint or the alignment set.
        metadata: front matter of a new card; values are JSON values.
        sections: text by name, in order; a section that the card does not have yet is appended.
        renewed: keys of `metadata` that are replaced in an existing card; None as a value removes the key.
        adopt: also append the sections to a README without sections of rba-bench.

    Returns:
        Whether the card has the sections now; False for a user's own README, which stays as it is.

    Raises:
        UserError: the front matter of the existing card is not a YAML mapping.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        write_atomic(path, new_card(metadata, sections))
        return True
    if not adopt and not may_renew(folder):
        return False
    old = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    card = _with_metadata(old, {key: metadata.get(key) for key in renewed}, path)
    for name, text in sections.items():
        before, after = card.rstrip() + "\n\n", "\n"
        if match := re.search(_SECTION.format(name=name), card, _FLAGS):
            before, after = card[: match.start()], card[match.end() :]
        card = before + _section(name, text) + after
    if card != old:
        write_atomic(path, card)
    return True


def may_renew(folder: Path | str) -> bool:
    """Whether `write_card` would write into a folder: it has no README, or one with sections of rba-bench."""
    path = Path(folder) / CARD
    if not path.is_file():
        return True
    old = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    return re.search(r"^<!-- rba-bench:\w+:", old, re.MULTILINE) is not None


def new_card(metadata: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """The text of a new card."""
    body = "\n\n".join(_section(name, text) for name, text in sections.items())
    return f"---\n{_yaml(metadata)}---\n\n{body}\n"


def front_matter(path: Path | str) -> dict[str, Any]:
    """The front matter of a card; empty if there is no card or it has no front matter.

    Raises:
        UserError: the front matter is not a YAML mapping.
    """
    file = Path(path)
    if not file.is_file():
        return {}
    match = _FRONT.match(file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n"))
    return {} if match is None else _parse_front(match[1], file)


def without_paths(value: Any) -> Any:
    """JSON values in which absolute paths are cut to their last part, as they say nothing on other machines.

    Paths within a model's name (`text:PATH`, `cascade:small+PATH`) are cut too.
    """
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return last_path_part(value) if isinstance(value, str) else value


def last_path_part(text: str) -> str:
    """The last part of an absolute path; any other text as it is."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("text", "cascade"):
        return scheme + colon + "+".join(last_path_part(part) for part in rest.split("+"))
    if "\n" in text or len(text) < 2:
        return text
    for path_type in (PurePosixPath, PureWindowsPath):
        path = path_type(text)
        if path.is_absolute() or text.startswith("~"):
            return path.name or text
    return text


def markdown_table(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; nothing in its cells is markup."""
    lines = [[table_cell(value) for value in row] for row in (columns, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_cell(value: object) -> str:
    """A value as the text of a table cell or a heading."""
    return plain(value, LONGEST_CELL).replace("|", "\\|")


def _yaml(metadata: Mapping[str, Any]) -> str:
    from huggingface_hub.utils import yaml_dump

    return yaml_dump({key: value for key, value in metadata.items() if value is not None}, sort_keys=False)


def _section(name: str, text: str) -> str:
    return f"<!-- rba-bench:{name}: {NOTE} -->\n\n{text.strip()}\n\n<!-- /rba-bench:{name} -->"


def _with_metadata(card: str, values: Mapping[str, Any], path: Path) -> str:
    """The card with keys of its front matter replaced, added or (for None) removed; all other lines stay."""
    match = _FRONT.match(card)
    front, body = (match[1], card[match.end() :]) if match else ("", "\n" + card)
    before = _parse_front(front, path)
    for key, value in values.items():
        front = _with_key(front, key, "" if value is None else _yaml({key: value}))
    after = _parse_front(front, path)
    if any(before.get(key) != after.get(key) for key in (before.keys() | after.keys()) - values.keys()):
        # such as {a: 1, b: 2} over several lines
        raise UserError(f"the front matter of {path} cannot be edited: write each key on its own line")
    return f"---\n{front}---\n{body}" if front else card


def _with_key(front: str, key: str, new: str) -> str:
    """Front matter with `new` in place of the lines of a key and its value, or at the end without such a key."""
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
        reason = plain(" ".join(str(error).split()))
        raise UserError(f"the front matter of {path} is not valid YAML ({reason}): correct it") from error
    if not isinstance(values, dict):
        raise UserError(f"the front matter of {path} must hold `key: value` lines: correct it")
    return values
