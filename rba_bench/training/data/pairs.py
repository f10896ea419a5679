"""Samples of the policy, and what the losses compare: preference pairs, and samples with their advantages.

    SampleRequest -> Sample -> PreferencePair or ScoredSample -> Outcome, one for each group of a step

RBA-Single pairs the teacher's answer with the model's own sample, both on the sample's clip. RBA-Group pairs the best
sample of a voice group with the worst one by reward, each on its own voice's clip; the others are dropped (paper
section 5.1). A group whose samples are all equally good has no pair and contributes only its SFT term.

Pairs can also be given, instead of sampled, by a JSON-lines file: `{"id": ROW OR GROUP, "chosen": TEXT, "rejected":
TEXT, "gap": 1.5}`. `id` names a clip (a row of the alignment set) or an instruction, whose pairs then go to its voices
in turn. `gap` (reward of the chosen answer minus that of the rejected one) is optional; ODPO uses it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_jsonl, sha256_file

Tokens = tuple[int, ...]  # ids of an answer


@dataclass(frozen=True)
class SampleRequest:
    """One request of a rollout.

    Attributes:
        row: the clip.
        repeat: which sample of it this is.
        temperature: 0 asks for the greedy answer.
        as_text: the instruction is given as text instead of audio.
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
        tokens: with the end token, if the answer has one.
        ended: whether the answer has an end token.
        text: without special tokens.
        as_text: the instruction was given as text instead of audio.
        greedy: the most likely answer, not a random one.
        logprobs: of each token at `temperature` under the policy that sampled it; empty where the method needs none.
        temperature: of sampling; 0 for the greedy answer.
    """

    row: AlignmentRow
    tokens: Tokens
    ended: bool
    text: str
    as_text: bool = False
    greedy: bool = False
    logprobs: tuple[float, ...] = ()
    temperature: float = 1.0


@dataclass(frozen=True)
class AnswerTokens:
    """An answer to be scored given the clip of `row`, or its text (`as_text`); temperature as in `Response`."""

    row: AlignmentRow
    tokens: Tokens
    as_text: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class PreferencePair:
    """A preferred and a rejected answer; `gap` is the difference of their rewards, 0 where unknown."""

    chosen: AnswerTokens
    rejected: AnswerTokens
    gap: float = 0.0


@dataclass(frozen=True)
class ScoredSample:
    """A sample with its reward and advantage, for policy gradients.

    Attributes:
        answer: the sample.
        reward: from the reward of the run.
        advantage: computed by the method.
        logprobs: see `Sample`.
    """

    answer: AnswerTokens
    reward: float
    advantage: float
    logprobs: tuple[float, ...] = ()


def sample_requests(
    rows: Sequence[AlignmentRow], size: int, each: int = 1, temperatures: Sequence[float] = (1.0,)
) -> list[SampleRequest]:
    """Requests of one group.

    Args:
        rows: its clips.
        size: least number of requests; with fewer voices, clips are repeated.
        each: least number of requests per clip.
        temperatures: taken in turn.
    """
    used = list(rows[:size])
    count = max(size, each * len(used))
    return [
        SampleRequest(used[index % len(used)], index // len(used), temperatures[index % len(temperatures)])
        for index in range(count)
    ]


def single_pair(sample: Sample, teacher: Tokens) -> PreferencePair | None:
    """Teacher's answer (token ids) against the sample; None when the sample is the teacher's answer."""
    if sample.tokens == teacher:
        return None
    return PreferencePair(AnswerTokens(sample.row, teacher), answer_tokens(sample))


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
    return PreferencePair(answer_tokens(samples[best]), answer_tokens(samples[worst]), gap)


def answer_tokens(sample: Sample, temperature: float = 1.0) -> AnswerTokens:
    """The part of a sample that a loss scores; policy gradients score it at the temperature that it was drawn at."""
    return AnswerTokens(sample.row, sample.tokens, sample.as_text, temperature)


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

        def side(answer: AnswerTokens) -> tuple[str, list[int], bool, float]:
            return answer.row.id, list(answer.tokens), answer.as_text, answer.temperature

        return {
            "items": self.items,
            "pairs": [[side(pair.chosen), side(pair.rejected), pair.gap] for pair in self.pairs],
            "rated": [
                [[side(one.answer), one.reward, one.advantage, list(one.logprobs)] for one in group]
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

        def answer(side: list[Any]) -> AnswerTokens:
            # without a temperature in checkpoints of earlier versions
            return AnswerTokens(rows[side[0]], tuple(side[1]), *side[2:])

        return cls(
            value["items"],
            [PreferencePair(answer(good), answer(bad), gap) for good, bad, gap in value["pairs"]],
            [
                [ScoredSample(answer(side), reward, gain, tuple(logs)) for side, reward, gain, logs in group]
                for group in value["rated"]
            ],
            value["stats"],
            value.get("shown"),
            value.get("group", ""),
            value.get("step"),
            value.get("redrawn"),
        )


@dataclass(frozen=True)
class TextPair:
    """One given pair."""

    chosen: str
    rejected: str
    gap: float = 0.0


@dataclass(frozen=True, eq=False)
class OfflinePairs:
    """Given pairs by clip or instruction.

    Attributes:
        pairs: by row id or group id.
    """

    pairs: Mapping[str, Sequence[TextPair]]

    @classmethod
    def open(cls, path: Path) -> "OfflinePairs":
        """Read a file of pairs.

        Raises:
            UserError: there is none, it is empty, or a line is not a pair.
        """
        if not path.is_file():
            raise UserError(f"no pairs in {path}: pairs_file names a JSON-lines file")
        pairs: dict[str, list[TextPair]] = {}
        for number, line in enumerate(read_jsonl(path), 1):
            texts = ("id", "chosen", "rejected")
            if not isinstance(line, dict) or not all(isinstance(line.get(key), str) for key in texts):
                raise UserError(
                    f"{path}, line {number}: a pair is an object with the texts `id`, `chosen` and `rejected`"
                )
            gap = line.get("gap", 0.0)
            if isinstance(gap, bool) or not isinstance(gap, int | float):
                raise UserError(f"{path}, line {number}: gap must be a number")
            pairs.setdefault(line["id"], []).append(TextPair(line["chosen"], line["rejected"], float(gap)))
        if not pairs:
            raise UserError(f"{path} holds no pair")
        return cls(pairs)

    @staticmethod
    def sha256(path: Path) -> str:
        """Identity of a file of pairs. Raises UserError if there is none."""
        if not path.is_file():
            raise UserError(f"no pairs in {path}: pairs_file names a JSON-lines file")
        return sha256_file(path)

    def check(self, group_ids: Sequence[str]) -> None:
        """Refuse a file whose pairs belong to another alignment set.

        Args:
            group_ids: of the training split.

        Raises:
            UserError: no group has a pair, neither of its own nor of a clip.
        """
        if not any(
            group_id in self.pairs or any(key.startswith(group_id) for key in self.pairs)
            for group_id in group_ids
        ):
            raise UserError(
                "no pair of pairs_file names a row or group of the alignment set: check its `id`s"
            )

    def __call__(self, rows: Sequence[AlignmentRow], tokens: Callable[[str], Tokens]) -> Outcome:
        """All pairs of one group.

        Args:
            rows: its clips.
            tokens: an answer to its tokens, end token included.
        """
        texts = [(row, pair) for row in rows for pair in self.pairs.get(row.id, ())]
        shared = self.pairs.get(rows[0].group_id, ()) if rows else ()
        texts += [(rows[number % len(rows)], pair) for number, pair in enumerate(shared)]
        pairs = [
            PreferencePair(
                AnswerTokens(row, tokens(pair.chosen)), AnswerTokens(row, tokens(pair.rejected)), pair.gap
            )
            for row, pair in texts
        ]
        different = [pair for pair in pairs if pair.chosen.tokens != pair.rejected.tokens]
        return Outcome(len(pairs), different)
