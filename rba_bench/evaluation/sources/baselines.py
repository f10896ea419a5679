"""Answers to beat: from a file, from an earlier run, or stored with a data set.

A baseline is part of what is measured: its name, the hash of its answers and the items it has no answer for stand in
the record. An item without a baseline answer stays in the test set; it has no win rate and is counted.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.documents import Document, changed, unique_ids
from rba_bench.evaluation.sources import hub
from rba_bench.evaluation.sources.source import LoadedSet, Place
from rba_bench.files import read_json, read_jsonl, sha256_json
from rba_bench.progress import say
from rba_bench.textlm.replies import answer_of

NONE = "none"  # `--baseline none`: answer without comparing, to make a baseline run
ALPACA_EVAL = "tatsu-lab/alpaca_eval"
ALPACA_FILE = "alpaca_eval_gpt4_baseline.json"
ALPACA_REVISION = "2955709b93b0e08df511a752a3874b0a89b8910b"  # the commit that uploaded the file
ALPACA_ITEMS = 805
# What AlpacaEval's instruction difficulties were fitted to
ALPACA_GENERATORS = ("gpt4_1106_preview", "gpt4_turbo")
ANSWERS = ("output", "extracted", "response")  # of AlpacaEval's files, of samples, of others
LISTED = 20  # unmatched items named in a record


@dataclass(frozen=True)
class Baseline:
    """Answers to beat.

    Attributes:
        by_id: Answers by name of the item.
        by_instruction: Answers by the normalised words of an instruction; of equal instructions the first counts.
        name: Who answered.
        sha256: Hash of the answers.
        position: Place of an instruction among AlpacaEval's 805, by its normalised words; empty for other lists.
    """

    by_id: Mapping[str, str]
    by_instruction: Mapping[str, str]
    name: str
    sha256: str
    position: Mapping[str, int] = field(default_factory=dict)


def normalise_instruction(instruction: str) -> str:
    """Letters and digits of an instruction, lower case, single spaces: spoken copies differ in the rest."""
    plain = unicodedata.normalize("NFKC", instruction).casefold()
    return " ".join(re.findall(r"[^\W_]+", plain))


def read_baseline(path: Path | str) -> Baseline:
    """Answers from a file or a run folder.

    Args:
        path: JSON list or JSONL of `{instruction and/or id, output, generator?}` (AlpacaEval's `model_outputs.json`),
            a `samples.jsonl`, or the folder of a finished run.

    Raises:
        MissingPrerequisite: nothing there.
        UserError: not of these forms, or a run that has not finished.
    """
    path = Path(path)
    if not path.exists():
        raise MissingPrerequisite(
            f"no baseline at {path}: give a JSON or JSONL file of answers, or a run folder"
        )
    if path.is_dir():
        from rba_bench.evaluation.records import SAMPLES_FILE, read_record

        record = read_record(path)
        rows = list(read_jsonl(path / SAMPLES_FILE))
        return _of_rows(rows, f"{record.model.get('name', 'model')} ({record.run_id})")
    return _of_rows(_read_rows(path), path.stem)


def alpaca_eval_baseline(place: Place) -> Baseline:
    """AlpacaEval's GPT-4 Turbo answers to its 805 instructions, with their positions.

    Raises:
        MissingPrerequisite: neither in the local copy nor on the Hub; the message names all ways to get a baseline.
    """
    try:
        files = hub.find_files(ALPACA_EVAL, (ALPACA_FILE,), place, ALPACA_REVISION)
    except MissingPrerequisite as error:
        raise MissingPrerequisite(
            f"no answers to beat: {error}; or name your own with --baseline FILE (JSON or JSONL with `instruction` and "
            f"`output`) or --baseline RUN (a run folder), or leave the comparison out with --baseline {NONE}"
        ) from error
    return _of_rows(_read_rows(files.paths[0]), files.paths[0].stem, indexed=True)


def attach_baseline(documents: Sequence[Document], baseline: Baseline) -> tuple[list[Document], list[str]]:
    """Documents with the baseline's answers, and the names of those it has none for.

    An item is found by its name, else by the normalised words of its instruction. An empty answer is no answer. Where
    the position among AlpacaEval's instructions is known it goes into `extra` as `index`.

    Raises:
        UserError: the baseline answers none of the items.
    """
    attached, unmatched = [], []
    for document in documents:
        key = normalise_instruction(document["instruction"])
        answer = baseline.by_id.get(document["id"], "") or baseline.by_instruction.get(key, "")
        if not answer.strip():
            unmatched.append(document["id"])
        extra = json.loads(document["extra"] or "{}")
        if key in baseline.position:
            extra["index"] = baseline.position[key]
        text = json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else ""
        attached.append(changed(document, baseline=answer if answer.strip() else "", extra=text))
    if documents and len(unmatched) == len(documents):
        raise UserError(
            f"baseline {baseline.name} answers none of the {len(documents)} items: is it of another test set?"
        )
    return attached, unmatched


def with_baseline(
    documents: Sequence[Document],
    origin: Mapping[str, Any],
    place: Place,
    stored: Callable[[Place], Baseline] | str,
) -> LoadedSet:
    """A test set with the answers to beat that the user or the data set names.

    Args:
        documents: The items.
        origin: Facts for the record so far.
        place: Its option `baseline` wins: a file, a run folder, or `none`.
        stored: How to get the usual baseline; or the name of the one that is in the documents already.

    Raises:
        MissingPrerequisite: no baseline can be found.
        UserError: it is damaged, or of another test set.
    """
    documents = unique_ids(documents)  # before answers are found by name
    named = place.options.get("baseline")
    if named == NONE:
        bare = [changed(document, baseline="") for document in documents]
        return LoadedSet(bare, {**origin, "baseline": {"name": NONE}})
    if named is not None:
        baseline = read_baseline(named)
    elif isinstance(stored, str):
        answers = {document["id"]: document["baseline"] for document in documents}
        baseline = Baseline(answers, {}, stored, sha256_json(answers))
    else:
        baseline = stored(place)
    attached, unmatched = attach_baseline(documents, baseline)
    if unmatched:
        say(
            f"baseline {baseline.name} has no answer to {len(unmatched)} of {len(documents)} items: no win rate there"
        )
    facts = {
        "name": baseline.name,
        "sha256": baseline.sha256,
        "unmatched": len(unmatched),
        "unmatched_items": unmatched[:LISTED],
    }
    return LoadedSet(attached, {**origin, "baseline": facts})


def _read_rows(file: Path) -> list[Any]:
    try:
        rows = list(read_jsonl(file)) if file.suffix == ".jsonl" else read_json(file)
    except (ValueError, OSError) as error:
        raise UserError(f"baseline {file} cannot be read ({error})") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"baseline {file} is not a list of objects with `instruction` and `output`")
    return rows


def _of_rows(rows: Sequence[Mapping[str, Any]], name: str, indexed: bool = False) -> Baseline:
    by_id: dict[str, str] = {}
    by_instruction: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        text = next((row[key] for key in ANSWERS if isinstance(row.get(key), str)), None)
        if text is None or not (row.get("id") or row.get("instruction")):
            raise UserError(
                f"baseline {name}: entry {number} needs `instruction` or `id`, and `output`; it has {', '.join(row)}"
            )
        answer = answer_of(text)
        if row.get("id"):
            by_id.setdefault(str(row["id"]), answer)
        if row.get("instruction"):
            by_instruction.setdefault(normalise_instruction(str(row["instruction"])), answer)
    generators = {str(row["generator"]) for row in rows if row.get("generator")}
    usual = len(generators) == 1 and generators <= set(ALPACA_GENERATORS)
    indexed = indexed or (usual and len(rows) == ALPACA_ITEMS and all("dataset" in row for row in rows))
    positions: dict[str, int] = {}
    for index, row in enumerate(rows if indexed else ()):
        positions.setdefault(normalise_instruction(str(row.get("instruction", ""))), index)
    name = generators.pop() if len(generators) == 1 else name
    return Baseline(by_id, by_instruction, name, sha256_json([by_id, by_instruction]), positions)
