"""Sampling answers from the current policy: one batch over all clips of a step, one random stream per clip.

`sample` is a plain key-value-cache loop over the decoder. For small models transformers' `generate` spends more time on
its own bookkeeping than in the model; a test holds that both draw the same tokens.
"""

from collections.abc import Sequence
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
    """

    tokens: tuple[int, ...]
    ended: bool


@torch.inference_mode()
def sample(
    policy: SpeechPolicy,
    clips: Sequence[Clip],
    requests: Sequence[int],
    seeds: Sequence[int],
    decoding: Decoding,
    end_ids: Sequence[int],
) -> list[Draw]:
    """Draw one answer per request.

    Args:
        policy: the current policy; put into eval mode meanwhile.
        clips: the clips asked about, each projected once.
        requests: index into `clips` per request; a clip may be asked several times.
        seeds: one per request; an answer depends on weights, clip and seed alone (see `PerRequestGumbel`).
        decoding: length, temperature (0 = greedy, seeds unused) and top_p.
        end_ids: tokens that end an answer.

    Returns:
        One `Draw` per request. Like `textlm.sampling`, an answer of exactly `max_new_tokens` tokens may still end.
    """
    training = policy.training
    policy.eval()
    try:
        return _sample(policy, clips, requests, seeds, decoding, end_ids)
    finally:
        policy.train(training)


def _sample(
    policy: SpeechPolicy,
    clips: Sequence[Clip],
    requests: Sequence[int],
    seeds: Sequence[int],
    decoding: Decoding,
    end_ids: Sequence[int],
) -> list[Draw]:
    device = policy.device
    prompts = [clips[request].prompt_ids for request in requests]
    ids, mask = _left_padded(prompts, policy.pad_id, device)
    embeds = policy.embed(clips, ids, torch.tensor(requests, device=device))
    stop = torch.tensor(sorted(end_ids), device=device)
    draw = None if decoding.greedy else PerRequestGumbel(seeds, decoding.temperature, decoding.top_p)
    words = policy.composite.get_input_embeddings()
    decoder, head = policy.composite.get_decoder(), policy.composite.get_output_embeddings()
    cache = DynamicCache(config=decoder.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    full = bool(mask.all())
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    columns: list[Tensor] = []
    for _ in range(decoding.max_new_tokens + 1):
        hidden = decoder(
            inputs_embeds=embeds,
            attention_mask=None if full else mask,  # without padding the decoder may take its fast path
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        scores = head(hidden).float()
        if policy.composite.config.audio_token_id < scores.shape[1]:
            scores[:, policy.composite.config.audio_token_id] = float("-inf")
        tokens = (scores if draw is None else draw(ids, scores)).argmax(-1)
        columns.append(tokens)
        done |= torch.isin(tokens, stop)
        if bool(done.all()):
            break
        embeds = words(tokens)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    table = torch.stack(columns, dim=1).tolist()
    return [_cut(row, frozenset(end_ids), decoding.max_new_tokens) for row in table]


def _left_padded(prompts: Sequence[Tensor], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    size = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), size), pad_id)
    mask = torch.zeros(len(prompts), size, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, size - len(prompt) :] = prompt
        mask[row, size - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _cut(tokens: list[int], end_ids: frozenset[int], longest: int) -> Draw:
    for position, token in enumerate(tokens):
        if token in end_ids:
            return Draw(tuple(tokens[: position + 1]), True)
    return Draw(tuple(tokens[:longest]), False)
