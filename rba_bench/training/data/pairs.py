"""From sampled answers to what the losses compare.

RBA-Single: the teacher's answer against the model's own sample, both on the sample's clip.
RBA-Group: the best against the worst sample of a voice group by reward, each on its own voice's clip; the samples in
between are dropped (paper section 5.1). A group whose samples are all equally good has no pair and gives only its SFT
term.

What the rollout of one group gave: part of a run's state until its step comes, so it can be written down.

Preference pairs that are given instead of sampled.

A JSON line per pair: `{"id": ROW OR GROUP, "chosen": TEXT, "rejected": TEXT, "gap": 1.5}`; `id` names a clip (a row of
the alignment set) or an instruction, whose pair then goes to each of its voices in turn. `gap` (reward of the one less
that of the other) is optional and serves ODPO.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_jsonl, sha256_file


@dataclass(frozen=True)
class SampleRequest:
    """One request of a rollout.

    Attributes:
        row: the clip.
        repeat: which sample of it this is.
        temperature: 0 asks for the greedy answer.
        as_text: the instruction is read instead of heard.
    """

    row: AlignmentRow
    repeat: int
    temperature: float = 1.0
    as_text: bool = False


@dataclass(frozen=True)
class Sample:
    """One answer of the policy.

    Attributes:
        row: its clip.
        tokens: end token included where it came.
        ended: whether it came.
        text: without special tokens.
        as_text: the instruction was read instead of heard.
        greedy: the likeliest answer, not a draw.
        logprobs: of each token at `temperature` under the policy that drew it; empty where nobody asks.
        temperature: that it was drawn at; 0 for the greedy answer.
    """

    row: AlignmentRow
    tokens: tuple[int, ...]
    ended: bool
    text: str
    as_text: bool = False
    greedy: bool = False
    logprobs: tuple[float, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True)
class Answer:
    """An answer to be scored given the clip of `row`, or its transcript; see `Response` for the temperature."""

    row: AlignmentRow
    tokens: tuple[int, ...]
    as_text: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class PreferencePair:
    """A preferred and a rejected answer; `gap`: reward of the one minus that of the other, 0 where unknown."""

    chosen: Answer
    rejected: Answer
    gap: float = 0.0


@dataclass(frozen=True)
class ScoredSample:
    """A sample with its worth, for policy gradients.

    Attributes:
        answer: the sample.
        reward: as the reward function gave it.
        advantage: what the method made of it.
        logprobs: see `Sample`.
    """

    answer: Answer
    reward: float
    advantage: float
    logprobs: tuple[float, ...] = ()


def sample_requests(
    rows: Sequence[AlignmentRow], size: int, each: int = 1, temperatures: Sequence[float] = (1.0,)
) -> list[SampleRequest]:
    """Requests of one group.

    Args:
        rows: its clips.
        size: requests at least; with fewer voices clips are asked again.
        each: requests per clip at least.
        temperatures: taken in turn.
    """
    used = list(rows[:size])
    count = max(size, each * len(used))
    return [
        SampleRequest(used[index % len(used)], index // len(used), temperatures[index % len(temperatures)])
        for index in range(count)
    ]


def single_pair(sample: Sample, teacher: tuple[int, ...]) -> PreferencePair | None:
    """Teacher's answer (token ids) against the sample; None when the sample is the teacher's answer."""
    if sample.tokens == teacher:
        return None
    return PreferencePair(Answer(sample.row, teacher), answer_of(sample))


def group_pair(
    samples: Sequence[Sample], rewards: Sequence[float], min_gap: float = 0.0, turn: int = 0
) -> PreferencePair | None:
    """Best against worst sample of one group.

    Args:
        samples: answers of the policy to one instruction.
        rewards: their rewards; NaN for one that could not be judged, which then takes no part.
        min_gap: best minus worst must exceed this.
        turn: where the search among equals starts, so that ties do not always favour the first voice.

    Returns:
        The pair, or None without a gap. A sample that never ended cannot be the best one: preferring it would teach
        the model not to stop.
    """
    order = [(index + turn) % len(samples) for index in range(len(samples))]
    order = [index for index in order if not math.isnan(rewards[index])]
    finished = [index for index in order if samples[index].ended]
    if not finished:
        return None
    best = max(finished, key=lambda index: rewards[index])
    worst = min(order, key=lambda index: rewards[index])
    gap = rewards[best] - rewards[worst]
    if not gap > min_gap:
        return None
    return PreferencePair(answer_of(samples[best]), answer_of(samples[worst]), gap)


def answer_of(sample: Sample) -> Answer:
    """The part of a sample that a loss needs."""
    return Answer(sample.row, sample.tokens, sample.as_text)


def drawn_answer(sample: Sample) -> Answer:
    """The same, to be scored at the temperature that it was drawn at: what a policy gradient needs."""
    return replace(answer_of(sample), temperature=sample.temperature or 1.0)


@dataclass(frozen=True)
class Outcome:
    """Pairs and rated samples of one group.

    Attributes:
        items: what losses are averaged over: pairs there could have been, groups, or samples.
        pairs: preference pairs; fewer than `items` where samples were equally good.
        rated: samples with their worth, by the group whose members are weighed against each other.
        stats: means over the group's samples: `truncated`, `match` (equal to the teacher's answer), `length` (tokens),
            and with a reward `reward`, `reward_best`, `reward_worst`, `unjudged`.
        shown: for people, of some groups; see `samples`.
        group: the group that the samples are of, where it is not the position's own.
        step: steps the policy had taken that drew them; None where nothing was drawn.
        redrawn: groups drawn before this one, whose samples were all equally good; None where none is ever redrawn.
    """

    items: int
    pairs: list[PreferencePair] = field(default_factory=list)
    rated: list[list[ScoredSample]] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)
    shown: dict[str, Any] | None = None
    group: str = ""
    step: int | None = None
    redrawn: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values, clips by row id."""
        return {
            "items": self.items,
            "pairs": [[_side(pair.chosen), _side(pair.rejected), pair.gap] for pair in self.pairs],
            "rated": [
                [[_side(one.answer), one.reward, one.advantage, list(one.logprobs)] for one in group]
                for group in self.rated
            ],
            "stats": self.stats,
            **({} if self.shown is None else {"shown": self.shown}),
            "group": self.group,
            "step": self.step,
            "redrawn": self.redrawn,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], rows: dict[str, AlignmentRow]) -> "Outcome":
        """The inverse of `to_json`."""

        def answer(side: list[Any]) -> Answer:  # without a temperature in checkpoints of earlier versions
            return Answer(rows[side[0]], tuple(side[1]), *side[2:])

        pairs = [
            PreferencePair(answer(chosen), answer(rejected), gap) for chosen, rejected, gap in value["pairs"]
        ]
        rated = [
            [ScoredSample(answer(side), reward, worth, tuple(odds)) for side, reward, worth, odds in group]
            for group in value["rated"]
        ]
        return cls(
            value["items"],
            pairs,
            rated,
            value["stats"],
            value.get("shown"),
            value.get("group", ""),
            value.get("step"),
            value.get("redrawn"),
        )


def _side(answer: Answer) -> tuple[str, list[int], bool, float]:
    return answer.row.id, list(answer.tokens), answer.as_text, answer.temperature


@dataclass(frozen=True)
class TextPair:
    """One given pair."""

    chosen: str
    rejected: str
    gap: float = 0.0


class OfflinePairs:
    """Given pairs by clip or instruction.

    Args:
        pairs: by row id or group id.
    """

    def __init__(self, pairs: Mapping[str, Sequence[TextPair]]) -> None:
        self.pairs = pairs

    @classmethod
    def open(cls, path: Path) -> "OfflinePairs":
        """Read a file of pairs.

        Raises:
            UserError: there is none, it is empty, or a line is not a pair.
        """
        if not path.is_file():
            raise UserError(f"no pairs in {path}: pairs_file names a JSON-lines file")
        found: dict[str, list[TextPair]] = {}
        for number, line in enumerate(read_jsonl(path), 1):
            name, pair = _pair(line, f"{path}, line {number}")
            found.setdefault(name, []).append(pair)
        if not found:
            raise UserError(f"{path} holds no pair")
        return cls(found)

    @staticmethod
    def sha256(path: Path) -> str:
        """Identity of a file of pairs. Raises UserError if there is none."""
        if not path.is_file():
            raise UserError(f"no pairs in {path}: pairs_file names a JSON-lines file")
        return sha256_file(path)

    def check(self, known: Sequence[str]) -> None:
        """Refuse groups without a pair.

        Args:
            known: group ids of the training split.

        Raises:
            UserError: none of them has a pair of its own or a clip with one.
        """
        if not any(name in self.pairs or any(key.startswith(name) for key in self.pairs) for name in known):
            raise UserError(
                "no pair of pairs_file names a row or group of the alignment set: check its `id`s"
            )

    def __call__(self, rows: Sequence[AlignmentRow], tokens: Callable[[str], tuple[int, ...]]) -> Outcome:
        """All pairs of one group.

        Args:
            rows: its clips.
            tokens: an answer to its tokens, end token included.
        """
        given = [(row, pair) for row in rows for pair in self.pairs.get(row.id, ())]
        shared = self.pairs.get(rows[0].group_id, ()) if rows else ()
        given += [(rows[number % len(rows)], pair) for number, pair in enumerate(shared)]
        made = [
            PreferencePair(Answer(row, tokens(pair.chosen)), Answer(row, tokens(pair.rejected)), pair.gap)
            for row, pair in given
        ]
        different = [pair for pair in made if pair.chosen.tokens != pair.rejected.tokens]
        return Outcome(len(made), different)


def _pair(line: Any, place: str) -> tuple[str, TextPair]:
    if not isinstance(line, dict) or not all(
        isinstance(line.get(k), str) for k in ("id", "chosen", "rejected")
    ):
        raise UserError(f"{place}: a pair is an object with the texts `id`, `chosen` and `rejected`")
    gap = line.get("gap", 0.0)
    if isinstance(gap, bool) or not isinstance(gap, int | float):
        raise UserError(f"{place}: gap must be a number")
    return line["id"], TextPair(line["chosen"], line["rejected"], float(gap))
