"""From prompts to continuations, by our generation engine or by transformers' `generate`, and from token ids to text.

A sampled answer depends on weights, prompt and seed alone, see `draws`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from transformers import GenerationConfig, LogitsProcessorList

from rba_bench.textlm.draws import SeededSampling, TokenSampler
from rba_bench.textlm.generation import Decoder, GenerationRequest, Prompts, generate_tokens, prompts_of_ids
from rba_bench.textlm.replies import is_turn_mark
from rba_bench.textlm.text_model import Decoding, Generation, Status


class Continuation(NamedTuple):
    """New tokens of one row without the stop token; `ended` tells whether there was one."""

    tokens: list[int]
    ended: bool


def continue_all(
    decoder: Decoder,
    rows: Sequence[Sequence[int]],
    decoding: Decoding,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    slots: int,
    device: Any,
) -> list[Continuation]:
    """Draw one continuation for each row of ids by the generation engine; equal rows are read once.

    Args:
        decoder: the model, in eval mode, without gradient.
        rows: prompts.
        decoding: length, temperature and top_p.
        seeds: one per row; not used when greedy.
        stop_ids: tokens that end an answer.
        slots: rows answered together.
        device: the model's.
    """
    numbers: dict[tuple[int, ...], int] = {}  # of distinct prompts
    requests = [
        GenerationRequest(numbers.setdefault(tuple(row), len(numbers)), seed)
        for row, seed in zip(rows, seeds, strict=True)
    ]
    prompts = prompts_of_ids(list(numbers), decoder.words, device)
    return continue_prompts(decoder, prompts, requests, decoding, stop_ids, slots)


def continue_prompts(
    decoder: Decoder,
    prompts: Prompts,
    requests: Sequence[GenerationRequest],
    decoding: Decoding,
    stop_ids: Sequence[int],
    slots: int,
    banned: Sequence[int] = (),
) -> list[Continuation]:
    """The same for prompts of any kind; `banned` tokens are never drawn."""
    sampler = TokenSampler(decoding.temperature, decoding.top_p, banned)
    answers = generate_tokens(decoder, prompts, requests, sampler, decoding.max_new_tokens, stop_ids, slots)
    return [Continuation(a.tokens[:-1] if a.ended else a.tokens, a.ended) for a in answers]


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
        processors.append(SeededSampling(seeds, decoding.temperature, decoding.top_p))
    # `generate` fills in what a given config leaves open from the one shipped with the model (Qwen2.5: a repetition
    # penalty of 1.05), and then the same protocol would mean another thing for every model.
    shipped, model.generation_config = model.generation_config, GenerationConfig()
    try:
        output = model.generate(
            **inputs,
            do_sample=False,
            # One more token than requested: an answer of exactly max_new_tokens tokens can still emit its stop token.
            max_new_tokens=decoding.max_new_tokens + 1,
            eos_token_id=list(stop_ids),
            pad_token_id=pad_id,
            use_cache=True,
            logits_processor=processors,
        )
    finally:
        model.generation_config = shipped
    start = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    continuations = []
    for row in output[:, start:].tolist():
        end = next((place for place, token in enumerate(row) if token in stop_ids), None)
        tokens = row[: decoding.max_new_tokens] if end is None else row[:end]
        continuations.append(Continuation(tokens, end is not None))
    return continuations


def to_generation(tokenizer: Any, continuation: Continuation, opened: str = "") -> Generation:
    """Text and status of drawn tokens.

    Args:
        tokenizer: of the model.
        continuation: what was drawn.
        opened: the tag with which the prompt has opened the model's thinking, see `replies.opened_thinking`.
    """
    text = decode_tokens(tokenizer, continuation.tokens, opened)
    status: Status = "ok" if continuation.ended else "truncated"
    return Generation(text, len(continuation.tokens), status if text else "empty")


def decode_tokens(tokenizer: Any, tokens: Sequence[int], opened: str = "") -> str:
    """Text of new tokens without spaces around it, behind the tag that the prompt has opened.

    Special tokens are left out, but for those that mark thinking or turns: without them thinking could not be told
    from the answer (Magistral, gpt-oss), nor the answer from what a model says in the user's name.
    """
    special, marks = _special_tokens(tokenizer)
    if marks.isdisjoint(tokens):
        text = tokenizer.decode(tokens, skip_special_tokens=True)
    else:
        visible = [token for token in tokens if token in marks or token not in special]
        text = tokenizer.decode(visible, skip_special_tokens=False)
    return f"{opened}{text}".strip()


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: Any) -> tuple[frozenset[int], frozenset[int]]:
    """Ids of special tokens, and of those among them that must stay visible."""
    table = getattr(tokenizer, "added_tokens_decoder", {})  # not every tokenizer of mistral-common has it
    added = {i: str(token) for i, token in table.items() if token.special}
    marks = frozenset(i for i, text in added.items() if is_turn_mark(text))
    return frozenset({*added, *tokenizer.all_special_ids}), marks
