"""The decoder of a speech model as the generation engine wants it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rba_bench.speechlm.audiolm.families.base import AudioFamily
from rba_bench.textlm.drivable import drivable, remember
from rba_bench.textlm.generation import Decoder, shared_start


def of_family(family: AudioFamily) -> Decoder | None:
    """None where the engine cannot drive it, or where the family is not taken apart.

    To be asked in eval mode and without gradient.
    """
    if not family.splits:
        return None
    config = family.decoder.config

    def logits(embeds: Tensor, mask: Tensor | None, positions: Tensor, cache: Any) -> Tensor:
        states = family.decode(embeds, mask, positions, past_key_values=cache, use_cache=cache is not None)
        return family.head(states[:, -1])

    layers = getattr(config, "num_hidden_layers", 0)
    decoder = Decoder(logits, family.model.get_input_embeddings(), layers)
    return decoder if drivable(decoder, family.decoder, config) else None


@torch.no_grad()
def try_out(family: AudioFamily) -> bool:
    """Whether the decoder can be driven, found out before processes share its weights out.

    The trial calls the decoder; a process that knew the outcome already would then not call it with the others.
    """
    decoder = family.decoder
    training = decoder.training
    decoder.eval()
    try:
        return of_family(family) is not None
    finally:
        decoder.train(training)


def follow(family: AudioFamily, driven: bool) -> None:
    """Take over what the process that has the weights found out."""
    remember(family.decoder, driven)


def spoken_start(family: AudioFamily, rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, before the audio of any of them."""
    shared = shared_start(rows)
    places = [row.index(family.audio_token_id) for row in map(list, rows) if family.audio_token_id in row]
    return min([shared, *places])


def unpadded(embeds: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Rows [P, H] of left-padded embeddings [B, L, H]."""
    return [row[embeds.shape[1] - size :] for row, size in zip(embeds, sizes, strict=True)]
