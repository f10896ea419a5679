"""A fixed set of answers, each alone or against a baseline's: the same items for every model, chosen by a seed.

The set depends on the records and the seed, not on the order of the records or on what the new judge says. Items come
in an order drawn from the seed, one of each cluster before a second one (an instruction in several voices counts once),
and those that every model can be judged on first.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import baseline_of
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.judge import request_text
from rba_bench.files import canonical_json, sha256_bytes, sha256_json
from rba_bench.leaderboard.judge_transfer.sections import Section
from rba_bench.seeding import stable_seed


@dataclass(frozen=True)
class Pair:
    """One answer of a model, and what it is compared with.

    Attributes:
        model: Position of the run in its section.
        label: Of the model.
        run_id: Of the run.
        sample: The item with the answer.
        baseline: The answer to beat; None where an answer is judged alone.
    """

    model: int
    label: str
    run_id: str
    sample: Sample
    baseline: str | None

    def facts(self) -> dict[str, Any]:
        """What makes the pair, by hash: anybody with the records can check that it is this one."""
        texts = {"request": request_text(self.sample), "answer": self.sample.extracted}
        if self.baseline is not None:
            texts["baseline"] = self.baseline
        elif self.sample.references:
            texts["references"] = canonical_json(self.sample.references).decode()
        return {
            "model": self.label,
            "run_id": self.run_id,
            "item": self.sample.id,
            "doc_id": self.sample.doc_id,
            **{f"{name}_sha256": sha256_bytes(text.encode()) for name, text in texts.items()},
        }


def set_sha256(pairs: Sequence[Pair]) -> str:
    """Hash of a set of pairs."""
    return sha256_json([pair.facts() for pair in pairs])


def choose_pairs(section: Section, n: int, seed: int, usable: Callable[[Sample], bool]) -> list[Pair]:
    """At most `n` answers: as many items as fit, each with the answers of all models.

    Args:
        section: The runs.
        n: Most answers.
        seed: Random seed of the choice.
        usable: Whether a sample can have a verdict of the first judge.

    Raises:
        UserError: fewer pairs are asked for than there are models, or no answer can be judged.
    """
    runs = section.group.runs
    if n < len(runs):
        raise UserError(
            f"--pairs {n} is less than one item for each of the {len(runs)} runs of {section.group.task}: "
            f"use {len(runs)} or more"
        )
    answers: dict[int, list[tuple[int, Sample]]] = {}
    for model, run in enumerate(runs):
        for sample in run.samples:
            if section.can_be_judged(sample) and usable(sample):
                answers.setdefault(sample.doc_id, []).append((model, sample))
    if not answers:
        raise UserError(
            f"{section.group.task}: no answer has a verdict of {section.judge.label}; --ask-a asks for some"
        )
    items = _in_seeded_order(section, answers, seed)[: n // len(runs)]
    labels = section.group.labels

    def pair(model: int, sample: Sample) -> Pair:
        baseline = baseline_of(sample, section.against) if section.kind.in_pairs else None
        return Pair(model, labels[model], runs[model].record.run_id, sample, baseline)

    return [pair(model, sample) for item in sorted(items) for model, sample in answers[item]]


def _in_seeded_order(section: Section, answers: dict[int, list[tuple[int, Sample]]], seed: int) -> list[int]:
    """Items: complete ones first, then by their place within the cluster, then as drawn."""
    task, n_models = section.group.task, len(section.group.runs)
    drawn = sorted(
        answers, key=lambda item: (stable_seed("judge transfer", seed, task, answers[item][0][1].id), item)
    )
    of_cluster: Counter[str] = Counter()
    places = {}
    for item in drawn:
        cluster = answers[item][0][1].cluster
        places[item] = of_cluster[cluster]
        of_cluster[cluster] += 1
    return sorted(drawn, key=lambda item: (n_models - len(answers[item]), places[item]))
