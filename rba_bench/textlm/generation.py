"""Answers from a decoder directly: finished rows leave, waiting ones enter, shared prompts are read once.

A key-value cache of slots: rows of any length side by side, written in place, left and taken one by one.

The dynamic cache of transformers copies all keys and values at every token, and keeps every row as long as the longest
(padded to it) for as long as the batch lives. Here a row owns a slot. Its states lie at the slot's beginning, without
padding; a token's states are written behind them; the rows that are being answered lie in the first slots, so that what
the decoder attends to is a view. A row that is done gives its slot to the last one.

Answers from a decoder directly: rows that are done leave, waiting ones enter, shared prompts are read once.

Transformers' `generate` keeps a batch until its longest answer is done: of 32 answers of geometric length, three
quarters of the work is waiting. Here a fixed number of slots is kept full from a queue (continuous batching; Yu et al.
2022, "Orca"). Rows have lengths of their own and no padding (`slots.SlotCache`), a prompt that is asked several times
is read once, and so is what all prompts begin with. What is drawn is what `generate` would draw: an answer depends on
weights, prompt and seed alone (`draws`), and tests hold that greedy answers are equal.

Which decoders can be driven so, `drivable` finds out; the others go through `generate` (`sampling.continue_batch`).
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

from rba_bench.textlm.draws import SampledTokens

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


ENTER_SHARE = 8  # prompts are read when one slot in so many is free: reading has a price of its own
SHARED_LEAST = 8  # tokens that all prompts must begin with for these to be read apart


class Decoder(NamedTuple):
    """What is asked of a model.

    Attributes:
        logits: `(embeds [B, T, H], mask, positions [B, T], cache)` to logits [B, V] of each row's last position; the
            mask is [B, past + T] with 0 on padding, or [B, 1, T, past + T] to be added to scores, or None.
        words: embeddings [..., H] of ids [...].
        n_layers: layers that keep keys and values.
    """

    logits: Callable[[Tensor, Tensor | None, Tensor, Any], Tensor]
    words: Callable[[Tensor], Tensor]
    n_layers: int


Sampler = Callable[[Tensor, Tensor, Tensor, bool], SampledTokens]


@dataclass(frozen=True)
class Prompts:
    """Distinct prompts.

    Attributes:
        lengths: tokens of each.
        embed: input embeddings [P, H] of some of them, asked when they are about to be read.
        shared: tokens that all of them begin with.
    """

    lengths: Sequence[int]
    embed: Callable[[Sequence[int]], Sequence[Tensor]]
    shared: int = 0


class GenerationRequest(NamedTuple):
    """One answer that is wanted.

    Attributes:
        prompt: which of the prompts.
        seed: in [0, 2**63); not used when greedy.
        longest: tokens after which it is cut, if not those of the decoding.
    """

    prompt: int
    seed: int
    longest: int | None = None


class GeneratedTokens(NamedTuple):
    """Drawn tokens of one request.

    Attributes:
        tokens: with the stop token where one came.
        ended: whether one came.
        logprobs: of the tokens (see `draws.TokenSampler`); empty unless asked for.
    """

    tokens: list[int]
    ended: bool
    logprobs: list[float]


def prompts_of_ids(rows: Sequence[Sequence[int]], words: Callable[[Tensor], Tensor], device: Any) -> Prompts:
    """Prompts of text: what they share is found out."""

    def embed(chosen: Sequence[int]) -> list[Tensor]:
        return [words(torch.tensor(list(rows[i]), device=device)) for i in chosen]

    return Prompts([len(row) for row in rows], embed, common_prefix(rows))


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with, one of each row left over."""
    if len(rows) < 2:
        return 0
    low, high = min(map(tuple, rows)), max(map(tuple, rows))
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(same, min(map(len, rows)) - 1)


def generate_tokens(
    decoder: Decoder,
    prompts: Prompts,
    asked: Sequence[GenerationRequest],
    sampler: Sampler,
    longest: int,
    stop_ids: Collection[int],
    slots: int,
    *,
    with_logprobs: bool = False,
    agree: Callable[[bool], bool] = bool,
) -> list[GeneratedTokens]:
    """Draw one answer for each request. The caller has put the model into eval mode, without gradient.

    Args:
        decoder: the model.
        prompts: what is asked about.
        asked: the requests; one prompt may be asked about several times.
        sampler: draws tokens, see `draws.TokenSampler`.
        longest: tokens after which an answer is cut; one of exactly so many may still end.
        stop_ids: tokens that end an answer.
        slots: rows answered together; answers do not depend on it.
        with_logprobs: keep log-probabilities of the drawn tokens.
        agree: whether all processes are done, asked after every call of the decoder, where they must call it equally
            often (sharded weights).

    Returns:
        One `Answer` per request, in order.
    """
    if not asked:
        return []
    run = _Run(
        decoder, prompts, asked, sampler, longest, frozenset(stop_ids), min(slots, len(asked)), with_logprobs
    )
    while True:
        run.step()
        if agree(run.done):
            return run.answers


class _Row(NamedTuple):
    """A request in its slot."""

    request: int
    length: int  # tokens whose states lie in the slot
    last: int  # the token drawn last, whose states do not yet


class _Run:
    """Requests being answered; slot i holds row i."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: Prompts,
        asked: Sequence[GenerationRequest],
        sampler: Sampler,
        longest: int,
        stops: frozenset[int],
        slots: int,
        with_logprobs: bool,
    ) -> None:
        self.decoder = decoder
        self.prompts = prompts
        self.asked = asked
        self.longest = [longest if one.longest is None else one.longest for one in asked]
        self.stops = stops
        self.slots = slots
        self.sampler = sampler
        self.with_logprobs = with_logprobs
        self.answers = [GeneratedTokens([], False, []) for _ in asked]
        lengths = prompts.lengths
        # longest prompts first: memory peaks at once, and prompts read together are of like length
        order = sorted(range(len(asked)), key=lambda i: (-lengths[asked[i].prompt], asked[i].prompt, i))
        self.waiting = deque(order)
        distinct = len({one.prompt for one in asked})
        self.shared = prompts.shared if distinct > 1 and prompts.shared >= SHARED_LEAST else 0
        self.start: DynamicCache | None = None  # states of what all prompts begin with
        self.ahead: dict[int, Tensor] = {}  # embeddings of prompts that are still to be read
        self.held: tuple[int, Tensor] | None = (
            None  # a prompt that was read and is waited for, and its logits
        )
        self.rows: list[_Row] = []
        self.cache = SlotCache(decoder.n_layers, slots + 1, max(lengths, default=0) + longest // 4 + 2)

    @property
    def done(self) -> bool:
        """Whether all requests are answered."""
        return not self.rows and not self.waiting

    def step(self) -> None:
        """One call of the decoder: prompts are read, or every row gets a token."""
        self._enter_held()
        free = self.slots - len(self.rows)
        least = min(max(1, self.slots // ENTER_SHARE), len(self.waiting))
        if self.shared and self.start is None:
            self._read_start()
        elif self.waiting and (free >= least or not self.rows):
            self._read([self.waiting.popleft() for _ in range(min(free, len(self.waiting)))])
        elif self.rows:
            self._go_on()
        else:  # keep other processes company
            self._company()

    # --- prompts

    def _read_start(self) -> None:
        """Read what all prompts begin with."""
        prompt = self.asked[self.waiting[0]].prompt
        self.ahead[prompt] = self.prompts.embed([prompt])[0]
        first = self.ahead[prompt][None, : self.shared]
        self.start = DynamicCache()
        self.decoder.logits(first, None, torch.arange(self.shared, device=first.device)[None], self.start)

    def _read(self, requests: list[int]) -> None:
        """Read the prompts of some requests, each once, and draw the first tokens."""
        prompts = list(dict.fromkeys(self.asked[i].prompt for i in requests))
        rests = [embeds[self.shared :] for embeds in self._embeds(prompts)]
        width = max(map(len, rests))
        pads = [width - len(rest) for rest in rests]
        states = self._started(len(prompts))
        logits = self.decoder.logits(*self._padded(rests, pads), states)
        first: dict[int, int] = {}
        slots: list[int] = []
        for request in requests:
            prompt = self.asked[request].prompt
            row = prompts.index(prompt)
            slot = len(self.rows) + len(slots)
            if prompt in first:
                self.cache.copy(first[prompt], slot, self.prompts.lengths[prompt])
            else:
                spans = [slice(0, self.shared), slice(self.shared + pads[row], self.shared + width)]
                self.cache.take(states, row, spans, slot)
                first[prompt] = slot
            slots.append(row)
        self._hold(prompts[-1], first[prompts[-1]], logits[-1])
        self._begin(requests, logits[slots])

    def _embeds(self, prompts: list[int]) -> list[Tensor]:
        missing = [i for i in prompts if i not in self.ahead]
        self.ahead.update(zip(missing, self.prompts.embed(missing) if missing else (), strict=True))
        return [self.ahead.pop(i) for i in prompts]

    def _started(self, rows: int) -> DynamicCache:
        """The states of the common beginning, for each of some rows."""
        cache = DynamicCache()
        for number, layer in enumerate(self.start.layers if self.start is not None else ()):
            cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), number)
        return cache

    def _padded(self, rests: list[Tensor], pads: list[int]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Embeddings [B, T, H] padded on the left, mask [B, shared + T] (None where nothing is hidden), positions."""
        width = len(rests[0]) + pads[0]
        embeds = rests[0].new_zeros(len(rests), width, rests[0].shape[-1])
        for row, rest, pad in zip(embeds, rests, pads, strict=True):
            row[pad:] = rest
        places = torch.arange(width, device=embeds.device) - torch.tensor(pads, device=embeds.device)[:, None]
        mask = torch.ones(len(rests), self.shared + width, dtype=torch.long, device=embeds.device)
        mask[:, self.shared :] = places >= 0
        whole = not self.shared and not any(pads)  # without a mask the decoder may take its fast path
        return embeds, None if whole else mask, places.clamp(min=0) + self.shared

    def _hold(self, prompt: int, slot: int, logits: Tensor) -> None:
        """Keep a prompt that more requests wait for, with the logits [V] behind it, in the slot behind all rows."""
        if self._waits_for(prompt):
            self.held = (prompt, logits.clone())
            self.cache.copy(slot, self.slots, self.prompts.lengths[prompt])

    def _enter_held(self) -> None:
        """Rows for a prompt that was read before."""
        if self.held is None:
            return
        prompt, logits = self.held
        requests: list[int] = []
        while len(self.rows) + len(requests) < self.slots and self._waits_for(prompt):
            self.cache.copy(self.slots, len(self.rows) + len(requests), self.prompts.lengths[prompt])
            requests.append(self.waiting.popleft())
        if not self._waits_for(prompt):
            self.held = None
        if requests:
            self._begin(requests, logits.repeat(len(requests), 1))

    def _waits_for(self, prompt: int) -> bool:
        return bool(self.waiting) and self.asked[self.waiting[0]].prompt == prompt

    # --- tokens

    def _begin(self, requests: list[int], logits: Tensor) -> None:
        """First tokens of rows whose prompts lie in the next slots."""
        start = len(self.rows)
        self.rows += [_Row(i, self.prompts.lengths[self.asked[i].prompt], -1) for i in requests]
        seeds = torch.tensor([self.asked[i].seed for i in requests], device=logits.device)
        self._draw(logits, seeds, torch.zeros_like(seeds), start)

    def _go_on(self) -> None:
        """A token for every row."""
        device = self.cache.layers[0].keys.device
        table = [
            (row.length, row.last, self.asked[row.request].seed, len(self.answers[row.request].tokens))
            for row in self.rows
        ]
        lengths, last, seeds, places = torch.tensor(table).to(device).unbind(1)
        longest = max(row.length for row in self.rows)
        self.cache.place(lengths, longest)
        embeds = self.decoder.words(last)[:, None]
        mask = None
        if any(row.length != longest for row in self.rows):
            hidden = torch.arange(longest + 1, device=device) > lengths[:, None]
            mask = torch.zeros(hidden.shape, dtype=embeds.dtype, device=device)
            mask = mask.masked_fill_(hidden, torch.finfo(embeds.dtype).min)[:, None, None]
        logits = self.decoder.logits(embeds, mask, lengths[:, None], self.cache)
        self.rows = [row._replace(length=row.length + 1) for row in self.rows]
        self._draw(logits, seeds, places, 0)

    def _draw(self, logits: Tensor, seeds: Tensor, places: Tensor, start: int) -> None:
        """Draw for the rows from `start` on; rows that are done leave."""
        drawn = self.sampler(logits, seeds, places, self.with_logprobs)
        tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
        for slot, token in enumerate(tokens, start):
            row = self.rows[slot]
            self.rows[slot] = row._replace(last=token)
            self.answers[row.request].tokens.append(token)
            if logprobs:
                self.answers[row.request].logprobs.append(logprobs[slot - start])
        # from behind: what moves into a slot that becomes free has been looked at
        for slot in range(len(self.rows) - 1, start - 1, -1):
            if self._over(self.rows[slot]):
                self._leave(slot)

    def _over(self, row: _Row) -> bool:
        """Whether a row's answer is complete, or cut."""
        answer, limit = self.answers[row.request], self.longest[row.request]
        if row.last in self.stops:
            self.answers[row.request] = answer._replace(ended=True)
            return True
        if len(answer.tokens) <= limit:
            return False
        # one more than asked: an answer of exactly `limit` tokens still got to say that it ends
        self.answers[row.request] = GeneratedTokens(answer.tokens[:limit], False, answer.logprobs[:limit])
        return True

    def _leave(self, slot: int) -> None:
        """Give a slot to the last row."""
        last = self.rows.pop()
        if slot < len(self.rows):
            self.cache.copy(len(self.rows), slot, last.length)
            self.rows[slot] = last

    def _company(self) -> None:
        """A call of the decoder whose result nobody needs."""
        place = torch.zeros(1, 1, dtype=torch.long, device=self.cache.layers[0].keys.device)
        self.decoder.logits(self.decoder.words(place), None, place, DynamicCache())
