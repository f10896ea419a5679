"""The verdicts of the two judges on a set of answers: read out of the records, or asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.judge import Judge
from rba_bench.leaderboard.judge_transfer.kinds import Kind
from rba_bench.leaderboard.judge_transfer.pair_set import Pair
from rba_bench.leaderboard.judge_transfer.sections import Section

STORED, ASKED = "stored", "asked"


@dataclass(frozen=True)
class Verdict:
    """What a judge thinks of one answer.

    Attributes:
        value: Preference for the model's answer in [0, 1], rating from 1 to 5, or probability in [0, 1] that it is
            right; None where there is no verdict.
        parts: The values of single votes. Of a pair: with the baseline's answer in front, then with the model's; ()
            where the judge was not asked in orders.
        by_rule: Whether no judge was asked, as the answer failed or equals the baseline's.
        source: `stored` in the record, or `asked` now.
        votes: As they are recorded.
        failure: Why there is none.
    """

    value: float | None
    parts: tuple[float, ...] = ()
    by_rule: bool = False
    source: str = STORED
    votes: Any = None
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "value": self.value,
            "parts": list(self.parts),
            "by_rule": self.by_rule,
            "source": self.source,
            "votes": self.votes,
            "failure": self.failure,
        }


def stored_verdict(section: Section, sample: Sample) -> Verdict | None:
    """The verdict that a record holds, None where it holds none."""
    value = sample.scores.get(section.metric)
    if not section.stored or not isinstance(value, int | float):
        return None
    if section.by_rules:
        return Verdict(float(value), votes=sample.judge)
    votes = (sample.judge or {}).get(section.judge.scorer)
    return _of_votes(section.kind, float(value), votes, STORED)


def has_stored_verdict(section: Section, sample: Sample) -> bool:
    """Whether a record holds a verdict on a sample."""
    return stored_verdict(section, sample) is not None


def ask(section: Section, scorer: Judge[Any], pairs: Sequence[Pair]) -> list[Verdict]:
    """The verdicts of a judge now; the votes in its cache are not asked for again.

    Raises:
        RbaError: hardly any reply holds a vote.
    """
    results = []
    for score in scorer.score([pair.sample for pair in pairs]):
        value, votes = score.scores.get(section.metric), (score.judge or {}).get(scorer.name)
        verdict = None
        if isinstance(value, int | float):
            verdict = _of_votes(section.kind, float(value), votes, ASKED)
        results.append(verdict or Verdict(None, source=ASKED, votes=votes, failure=score.failure))
    return results


def _of_votes(kind: Kind, value: float, votes: object, source: str) -> Verdict | None:
    """A verdict with its votes, None if these have another form."""
    if not isinstance(votes, Mapping):
        return None
    if "rule" in votes:
        return Verdict(value, by_rule=True, source=source, votes=dict(votes))
    parts = kind.votes(votes.get("votes"))
    return Verdict(value, parts, source=source, votes=dict(votes)) if parts else None
