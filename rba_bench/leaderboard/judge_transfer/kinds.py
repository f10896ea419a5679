"""The kinds of verdicts: a preference between two answers, a rating, right or wrong, reasoning or none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rba_bench.evaluation.lengths import VERSUS, baseline_of
from rba_bench.evaluation.records import UNSCORED, Sample
from rba_bench.evaluation.scorers.judge import Judge, request_text
from rba_bench.evaluation.scorers.pairwise import ORDERS, PairwiseJudge
from rba_bench.evaluation.scorers.rating import RatingJudge
from rba_bench.evaluation.scorers.reasoning import ReasoningJudge
from rba_bench.evaluation.scorers.yesno import YesNoJudge
from rba_bench.metrics.ifeval import if_rate


@dataclass(frozen=True)
class Kind:
    """One kind of verdict.

    Attributes:
        scorer: Who asks for it.
        metric: What it gives, without the name of a baseline.
        vote: Key of the value in a recorded vote.
        title: Of a column with scores.
        plural: Of the scores, in a sentence.
        item: What is judged, in a sentence.
        names: Of a verdict below, at and above the middle.
        low: Worst verdict.
        high: Best one.
        factor: From a score to what tables show.
        digits: Behind the point in tables.
        graded: Whether it is a grade, so that the size of a disagreement counts, and not the side of the middle.
    """

    scorer: type[Judge[Any]]
    metric: str
    vote: str
    title: str
    plural: str
    item: str = "answer"
    names: tuple[str, str, str] = ("wrong", "undecided", "right")
    low: float = 0.0
    high: float = 1.0
    factor: float = 100.0
    digits: int = 1
    graded: bool = False

    @property
    def in_pairs(self) -> bool:
        """Whether an answer is compared with a baseline's, in both orders."""
        return self is PAIRS

    @property
    def span(self) -> float:
        """From the worst verdict to the best."""
        return self.high - self.low

    def part(self, value: float) -> float:
        """A verdict as a share of the way from the worst to the best, in [0, 1]."""
        return (value - self.low) / self.span

    def votes(self, listed: object) -> tuple[float, ...]:
        """Values of recorded votes; () if one has none, or, of a pair, if not both orders are there."""
        if not isinstance(listed, list) or not all(isinstance(vote, Mapping) for vote in listed):
            return ()
        if self.in_pairs:
            by_order = {vote.get("order"): vote.get(self.vote) for vote in listed}
            values = [by_order.get(order) for order in ORDERS]
        else:
            values = [vote.get(self.vote) for vote in listed]
        numbers = tuple(float(value) for value in values if isinstance(value, int | float))
        return numbers if len(numbers) == len(values) else ()

    def options(self, description: Mapping[str, Any], against: str) -> dict[str, Any]:
        """Options of the scorer beside those of every judge, as a protocol describes them."""
        if self.in_pairs:
            return {"lc": "none", **({"against": against} if against else {})}
        has_votes = "votes" in self.scorer.own_options and "votes" in description
        return {"votes": description["votes"]} if has_votes else {}

    def can_judge(self, sample: Sample, against: str) -> bool:
        """Whether an item is one that a judge scores, and has what the judge is shown."""
        if sample.status in UNSCORED:
            return False
        if self.in_pairs:
            return bool(baseline_of(sample, against))
        if not request_text(sample) or (self is RIGHT and not sample.references):
            return False
        return self is not REASONING or if_rate(json.loads(sample.extra), sample.extracted) is None


PAIRS = Kind(
    PairwiseJudge, "win_rate", "preference", "win rate %", "win rates", "pair", ("loss", "tie", "win")
)
RATING = Kind(
    RatingJudge, "rating", "rating", "rating", "ratings", low=1.0, high=5.0, factor=1.0, digits=2, graded=True
)
RIGHT = Kind(YesNoJudge, "judge_accuracy", "yes", "judged accuracy %", "judged accuracies")
REASONING = Kind(
    ReasoningJudge, "if_rate_with_cot", "yes", "answers with reasoning %", "shares of answers with reasoning",
    names=("none", "undecided", "reasoning"),
)  # fmt: skip
KINDS = {kind.scorer.name: kind for kind in (PAIRS, RATING, RIGHT, REASONING)}
RULES_GIVE = PAIRS  # rules in the package compare with a baseline; their ratings are on a scale of their own


def kind_of(metric: str, scorer: str) -> Kind | None:
    """The kind of a metric that an entry of `metadata.finish` gives; None if it only follows from another metric."""
    kind = KINDS.get(scorer.partition(VERSUS)[0])
    return kind if kind is not None and metric.partition(VERSUS)[0] == kind.metric else None
