"""Which of two answers is better: win rate and length-controlled win rate against stored answers.

The judge sees both answers and names the better one by its identifier. Its preference is continuous, P(m) / (P(m) +
P(M)) from first-token log-probabilities (AlpacaEval 2); tokens that differ only in surrounding spaces count as one. It
is asked in both orders, so that each answer stands once in front as `m` and once behind as `M`, and the two preferences
are averaged: a bias for a position or a letter cancels. Where a judge gives no log-probabilities, or its first token is
neither identifier (a quotation mark), its text is read instead, which is recorded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import baseline_of
from rba_bench.evaluation.metric import ItemScore, metrics_of
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.judge import Judge, JudgeSettings, request_text
from rba_bench.evaluation.scorers.length_control import NONE, LengthControl, choose_form
from rba_bench.evaluation.scorers.scorer import Cost, ScorerOptions
from rba_bench.metrics.bootstrap import bootstrap_mean
from rba_bench.textlm.judging import JudgeModel, Question, Reply

ORDERS = ("baseline_first", "model_first")
LOSS, TIE = 0.0, 0.5


@dataclass(frozen=True)
class PairVote:
    """One vote.

    Attributes:
        first: Preference for the answer in front (`m`), in [0, 1].
        weighted: Whether it comes from log-probabilities; else it is 0 or 1.
        mass: Probability of the two identifiers together; far below 1, the judge did not follow the answer format.
    """

    first: float
    weighted: bool
    mass: float = 1.0


def read_pair_vote(reply: Reply) -> PairVote | None:
    """The vote in a reply, None if neither identifier is among the likeliest tokens, or the text is another."""
    identifiers = (judge_prompts.FIRST, judge_prompts.SECOND)
    if reply.top_logprobs:
        first, second = (reply.token_probability(name) for name in identifiers)
        total = first + second
        if total > 0:
            return PairVote(first / total, True, min(total, 1.0))
    word = judge_prompts.parse_verdict(reply.text, lambda text: text if text in identifiers else None)
    return None if word is None else PairVote(1.0 if word == judge_prompts.FIRST else 0.0, False)


class PairwiseJudge(Judge[PairVote]):
    """Win rate against stored answers: the scorer of a `{name: pairwise, ...}` entry.

    Its options: `lc` (form of length control, or a list of forms, see `length_control`; `none` without it),
    `difficulty`, `gamed`, `instructions` (files of two forms), `against`, `weighted` (False: never ask for
    log-probabilities), and those of `JudgeSettings`.

    Args:
        judge_model: The judge.
        settings: How it is asked.
        cache_folder: Folder of the vote cache.
        length: Length control, None to leave `lc_win_rate` out.
        against: Name of the baseline in the `baselines` of a sample's `extra`; "" for its `baseline`. It is appended
            to the metrics' names: `win_rate_vs_sft`.
    """

    name = "pairwise"
    templates = (judge_prompts.COMPARE_SYSTEM, judge_prompts.COMPARE)
    own_options = ("lc", "difficulty", "gamed", "instructions", "against", "weighted")

    def __init__(
        self,
        judge_model: JudgeModel,
        settings: JudgeSettings,
        cache_folder: Path,
        length: LengthControl | None = None,
        against: str = "",
    ) -> None:
        super().__init__(judge_model, settings, cache_folder)
        suffix = f"_vs_{against}" if against else ""
        self.name = f"pairwise{suffix}"  # one task may have several, each with a name of its own
        self.length, self.against = length, against
        rate, controlled = metrics_of("pairwise")
        self.rate_name, self.lc_name = f"{rate.name}{suffix}", f"{controlled.name}{suffix}"
        way = "judged|both orders|against:" + (against or "stored baseline")
        self.metrics = (replace(rate, name=self.rate_name, signature=f"win_rate|{way}"),)
        if length is not None:
            signature = f"lc_win_rate|{way}|{length.signature}"
            self.metrics = (*self.metrics, replace(controlled, name=self.lc_name, signature=signature))

    @classmethod
    def default_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """One token is enough for an identifier.

        At temperature 1 the log-probabilities are the model's own: some servers divide by the temperature first.
        """
        if config.get("weighted", True):
            return {"max_tokens": 1, "temperature": 1.0, "top_logprobs": 5}
        return {"max_tokens": 1, "temperature": 0.0, "top_logprobs": 0}

    @classmethod
    def read_own_options(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """Length control and the baseline's name."""
        length = LengthControl.from_config(choose_form(config, options, aloud=True), options)
        return {"length": length, "against": str(config.get("against") or "")}

    @classmethod
    def resolve_config(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """With one form of length control, and the paths of its tables."""
        return choose_form(config, options)

    @classmethod
    def metric_names(cls, config: Mapping[str, Any], options: ScorerOptions) -> tuple[str, ...]:
        """Without the length-controlled rate where there is no length control."""
        names = super().metric_names(config, options)
        return names[:1] if choose_form(config, options)["lc"] == NONE else names

    def protocol_options(self) -> dict[str, Any]:
        """Orders, baseline, and form of length control."""
        lc = {"form": NONE} if self.length is None else self.length.facts()
        return {"orders": list(ORDERS), "against": self.against, "lc": lc}

    def score_by_rule(self, sample: Sample) -> ItemScore | None:
        """An item that was not answered is lost, equal answers tie; without a baseline answer there is no score."""
        baseline = baseline_of(sample, self.against)
        if not baseline:
            return ItemScore(failure="no baseline answer to compare with")
        if sample.status == "error":
            return self.by_rule(self.rate_name, LOSS, "not answered: counts as a loss")
        if sample.extracted == baseline:
            return self.by_rule(self.rate_name, TIE, "equal answers: a tie")
        return None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """In both orders."""
        answer, baseline = sample.extracted, baseline_of(sample, self.against)
        pairs = [(baseline, answer), (answer, baseline)]
        return tuple(
            self.settings.question(judge_prompts.compare_prompt(request_text(sample), *pair), vote)
            for vote, pair in enumerate(pairs)
        )

    def read(self, reply: Reply) -> PairVote | None:
        """See `read_pair_vote`."""
        return read_pair_vote(reply)

    def verdict(self, values: Sequence[PairVote], facts: list[dict[str, Any]]) -> ItemScore:
        """Mean preference for the model over both orders."""
        wins = _wins(values)
        votes = [
            {"order": order, "preference": win, **fact}
            for order, win, fact in zip(ORDERS, wins, facts, strict=True)
        ]
        weighted = all(vote.weighted for vote in values)
        judge = {self.name: {"weighted": weighted, "votes": votes}}
        return ItemScore({self.rate_name: sum(wins) / len(wins)}, judge)

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """See `Judge.cost`."""
        self._check_baselines(samples)
        return super().cost(samples)

    def score(self, samples: Sequence[Sample]) -> list[ItemScore]:
        """Preferences, and from all of them together the length-controlled rate."""
        self._check_baselines(samples)
        scores = super().score(samples)
        return scores if self.length is None else self._length_controlled(samples, scores, self.length)

    def _length_controlled(
        self, samples: Sequence[Sample], scores: list[ItemScore], length: LengthControl
    ) -> list[ItemScore]:
        """`scores` with a length-controlled value for every judged item whose difficulty is known."""
        judged = [i for i, score in enumerate(scores) if self.rate_name in score.scores]
        known = length.has_difficulty([samples[i] for i in judged])
        controlled = [i for i, is_known in zip(judged, known, strict=True) if is_known]
        if not controlled:
            return scores
        preferences = [float(scores[i].scores[self.rate_name]) for i in controlled]  # type: ignore[arg-type]
        baselines = [baseline_of(samples[i], self.against) for i in controlled]
        fit = length.fit([samples[i] for i in controlled], preferences, baselines)
        added = list(scores)
        for i, value in zip(controlled, fit.values.tolist(), strict=True):
            added[i] = replace(scores[i], scores={**scores[i].scores, self.lc_name: value})
        n = len(fit.predicted)
        self._report["length_control"] = {
            "value": fit.rate,
            "weights": fit.weights,
            "strength": fit.strength,
            # `lc_standard_error` of the alpaca_eval package: the spread of predictions, no measure of certainty
            "predicted_sem": float(fit.predicted.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0,
            "without_difficulty": len(judged) - len(controlled),
        }
        return added

    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[PairVote]]) -> dict[str, Any]:
        """How far the two orders agree, and how much the judge prefers the answer in front."""
        wins = [_wins(pair) for pair in votes]
        first = [sum(vote.first for vote in pair) / 2 for pair in votes]
        front = bootstrap_mean(first, [sample.cluster for sample in samples])
        bias = {"value": front.value - 0.5, "low": front.low - 0.5, "high": front.high - 0.5, "n": front.n}
        return {
            "order_agreement": float(np.mean([(a - 0.5) * (b - 0.5) > 0 or a == b for a, b in wins])),
            "order_gap": float(np.mean([abs(a - b) for a, b in wins])),
            "order_bias": {**bias, "method": front.method},
            "weighted_share": float(np.mean([vote.weighted for pair in votes for vote in pair])),
            "identifier_mass": float(np.mean([vote.mass for pair in votes for vote in pair])),
        }

    def _check_baselines(self, samples: Sequence[Sample]) -> None:
        with_baseline = [sample for sample in samples if baseline_of(sample, self.against)]
        if samples and not with_baseline:
            raise UserError("no item has a baseline answer to beat: name a file or a run with --baseline")
        if self.length is not None:
            self.length.has_difficulty(with_baseline)


def _wins(votes: Sequence[PairVote]) -> tuple[float, float]:
    """Preference for the model, in the order of ORDERS."""
    return 1.0 - votes[0].first, votes[1].first
