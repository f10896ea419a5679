"""Sampling answers from the current policy, one random stream per request.

The generation engine drives the decoder: prompts are read once however often they are asked, and rows that are done
make room for others. Decoders that it cannot drive (sliding windows, a state) sample in a plain loop, a batch at a
time.

The seam between training and whatever draws answers of the policy.

Rollouts by the policy itself, in this process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from rba_bench.errors import RbaError
from rba_bench.speechlm.audiolm.text_decoder import prefix_before_audio, speech_decoder, unpadded
from rba_bench.textlm.draws import TokenSampler
from rba_bench.textlm.generation import GenerationRequest, Prompts, generate_tokens
from rba_bench.textlm.text_model import Decoding
from rba_bench.training.data.clips import ClipInput
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """Tokens drawn for one request.

    Attributes:
        tokens: with the end token where one came.
        ended: False if `max_new_tokens` were reached before an end token.
        logprobs: of the tokens under softmax(logits / temperature), what they were drawn from but for top_p; at
            temperature 1 for a greedy answer. Empty unless asked for.
    """

    tokens: tuple[int, ...]
    ended: bool
    logprobs: tuple[float, ...] = ()


@torch.no_grad()
def sample_answers(
    policy: SpeechPolicy,
    clips: Sequence[ClipInput],
    requests: Sequence[int],
    seeds: Sequence[int],
    decoding: Decoding,
    end_ids: Sequence[int],
    *,
    with_logprobs: bool = False,
    agree: Callable[[bool], bool] = bool,
    slots: int | None = None,
) -> list[Draw]:
    """Draw one answer per request.

    Args:
        policy: the current policy; put into eval mode meanwhile.
        clips: the clips asked about.
        requests: index into `clips` per request; a clip may be asked several times.
        seeds: one per request; an answer depends on weights, clip and seed alone (see `textlm.draws`).
        decoding: length, temperature (0 = greedy, seeds unused) and top_p.
        end_ids: tokens that end an answer.
        with_logprobs: also what the policy itself gave each token, see `Draw`.
        agree: whether all processes are done, where they must call the decoder equally often (sharded weights).
        slots: answers sampled together, all of them by default. A decoder that the engine cannot drive samples all
            together; see `uses_generation_engine`.

    Returns:
        One `Draw` per request. Like `textlm.sampling`, an answer of exactly `max_new_tokens` tokens may still end.
    """
    asked = [GenerationRequest(clip, seed) for clip, seed in zip(requests, seeds, strict=True)]
    sampler = TokenSampler(decoding.temperature, decoding.top_p, [policy.family.audio_token_id])
    order = _Order(
        asked, sampler, decoding.max_new_tokens, end_ids, with_logprobs, agree, slots or len(asked)
    )
    return _resting(policy, lambda: _sample(policy, clips, order))


class _Order(NamedTuple):
    """What `sample` was asked for."""

    asked: Sequence[GenerationRequest]
    sampler: TokenSampler
    longest: int
    end_ids: Sequence[int]
    with_logprobs: bool
    agree: Callable[[bool], bool]
    slots: int


def _sample(policy: SpeechPolicy, clips: Sequence[ClipInput], order: _Order) -> list[Draw]:
    decoder = speech_decoder(policy.family)
    if decoder is None:
        return _plainly(policy, clips, order)
    found = generate_tokens(
        decoder,
        _prompts(policy, clips),
        order.asked,
        order.sampler,
        order.longest,
        order.end_ids,
        order.slots,
        with_logprobs=order.with_logprobs,
        agree=order.agree,
    )
    return [Draw(tuple(one.tokens), one.ended, tuple(one.logprobs)) for one in found]


@torch.no_grad()
def uses_generation_engine(policy: SpeechPolicy) -> bool:
    """Whether the generation engine draws, so that requests need not come in batches."""
    return _resting(policy, lambda: speech_decoder(policy.family)) is not None


def _resting(policy: SpeechPolicy, work: Callable[[], T]) -> T:
    """Do something with the policy in eval mode."""
    training = policy.training
    policy.eval()
    try:
        return policy.inside(work)
    finally:
        policy.train(training)


def _prompts(policy: SpeechPolicy, clips: Sequence[ClipInput]) -> Prompts:
    """The prompts of clips, each projected when it is about to be read."""
    family = policy.family
    rows = [clip.prompt_ids.tolist() for clip in clips]

    def embed(chosen: Sequence[int]) -> list[Tensor]:
        ids, _ = family.collate([rows[i] for i in chosen])
        order = torch.arange(len(chosen), device=policy.device)
        embeds = policy.embed([clips[i] for i in chosen], ids.to(policy.device), order)
        return unpadded(embeds, [len(rows[i]) for i in chosen])

    return Prompts([len(row) for row in rows], embed, prefix_before_audio(family, rows))


def _plainly(policy: SpeechPolicy, clips: Sequence[ClipInput], order: _Order) -> list[Draw]:
    """One batch until its longest answer is done, with the cache that transformers makes for the decoder."""
    device, family, asked = policy.device, policy.family, order.asked
    ids, mask = (
        tensor.to(device)
        for tensor in family.collate([clips[one.prompt].prompt_ids.tolist() for one in asked])
    )
    embeds = policy.embed(clips, ids, torch.tensor([one.prompt for one in asked], device=device))
    seeds = torch.tensor([one.seed for one in asked], device=device)
    stop = torch.tensor(sorted(order.end_ids), device=device)
    words = family.model.get_input_embeddings()
    cache = DynamicCache(config=family.decoder.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    full = bool(mask.all())
    done = torch.zeros(len(asked), dtype=torch.bool, device=device)
    columns: list[Tensor] = []
    odds: list[Tensor] = []
    for place in range(order.longest + 1):
        # without padding the decoder may take its fast path
        hidden = family.decode(
            embeds, None if full else mask, positions, past_key_values=cache, use_cache=True
        )[:, -1]
        drawn = order.sampler(family.head(hidden), seeds, torch.full_like(seeds, place), order.with_logprobs)
        columns.append(drawn.tokens)
        odds.append(drawn.logprobs)
        done |= torch.isin(drawn.tokens, stop)
        if order.agree(bool(done.all())):
            break
        embeds = words(drawn.tokens)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    table = torch.stack(columns, dim=1).tolist()
    worth = torch.stack(odds, dim=1).tolist() if order.with_logprobs else [[] for _ in table]
    ends = frozenset(order.end_ids)
    return [_cut(row, chances, ends, order.longest) for row, chances in zip(table, worth, strict=True)]


def _cut(tokens: list[int], logprobs: list[float], end_ids: frozenset[int], longest: int) -> Draw:
    for position, token in enumerate(tokens):
        if token in end_ids:
            return Draw(tuple(tokens[: position + 1]), True, tuple(logprobs[: position + 1]))
    return Draw(tuple(tokens[:longest]), False, tuple(logprobs[:longest]))


BASE = "policy"  # the name that `rba-bench train server` serves the decoder under


class RolloutUnavailable(RbaError):
    """Whatever draws the answers does not answer any more, or not with what it should."""


class Request(NamedTuple):
    """One answer that is wanted.

    Attributes:
        clip: index into the clips of the call.
        seed: the answer depends on weights, clip, temperature and this alone.
        temperature: 0 is greedy; the seed is unused then.
    """

    clip: int
    seed: int
    temperature: float


class Rollout(Protocol):
    """Draws answers of the policy. Lengths and end tokens are those of the run.

    All processes of a run call `draw` equally often, each with its own clips.
    """

    def renew(self) -> None:
        """The policy's weights have changed: the next draw is of the new ones."""

    def draw(
        self, clips: Sequence[ClipInput], requests: Sequence[Request], *, with_logprobs: bool = False
    ) -> list[Draw]:
        """One answer for each request, in order.

        Args:
            clips: what is asked about.
            requests: a clip may be asked about several times, at several temperatures.
            with_logprobs: also what the policy gave each token, see `Draw.logprobs`.

        Raises:
            RolloutUnavailable: the engine is gone; the same command goes on where the run stopped.
        """
        ...


class LocalRollout:
    """Draws with the weights as they train: there is nothing to hand over.

    Args:
        policy: the policy as it trains.
        end_ids: tokens that end an answer.
        max_new_tokens: longest answer.
        batch: answers sampled together.
        any_clip: gives an input for the answers that are not used (see `CollectiveSync`).
        sync: of the processes, where they share the weights out.
    """

    def __init__(
        self,
        policy: SpeechPolicy,
        end_ids: Sequence[int],
        max_new_tokens: int,
        batch: int,
        any_clip: Callable[[], ClipInput],
        sync: CollectiveSync | None = None,
    ) -> None:
        self.policy = policy
        self.end_ids = sorted(end_ids)
        self.max_new_tokens = max_new_tokens
        self.batch = batch
        self.any_clip = any_clip
        self.sync = sync or CollectiveSync()

    def renew(self) -> None:
        """Nothing to do."""

    def draw(
        self, clips: Sequence[ClipInput], requests: Sequence[Request], *, with_logprobs: bool = False
    ) -> list[Draw]:
        """Answers to all requests, longest prompts first so that batches hold prompts of like length."""
        drawn: dict[int, Draw] = {}
        driven = uses_generation_engine(self.policy)  # may call the model, so all processes ask here
        for temperature in sorted({request.temperature for request in requests}):
            mine = [i for i, request in enumerate(requests) if request.temperature == temperature]
            mine.sort(key=lambda i: (-len(clips[requests[i].clip].prompt_ids), i))
            size = len(mine) if driven else self.batch
            for start in range(0, len(mine), size):
                batch = mine[start : start + size]
                self.sync.enter()
                answers = self._sample(clips, [requests[i] for i in batch], temperature, with_logprobs)
                drawn.update(zip(batch, answers, strict=True))
        self.sync.leave(lambda: self._sample([self.any_clip()], [Request(0, 0, 0.0)], 0.0, False))
        return [drawn[i] for i in range(len(requests))]

    def _sample(
        self, clips: Sequence[ClipInput], batch: Sequence[Request], temperature: float, with_logprobs: bool
    ) -> list[Draw]:
        distinct = list(dict.fromkeys(request.clip for request in batch))
        order = {clip: number for number, clip in enumerate(distinct)}
        return sample_answers(
            self.policy,
            [clips[clip] for clip in distinct],
            [order[request.clip] for request in batch],
            [request.seed for request in batch],
            Decoding(self.max_new_tokens, temperature),
            self.end_ids,
            with_logprobs=with_logprobs,
            agree=self.sync.all_done,
            slots=self.batch,
        )
