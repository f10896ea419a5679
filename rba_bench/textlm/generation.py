"""Generation engine: continuous batching over a decoder, with key-value slots and prompts that are read once.

Transformers' `generate` keeps a batch until its longest answer is finished: of 32 answers of geometric length, three
quarters of the work is waiting. Its dynamic cache also copies all keys and values at every token and pads every row to
the longest. Here a fixed number of slots is kept full from a queue (continuous batching; Yu et al. 2022, "Orca"). A row
owns a slot of the cache (`SlotCache`): its states lie at the slot's beginning, without padding; those of a token are
written behind them. The rows being answered lie in the first slots, so that what the decoder attends to is a view; a
row that is finished gives its slot to the last one. A prompt that is asked several times is read once, and so is the
common beginning of all prompts.

The tokens are those that `generate` would draw: an answer depends on weights, prompt and seed alone (`draws`), and
tests hold that greedy answers are equal. `engine_support.is_drivable` finds out which decoders can be driven so; the
others go through `generate` (`sampling.continue_batch`).
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

from rba_bench.textlm.draws import SampledTokens

ENTER_SHARE = 8  # prompts are read when one slot in so many is free: reading has a price of its own
SHARED_LEAST = 8  # tokens that all prompts must begin with for these to be read apart
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
        self.targets = torch.empty(0, dtype=torch.long)  # where the next tokens are written
        self.store = (torch.empty(0), torch.empty(0))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate slots for states such as these [N, heads, length, width]."""
        self.store = (self._allocate(key_states), self._allocate(value_states))
        self.keys, self.values = self.store
        self.is_initialized = True

    def _allocate(self, states: Tensor) -> Tensor:
        return states.new_zeros(self.slots, states.shape[1], self.capacity, states.shape[3])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the states of one token a row; returns views of all that may be looked at."""
        keys, values = self.store
        for room, states in ((keys, key_states), (values, value_states)):
            rows = states.to(room.dtype).reshape(-1, states.shape[-1])
            room.view(-1, room.shape[-1]).index_copy_(0, self.targets, rows)
        return keys[: self.rows, :, : self.length], values[: self.rows, :, : self.length]

    def grow(self, capacity: int) -> None:
        """Make slots longer."""
        self.capacity = capacity
        if not self.is_initialized:
            return
        keys, values = (self._allocate(room) for room in self.store)
        for larger, room in zip((keys, values), self.store, strict=True):
            larger[:, :, : room.shape[2]] = room
        self.store = self.keys, self.values = keys, values

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
            for room, source in zip(layer.store, (read.keys, read.values), strict=True):
                start = 0
                for span in spans:
                    size = span.stop - span.start
                    room[slot, :, start : start + size] = source[row, :, span]
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
        # by number of heads: [n * heads] of a layer's [slots * heads * capacity]
        targets: dict[int, Tensor] = {}
        for layer in self.layers:
            layer.rows, layer.length = rows, longest + 1
            heads = layer.store[0].shape[1]
            if heads not in targets:
                first = torch.arange(rows * heads, device=lengths.device) * self.capacity
                targets[heads] = first + lengths.repeat_interleave(heads)
            layer.targets = targets[heads]


def _rounded(length: int) -> int:
    return -(-length // GRAIN) * GRAIN


class Decoder(NamedTuple):
    """The functions of a model that the engine calls.

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
        embed: input embeddings [P, H] of some of them, called when they are about to be read.
        shared: tokens that all of them begin with.
    """

    lengths: Sequence[int]
    embed: Callable[[Sequence[int]], Sequence[Tensor]]
    shared: int = 0


class GenerationRequest(NamedTuple):
    """A request for one answer.

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
    """Prompts of token ids, with the length of their common beginning."""

    def embed(numbers: Sequence[int]) -> list[Tensor]:
        return [words(torch.tensor(list(rows[i]), device=device)) for i in numbers]

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
    requests: Sequence[GenerationRequest],
    sampler: Sampler,
    longest: int,
    stop_ids: Collection[int],
    slots: int,
    *,
    with_logprobs: bool = False,
    agree: Callable[[bool], bool] = bool,
) -> list[GeneratedTokens]:
    """Generate one answer for each request. The caller has put the model into eval mode, without gradient.

    Args:
        decoder: the model.
        prompts: the distinct prompts.
        requests: several may be about one prompt.
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
    if not requests:
        return []
    stops = frozenset(stop_ids)
    slots = min(slots, len(requests))
    batch = _RunningBatch(decoder, prompts, requests, sampler, longest, stops, slots, with_logprobs)
    check = _between_steps.get()
    while True:
        if check is not None:
            check()
        batch.step()
        if agree(not batch.rows and not batch.waiting):
            return batch.answers


_between_steps: ContextVar[Callable[[], None] | None] = ContextVar("between_steps", default=None)


@contextmanager
def checked_between_steps(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` between two tokens of whatever is generated inside, in this thread; what it raises ends the work.

    A thread cannot be interrupted from outside, and an answer may take a minute.
    """
    token = _between_steps.set(check)
    try:
        yield
    finally:
        _between_steps.reset(token)


class _Row(NamedTuple):
    """A request in its slot."""

    request: int
    length: int  # tokens whose states lie in the slot
    last: int  # the token drawn last, whose states do not yet


class _RunningBatch:
    """The state of generation; slot i holds row i."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: Prompts,
        requests: Sequence[GenerationRequest],
        sampler: Sampler,
        longest: int,
        stops: frozenset[int],
        slots: int,
        with_logprobs: bool,
    ) -> None:
        self.decoder = decoder
        self.prompts = prompts
        self.requests = requests
        self.longest = [longest if request.longest is None else request.longest for request in requests]
        self.stops = stops
        self.slots = slots
        self.sampler = sampler
        self.with_logprobs = with_logprobs
        self.answers = [GeneratedTokens([], False, []) for _ in requests]
        lengths = prompts.lengths
        # longest prompts first: memory peaks at once, and prompts read together are of like length
        order = sorted(
            range(len(requests)), key=lambda i: (-lengths[requests[i].prompt], requests[i].prompt, i)
        )
        self.waiting = deque(order)
        distinct = len({request.prompt for request in requests})
        self.shared = prompts.shared if distinct > 1 and prompts.shared >= SHARED_LEAST else 0
        self.start: DynamicCache | None = None  # states of what all prompts begin with
        self.embeds: dict[int, Tensor] = {}  # of prompts that are still to be read
        # a prompt that was read and that more requests wait for, with the logits behind it; its slot is the last
        self.held: tuple[int, Tensor] | None = None
        self.rows: list[_Row] = []
        self.cache = SlotCache(decoder.n_layers, slots + 1, max(lengths, default=0) + longest // 4 + 2)

    def step(self) -> None:
        """One call of the decoder: prompts are read, or every row gets a token."""
        if self.held is not None:  # rows for a prompt that was read before
            prompt, logits = self.held
            numbers: list[int] = []
            while len(self.rows) + len(numbers) < self.slots and self._waits_for(prompt):
                self.cache.copy(self.slots, len(self.rows) + len(numbers), self.prompts.lengths[prompt])
                numbers.append(self.waiting.popleft())
            if not self._waits_for(prompt):
                self.held = None
            if numbers:
                self._start_rows(numbers, logits.repeat(len(numbers), 1))
        free = self.slots - len(self.rows)
        least = min(max(1, self.slots // ENTER_SHARE), len(self.waiting))
        if self.shared and self.start is None:  # read the common beginning of all prompts
            prompt = self.requests[self.waiting[0]].prompt
            self.embeds[prompt] = self.prompts.embed([prompt])[0]
            first = self.embeds[prompt][None, : self.shared]
            self.start, places = DynamicCache(), torch.arange(self.shared, device=first.device)[None]
            self.decoder.logits(first, None, places, self.start)
        elif self.waiting and (free >= least or not self.rows):
            self._read([self.waiting.popleft() for _ in range(min(free, len(self.waiting)))])
        elif self.rows:
            self._next_tokens()
        else:  # a dummy forward pass: all processes must call a decoder with sharded weights equally often
            place = torch.zeros(1, 1, dtype=torch.long, device=self.cache.layers[0].keys.device)
            self.decoder.logits(self.decoder.words(place), None, place, DynamicCache())

    def _read(self, numbers: list[int]) -> None:
        """Read the prompts of some requests, each once, and draw the first tokens."""
        prompts = list(dict.fromkeys(self.requests[i].prompt for i in numbers))
        missing = [i for i in prompts if i not in self.embeds]
        self.embeds.update(zip(missing, self.prompts.embed(missing) if missing else (), strict=True))
        rests = [self.embeds.pop(i)[self.shared :] for i in prompts]
        width = max(map(len, rests))
        pads = [width - len(rest) for rest in rests]
        states = DynamicCache()  # begins with those of the common beginning, once for each row
        for number, layer in enumerate(self.start.layers if self.start is not None else ()):
            states.update(*(x.expand(len(prompts), -1, -1, -1) for x in (layer.keys, layer.values)), number)
        # padded on the left
        embeds = rests[0].new_zeros(len(rests), width, rests[0].shape[-1])
        for row, rest, pad in zip(embeds, rests, pads, strict=True):
            row[pad:] = rest
        places = torch.arange(width, device=embeds.device) - torch.tensor(pads, device=embeds.device)[:, None]
        mask = None  # where nothing is hidden, so that the decoder may take its fast path
        if self.shared or any(pads):
            mask = nn.functional.pad(places >= 0, (self.shared, 0), value=True).long()
        logits = self.decoder.logits(embeds, mask, places.clamp(min=0) + self.shared, states)
        first: dict[int, int] = {}  # slot of a prompt
        order = []
        for slot, number in enumerate(numbers, len(self.rows)):
            prompt = self.requests[number].prompt
            row = prompts.index(prompt)
            if prompt in first:
                self.cache.copy(first[prompt], slot, self.prompts.lengths[prompt])
            else:
                spans = [slice(0, self.shared), slice(self.shared + pads[row], self.shared + width)]
                self.cache.take(states, row, spans, slot)
                first[prompt] = slot
            order.append(row)
        if self._waits_for(prompts[-1]):
            self.held = (prompts[-1], logits[-1].clone())
            self.cache.copy(first[prompts[-1]], self.slots, self.prompts.lengths[prompts[-1]])
        self._start_rows(numbers, logits[order])

    def _waits_for(self, prompt: int) -> bool:
        return bool(self.waiting) and self.requests[self.waiting[0]].prompt == prompt

    def _start_rows(self, numbers: list[int], logits: Tensor) -> None:
        """Draw the first tokens of requests whose prompts lie in the next slots."""
        start = len(self.rows)
        self.rows += [_Row(i, self.prompts.lengths[self.requests[i].prompt], -1) for i in numbers]
        seeds = torch.tensor([self.requests[i].seed for i in numbers], device=logits.device)
        self._draw(logits, seeds, torch.zeros_like(seeds), start)

    def _next_tokens(self) -> None:
        """Draw a token for every row."""
        device = self.cache.layers[0].keys.device
        table = [
            (row.length, row.last, self.requests[row.request].seed, len(self.answers[row.request].tokens))
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
        """Draw for the rows from `start` on; finished rows leave their slots."""
        sampled = self.sampler(logits, seeds, places, self.with_logprobs)
        tokens, logprobs = sampled.tokens.tolist(), sampled.logprobs.tolist()
        for slot, token in enumerate(tokens, start):
            row = self.rows[slot]
            self.rows[slot] = row._replace(last=token)
            self.answers[row.request].tokens.append(token)
            if logprobs:
                self.answers[row.request].logprobs.append(logprobs[slot - start])
        # from behind: the row that moves into a free slot has been looked at already
        for slot in range(len(self.rows) - 1, start - 1, -1):
            row = self.rows[slot]
            answer, limit = self.answers[row.request], self.longest[row.request]
            if row.last in self.stops:
                self.answers[row.request] = answer._replace(ended=True)
            elif len(answer.tokens) > limit:
                # one more token than requested: an answer of exactly `limit` tokens can still emit its stop token
                self.answers[row.request] = GeneratedTokens(
                    answer.tokens[:limit], False, answer.logprobs[:limit]
                )
            else:
                continue
            last = self.rows.pop()
            if slot < len(self.rows):
                self.cache.copy(len(self.rows), slot, last.length)
                self.rows[slot] = last
