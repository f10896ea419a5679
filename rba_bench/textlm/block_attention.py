"""Attention by document: conversations that share a row attend among themselves, and nothing else is computed.

A row of many conversations with a mask of its own costs S x S products although most of them are masked: a sixth of
a connector's step in float32, nearly half in bfloat16, whose masked kernel is slow on CPUs. Here all else of a layer
runs on rows without padding, and attention alone on blocks: documents of similar length one below the other, mostly
with the plain causal rule, for which every device has its fastest kernel.

    rows  [R, S]:   a a a a b b b c c c c        blocks:   a a a a      b b b .
                                                           c c c c

The blocks travel as an attribute of the mask that the decoder hands to its layers. The mask's values are NaN, so that a
layer that uses them instead of the blocks fails visibly.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_by_document"  # as transformers knows it
UNSUPPORTED = ("position_bias", "softcap", "s_aux")  # what some decoders hand over beside the mask
SPREAD = 1.4  # longest over shortest document of a block
# Keys of a block up to which products of matrices beat the processor's fused kernel, forward and backward together: 20
# against 90 ms at 116 keys in bfloat16, 29 against 48 in float32, on two cores.
PLAIN = {torch.bfloat16: 512, torch.float32: 256}


@dataclass(frozen=True)
class Block:
    """D documents of at most M tokens.

    Attributes:
        documents: D.
        size: M.
        before: [2] first and last + 1 of the constant keys that stand before each of them.
        mask: [D or 1, 1, M, keys before + M] True where a query attends, or what is added to its products; None for the
            plain causal rule.
    """

    documents: int
    size: int
    before: tuple[int, int]
    mask: Tensor | None


@dataclass(frozen=True)
class Blocks:
    """How R rows of S columns become blocks with T places, block after block and document after document.

    Attributes:
        there: [T] column of the flattened rows that each place takes; any at places that stay empty.
        back: [R * S] place that each column takes; any at padding.
        spare: places that stay empty.
        padding: columns that no document has.
        blocks: the blocks.
    """

    there: Tensor
    back: Tensor
    spare: Tensor
    padding: Tensor
    blocks: tuple[Block, ...]

    def to(self, device: torch.device | str) -> "Blocks":
        """The same on a device."""
        blocks = tuple(replace(b, mask=None if b.mask is None else b.mask.to(device)) for b in self.blocks)
        tensors = {name: getattr(self, name).to(device) for name in ("there", "back", "spare", "padding")}
        return replace(self, blocks=blocks, **tensors)

    def as_mask(self, rows: int, columns: int, before: int, dtype: torch.dtype) -> Tensor:
        """[rows, 1, columns, before + columns] what is handed to the decoder as its mask; takes no memory."""
        nothing = torch.full((1, 1, 1, 1), torch.nan, dtype=dtype, device=self.there.device)
        mask = nothing.expand(rows, 1, columns, before + columns)
        # numbers for masks: kernels would make them of booleans in every layer, and keep them for backward
        blocks = (b if b.mask is None else replace(b, mask=_additive(b.mask, dtype)) for b in self.blocks)
        mask.blocks = replace(self, blocks=tuple(blocks))
        return mask


def make_blocks(documents: Tensor, segments: Tensor, openings: Tensor, columns: Tensor) -> Blocks:
    """Blocks for rows of documents; see `training.data.packing.Layout` for the arguments, which are on the CPU."""
    marks, parts = documents.numpy(), segments.numpy().ravel()
    changes = np.ones(marks.shape, dtype=bool)
    changes[:, 1:] = marks[:, 1:] != marks[:, :-1]
    starts = np.flatnonzero(changes)
    lengths = np.diff(np.append(starts, marks.size))
    present = marks.ravel()[starts] >= 0
    starts, lengths = starts[present], lengths[present]
    opened = openings.numpy().ravel()[starts]
    single = np.maximum.reduceat(parts, starts) <= 1
    there, blocks, spare, done = [], [], [], 0
    for group in _groups(opened, single, lengths):
        longest = int(lengths[group].max())
        filled = np.arange(longest) < lengths[group][:, None]
        places = np.where(filled, starts[group][:, None] + np.arange(longest), 0)
        keys = np.flatnonzero(columns.numpy() == opened[group[0]])
        before = (int(keys[0]), int(keys[-1]) + 1) if len(keys) else (0, 0)
        mask = _mask(np.where(filled, parts[places], -1), bool(single[group[0]]), len(keys))
        blocks.append(Block(len(group), longest, before, mask))
        there.append(places.ravel())
        spare.append(done + np.flatnonzero(~filled))
        done += places.size
    index, empty = np.concatenate(there), np.concatenate(spare)
    back = np.full(marks.size, -1)
    taken = np.setdiff1d(np.arange(done), empty, assume_unique=True)
    back[index[taken]] = taken
    padding = np.flatnonzero(back < 0)
    back[padding] = 0
    as_tensors = [torch.from_numpy(x.astype(np.int64)) for x in (index, back, empty, padding)]
    return Blocks(as_tensors[0], as_tensors[1], as_tensors[2], as_tensors[3], tuple(blocks))


def _groups(opened: np.ndarray, single: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    """Documents of one opening, one kind and similar length together."""
    groups: list[list[int]] = []
    kind: tuple[int, bool] | None = None
    for number in np.lexsort((-lengths, single, opened)):
        this = (int(opened[number]), bool(single[number]))
        if this != kind or lengths[number] * SPREAD < lengths[groups[-1][0]]:
            groups.append([])
        kind = this
        groups[-1].append(int(number))
    return groups


def _mask(parts: np.ndarray, single: bool, before: int) -> Tensor | None:
    """[D or 1, 1, M, before + M] for segments [D, M]; empty places see themselves, so that no row is empty."""
    size = parts.shape[1]
    if single and not before:
        return None
    seen = np.tri(size, dtype=bool)[None]
    if not single:
        seen = seen & ((parts[:, None, :] == 0) | (parts[:, :, None] == parts[:, None, :]))
    constant = np.ones((len(seen), size, before), dtype=bool)
    return torch.from_numpy(np.concatenate([constant, seen], axis=-1))[:, None]


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query attends, -inf elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)


class _Rearranged(torch.autograd.Function):
    """[N, ...] values put in another order; gradients take the way back, and where nothing came from there is none."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor, reverse: Tensor, unused: Tensor) -> Tensor:
        ctx.save_for_backward(reverse, unused)
        return values.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        reverse, unused = ctx.saved_tensors
        back = grad.index_select(0, reverse)
        return back.index_fill_(0, unused, 0) if len(unused) else back, None, None, None


def attend_by_document(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: by document where the mask brings blocks, else as `sdpa`.

    Args:
        module: the layer's attention.
        query: [R, heads, S, D].
        key: [R, key heads, P + S, D], the first P the same in all rows.
        value: like `key`.
        attention_mask: of `Blocks.as_mask`, or any that `sdpa` takes.
        dropout: share of weights dropped.
        scaling: of the products.
        options: what else the decoder hands over.

    Returns:
        [R, S, heads, D], and None for weights.
    """
    blocks: Blocks | None = getattr(attention_mask, "blocks", None)
    if blocks is None:
        states, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
        return states, None
    if extra := [name for name in UNSUPPORTED if options.get(name) is not None]:
        raise ValueError(f"attention by document does not support {extra[0]}")  # whose shape is that of rows
    rows, _, size, _ = query.shape
    first = key.shape[2] - size
    flat = (states[:, :, -size:].transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    packed = [_Rearranged.apply(states, blocks.there, blocks.back, blocks.padding) for states in flat]
    plain_keys = PLAIN.get(_compute_dtype(query), 0) if query.device.type == "cpu" and not dropout else 0
    results, done = [], 0
    for block in blocks.blocks:
        stop = done + block.documents * block.size
        queries, keys, values = (
            x[done:stop].unflatten(0, (block.documents, block.size)).transpose(1, 2) for x in packed
        )
        if first and block.before[1]:
            keys, values = (_prepend(x, y, block) for x, y in ((key, keys), (value, values)))
        if keys.shape[2] <= plain_keys:
            states = _plain_attention(queries, keys, values, block.mask, scaling)
        else:
            states, _ = sdpa_attention_forward(
                module, queries, keys, values, block.mask, dropout, scaling, **options
            )
        results.append(states.flatten(0, 1))
        done = stop
    states = _Rearranged.apply(torch.cat(results), blocks.back, blocks.there, blocks.spare)
    return states.unflatten(0, (rows, size)), None


def _prepend(constant: Tensor, states: Tensor, block: Block) -> Tensor:
    """The block's constant keys or values before [documents, heads, M, D]."""
    start, stop = block.before
    return torch.cat([constant[:1, :, start:stop].expand(len(states), -1, -1, -1), states], dim=2)


def _compute_dtype(states: Tensor) -> torch.dtype:
    """Number type in which attention is computed."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None
) -> Tensor:
    """[D, M, heads, C] attention as products of matrices; query heads that share a key head in one product.

    Args:
        query: [D, heads, M, C].
        key: [D, key heads, K, C].
        value: like `key`.
        mask: [D or 1, 1, M, K] added to the products; None for the causal rule.
        scaling: of the products; by default 1 / sqrt(C).
    """
    dtype, (documents, heads, size, width) = _compute_dtype(query), query.shape
    key, value = key.to(dtype), value.to(dtype)
    groups, keys = key.shape[1], key.shape[2]
    with torch.autocast(query.device.type, enabled=False):  # softmax would be widened, and narrowed again
        key = key * (width**-0.5 if scaling is None else scaling)  # fewer than queries
        scores = query.to(dtype).reshape(documents, groups, -1, width) @ key.transpose(-1, -2)
        if mask is None:
            mask = _additive(torch.ones(size, keys, dtype=torch.bool, device=key.device).tril(), dtype)
        bias = mask.to(dtype)
        shares = (scores.view(documents, heads, size, keys) + bias).softmax(-1)
        states = shares.view(documents, groups, -1, keys) @ value
        return states.view(documents, heads, size, value.shape[-1]).transpose(1, 2)


AttentionInterface.register(NAME, attend_by_document)
AttentionMaskInterface.register(NAME, sdpa_mask)  # masks of other kinds are those of `sdpa`
