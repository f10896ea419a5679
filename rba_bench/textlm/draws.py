"""Counter-based sampling: a token depends on its distribution, its row's seed and its place in the answer alone.

`torch.multinomial` draws for a whole batch from one stream, so another batch size, order or resumption gives other
answers. Here the random words of a token are a hash of (seed, place), computed where the logits are, without a state:
SplitMix64's finaliser (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195; constants by Stafford, variant 13).

A word becomes a token by the inverse of the cumulative distribution, down a tree whose nodes have at most 16 children:
the vocabulary's weights are summed in sixteens, the sums again, and each level is decided by a word of its own, hashed
from the token's. Two things follow. No token is too rare: a weight is only compared with the sum of its fifteen
neighbours, in float64, whereas one cumulative sum over 151,936 tokens in float32 loses all below 2^-24. And rounding
hardly matters: logits differ in their last bits between batch sizes, which moves every border behind a likely token;
with one sum over the vocabulary that changes one token in a thousand, with the tree one in a hundred thousand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

FAN = 16  # children of a node; five levels hold a vocabulary of a million
GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, as int64: SplitMix64's step
FIRST, SECOND = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # multipliers of Stafford's variant 13, as int64
LEVEL_STEP = 0x5851F42D4C957F2D  # another odd step: words of one token for the levels of the tree
TRIES = 8  # draws from the whole distribution before the nucleus is cut out; one is outside with at most 1 - top_p
CANDIDATES = 256  # likeliest tokens among which a nucleus is looked for before the whole vocabulary is sorted


def random_words(seeds: Tensor, places: Tensor) -> Tensor:
    """A 64-bit word for each (seed, place), the same bits on every device.

    Args:
        seeds: [B] int64.
        places: [B] int64, of the tokens in their answers, from 0.

    Returns:
        [B] int64.
    """
    return _mix(_mix(seeds) + (places + 1) * GOLDEN)


def uniforms(words: Tensor) -> Tensor:
    """Words to float64 between 0 and 1, both excluded; multiples of 2^-53."""
    return ((words >> 12 & 2**52 - 1).double() + 0.5) * 2.0**-52


class SampledTokens(NamedTuple):
    """Tokens of one step.

    Attributes:
        tokens: [B] int64.
        logprobs: [B] float32 in nats under the distribution drawn from before any cut of it (`TokenSampler`).
    """

    tokens: Tensor
    logprobs: Tensor


class TokenSampler:
    """Draws a token for each row of logits.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: nucleus; 1.0 = off.
        banned: tokens that are never drawn; they still count in the distribution of `logprobs`.
    """

    def __init__(self, temperature: float = 1.0, top_p: float = 1.0, banned: Sequence[int] = ()) -> None:
        if temperature < 0:
            raise ValueError(f"a temperature is 0 or more, not {temperature}")
        self.temperature = temperature
        self.top_p = top_p
        self.banned = list(banned)

    def __call__(
        self, logits: Tensor, seeds: Tensor, places: Tensor, with_logprobs: bool = False
    ) -> SampledTokens:
        """Draw.

        A row that holds NaN or infinity gives what greedy decoding gives: a fault of the model must not become a
        fault of its neighbours, nor of the draw.

        Args:
            logits: [B, V]; may be overwritten.
            seeds: [B] int64; not looked at when greedy.
            places: [B] int64, see `random_words`.
            with_logprobs: also return log-probabilities: at the sampling temperature, over all tokens
                (of the nucleus and not); at temperature 1 when greedy. Empty otherwise.
        """
        if len(seeds) != len(logits):
            raise ValueError(f"{len(logits)} rows for {len(seeds)} seeds")
        logits = logits.float()
        log_sum = logits.new_zeros(0)
        if with_logprobs:
            log_sum = (logits if self.temperature in (0, 1) else logits / self.temperature).logsumexp(-1)
        for token in self.banned:
            if token < logits.shape[1]:
                logits[:, token] = float("-inf")
        if self.temperature == 0:
            tokens = logits.argmax(-1)
        else:
            weights = (logits - logits.amax(-1, keepdim=True)).div_(self.temperature).exp_()
            words = random_words(seeds, places)
            tokens, sound = draw_tokens(weights, words)
            if self.top_p < 1:
                tokens = self._redraw_outside(logits, weights, words, tokens)
            if not bool(sound.all()):
                tokens = torch.where(sound, tokens, logits.argmax(-1))
        if not with_logprobs:
            return SampledTokens(tokens, log_sum)
        token_logits = logits.gather(1, tokens[:, None])[:, 0]
        return SampledTokens(tokens, token_logits / (self.temperature or 1.0) - log_sum)

    def _redraw_outside(self, logits: Tensor, weights: Tensor, words: Tensor, tokens: Tensor) -> Tensor:
        """Tokens [B] of the nucleus: those outside are drawn again.

        Whether one token is inside takes one sum over the likelier ones, where cutting the nucleus out takes an order
        of the vocabulary. What is drawn until it is inside has the distribution of the nucleus.
        """
        limit = self.top_p * weights.sum(-1)
        outside = (weight_before(logits, weights, tokens) >= limit).nonzero()[:, 0]
        for _ in range(TRIES):
            if not len(outside):
                return tokens
            words = _mix(words + GOLDEN)
            again = draw_tokens(weights[outside], words[outside])[0]
            tokens = tokens.index_copy(0, outside, again)
            before = weight_before(logits[outside], weights[outside], again)
            outside = outside[before >= limit[outside]]
        if not len(outside):
            return tokens
        inside = keep_nucleus(logits[outside], self.top_p, self.temperature).isfinite()
        last = draw_tokens(weights[outside] * inside, _mix(words[outside] + GOLDEN))[0]
        return tokens.index_copy(0, outside, last)


def draw_tokens(weights: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens with probabilities proportional to weights.

    Args:
        weights: [B, V] float32, 0 or more.
        words: [B] int64, see `random_words`.

    Returns:
        [B] tokens, none of weight 0; and whether each row's weights were finite and not all 0.
    """
    levels = [weights]
    while (size := levels[-1].shape[1]) > FAN:
        # [B, ceil(n / FAN)]: column i is the sum of columns i, i + stride, ... (whole columns add fast)
        stride = -(-size // FAN)
        full = size // stride  # rows of `stride` columns that are complete
        sums = levels[-1][:, : full * stride].unflatten(1, (full, stride)).sum(1)
        if rest := size - full * stride:
            sums[:, :rest] += levels[-1][:, full * stride :]
        levels.append(sums)
    node = torch.zeros_like(words)[:, None]
    sound = torch.ones_like(words, dtype=torch.bool)
    for level in reversed(levels):
        stride = -(-level.shape[1] // FAN)  # nodes above; the children of node i are i, i + stride, ...
        children = node + stride * torch.arange(FAN, device=words.device)
        missing = children >= level.shape[1]
        values = level.gather(1, children.masked_fill(missing, 0)).double().masked_fill_(missing, 0.0)
        sums = values.cumsum(1)
        total = sums[:, -1:]
        words = words + LEVEL_STEP
        aim = uniforms(_mix(words))[:, None] * total
        # the first child whose sum exceeds the aim: never one of weight 0
        picked = (sums <= aim).sum(1, keepdim=True).clamp_(max=FAN - 1)
        sound &= (total[:, 0] > 0) & total[:, 0].isfinite()
        node = children.gather(1, picked)
        node = node.masked_fill(node >= level.shape[1], 0)  # of rows that are not sound
    return node[:, 0], sound


def weight_before(logits: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    """[B] weight of all tokens that come before a row's token: likelier ones, and equal ones before it.

    Args:
        logits: [B, V], which order the tokens.
        weights: [B, V] proportional to their probabilities.
        tokens: [B].
    """
    token_logits = logits.gather(1, tokens[:, None])
    marks = torch.empty_like(weights)  # as numbers: sums and products of bool are ten times slower on a CPU
    sums = torch.gt(logits, token_logits, out=marks).mul_(weights).sum(-1)
    torch.eq(logits, token_logits, out=marks)
    if bool((marks.sum(-1) > 1).any()):
        marks *= torch.arange(logits.shape[1], device=logits.device) < tokens[:, None]
        sums += marks.mul_(weights).sum(-1)
    return sums


def keep_nucleus(logits: Tensor, top_p: float, temperature: float = 1.0) -> Tensor:
    """Logits [B, V] with -inf outside the smallest set whose probability reaches `top_p`.

    Of equal logits the first come first. The likeliest token is always kept (Holtzman et al. 2020, arXiv 1904.09751).
    The nucleus is looked for among the likeliest tokens; only rows whose nucleus is larger are sorted as a whole.
    """
    size = min(CANDIDATES, logits.shape[1])
    whole = (logits / temperature).logsumexp(-1, keepdim=True)
    ordered, index = logits.topk(size, dim=-1)
    inside = _probability_before(ordered, whole, temperature) < top_p
    inside[:, 0] = True
    cut = torch.full_like(logits, float("-inf"))
    cut.scatter_(1, index, ordered.masked_fill(~inside, float("-inf")))
    # the border lies beyond the candidates, or among equals, which `topk` orders as it likes
    last = ordered.gather(1, inside.sum(1, keepdim=True) - 1)
    tied = ((ordered == last) & ~inside).any(1) | (ordered[:, -1:] == last)[:, 0]
    wide = tied.nonzero()[:, 0]
    if len(wide):
        ordered, index = logits[wide].sort(dim=-1, descending=True, stable=True)
        outside = _probability_before(ordered, whole[wide], temperature) >= top_p
        outside[:, 0] = False
        cut[wide] = logits[wide].masked_fill(outside.scatter(-1, index, outside), float("-inf"))
    return cut


def _probability_before(ordered: Tensor, whole: Tensor, temperature: float) -> Tensor:
    """[B, k] probability of all tokens before each."""
    probability = (ordered / temperature - whole).double().exp_()
    return probability.cumsum(-1) - probability


class SeededSampling(LogitsProcessor):
    """Turns the greedy decoding of transformers' `generate` into sampling by `TokenSampler`.

    Args:
        seeds: one per row of the batch, in [0, 2**63).
        temperature: > 0.
        top_p: nucleus; 1.0 = off.
    """

    def __init__(self, seeds: Sequence[int], temperature: float = 1.0, top_p: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"sampling needs a temperature above 0, not {temperature}")
        self.sampler = TokenSampler(temperature, top_p)
        self.seeds = torch.tensor(list(seeds), dtype=torch.long)
        self.place = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] whose argmax is the drawn token; each call is one place further."""
        self.seeds = self.seeds.to(scores.device)
        places = torch.full_like(self.seeds, self.place)
        tokens = self.sampler(scores, self.seeds, places).tokens
        self.place += 1
        return scores.scatter(1, tokens[:, None], float("inf"))


def _mix(words: Tensor) -> Tensor:
    """Stafford's variant 13 of MurmurHash3's finaliser, a bijection of 64-bit words."""
    words = (words ^ _shift_right(words, 30)) * FIRST
    words = (words ^ _shift_right(words, 27)) * SECOND
    return words ^ _shift_right(words, 31)


def _shift_right(words: Tensor, by: int) -> Tensor:
    """Logical shift to the right: int64 shifts copy the sign."""
    return (words >> by) & (2 ** (64 - by) - 1)
