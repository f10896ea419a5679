"""Collecting usable instructions: rounds of sampling, filtering and answering until there are enough of them.

Every candidate and every answer goes into an append-only JSON-lines log. A round that a killed run left unfinished is
sampled again as a whole, in the same batch and with the same seeds, and only what is missing is appended: the logs end
as those of a run that was never interrupted.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.files import JsonlAppender, read_jsonl, sha256_bytes
from rba_bench.progress import bar
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import KEPT, InstructionFilter, Tagger, make_tagger, normalise
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import answer_candidates, judge_candidates, sample_candidates
from rba_bench.textlm.text_model import TextLM

INSTRUCTIONS, ANSWERS = "instructions.jsonl", "answers.jsonl"


@dataclass(frozen=True)
class Unit:
    """A usable instruction with its response, ready to be spoken: one group of the alignment set."""

    group_id: str
    split: str
    kind: str
    prompt: str
    instruction: str
    response: str
    source_lang: str
    target_lang: str
    topic: str
    difficulty: str


class RecordLog:
    """Records of a JSON-lines file, each with an `index`, in memory and on disk; a context manager.

    Raises:
        UserError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.records: list[dict[str, Any]] = list(read_jsonl(path))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete {path.parent} and run again") from error
        self.by_index: dict[int, dict[str, Any]] = {record["index"]: record for record in self.records}
        self._file = JsonlAppender(path)

    def extend(self, records: list[dict[str, Any]]) -> None:
        """Append `records`; they are on disk when this returns."""
        if records:
            self._file.write(*records)
            self.records += records
            self.by_index |= {record["index"]: record for record in records}

    def __enter__(self) -> "RecordLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def text_id(text: str) -> str:
    """Id of a text from its words alone: the same words have one id in every alignment set."""
    return sha256_bytes(normalise(text).encode())[:16]


def split_of(text_hash: str, recipe: SynthesisRecipe) -> str:
    """`train` or `validation`, by the id of a text alone: equal texts never lie on both sides."""
    return "validation" if stable_seed("split", text_hash) / 2**63 < recipe.validation_fraction else "train"


def collect(recipe: SynthesisRecipe, teacher: TextLM, out: Path) -> list[Unit]:
    """Sample, filter and answer until `recipe.n_instructions` are usable; resumes from the logs in `out`.

    Raises:
        RbaError: `recipe.max_candidates` candidates did not yield enough; the message counts the reasons.
    """
    tagger, filters, units = make_tagger(recipe), InstructionFilter(recipe), list[Unit]()
    with (
        RecordLog(out / INSTRUCTIONS) as instructions,
        RecordLog(out / ANSWERS) as answers,
        bar("instructions", recipe.n_instructions, unit="usable") as advance,
    ):
        number, limit = 0, recipe.max_candidates or 50 * recipe.n_instructions
        while len(units) < recipe.n_instructions:
            if number * recipe.round_size >= limit:
                reasons = Counter(r["reason"] for r in instructions.records if r["reason"] != KEPT)
                reasons.update(f"answer {r['reason']}" for r in answers.records if r["reason"] != KEPT)
                counts = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
                raise RbaError(
                    f"{len(instructions.records)} candidates gave {len(units)} of {recipe.n_instructions} usable "
                    f"instructions ({counts}); lower n_instructions (or kinds), loosen the filters, or raise "
                    "max_candidates"
                )
            candidates = _collect_candidates(recipe, teacher, tagger, filters, instructions, number)
            new_units = _collect_units(recipe, teacher, filters, answers, candidates)
            units += new_units
            advance(len(new_units))
            number += 1
    return units


def _collect_candidates(
    recipe: SynthesisRecipe,
    teacher: TextLM,
    tagger: Tagger,
    filters: InstructionFilter,
    log: RecordLog,
    number: int,
) -> list[dict[str, Any]]:
    """Judged candidates of one round, from the log or newly sampled."""
    first = number * recipe.round_size
    logged = log.records[first : first + recipe.round_size]
    if len(logged) == recipe.round_size:
        filters.restore(logged)
        return logged
    judged = judge_candidates(sample_candidates(teacher, recipe, number), tagger, filters)
    log.extend(judged[len(logged) :])
    return judged


def _collect_units(
    recipe: SynthesisRecipe,
    teacher: TextLM,
    filters: InstructionFilter,
    log: RecordLog,
    candidates: list[dict[str, Any]],
) -> list[Unit]:
    """Usable instructions of one round; kept ones without a usable answer give their place back."""
    kept = [candidate for candidate in candidates if candidate["reason"] == KEPT]
    if any(candidate["index"] not in log.by_index for candidate in kept):
        answers = answer_candidates(teacher, recipe, kept)
        log.extend([record for record in answers if record["index"] not in log.by_index])
    units = []
    for candidate in kept:
        record = log.by_index[candidate["index"]]
        if record["reason"] != KEPT:
            filters.release(candidate["kind"])
            continue
        names = ("kind", "prompt", "instruction", "source_lang", "target_lang", "topic", "difficulty")
        tags = {name: candidate[name] for name in names}
        group_id = text_id(candidate["text"])
        units.append(Unit(group_id, split_of(group_id, recipe), response=record["response"], **tags))
    return units
