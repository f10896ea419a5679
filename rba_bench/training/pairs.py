"""From sampled answers to preference pairs.

RBA-Single: the teacher's answer against the model's own sample, both on the sample's clip.
RBA-Group: the best against the worst sample of a voice group by reward, each on its own voice's clip; the samples in
between are dropped (paper section 5.1). A group whose samples are all equally good has no pair and gives only its SFT
term.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rba_bench.audio.alignment_set import AlignmentRow


@dataclass(frozen=True)
class Sample:
    """One answer of the policy: its clip, its tokens (end token included where it came) and its text."""

    row: AlignmentRow
    tokens: tuple[int, ...]
    ended: bool
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer on one side of a pair: tokens to score given the clip of `row`."""

    row: AlignmentRow
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """A preferred and a rejected answer."""

    chosen: Answer
    rejected: Answer


@dataclass(frozen=True)
class Voice:
    """One request of a rollout: a clip, and which sample of it this is (0 unless a group has too few voices)."""

    row: AlignmentRow
    repeat: int


def slots(rows: Sequence[AlignmentRow], size: int, fill: bool) -> list[Voice]:
    """Requests of one group: its first `size` voices; with `fill`, voices repeat until there are `size` requests."""
    used = list(rows[:size])
    count = size if fill else len(used)
    return [Voice(used[index % len(used)], index // len(used)) for index in range(count)]


def single_pair(sample: Sample, teacher: tuple[int, ...]) -> Pair | None:
    """Teacher's answer (token ids) against the sample; None when the sample is the teacher's answer."""
    if sample.tokens == teacher:
        return None
    return Pair(Answer(sample.row, teacher), Answer(sample.row, sample.tokens))


def group_pair(
    samples: Sequence[Sample], rewards: Sequence[float], min_gap: float = 0.0, turn: int = 0
) -> Pair | None:
    """Best against worst sample of one group.

    Args:
        samples: answers of the policy to one instruction.
        rewards: their rewards.
        min_gap: best minus worst must exceed this.
        turn: where the search among equals starts, so that ties do not always favour the first voice.

    Returns:
        The pair, or None without a gap. A sample that never ended cannot be the best one: preferring it would teach
        the model not to stop.
    """
    order = [(index + turn) % len(samples) for index in range(len(samples))]
    finished = [index for index in order if samples[index].ended]
    if not finished:
        return None
    best = max(finished, key=lambda index: rewards[index])
    worst = min(order, key=lambda index: rewards[index])
    if not rewards[best] - rewards[worst] > min_gap:
        return None
    return Pair(_answer(samples[best]), _answer(samples[worst]))


def _answer(sample: Sample) -> Answer:
    return Answer(sample.row, sample.tokens)
