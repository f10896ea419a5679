"""Whether a decoder computes several answers in one row behind a shared prompt exactly.

Such a row needs a 4-D mask that is obeyed by every layer, and positions that are not the order in the row. Decoders
with sliding windows, linear attention, convolutions, a state, or distances taken from the order (ALiBi) do something
else with it, most of them silently. What a config says is read; the rest is tried out on random embeddings.

The same for a row whose first tokens are keys and values in a cache alone (`continues`), and for attention that is
computed document by document (`attends_by_document`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache

from rba_bench.textlm.block_attention import NAME, make_blocks
from rba_bench.textlm.engine_support import OBEYS_MASKS, close, has_window

PROMPT, ANSWERS = 6, (4, 3)  # tokens of the trial
REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)
_by_document: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def shares_rows(decoder: Any) -> bool:
    """Whether the states of a text backbone in a shared row are those of separate rows."""
    config = decoder.config
    if getattr(config, "_attn_implementation", None) not in OBEYS_MASKS or has_window(config):
        return False
    return _succeeds(decoder, _agrees)


def attends_by_document(decoder: Any, known: bool | None = None) -> bool:
    """Make a text backbone that shares rows attend by document, if it then finds the same; see `block_attention`.

    Args:
        decoder: its attention is `sdpa`; any other is left as it is.
        known: what another process found out; None to try.
    """
    config = decoder.config
    before = getattr(config, "_attn_implementation", None)
    if before not in ("sdpa", NAME):
        return False
    if known is not None:
        _by_document[decoder] = known
    config._attn_implementation = NAME
    try:
        if decoder not in _by_document:
            _by_document[decoder] = _succeeds(decoder, partial(_agrees, by_document=True))
    finally:
        if not _by_document.get(decoder):
            config._attn_implementation = "sdpa"
    return _by_document[decoder]


def continues_cache(decoder: Any) -> bool:
    """Whether a text backbone gives the states of whole rows behind a cache of their first tokens."""
    return _succeeds(decoder, _agrees_behind_cache)


def _succeeds(decoder: Any, trial: Callable[[Any], bool]) -> bool:
    """The result of a trial in eval mode; False if the decoder refuses its mask, positions or cache with an error."""
    training = decoder.training
    decoder.eval()
    try:
        return trial(decoder)
    except torch.OutOfMemoryError:  # says nothing about the decoder
        raise
    except REFUSALS:
        return False
    finally:
        decoder.train(training)


@torch.no_grad()
def _agrees_behind_cache(decoder: Any) -> bool:
    embeds = _embeds(decoder, PROMPT + 2)
    first = embeds[:, : PROMPT // 2]
    mask = torch.ones(PROMPT + 2, PROMPT + 2, dtype=torch.bool).tril()[PROMPT // 2 :]
    blocked = torch.zeros(mask.shape, dtype=embeds.dtype).masked_fill(~mask, torch.finfo(embeds.dtype).min)
    positions = torch.arange(PROMPT + 2)
    cache = DynamicCache(config=decoder.config)
    decoder(inputs_embeds=first, past_key_values=cache, use_cache=True)
    if not all(layer.keys.shape[-2] == first.shape[1] for layer in cache.layers):
        return False
    whole = _states(decoder, embeds, positions, None)[0, first.shape[1] :]
    rest = _states(decoder, embeds[:, first.shape[1] :], positions[first.shape[1] :],
                   blocked[None, None].to(embeds.device), past_key_values=cache, use_cache=True)[0]  # fmt: skip
    return close(rest, whole)


@torch.no_grad()
def _agrees(decoder: Any, by_document: bool = False) -> bool:
    size = PROMPT + sum(ANSWERS)
    embeds = _embeds(decoder, size)
    segments = torch.tensor([0] * PROMPT + [n for n, length in enumerate(ANSWERS, 1) for _ in range(length)])
    counts = [torch.arange(PROMPT), *(torch.arange(PROMPT, PROMPT + length) for length in ANSWERS)]
    allowed = (segments[:, None] == segments) | (segments == 0)
    allowed &= torch.ones(size, size, dtype=torch.bool).tril()
    mask = torch.zeros(size, size, dtype=embeds.dtype).masked_fill(~allowed, torch.finfo(embeds.dtype).min)
    mask = mask[None, None].to(embeds.device)
    if by_document:
        document = torch.zeros(1, size, dtype=torch.long)
        blocks = make_blocks(document, segments[None], document - 1, torch.zeros(0, dtype=torch.long))
        mask = blocks.to(embeds.device).as_mask(1, size, 0, embeds.dtype)
    shared = _states(decoder, embeds, torch.cat(counts), mask)[0]
    for number in range(1, len(ANSWERS) + 1):
        rows = ((segments == 0) | (segments == number)).to(embeds.device)
        alone = _states(decoder, embeds[:, rows], torch.arange(int(rows.sum())), None)[0]
        if not close(shared[rows], alone):
            return False
    return True


def _embeds(decoder: Any, size: int) -> torch.Tensor:
    """[1, size, H] of random words."""
    weight = decoder.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(1, size, weight.shape[1], generator=generator) * float(weight.float().std())
    return embeds.to(weight.device, weight.dtype)


def _states(
    decoder: Any, embeds: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, **cache: Any
) -> torch.Tensor:
    states: torch.Tensor = decoder(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions[None].to(embeds.device),
        **({"use_cache": False} | cache),
    ).last_hidden_state
    return states
