"""An append-only JSON-lines log that a killed run leaves readable and the next run continues.

Rounds of sampling, filtering and answering until there are enough usable instructions.

Both logs are append-only. A round that a killed run left unfinished is sampled again as a whole, in the same
batch and with the same seeds, and only what is missing is appended: the logs end as if nothing had happened.
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
from rba_bench.synthesis.teacher import answer, judge_round, sample_round
from rba_bench.textlm.text_model import TextLM


class Log:
    """Records of a JSON-lines file, each with an `index`, in memory and on disk; a context manager."""

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

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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


def collect(recipe: SynthesisRecipe, teacher: TextLM, out: Path) -> list[Unit]:
    """Sample, filter and answer until `recipe.n_instructions` are usable; resumes from the logs in `out`.

    Raises:
        RbaError: `recipe.candidate_limit` candidates did not yield enough; the message counts the reasons.
    """
    tagger, filters, units = make_tagger(recipe), InstructionFilter(recipe), list[Unit]()
    with (
        Log(out / INSTRUCTIONS) as asked,
        Log(out / ANSWERS) as answered,
        bar("instructions", recipe.n_instructions, unit="usable") as advance,
    ):
        number = 0
        while len(units) < recipe.n_instructions:
            if number * recipe.round_size >= recipe.candidate_limit:
                raise _exhausted(recipe, asked.records, answered.records, len(units))
            candidates = _candidates(recipe, teacher, tagger, filters, asked, number)
            found = _units(recipe, teacher, filters, answered, candidates)
            units += found
            advance(len(found))
            number += 1
    return units


def _candidates(
    recipe: SynthesisRecipe,
    teacher: TextLM,
    tagger: Tagger,
    filters: InstructionFilter,
    log: Log,
    number: int,
) -> list[dict[str, Any]]:
    """Judged candidates of one round, from the log or fresh."""
    first = number * recipe.round_size
    logged = log.records[first : first + recipe.round_size]
    if len(logged) == recipe.round_size:
        filters.restore(logged)
        return logged
    judged = judge_round(sample_round(teacher, recipe, number), tagger, filters)
    log.extend(judged[len(logged) :])
    return judged


def _units(
    recipe: SynthesisRecipe,
    teacher: TextLM,
    filters: InstructionFilter,
    log: Log,
    candidates: list[dict[str, Any]],
) -> list[Unit]:
    """Usable instructions of one round; kept ones without a usable answer give their place back."""
    kept = [candidate for candidate in candidates if candidate["reason"] == KEPT]
    if any(candidate["index"] not in log.by_index for candidate in kept):
        log.extend(
            [record for record in answer(teacher, recipe, kept) if record["index"] not in log.by_index]
        )
    units = []
    for candidate in kept:
        record = log.by_index[candidate["index"]]
        if record["reason"] == KEPT:
            units.append(_unit(recipe, candidate, record["response"]))
        else:
            filters.release(candidate["kind"])
    return units


def _unit(recipe: SynthesisRecipe, candidate: dict[str, Any], response: str) -> Unit:
    # The id comes from the words alone: the same instruction is in the same split of every alignment set.
    group_id = sha256_bytes(normalise(candidate["text"]).encode())[:16]
    validation = stable_seed("split", group_id) / 2**63 < recipe.validation_fraction
    names = ("kind", "prompt", "instruction", "source_lang", "target_lang", "topic", "difficulty")
    tags = {name: candidate[name] for name in names}
    return Unit(group_id=group_id, split="validation" if validation else "train", response=response, **tags)


def _exhausted(
    recipe: SynthesisRecipe, asked: list[dict[str, Any]], answered: list[dict[str, Any]], usable: int
) -> RbaError:
    reasons = Counter(record["reason"] for record in asked if record["reason"] != KEPT)
    reasons.update(f"answer {record['reason']}" for record in answered if record["reason"] != KEPT)
    counts = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
    return RbaError(
        f"{len(asked)} candidates gave {usable} of {recipe.n_instructions} usable instructions ({counts}); "
        "lower n_instructions (or kinds), loosen the filters, or raise max_candidates"
    )
