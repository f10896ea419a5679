"""From sampled answers to what the losses compare.

RBA-Single: the teacher's answer against the model's own sample, both on the sample's clip.
RBA-Group: the best against the worst sample of a voice group by reward, each on its own voice's clip; the samples in
between are dropped (paper section 5.1). A group whose samples are all equally good has no pair and gives only its SFT
term.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rba_bench.audio.alignment_set import AlignmentRow


@dataclass(frozen=True)
class Voice:
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
class Pair:
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


def slots(
    rows: Sequence[AlignmentRow], size: int, each: int = 1, temperatures: Sequence[float] = (1.0,)
) -> list[Voice]:
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
        Voice(used[index % len(used)], index // len(used), temperatures[index % len(temperatures)])
        for index in range(count)
    ]


def single_pair(sample: Sample, teacher: tuple[int, ...]) -> Pair | None:
    """Teacher's answer (token ids) against the sample; None when the sample is the teacher's answer."""
    if sample.tokens == teacher:
        return None
    return Pair(Answer(sample.row, teacher), answer_of(sample))


def group_pair(
    samples: Sequence[Sample], rewards: Sequence[float], min_gap: float = 0.0, turn: int = 0
) -> Pair | None:
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
    return Pair(answer_of(samples[best]), answer_of(samples[worst]), gap)


def answer_of(sample: Sample) -> Answer:
    """The part of a sample that a loss needs."""
    return Answer(sample.row, sample.tokens, sample.as_text)


def drawn_answer(sample: Sample) -> Answer:
    """The same, to be scored at the temperature that it was drawn at: what a policy gradient needs."""
    return replace(answer_of(sample), temperature=sample.temperature or 1.0)
