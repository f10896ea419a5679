"""Which of two answers is better: win rate and length-controlled win rate against stored answers.

The judge sees both answers and names the better one by its identifier. Its preference is continuous, P(m) / (P(m) +
P(M)) from the odds of its first token (AlpacaEval 2), where tokens that differ only in surrounding spaces are one. It
is asked in both orders, each answer once as `m` in front and once as `M` behind, and the two preferences are averaged:
a liking for a place or a letter cancels. A judge without odds, or whose first token is none of the two (a quotation
mark), is taken at its word, which is recorded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import baseline_of
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.judge import (
    Judge,
    Settings,
    asker_of,
    check_keys,
    request,
    ruled_addition,
    unanswered,
)
from rba_bench.evaluation.scorers.length_control import NONE, LengthControl, settled
from rba_bench.evaluation.scorers.scorer import Addition, Cost, FinishOptions
from rba_bench.metrics.bootstrap import bootstrap_mean
from rba_bench.textlm.judging import JudgeModel, Question, Reply

ORDERS = ("baseline_first", "model_first")
LOSS, TIE = 0.0, 0.5
# One token is enough for an identifier. At temperature 1 the odds are the model's own: some servers report them
# after dividing by the temperature.
DEFAULTS = {"max_tokens": 1, "temperature": 1.0, "top_logprobs": 5}


@dataclass(frozen=True)
class Choice:
    """One vote.

    Attributes:
        first: Preference for the answer in front (`m`), in [0, 1].
        weighted: Whether it comes from odds; else it is 0 or 1.
        mass: Probability of the two identifiers together; far below 1, the judge did not take the form of the answer.
    """

    first: float
    weighted: bool
    mass: float = 1.0


def read_choice(reply: Reply) -> Choice | None:
    """The vote in a reply, None if neither identifier is among the likeliest tokens, or the text is another."""
    if reply.top_logprobs:
        first, second = (
            reply.token_probability(name) for name in (judge_prompts.FIRST, judge_prompts.SECOND)
        )
        total = first + second
        if total > 0:
            return Choice(first / total, True, min(total, 1.0))
    word = judge_prompts.stated(
        reply.text, lambda said: said if said in (judge_prompts.FIRST, judge_prompts.SECOND) else None
    )
    return None if word is None else Choice(1.0 if word == judge_prompts.FIRST else 0.0, False)


class PairwiseJudge(Judge[Choice]):
    """Win rate against stored answers.

    Args:
        asker: The judge.
        settings: How it is asked.
        cache_folder: Where votes are kept.
        length: Length control, None to leave `lc_win_rate` out.
        against: Name of the baseline in the `baselines` of a sample's `extra`; "" for its `baseline`. It is appended
            to the metrics' names: `win_rate_vs_sft`.
    """

    templates = (judge_prompts.COMPARE_SYSTEM, judge_prompts.COMPARE)

    def __init__(
        self,
        asker: JudgeModel,
        settings: Settings,
        cache_folder: Path,
        length: LengthControl | None = None,
        against: str = "",
    ) -> None:
        super().__init__(asker, settings, cache_folder)
        suffix = f"_vs_{against}" if against else ""
        self.name = f"pairwise{suffix}"
        self.length, self.against = length, against
        self.rate_name, self.lc_name = f"win_rate{suffix}", f"lc_win_rate{suffix}"
        said = "judged|both orders|against:" + (against or "stored baseline")
        self.metrics = (Metric(self.rate_name, signature=f"win_rate|{said}"),)
        if length is not None:
            lc = Metric(self.lc_name, signature=f"lc_win_rate|{said}|{length.signature}")
            self.metrics = (*self.metrics, lc)

    def options(self) -> dict[str, Any]:
        """Orders, baseline, and form of length control."""
        lc = {"form": NONE} if self.length is None else self.length.facts()
        return {"orders": list(ORDERS), "against": self.against, "lc": lc}

    def baseline(self, sample: Sample) -> str:
        """The answer to beat. Raises UserError if the test set has none of this name."""
        return baseline_of(sample, self.against)

    def ruled(self, sample: Sample) -> Addition | None:
        """An item that was not answered is lost, equal answers tie; with nothing to beat there is no score."""
        if not self.baseline(sample):
            return Addition(failed="no baseline answer to compare with")
        if unanswered(sample):
            return ruled_addition(self.name, {self.rate_name: LOSS}, "not answered: counts as a loss")
        if sample.extracted == self.baseline(sample):
            return ruled_addition(self.name, {self.rate_name: TIE}, "equal answers: a tie")
        return None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """In both orders."""
        answer, baseline = sample.extracted, self.baseline(sample)
        pairs = [(baseline, answer), (answer, baseline)]
        return tuple(
            self.settings.question(judge_prompts.compare(request(sample), *pair), vote)
            for vote, pair in enumerate(pairs)
        )

    def read(self, reply: Reply) -> Choice | None:
        """See `read_choice`."""
        return read_choice(reply)

    def verdict(self, values: Sequence[Choice], facts: list[dict[str, Any]]) -> Addition:
        """Mean preference for the model over both orders."""
        wins = _wins(values)
        votes = [
            {"order": order, "preference": win, **fact}
            for order, win, fact in zip(ORDERS, wins, facts, strict=True)
        ]
        weighted = all(choice.weighted for choice in values)
        judge = {self.name: {"weighted": weighted, "votes": votes}}
        return Addition({self.rate_name: sum(wins) / len(wins)}, judge)

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """See `Judge.cost`."""
        self._check(samples)
        return super().cost(samples)

    def finish(self, samples: Sequence[Sample]) -> list[Addition]:
        """Preferences, and from all of them together the length-controlled rate."""
        self._check(samples)
        additions = super().finish(samples)
        return additions if self.length is None else self._length_controlled(samples, additions, self.length)

    def _length_controlled(
        self, samples: Sequence[Sample], additions: list[Addition], length: LengthControl
    ) -> list[Addition]:
        """`additions` with a length-controlled value for every judged item that can be controlled."""
        judged = [i for i, addition in enumerate(additions) if self.rate_name in addition.scores]
        known = length.known([samples[i] for i in judged])
        scored = [i for i, is_known in zip(judged, known, strict=True) if is_known]
        if not scored:
            return additions
        fit = length.fit(
            [samples[i] for i in scored],
            [additions[i].scores[self.rate_name] for i in scored],
            [self.baseline(samples[i]) for i in scored],
        )
        controlled = list(additions)
        for i, value in zip(scored, fit.values.tolist(), strict=True):
            controlled[i] = replace(additions[i], scores={**additions[i].scores, self.lc_name: value})
        fitted = {"value": fit.rate, "weights": fit.weights, "strength": fit.strength}
        self._report["length_control"] = {
            **fitted,
            "predicted_sem": _sem(fit.predicted),
            "without_difficulty": len(judged) - len(scored),
        }
        return controlled

    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[Choice]]) -> dict[str, Any]:
        """How far the two orders agree, and how much the judge likes the answer in front."""
        wins = [_wins(pair) for pair in votes]
        front = bootstrap_mean(
            [sum(choice.first for choice in pair) / 2 for pair in votes], [s.cluster for s in samples]
        )
        bias = {"value": front.value - 0.5, "low": front.low - 0.5, "high": front.high - 0.5, "n": front.n}
        return {
            "order_agreement": float(np.mean([(a - 0.5) * (b - 0.5) > 0 or a == b for a, b in wins])),
            "order_gap": float(np.mean([abs(a - b) for a, b in wins])),
            "order_bias": {**bias, "method": front.method},
            "weighted_share": float(np.mean([choice.weighted for pair in votes for choice in pair])),
            "identifier_mass": float(np.mean([choice.mass for pair in votes for choice in pair])),
        }

    def _check(self, samples: Sequence[Sample]) -> None:
        if samples and not any(self.baseline(sample) for sample in samples):
            raise UserError("no item has a baseline answer to beat: name a file or a run with --baseline")
        if self.length is not None:
            self.length.known([sample for sample in samples if self.baseline(sample)])


def make(config: Mapping[str, Any], options: FinishOptions, asker: JudgeModel | None = None) -> PairwiseJudge:
    """The judge of a `{name: pairwise, ...}` entry.

    Args:
        config: `lc` (form of length control, or a list of forms, see `length`; `none` without it), `difficulty`,
            `gamed`, `instructions` (files of two forms), `against`, `weighted` (False: never ask for odds), and
            `Settings`.
        options: What the user chose.
        asker: The judge; None to load the one that is named.
    """
    check_keys("pairwise", config, ("lc", "difficulty", "gamed", "instructions", "against", "weighted"))
    defaults = (
        DEFAULTS if config.get("weighted", True) else {**DEFAULTS, "temperature": 0.0, "top_logprobs": 0}
    )
    return PairwiseJudge(
        asker or asker_of(config, options),
        Settings.of(config, **defaults),
        options.cache,
        LengthControl.of(settled(config, options, aloud=True), options),
        str(config.get("against") or ""),
    )


def _wins(choices: Sequence[Choice]) -> tuple[float, float]:
    """Preference for the model, in the order of ORDERS."""
    return 1.0 - choices[0].first, choices[1].first


def _sem(values: np.ndarray) -> float:
    """The `lc_standard_error` of the alpaca_eval package: the spread of predictions, no measure of certainty."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
