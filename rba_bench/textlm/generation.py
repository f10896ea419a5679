"""Answers from a decoder directly: rows that are done leave, waiting ones enter, shared prompts are read once.

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

from rba_bench.textlm.draws import Drawn
from rba_bench.textlm.slots import SlotCache

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


Sampler = Callable[[Tensor, Tensor, Tensor, bool], Drawn]


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


class Asked(NamedTuple):
    """One answer that is wanted.

    Attributes:
        prompt: which of the prompts.
        seed: in [0, 2**63); not used when greedy.
        longest: tokens after which it is cut, if not those of the decoding.
    """

    prompt: int
    seed: int
    longest: int | None = None


class Answer(NamedTuple):
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

    return Prompts([len(row) for row in rows], embed, shared_start(rows))


def shared_start(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with, one of each row left over."""
    if len(rows) < 2:
        return 0
    low, high = min(map(tuple, rows)), max(map(tuple, rows))
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(same, min(map(len, rows)) - 1)


def answer(
    decoder: Decoder,
    prompts: Prompts,
    asked: Sequence[Asked],
    sampler: Sampler,
    longest: int,
    stop_ids: Collection[int],
    slots: int,
    *,
    with_logprobs: bool = False,
    agree: Callable[[bool], bool] = bool,
) -> list[Answer]:
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
        asked: Sequence[Asked],
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
        self.answers = [Answer([], False, []) for _ in asked]
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
        self.answers[row.request] = Answer(answer.tokens[:limit], False, answer.logprobs[:limit])
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
