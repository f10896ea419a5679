"""Spoken TriviaQA, WebQuestions and Llama Questions, each in the several versions that are in use.

The versions differ in items, voices and alias lists, so each is a set of its own, with a name of its own; see `SETS`.
Two layouts: OpenAudioBench (`eval_datas/<name>/<name>.csv` beside `audios/*.mp3`), and parquet with an Audio column.
"""

import ast
import csv
import io
import json
import re
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import hub, tables
from rba_bench.evaluation.sources.source import ItemNames, LoadedSet, Place, check_options, compare_size
from rba_bench.metrics.text import is_blank
from rba_bench.progress import say

LISTED = 20  # items without an answer that are named in a record
OPEN_AUDIO_BENCH = "baichuan-inc/OpenAudioBench"
OPEN_AUDIO_BENCH_REVISION = "98f8fa0d5fa7e530ec8e6f097b55f10b003d111b"  # the commit that uploaded the data


@dataclass(frozen=True)
class SpokenSet:
    """One version of a spoken question set.

    Attributes:
        repo: On the Hub.
        files: Glob of the table: one CSV, or parquet files.
        items: How many are published.
        question: Column with the words spoken.
        answers: Columns with right answers; `a.b` is field b of struct a.
        separator: What stands between the answers in one string, "" if a string is one answer.
        audio: Audio column of parquet files.
        revision: Commit, or a branch that is resolved on first use.
    """

    repo: str
    files: str
    items: int
    question: str
    answers: tuple[str, ...]
    separator: str = ""
    audio: str = "audio"
    revision: str = "main"


def _open_audio_bench(name: str, items: int, question: str, *answers: str, separator: str = "") -> SpokenSet:
    table = f"eval_datas/{name}/{name}.csv"
    return SpokenSet(
        OPEN_AUDIO_BENCH, table, items, question, answers, separator, revision=OPEN_AUDIO_BENCH_REVISION
    )


_LIST_MARKS = re.compile(r"""[,"']""")  # without them, brackets are part of an answer
_PARQUET = "data/test-*.parquet"
SETS: dict[str, SpokenSet] = {
    "triviaqa_openaudiobench": _open_audio_bench(
        "trivia_qa", 1000, "question", "answer_normalized_value", "answer_normalized_aliases", separator=","
    ),
    "webquestions_openaudiobench": _open_audio_bench(
        "web_questions", 1000, "question", "answers", separator=";"
    ),
    "llama_questions_openaudiobench": _open_audio_bench("llama_questions", 300, "Questions", "Answer"),
    "triviaqa_twinkstart": SpokenSet(
        "TwinkStart/speech-triavia-qa", _PARQUET, 1024, "question", ("answer",), " OR "
    ),
    "webquestions_twinkstart": SpokenSet(
        "TwinkStart/speech-web-questions", _PARQUET, 2032, "question", ("answers",), " OR "
    ),
    "llama_questions_twinkstart": SpokenSet(
        "TwinkStart/llama-questions", _PARQUET, 300, "Questions", ("Answer",)
    ),
    "triviaqa_fixie": SpokenSet(
        "fixie-ai/trivia_qa-audio",
        "rc.wikipedia/validation-*.parquet",
        1000,
        "question",
        ("answer.value", "answer.aliases"),
        audio="question_audio",
        revision="81d5ffc9c378e944e2876226ef2ed6bdb55d1091",
    ),
    "webquestions_fixie": SpokenSet(
        "fixie-ai/spoken-web-questions", _PARQUET, 2032, "question", ("answers",)
    ),
    "llama_questions_fixie": SpokenSet(
        "fixie-ai/llama-questions",
        _PARQUET,
        300,
        "question",
        ("answer",),
        revision="889da3d7dcf0459a7ca83608d8e14daf24700e63",
    ),
}


def load_spoken_qa(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The questions of one set.

    Args:
        options: `set`: a name in `SETS`; `revision` of the Hub.
        place: Where to look.

    Raises:
        UserError: unknown set, or files of another layout.
        MissingPrerequisite: the table, or clips that it names, are not there.
    """
    values = check_options(options, set=..., revision=None)
    name = str(values["set"])
    if name not in SETS:
        raise UserError(f"unknown spoken question set {name!r}; known: {', '.join(SETS)}")
    spoken = SETS[name]
    revision = str(values["revision"] or spoken.revision)
    files, rows = (_from_csv if spoken.files.endswith(".csv") else _from_parquet)(spoken, place, revision)
    items, unanswered = _documents(name, spoken, rows)
    origin = files.origin(set=name, **compare_size(name, len(items) + len(unanswered), spoken.items))
    if unanswered:
        unreadable = [reason for reason in unanswered.values() if reason]
        if unreadable and not items:
            raise UserError(unreadable[0])
        detail = f" ({len(unreadable)} of them cannot be read: {unreadable[0]})" if unreadable else ""
        say(f"{name}: {len(unanswered)} questions have no answer to compare with and are left out{detail}")
        origin["left_out"] = {
            "reason": "no answer in the data set" + (", or none that can be read" if unreadable else ""),
            "n": len(unanswered),
            "items": list(unanswered)[:LISTED],
        }
    return LoadedSet(items, origin)


def _documents(
    name: str, spoken: SpokenSet, rows: Iterator[tuple[str, dict[str, Any], tables.Clip]]
) -> tuple[list[documents.Document], dict[str, str]]:
    """The items, and the names of those without answers, with what is wrong with the answers if they are there."""
    names = ItemNames(name)
    items: list[documents.Document] = []
    unanswered: dict[str, str] = {}
    for label, row, clip in rows:
        question = str(row[spoken.question] or "")
        item = f"{name}-{label}" if label else names.of(question or clip.sha256)
        references: dict[str, None] = {}  # without repeats, in the order of the set
        try:
            for column in spoken.answers:
                outer, _, inner = column.partition(".")
                value = row[outer]
                value = value.get(inner) if inner and isinstance(value, Mapping) else value
                references.update(dict.fromkeys(split_answers(value, spoken.separator, item)))
        except UserError as error:  # one damaged cell is no reason to lose the set
            unanswered[item] = str(error)
            continue
        if references:
            items.append(
                documents.make_document(
                    id=item, kind="qa", clip=clip, instruction=question, references=list(references)
                )
            )
        else:
            unanswered[item] = ""
    return items, unanswered


def split_answers(value: Any, separator: str, item: str) -> list[str]:
    """Answers in one cell: a list, a list written as JSON or Python, or a string with separators.

    Brackets alone make no list: `[Redacted]` is an answer.

    Args:
        value: The cell.
        separator: Between answers, "" if a string is one answer.
        item: Name of the item, for messages.

    Raises:
        UserError: a written list that cannot be read.
    """
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        value = _written_list(text, item)
        if value is None:
            value = text.split(separator) if separator else [text]
    parts = value if isinstance(value, list | tuple) else [value]
    return [answer for part in parts if part is not None and not is_blank(answer := str(part).strip())]


def _written_list(text: str, item: str) -> list[Any] | None:
    """A list that is written as JSON or Python; None for a text that is none."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    with suppress(ValueError, RecursionError):  # not JSON: then Python's way of writing a list
        return list(json.loads(text))
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)]
        # numpy leaves the commas out, and Python would read one long string
        if (tokenize.STRING, tokenize.STRING) in zip(kinds, kinds[1:], strict=False):
            raise ValueError("its commas are missing")
        return list(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        if not _LIST_MARKS.search(text[1:-1]):
            return None
        raise UserError(f"{item}: cannot read the answer list {text[:80]!r} ({error})") from error


def _from_parquet(
    spoken: SpokenSet, place: Place, revision: str
) -> tuple[hub.HubFiles, Iterator[tuple[str, dict[str, Any], tables.Clip]]]:
    files = hub.find_files(spoken.repo, (spoken.files,), place, revision)
    columns = [spoken.question, *dict.fromkeys(column.partition(".")[0] for column in spoken.answers)]
    return files, (("", row, clip) for row, clip in tables.parquet_rows(files.paths, columns, spoken.audio))


def _from_csv(
    spoken: SpokenSet, place: Place, revision: str
) -> tuple[hub.HubFiles, Iterator[tuple[str, dict[str, Any], tables.Clip]]]:
    folder = spoken.files.rpartition("/")[0]
    files = hub.find_files(spoken.repo, (spoken.files, f"{folder}/audios/*"), place, revision)
    table = files.root / spoken.files
    if not table.is_file():
        raise MissingPrerequisite(f"{spoken.repo} at {revision}: {spoken.files} is missing")
    try:
        with open(table, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            present = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read ({error}): get it again") from error
    columns = (spoken.question, *spoken.answers, "audio_filename")
    if missing := [name for name in columns if name not in present]:
        raise UserError(f"{table} lacks the columns {', '.join(missing)}; it has {', '.join(present)}")
    for name in (row["audio_filename"] for row in rows):
        if not name or Path(name).name != name:
            raise UserError(f"{table} names a clip {name!r} that is no file name")
    clips = [table.parent / "audios" / row["audio_filename"] for row in rows]
    if absent := [clip.name for clip in clips if not clip.is_file()]:
        raise MissingPrerequisite(
            f"{len(absent)} of {len(clips)} clips that {table.name} names are missing (first: {absent[0]}): run `hf "
            f"download {spoken.repo} --repo-type dataset --include '{folder}/*' --local-dir DIR` again"
        )
    return files, ((clip.stem, row, tables.file_clip(clip)) for clip, row in zip(clips, rows, strict=True))
