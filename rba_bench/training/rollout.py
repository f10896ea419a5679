"""Sampling answers from the current policy: one batch over all clips of a step, one random stream per request.

`sample` is a plain key-value-cache loop over the decoder. For small models transformers' `generate` spends more time on
its own bookkeeping than in the model; a test holds that both draw the same tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from rba_bench.textlm.base import Decoding
from rba_bench.textlm.sampling import PerRequestGumbel
from rba_bench.training.clips import Clip
from rba_bench.training.policy import SpeechPolicy


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
def sample(
    policy: SpeechPolicy,
    clips: Sequence[Clip],
    requests: Sequence[int],
    seeds: Sequence[int],
    decoding: Decoding,
    end_ids: Sequence[int],
    *,
    with_logprobs: bool = False,
    agree: Callable[[bool], bool] = bool,
) -> list[Draw]:
    """Draw one answer per request.

    Args:
        policy: the current policy; put into eval mode meanwhile.
        clips: the clips asked about, each projected once.
        requests: index into `clips` per request; a clip may be asked several times.
        seeds: one per request; an answer depends on weights, clip and seed alone (see `PerRequestGumbel`).
        decoding: length, temperature (0 = greedy, seeds unused) and top_p.
        end_ids: tokens that end an answer.
        with_logprobs: also what the policy itself gave each token, see `Draw`.
        agree: whether all processes are done, where they must call the decoder equally often (sharded weights).

    Returns:
        One `Draw` per request. Like `textlm.sampling`, an answer of exactly `max_new_tokens` tokens may still end.
    """
    training = policy.training
    policy.eval()
    try:
        return policy.inside(
            lambda: _sample(policy, clips, requests, seeds, decoding, end_ids, with_logprobs, agree)
        )
    finally:
        policy.train(training)


def _sample(
    policy: SpeechPolicy,
    clips: Sequence[Clip],
    requests: Sequence[int],
    seeds: Sequence[int],
    decoding: Decoding,
    end_ids: Sequence[int],
    with_logprobs: bool,
    agree: Callable[[bool], bool],
) -> list[Draw]:
    device, family = policy.device, policy.family
    prompts = [clips[request].prompt_ids.tolist() for request in requests]
    ids, mask = (tensor.to(device) for tensor in family.collate(prompts))
    embeds = policy.embed(clips, ids, torch.tensor(requests, device=device))
    stop = torch.tensor(sorted(end_ids), device=device)
    draw = None if decoding.greedy else PerRequestGumbel(seeds, decoding.temperature, decoding.top_p)
    words = family.model.get_input_embeddings()
    cache = DynamicCache(config=family.decoder.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    full = bool(mask.all())
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    columns: list[Tensor] = []
    odds: list[Tensor] = []
    for _ in range(decoding.max_new_tokens + 1):
        # without padding the decoder may take its fast path
        hidden = family.decode(
            embeds, None if full else mask, positions, past_key_values=cache, use_cache=True
        )[:, -1]
        scores = family.head(hidden).float()
        if with_logprobs:  # of the placeholder too, which is never drawn
            chances = (scores / (decoding.temperature or 1.0)).log_softmax(-1)
        if family.audio_token_id < scores.shape[1]:
            scores[:, family.audio_token_id] = float("-inf")
        tokens = (scores if draw is None else draw(ids, scores)).argmax(-1)
        columns.append(tokens)
        if with_logprobs:
            odds.append(chances.gather(-1, tokens[:, None])[:, 0])
        done |= torch.isin(tokens, stop)
        if agree(bool(done.all())):
            break
        embeds = words(tokens)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    table = torch.stack(columns, dim=1).tolist()
    worth = torch.stack(odds, dim=1).tolist() if with_logprobs else [[] for _ in table]
    ends = frozenset(end_ids)
    return [
        _cut(row, chances, ends, decoding.max_new_tokens) for row, chances in zip(table, worth, strict=True)
    ]


def _cut(tokens: list[int], logprobs: list[float], end_ids: frozenset[int], longest: int) -> Draw:
    for position, token in enumerate(tokens):
        if token in end_ids:
            return Draw(tuple(tokens[: position + 1]), True, tuple(logprobs[: position + 1]))
    return Draw(tuple(tokens[:longest]), False, tuple(logprobs[:longest]))
