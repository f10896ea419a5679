"""Sampling answers of the current policy, one random stream per request.

`Rollout` is the interface of the engines that sample during training; `LocalRollout` is the policy itself, in this
process. There the generation engine drives the decoder: prompts are read once however often they are sampled on, and
finished rows make room for others. Decoders that it cannot drive (sliding windows, a recurrent state) sample in a plain
loop, a batch at a time.
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
    generation = [GenerationRequest(clip, seed) for clip, seed in zip(requests, seeds, strict=True)]
    sampler = TokenSampler(decoding.temperature, decoding.top_p, [policy.family.audio_token_id])
    longest = decoding.max_new_tokens

    def draw() -> list[Draw]:
        decoder = speech_decoder(policy.family)
        if decoder is None:
            return _sample_plainly(
                policy, clips, generation, sampler, longest, end_ids, with_logprobs=with_logprobs, agree=agree
            )
        answers = generate_tokens(
            decoder,
            _prompts(policy, clips),
            generation,
            sampler,
            longest,
            end_ids,
            slots or len(generation),
            with_logprobs=with_logprobs,
            agree=agree,
        )
        return [Draw(tuple(answer.tokens), answer.ended, tuple(answer.logprobs)) for answer in answers]

    return _in_eval_mode(policy, draw)


@torch.no_grad()
def uses_generation_engine(policy: SpeechPolicy) -> bool:
    """Whether the generation engine samples, so that requests need not come in batches."""
    return _in_eval_mode(policy, lambda: speech_decoder(policy.family)) is not None


def _in_eval_mode(policy: SpeechPolicy, work: Callable[[], T]) -> T:
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


def _sample_plainly(
    policy: SpeechPolicy,
    clips: Sequence[ClipInput],
    requests: Sequence[GenerationRequest],
    sampler: TokenSampler,
    longest: int,
    end_ids: Sequence[int],
    *,
    with_logprobs: bool,
    agree: Callable[[bool], bool],
) -> list[Draw]:
    """One batch until its longest answer is done, with the cache that transformers makes for the decoder."""
    device, family = policy.device, policy.family
    prompts = [clips[request.prompt].prompt_ids.tolist() for request in requests]
    ids, mask = (tensor.to(device) for tensor in family.collate(prompts))
    embeds = policy.embed(clips, ids, torch.tensor([request.prompt for request in requests], device=device))
    seeds = torch.tensor([request.seed for request in requests], device=device)
    stop = torch.tensor(sorted(end_ids), device=device)
    words = family.model.get_input_embeddings()
    cache = DynamicCache(config=family.decoder.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    full = bool(mask.all())
    done = torch.zeros(len(requests), dtype=torch.bool, device=device)
    columns: list[Tensor] = []
    logprobs: list[Tensor] = []
    for place in range(longest + 1):
        # without padding the decoder may take its fast path
        hidden = family.decode(
            embeds, None if full else mask, positions, past_key_values=cache, use_cache=True
        )[:, -1]
        draws = sampler(family.head(hidden), seeds, torch.full_like(seeds, place), with_logprobs)
        columns.append(draws.tokens)
        logprobs.append(draws.logprobs)
        done |= torch.isin(draws.tokens, stop)
        if agree(bool(done.all())):
            break
        embeds = words(draws.tokens)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    rows = torch.stack(columns, dim=1).tolist()
    row_logprobs = torch.stack(logprobs, dim=1).tolist() if with_logprobs else [[] for _ in rows]
    answers = []
    for tokens, values in zip(rows, row_logprobs, strict=True):
        end = next((index for index, token in enumerate(tokens) if token in end_ids), None)
        stop_at = longest if end is None else end + 1
        answers.append(Draw(tuple(tokens[:stop_at]), end is not None, tuple(values[:stop_at])))
    return answers


BASE = "policy"  # the name that `rba-bench train server` serves the decoder under


class RolloutUnavailable(RbaError):
    """The engine that samples does not answer any more, or gives a wrong reply."""


class Request(NamedTuple):
    """A request for one answer.

    Attributes:
        clip: index into the clips of the call.
        seed: the answer depends on weights, clip, temperature and seed alone.
        temperature: 0 is greedy; the seed is unused then.
    """

    clip: int
    seed: int
    temperature: float


class Rollout(Protocol):
    """An engine that samples answers of the policy. Lengths and end tokens are those of the run.

    All processes of a run call `draw` equally often, each with its own clips.
    """

    def renew(self) -> None:
        """To be called when the policy's weights have changed: the next draw uses the new ones."""

    def draw(
        self, clips: Sequence[ClipInput], requests: Sequence[Request], *, with_logprobs: bool = False
    ) -> list[Draw]:
        """One answer for each request, in order.

        Args:
            clips: the inputs.
            requests: a clip may come several times, at several temperatures.
            with_logprobs: also return log-probabilities, see `Draw.logprobs`.

        Raises:
            RolloutUnavailable: the engine does not answer; the same command continues where the run stopped.
        """


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
        draws: dict[int, Draw] = {}
        engine = uses_generation_engine(self.policy)  # may call the model, so all processes ask here
        for temperature in sorted({request.temperature for request in requests}):
            order = [i for i, request in enumerate(requests) if request.temperature == temperature]
            order.sort(key=lambda i: (-len(clips[requests[i].clip].prompt_ids), i))
            size = len(order) if engine else self.batch
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                self.sync.enter()
                answers = self._sample(clips, [requests[i] for i in batch], temperature, with_logprobs)
                draws.update(zip(batch, answers, strict=True))
        self.sync.leave(lambda: self._sample([self.any_clip()], [Request(0, 0, 0.0)], 0.0, False))
        return [draws[i] for i in range(len(requests))]

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
