"""Text benchmarks, read from the files in which they are published, so that they can be spoken.

To add a layout: a function from one entry of the file to a `TextItem`, and its entry in LAYOUTS. A file is a JSON list,
or one JSON object a line.

    webquestions   {"qId", "qText", "answers"}, {"url", "question", "answers"}, or Berant et al.'s own file:
                   {"url", "utterance", "targetValue": '(list (description "Jamaican English"))'}
    nq_open        {"question", "answer": [...]}
    alpacaeval     {"instruction", "dataset", "output", "generator"}, or one key for each system instead of `output`
    jsonl          {"instruction" or "question", "references" or "answers", "id", "topic", "output"}; all but the first
                   are optional, and without answers a judge has to compare
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rba_bench.audio.spoken_benchmark import INSTRUCTIONS, QUESTIONS
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import folder_name, sha256_json
from rba_bench.recipes import suggest
from rba_bench.synthesis.filters import tidy
from rba_bench.synthesis.units import text_id

_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^()"]*))\)')
_NO_SYSTEM = ("id", "instruction", "input", "dataset", "generator", "datasplit")
OUTPUT = "output"


@dataclass(frozen=True)
class TextItem:
    """One question or instruction.

    Attributes:
        kind: QUESTIONS or INSTRUCTIONS.
        text: What is to be spoken, as it stands in the file.
        id: Its name in the file, "" where it has none.
        references: Right answers.
        topic: For breakdowns.
        outputs: Answers of reference systems, by name of the system.
    """

    kind: str
    text: str
    id: str = ""
    references: tuple[str, ...] = ()
    topic: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> list[Any]:
        """All of it, as JSON values."""
        return [self.kind, self.text, self.id, self.references, self.topic, dict(self.outputs)]


@dataclass(frozen=True)
class TextBenchmark:
    """A benchmark before it is spoken.

    Attributes:
        kind: Of all items.
        items: In the order of the file, with ids that differ.
        systems: Names of the reference systems, in the order of the file.
        in_file: Number of items in the file.
    """

    kind: str
    items: tuple[TextItem, ...]
    systems: tuple[str, ...]
    in_file: int

    @property
    def sha256(self) -> str:
        """Hash of all items."""
        return sha256_json([item.content() for item in self.items])


def read_benchmark(path: Path, layout: str, name: str, limit: int | None = None) -> TextBenchmark:
    """The items of a file.

    Args:
        path: JSON list or JSON lines.
        layout: A key of LAYOUTS.
        name: Of the benchmark; items without a name of their own are called after it and their words.
        limit: Only the first so many.

    Raises:
        MissingPrerequisite: There is no such file.
        UserError: It is of another layout, or holds nothing.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}{suggest(layout, LAYOUTS)}")
    items = []
    for where, entry in _entries(path):
        try:
            items.append(LAYOUTS[layout](entry))
        except (KeyError, ValueError) as error:
            lacks = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where} {lacks}: is it of another --layout than {layout}?") from error
        if items[-1].kind != items[0].kind:
            raise UserError(
                f"{where} {_MIXED[items[-1].kind]}: put questions and instructions into files of their own"
            )
    if not items:
        raise UserError(f"{path} holds no items")
    systems = tuple(dict.fromkeys(system for item in items for system in item.outputs))
    chosen = _named(items, name, path)[:limit]
    return TextBenchmark(items[0].kind, tuple(chosen), systems, len(items))


_MIXED = {QUESTIONS: "has answers, unlike those before", INSTRUCTIONS: "has no answers, unlike those before"}


def default_name(path: Path) -> str:
    """What a benchmark is called after its file."""
    return folder_name(path.name.partition(".")[0])


def _named(items: list[TextItem], name: str, path: Path) -> list[TextItem]:
    given = [item.id for item in items if item.id]
    if len(set(given)) < len(given):
        twice = next(one for one in given if given.count(one) > 1)
        raise UserError(f"{path}: the id {twice!r} occurs twice: give each entry an id of its own")
    used, named = set(given), []
    for item in items:
        unique, number = item.id or f"{name}-{text_id(item.text)}", 1
        while not item.id and unique in used:  # the same words again
            number += 1
            unique = f"{name}-{text_id(item.text)}-{number}"
        used.add(unique)
        named.append(replace(item, id=unique))
    return named


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object of a file, with the words that say where it stands."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"no file at {path}: name the benchmark's file with --from") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from error
    listed = text.lstrip().startswith("[")
    lines = [text] if listed else [line for line in text.split("\n") if line.strip()]
    number = 0
    for line_number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            place = f"{path}" if listed else f"{path}, line {line_number},"
            raise UserError(f"{place} is no JSON ({first_line(error)})") from error
        for entry in value if listed else [value]:
            number += 1
            if not isinstance(entry, dict):
                raise UserError(f"{path}: entry {number} is no JSON object")
            yield f"{path}: entry {number}", entry


def _text(entry: Mapping[str, Any], *names: str) -> str:
    """The first of the named fields that is there. Raises KeyError without any, ValueError if it is no text."""
    name = next((name for name in names if entry.get(name) is not None), None)
    if name is None:
        raise KeyError(*names[:1]) if len(names) == 1 else KeyError(" or ".join(names))
    if not isinstance(entry[name], str):
        raise ValueError(f"has a {name} that is no text")
    return str(entry[name])


def _answers(value: Any) -> tuple[str, ...]:
    """Right answers without blanks and repeats."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(answer, str | int | float) for answer in values):
        raise ValueError("has answers that are no texts")
    return tuple(dict.fromkeys(text for answer in values if (text := tidy(str(answer)))))


def _web_questions(entry: Mapping[str, Any]) -> TextItem:
    text = _text(entry, "qText", "question", "utterance")
    if "targetValue" in entry:
        pairs = _DESCRIPTION.findall(_text(entry, "targetValue"))
        answers: Any = [quoted.replace('\\"', '"') or bare for quoted, bare in pairs]
    else:
        answers = entry["answers"]
    return TextItem(QUESTIONS, text, str(entry.get("qId") or ""), _answers(answers))


def _nq_open(entry: Mapping[str, Any]) -> TextItem:
    return TextItem(QUESTIONS, _text(entry, "question"), "", _answers(entry["answer"]))


def _alpaca_eval(entry: Mapping[str, Any]) -> TextItem:
    if OUTPUT in entry:
        outputs = {str(entry.get("generator") or OUTPUT): _text(entry, OUTPUT)}
    else:
        outputs = {
            name: text for name, text in entry.items() if name not in _NO_SYSTEM and isinstance(text, str)
        }
    text, topic = _text(entry, "instruction"), str(entry.get("dataset") or "")
    return TextItem(INSTRUCTIONS, text, str(entry.get("id") or ""), (), topic, outputs)


def _json_lines(entry: Mapping[str, Any]) -> TextItem:
    text = _text(entry, "instruction", "question")
    answers = next(
        (entry[name] for name in ("references", "answers", "answer") if entry.get(name) is not None), None
    )
    if answers is None and "question" in entry:
        raise KeyError("references or answers")
    return TextItem(
        INSTRUCTIONS if answers is None else QUESTIONS,
        text,
        "" if entry.get("id") is None else str(entry["id"]),
        () if answers is None else _answers(answers),
        str(entry.get("topic") or ""),
        {OUTPUT: _text(entry, OUTPUT)} if answers is None and OUTPUT in entry else {},
    )


LAYOUTS: dict[str, Callable[[Mapping[str, Any]], TextItem]] = {
    "webquestions": _web_questions,
    "nq_open": _nq_open,
    "alpacaeval": _alpaca_eval,
    "jsonl": _json_lines,
}
