"""Whether a decoder computes several answers in one row behind a shared prompt exactly.

Such a row needs a 4-D mask that is obeyed by every layer, and positions that are not the order in the row. Decoders
with sliding windows, linear attention, convolutions, a state, or distances taken from the order (ALiBi) do something
else with it, most of them silently. What a config says is read; the rest is tried out on random embeddings.
"""

from typing import Any

import torch

OBEYS_MASKS = ("sdpa", "eager")  # flash attention has no 4-D masks
WINDOWS = ("sliding_window", "attention_chunk_size")
PROMPT, ANSWERS = 6, (4, 3)  # tokens of the trial
REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)


def shares_rows(decoder: Any) -> bool:
    """Whether the states of a text backbone in a shared row are those of separate rows."""
    config = decoder.config
    if getattr(config, "_attn_implementation", None) not in OBEYS_MASKS or has_window(config):
        return False
    training = decoder.training
    decoder.eval()
    try:
        return _agrees(decoder)
    except REFUSALS:  # takes no such mask or no positions, each in its own words
        return False
    finally:
        decoder.train(training)


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


@torch.no_grad()
def _agrees(decoder: Any) -> bool:
    weight = decoder.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    size = PROMPT + sum(ANSWERS)
    embeds = torch.randn(1, size, weight.shape[1], generator=generator) * float(weight.float().std())
    embeds = embeds.to(weight.device, weight.dtype)
    segments = torch.tensor([0] * PROMPT + [n for n, length in enumerate(ANSWERS, 1) for _ in range(length)])
    counts = [torch.arange(PROMPT), *(torch.arange(PROMPT, PROMPT + length) for length in ANSWERS)]
    allowed = (segments[:, None] == segments) | (segments == 0)
    allowed &= torch.ones(size, size, dtype=torch.bool).tril()
    mask = torch.zeros(size, size, dtype=weight.dtype).masked_fill(~allowed, torch.finfo(weight.dtype).min)
    shared = _states(decoder, embeds, torch.cat(counts), mask[None, None].to(weight.device))[0]
    for number in range(1, len(ANSWERS) + 1):
        rows = ((segments == 0) | (segments == number)).to(weight.device)
        alone = _states(decoder, embeds[:, rows], torch.arange(int(rows.sum())), None)[0]
        if not _close(shared[rows], alone):
            return False
    return True


def _states(
    decoder: Any, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    states: torch.Tensor = decoder(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions[None].to(embeds.device),
        use_cache=False,
    ).last_hidden_state
    return states


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    bound = 1e-4 if one.dtype == torch.float32 else 3e-2
    difference = (one.float() - other.float()).norm(dim=-1)
    return bool((difference <= bound * other.float().norm(dim=-1)).all())
