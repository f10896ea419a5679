"""Sampling in which an answer does not depend on its neighbours in the batch, and the one generate call.

`torch.multinomial` draws for a whole batch from one stream, so another batch size, order or resumption gives
other answers. Here every row has its own generator. The draw is by the Gumbel-max trick: with independent g_v
of the standard Gumbel distribution, argmax_v(log p_v + g_v) is distributed as p (Maddison et al. 2014, arXiv
1411.0030), so adding g to the logits and decoding greedily is exact sampling. The last bits of the logits may
differ between batch sizes; that changes an answer only where two perturbed logits are that close (about one
token in a million in float32).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from rba_bench.textlm.base import Decoding, Generation, Status
from rba_bench.textlm.replies import is_mark

SMALLEST = 2.0**-64  # stands for a uniform draw of exactly 0, whose Gumbel value would be -inf


class PerRequestGumbel(LogitsProcessor):
    """Turns greedy decoding into sampling with one random stream per row.

    Args:
        seeds: one per row of the batch, in [0, 2**63).
        temperature: > 0.
        top_p: nucleus; 1.0 = off.
    """

    def __init__(self, seeds: Sequence[int], temperature: float = 1.0, top_p: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"sampling needs a temperature above 0, not {temperature}")
        self.temperature = temperature
        self.top_p = top_p
        # On the CPU whatever the model's device: CUDA generators draw other numbers.
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Perturbed scores, shape [rows, vocabulary], float64; their argmax is the drawn token."""
        if scores.shape[0] != len(self.generators):
            raise ValueError(f"{scores.shape[0]} rows for {len(self.generators)} seeds")
        # float64: float32 noise ends at 16.6, which would cut off tokens rarer than one in 16 million.
        tempered = scores.double() / self.temperature
        if self.top_p < 1:
            tempered = keep_nucleus(tempered, self.top_p)
        return tempered + self._noise(scores.shape[1], scores.device)

    def _noise(self, size: int, device: torch.device) -> torch.Tensor:
        uniform = torch.empty(len(self.generators), size, dtype=torch.float64)
        for row, generator in zip(uniform, self.generators, strict=True):
            torch.rand(size, generator=generator, dtype=torch.float64, out=row)
        # The logarithms are most of the work with a real vocabulary: in place, and where the logits are.
        return uniform.to(device).clamp_(min=SMALLEST).log_().neg_().log_().neg_()


def keep_nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits [rows, vocabulary] with -inf outside the smallest set whose probability reaches `top_p`.

    The likeliest token is always kept (Holtzman et al. 2020, arXiv 1904.09751).
    """
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    outside = (before >= top_p).scatter(-1, index, before >= top_p)
    return logits.masked_fill(outside, float("-inf"))


class Continuation(NamedTuple):
    """Drawn tokens of one row, without the stop token; `ended` tells whether one came."""

    tokens: list[int]
    ended: bool


def continue_batch(
    model: Any,
    inputs: Mapping[str, Any],
    decoding: Decoding,
    seeds: Sequence[int],
    *,
    stop_ids: Sequence[int],
    pad_id: int,
) -> list[Continuation]:
    """Draw one continuation for each row of a left-padded batch.

    Args:
        model: anything with transformers' `generate` (text LM, composite, PEFT wrapper); use it in eval mode.
        inputs: its keyword arguments, on its device: `input_ids` [B, T] or `inputs_embeds` [B, T, H],
            `attention_mask` [B, T], and what else the model takes (audio).
        decoding: length, temperature and top_p. The model's own generation defaults are left out on purpose.
        seeds: one per row; not used when greedy.
        stop_ids: tokens that end an answer; at least one.
        pad_id: token that fills rows that ended early.

    Returns:
        One Continuation per row, in order.
    """
    processors = LogitsProcessorList()
    if not decoding.greedy:
        processors.append(PerRequestGumbel(seeds, decoding.temperature, decoding.top_p))
    with _without_defaults(model):
        output = model.generate(
            **inputs,
            do_sample=False,
            # One more than asked: an answer of exactly max_new_tokens tokens still gets to say that it ends.
            max_new_tokens=decoding.max_new_tokens + 1,
            eos_token_id=list(stop_ids),
            pad_token_id=pad_id,
            use_cache=True,
            logits_processor=processors,
        )
    start = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    return [_cut(row, set(stop_ids), decoding.max_new_tokens) for row in output[:, start:].tolist()]


def to_generation(tokenizer: Any, continuation: Continuation, opened: str = "") -> Generation:
    """Text and status of drawn tokens.

    Args:
        tokenizer: of the model.
        continuation: what was drawn.
        opened: the tag with which the prompt has opened the model's thinking, see `replies.opening`.
    """
    text = written(tokenizer, continuation.tokens, opened)
    status: Status = "ok" if continuation.ended else "truncated"
    return Generation(text, len(continuation.tokens), status if text else "empty")


def written(tokenizer: Any, tokens: Sequence[int], opened: str = "") -> str:
    """Text of drawn tokens without spaces around it, behind the tag that the prompt has opened.

    Special tokens are left out, but for those that mark thinking or turns: without them thinking could not be told
    from the answer (Magistral, gpt-oss), nor the answer from what a model says in the user's name.
    """
    special, marks = _special_tokens(tokenizer)
    if marks.isdisjoint(tokens):
        text = tokenizer.decode(tokens, skip_special_tokens=True)
    else:
        kept = [token for token in tokens if token in marks or token not in special]
        text = tokenizer.decode(kept, skip_special_tokens=False)
    return f"{opened}{text}".strip()


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: Any) -> tuple[frozenset[int], frozenset[int]]:
    """Ids of special tokens, and of those among them that must be seen."""
    known = getattr(tokenizer, "added_tokens_decoder", {})  # not every tokenizer of mistral-common has it
    added = {i: str(token) for i, token in known.items() if token.special}
    return frozenset({*added, *tokenizer.all_special_ids}), frozenset(i for i in added if is_mark(added[i]))


def _cut(tokens: list[int], stop_ids: set[int], longest: int) -> Continuation:
    for position, token in enumerate(tokens):
        if token in stop_ids:
            return Continuation(tokens[:position], True)
    return Continuation(tokens[:longest], False)


@contextmanager
def _without_defaults(model: Any) -> Iterator[None]:
    """Hide the generation config shipped with a model.

    `generate` fills in what a given config leaves open (Qwen2.5 ships a repetition penalty of 1.05), and then
    the same protocol would mean another thing for every model.
    """
    shipped = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = shipped
