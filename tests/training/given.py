"""Steps whose log-probabilities are given: what a method makes of numbers, without a model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import AnswerTokens, PreferencePair, ScoredSample
from rba_bench.training.methods.method import Method, Step, StepTargets
from rba_bench.training.model.policy import Scores


def answers(row: AlignmentRow, mask: Tensor, end: int = 4) -> list[AnswerTokens]:
    """Different answers with as many tokens as `mask` [N, L] says, each with its end token."""
    lengths = mask.sum(-1).tolist()
    return [
        AnswerTokens(row, (*([10 + number] * (length - 1)), end)) for number, length in enumerate(lengths)
    ]


def step_of(method: Method, batch: StepBatch, logprobs: Tensor, mask: Tensor, **targets: Any) -> Step:
    """A step of one batch; `divergence` is what the policy's forward pass would have measured."""
    none = torch.zeros(0)
    divergence = targets.pop("divergence", none)
    scores = Scores(logprobs, mask, divergence, none, none, none, targets.pop("entropy", none))
    counts = method.counts(batch, None)  # type: ignore[arg-type]  # no method here asks the tools
    return Step(batch, scores, StepTargets(**targets), counts)


def pairs_of(
    row: AlignmentRow, mask: Tensor, gaps: Sequence[float] | None = None, teacher: Sequence[int] = ()
) -> StepBatch:
    """Pairs of 2P answers [2P, L], the chosen ones first; answers at `teacher` are the teacher's, too."""
    said = answers(row, mask)
    half = len(said) // 2
    batch = StepBatch([(row, False)], [Response(0, one.tokens) for one in said], list(teacher))
    batch.chosen, batch.rejected = list(range(half)), list(range(half, 2 * half))
    batch.pairs = [
        PreferencePair(chosen, rejected, gap)
        for chosen, rejected, gap in zip(said[:half], said[half:], gaps or [0.0] * half, strict=True)
    ]
    batch.items = half
    return batch


def rated_of(
    row: AlignmentRow, mask: Tensor, rewards: Sequence[float], advantages: Sequence[float], old: Tensor
) -> StepBatch:
    """Judged samples [N, L] with the log-probabilities `old` that they were drawn with."""
    said = answers(row, mask)
    batch = StepBatch([(row, False)], [Response(0, one.tokens) for one in said])
    batch.rated, batch.groups = list(range(len(said))), [0] * len(said)
    batch.ratings = [
        ScoredSample(answer, reward, advantage, tuple(values[: len(answer.tokens)].tolist()))
        for answer, reward, advantage, values in zip(said, rewards, advantages, old, strict=True)
    ]
    return batch
