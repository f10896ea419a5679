"""A key-value cache of slots: rows of any length side by side, written in place, left and taken one by one.

The dynamic cache of transformers copies all keys and values at every token, and keeps every row as long as the longest
(padded to it) for as long as the batch lives. Here a row owns a slot. Its states lie at the slot's beginning, without
padding; a token's states are written behind them; the rows that are being answered lie in the first slots, so that what
the decoder attends to is a view. A row that is done gives its slot to the last one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

GRAIN = 64  # positions that a slot grows by at least


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: [slots, heads, capacity, width] each.

    Its cache says where the next token goes (`place`), and how much is looked at.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, slots: int, capacity: int) -> None:
        super().__init__()
        self.slots = slots
        self.capacity = capacity
        self.rows = 0
        self.length = 0
        self.flat = torch.empty(0, dtype=torch.long)  # where the next tokens go
        self.store = (torch.empty(0), torch.empty(0))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room like given states [N, heads, length, width]."""
        self.store = (self._room(key_states), self._room(value_states))
        self.keys, self.values = self.store
        self.is_initialized = True

    def _room(self, states: Tensor) -> Tensor:
        return states.new_zeros(self.slots, states.shape[1], self.capacity, states.shape[3])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the states of one token a row; returns views of all that may be looked at."""
        keys, values = self.store
        for room, states in ((keys, key_states), (values, value_states)):
            given = states.to(room.dtype).reshape(-1, states.shape[-1])
            room.view(-1, room.shape[-1]).index_copy_(0, self.flat, given)
        return keys[: self.rows, :, : self.length], values[: self.rows, :, : self.length]

    def grow(self, capacity: int) -> None:
        """Make slots longer."""
        self.capacity = capacity
        if not self.is_initialized:
            return
        made = []
        for room in self.store:
            larger = self._room(room)
            larger[:, :, : room.shape[2]] = room
            made.append(larger)
        self.store = (made[0], made[1])
        self.keys, self.values = self.store

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """See transformers: all that may be looked at, from the beginning."""
        return self.length, 0

    def get_seq_length(self) -> int:
        """See transformers: positions before this token's."""
        return self.length - 1

    def get_max_length(self) -> int:
        """See transformers."""
        return self.capacity


class SlotCache(Cache):
    """Slots of all layers.

    Args:
        n_layers: of the decoder.
        slots: rows answered together.
        capacity: longest row that there is room for at first, in tokens.
    """

    def __init__(self, n_layers: int, slots: int, capacity: int) -> None:
        super().__init__(layers=[SlotLayer(slots, _rounded(capacity)) for _ in range(n_layers)])

    @property
    def capacity(self) -> int:
        """Positions of a slot."""
        return self.layers[0].capacity

    def take(self, states: DynamicCache, row: int, spans: Sequence[slice], slot: int) -> int:
        """Copy a row that the decoder has read, padding left out.

        Args:
            states: what the decoder read together.
            row: which row of it.
            spans: its positions that are no padding, in order.
            slot: where to.

        Returns:
            The row's length.
        """
        length = sum(span.stop - span.start for span in spans)
        self.make_room(length + 1)
        for layer, read in zip(self.layers, states.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(read.keys, read.values)
            for room, given in zip(layer.store, (read.keys, read.values), strict=True):
                start = 0
                for span in spans:
                    size = span.stop - span.start
                    room[slot, :, start : start + size] = given[row, :, span]
                    start += size
        return length

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions to another slot."""
        for layer in self.layers:
            for room in layer.store:
                room[target, :, :length] = room[source, :, :length]

    def make_room(self, length: int) -> None:
        """See to it that a row of `length` tokens fits, with some to spare if slots must grow."""
        if length > self.capacity:
            longer = _rounded(max(length, self.capacity + self.capacity // 2))
            for layer in self.layers:
                layer.grow(longer)

    def place(self, lengths: Tensor, longest: int) -> None:
        """Say where the next token of each row goes.

        Args:
            lengths: [n] int64, of the rows in the first n slots, without that token.
            longest: of them.
        """
        self.make_room(longest + 1)
        rows = len(lengths)
        for layer in self.layers:
            layer.rows, layer.length = rows, longest + 1
        heads = {layer.store[0].shape[1] for layer in self.layers} | {
            layer.store[1].shape[1] for layer in self.layers
        }
        flat = {count: self._flat(lengths, count) for count in heads}
        for layer in self.layers:
            layer.flat = flat[layer.store[0].shape[1]]

    def _flat(self, lengths: Tensor, heads: int) -> Tensor:
        """[n * heads] places in a layer's [slots * heads * capacity]."""
        first = torch.arange(len(lengths) * heads, device=lengths.device) * self.capacity
        return first + lengths.repeat_interleave(heads)


def _rounded(length: int) -> int:
    return -(-length // GRAIN) * GRAIN
