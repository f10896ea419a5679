"""TARS's two reward parts: how close the way of an answer to speech is to that of a correct answer to the transcript.

Trajectory Alignment for Reasoning in Speech (arXiv 2601.05543; `trainer/grpo_reward_funcs.py` of AmphionTeam/TARS):

    representation   mean over the decoder's layers of the cosine of the two answers' mean states
    behaviour        cosine of the sentence embeddings of the two texts (Qwen3-Embedding-0.6B)

Both are added to what the spoken answer is rewarded for; text answers are a moving reference and get nothing (the
release gives all of them one and the same number, which the mean of a modality takes away). The k-th spoken answer of a
group is compared with correct text answer k modulo their number, and gets 0 where the group has none. States are those
at the answer's tokens, the last one (the end of turn) left out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rba_bench.metrics.bleu import sentence_chrf
from rba_bench.training.data.clips import ClipStore
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import Sample
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.training_recipe import TarsOptions

Likeness = Callable[[Sequence[str], Sequence[str]], list[float]]  # two columns of texts to one number a row
AT_ONCE = 16  # pairs of answers whose states are computed together


@dataclass(frozen=True)
class Extra:
    """What is added to the reward of one spoken sample, before weighing."""

    representation: float = 0.0
    behavior: float = 0.0


def match_partners(
    samples: Sequence[Sample], rewards: Sequence[float], correct: float
) -> list[tuple[int, int]]:
    """Which correct text answer each spoken one of a group is compared with, as (spoken, text).

    Args:
        samples: of one group.
        rewards: of the samples; NaN is not correct.
        correct: reward from which a text answer is.
    """
    texts = [i for i, sample in enumerate(samples) if sample.as_text and rewards[i] >= correct]
    spoken = [i for i, sample in enumerate(samples) if not sample.as_text and not sample.greedy]
    return [(index, texts[number % len(texts)]) for number, index in enumerate(spoken)] if texts else []


def layer_likeness(left: Tensor, right: Tensor) -> Tensor:
    """[N] mean over layers of the cosines of states [N, K, H]; 0 for a layer where one has no length."""
    return torch.nn.functional.cosine_similarity(left.double(), right.double(), dim=-1).mean(-1)


class Trajectories:
    """Computes the two parts for groups of samples.

    Args:
        options: `tars` of the recipe.
        policy: that drew the samples.
        store: clips of the samples.
        likeness: of texts; None where behaviour does not count.
    """

    def __init__(
        self, options: TarsOptions, policy: SpeechPolicy, store: ClipStore, likeness: Likeness | None
    ) -> None:
        self.options = options
        self.policy = policy
        self.store = store
        self.likeness = likeness

    def __call__(
        self, samples: Sequence[Sample], rewards: Sequence[float], bounds: Sequence[int]
    ) -> dict[int, Extra]:
        """The parts of each spoken sample; those without a correct partner get zeros.

        Args:
            samples: of all groups.
            rewards: of the samples.
            bounds: where groups begin, and the end.
        """
        extras = {index: Extra() for index, sample in enumerate(samples) if not sample.as_text}
        pairs: list[tuple[int, int]] = []
        for start, stop in zip(bounds, bounds[1:], strict=False):
            partners = match_partners(samples[start:stop], rewards[start:stop], self.options.correct)
            pairs += [(start + spoken, start + text) for spoken, text in partners]
        states, texts = self._states(samples, pairs), [0.0] * len(pairs)
        if self.likeness is not None and pairs and self.options.behavior:
            columns = zip(*((samples[i].text, samples[j].text) for i, j in pairs), strict=True)
            texts = self.likeness(*columns)
        for (spoken, _), inner, outer in zip(pairs, states, texts, strict=True):
            extras[spoken] = Extra(inner, outer)
        return extras

    def worth(self, extra: Extra) -> float:
        """What is added to a reward."""
        options = self.options
        return options.representation * extra.representation + options.behavior * extra.behavior

    def _states(self, samples: Sequence[Sample], pairs: Sequence[tuple[int, int]]) -> list[float]:
        if not self.options.representation:
            return [0.0] * len(pairs)
        training = self.policy.training
        self.policy.eval()
        cosines: list[float] = []
        for start in range(0, len(pairs), AT_ONCE):
            part = pairs[start : start + AT_ONCE]
            sides = [samples[index] for column in zip(*part, strict=True) for index in column]
            clips, places = self.store.distinct_inputs(sides)
            responses = [Response(clip, sample.tokens) for clip, sample in zip(places, sides, strict=True)]
            means = self.policy.layer_means(clips, responses)
            cosines += layer_likeness(means[: len(part)], means[len(part) :]).tolist()
        self.policy.train(training)
        return cosines


def chrf(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """chrF++ of each text against the other, 0 to 1: a likeness that needs no model."""
    return [
        sentence_chrf(text, other) / 100 if text.strip() and other.strip() else 0.0
        for text, other in zip(texts, others, strict=True)
    ]


def mean_extras(extras: Sequence[Extra]) -> dict[str, float]:
    """Means for the log."""
    if not extras:
        return {}
    return {
        "representation": math.fsum(extra.representation for extra in extras) / len(extras),
        "behavior": math.fsum(extra.behavior for extra in extras) / len(extras),
    }
