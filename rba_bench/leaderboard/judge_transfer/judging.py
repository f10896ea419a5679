"""The verdicts of the two judges on a set of pairs: read out of the records, or asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.pairwise import ORDERS, PairwiseJudge
from rba_bench.leaderboard.judge_transfer.pair_set import Pair
from rba_bench.leaderboard.judge_transfer.sections import Section

STORED, ASKED = "stored", "asked"


@dataclass(frozen=True)
class Verdict:
    """What a judge thinks of one pair.

    Attributes:
        preference: For the model's answer, in [0, 1]; None where there is no verdict.
        orders: The same with the baseline's answer in front, then with the model's; () where the judge was not asked
            in orders.
        by_rule: Whether no judge was asked, as the answer failed or equals the baseline's.
        source: `stored` in the record, or `asked` now.
        votes: As they are recorded.
        failure: Why there is none.
    """

    preference: float | None
    orders: tuple[float, ...] = ()
    by_rule: bool = False
    source: str = STORED
    votes: Any = None
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "preference": self.preference,
            "orders": dict(zip(ORDERS, self.orders, strict=True)) if self.orders else None,
            "by_rule": self.by_rule,
            "source": self.source,
            "votes": self.votes,
            "failure": self.failure,
        }


def stored_verdict(section: Section, sample: Sample) -> Verdict | None:
    """The verdict that a record holds, None where it holds none."""
    preference = sample.scores.get(section.metric)
    if not section.stored or not isinstance(preference, int | float):
        return None
    if section.by_rules:
        return Verdict(float(preference), votes=sample.judge)
    votes = (sample.judge or {}).get(section.judge.scorer)
    return _of_votes(float(preference), votes, STORED)


def has_stored_verdict(section: Section, sample: Sample) -> bool:
    """Whether a record holds a verdict on a sample."""
    return stored_verdict(section, sample) is not None


def ask(scorer: PairwiseJudge, pairs: Sequence[Pair]) -> list[Verdict]:
    """The verdicts of a judge now, in both orders; those in its cache are not asked for again.

    Raises:
        RbaError: hardly any reply holds a vote.
    """
    results = []
    for score in scorer.score([pair.sample for pair in pairs]):
        preference = score.scores.get(scorer.rate_name)
        votes = (score.judge or {}).get(scorer.name)
        if isinstance(preference, int | float):
            results.append(
                _of_votes(float(preference), votes, ASKED) or Verdict(float(preference), source=ASKED)
            )
        else:
            results.append(Verdict(None, source=ASKED, votes=votes, failure=score.failure))
    return results


def _of_votes(preference: float, votes: object, source: str) -> Verdict | None:
    """A verdict with its orders, None if the votes have another form."""
    if not isinstance(votes, Mapping):
        return None
    if "rule" in votes:
        return Verdict(preference, by_rule=True, source=source, votes=dict(votes))
    listed = votes.get("votes")
    if not isinstance(listed, list) or not all(isinstance(vote, Mapping) for vote in listed):
        return None
    by_order = {vote.get("order"): vote.get("preference") for vote in listed}
    orders = tuple(float(value) for order in ORDERS if isinstance(value := by_order.get(order), int | float))
    return (
        Verdict(preference, orders, source=source, votes=dict(votes)) if len(orders) == len(ORDERS) else None
    )
