"""Whether the generation engine can drive a decoder: its config is read, and the rest is tried with a few tokens.

The engine gives positions and masks of its own and keeps keys and values in slots. Decoders with sliding windows, a
state, convolutions, distances taken from the order (ALiBi), rotary factors that depend on how long the batch is, or
that build a cache of their own would compute something else, most of them silently.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rba_bench.textlm.block_attention import NAME
from rba_bench.textlm.draws import SampledTokens
from rba_bench.textlm.generation import (
    SHARED_LEAST,
    Decoder,
    GenerationRequest,
    generate_tokens,
    prompts_of_ids,
)

OBEYS_MASKS = ("sdpa", "eager", NAME)  # flash attention has no 4-D masks
WINDOWS = ("sliding_window", "attention_chunk_size")
LENGTH_DEPENDENT = ("dynamic", "longrope")  # rotary factors that change with the longest row of a batch
REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, NotImplementedError)
TRIAL = (5, 3, 4)  # tokens of its rows behind their common beginning
STEPS = 3  # tokens drawn in it
_drivable: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

Stock = Callable[[Tensor], Tensor]


def causal_lm_decoder(model: Any) -> Decoder | None:
    """A causal LM of transformers as the engine wants it; None where it cannot be driven."""
    words = model.get_input_embeddings()
    config = model.config.get_text_config(decoder=True)

    def logits(embeds: Tensor, mask: Tensor | None, positions: Tensor, cache: Any) -> Tensor:
        output = model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1,
        )
        return torch.as_tensor(output.logits[:, -1])

    def stock(ids: Tensor) -> Tensor:
        return torch.as_tensor(model(input_ids=ids, use_cache=False).logits[:, -1])

    decoder = Decoder(logits, words, getattr(config, "num_hidden_layers", 0))
    return decoder if is_drivable(decoder, model, config, stock) else None


def is_drivable(decoder: Decoder, module: nn.Module, config: Any, stock: Stock | None = None) -> bool:
    """Whether the engine's answers are those of the model.

    The first call for a module tries it with a few tokens; the result is kept.

    Args:
        decoder: the model as the engine sees it.
        module: the model; in eval mode, without gradient.
        config: of its text backbone.
        stock: logits [1, V] behind ids [1, L] by the model's own forward pass; by default the decoder without a cache.
    """
    if module not in _drivable:
        try:
            _drivable[module] = _is_plain(config) and _agrees(decoder, config.vocab_size, stock)
        except torch.OutOfMemoryError:  # says nothing about the decoder, and would be remembered
            raise
        except REFUSALS:  # takes no such mask, positions or cache; each decoder fails in its own words
            _drivable[module] = False
    return _drivable[module]


def remember_drivable(module: nn.Module, driven: bool) -> None:
    """Keep the result of another process."""
    _drivable[module] = driven


def has_window(config: Any) -> bool:
    """Whether some layer attends to less than the context."""
    context = getattr(config, "max_position_embeddings", None)
    sizes = [size for name in WINDOWS if (size := getattr(config, name, None))]
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and set(kinds) == {"full_attention"}:
        return False
    if getattr(config, "use_sliding_window", True) is False:
        sizes = [size for size in sizes if size != config.sliding_window]
    return any(context is None or size < context for size in sizes)


def _is_plain(config: Any) -> bool:
    """Whether the config names nothing that a short trial would not show."""
    kinds = set(getattr(config, "layer_types", None) or ())
    rotary = getattr(config, "rope_parameters", None) or {}
    kind = rotary.get("rope_type", "default") if isinstance(rotary, dict) else "default"
    return (
        not getattr(config, "is_encoder_decoder", False)
        and getattr(config, "_attn_implementation", None) in OBEYS_MASKS
        and kinds <= {"full_attention", "sliding_attention"}
        and not has_window(config)
        and kind not in LENGTH_DEPENDENT
    )


class _Script:
    """In the place of a sampler: draws given tokens, and keeps the logits of each row's last draw."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.logits: dict[int, Tensor] = {}

    def __call__(self, logits: Tensor, seeds: Tensor, places: Tensor, with_logprobs: bool) -> SampledTokens:
        self.logits.update(zip(seeds.tolist(), logits, strict=True))
        return SampledTokens(self.tokens.to(seeds.device)[seeds, places], logits.new_zeros(0))


@torch.no_grad()
def _agrees(decoder: Decoder, vocabulary: int, stock: Stock | None) -> bool:
    """Whether rows of three lengths in two slots, behind a common beginning, end as each row alone."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (len(TRIAL), SHARED_LEAST + max(TRIAL) + STEPS), generator=generator)
    ids[:, :SHARED_LEAST] = ids[0, :SHARED_LEAST]
    device = decoder.words(torch.zeros(1, dtype=torch.long)).device
    sizes = [SHARED_LEAST + size for size in TRIAL]
    rows = [row[:size].tolist() for row, size in zip(ids, sizes, strict=True)]
    script = _Script(torch.stack([row[size : size + STEPS] for row, size in zip(ids, sizes, strict=True)]))
    requests = [GenerationRequest(row, row) for row in range(len(rows))]
    prompts = prompts_of_ids(rows, decoder.words, device)
    generate_tokens(decoder, prompts, requests, script, STEPS - 1, (), len(rows) - 1)
    for row, size in enumerate(sizes):
        whole = ids[row : row + 1, : size + STEPS - 1].to(device)
        positions = torch.arange(whole.shape[1], device=device)[None]
        alone = decoder.logits(decoder.words(whole), None, positions, None) if stock is None else stock(whole)
        if not close(script.logits[row], alone[0]):
            return False
    return True


def close(states: Tensor, expected: Tensor) -> bool:
    """Whether vectors [..., H] are equal but for the rounding of their number type, each relative to its length."""
    bound = 1e-4 if states.dtype == torch.float32 else 3e-2
    difference = (states.float() - expected.float()).norm(dim=-1)
    return bool((difference <= bound * expected.float().norm(dim=-1)).all())
