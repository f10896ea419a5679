"""Training of a decoder compressor on clips and their transcripts: Whisper's decoder gets to know unlike voices.

Whisper tiny was trained on people. Behind voices that it never met, such as those of formant synthesis, its decoder
misreads states that its encoder still tells apart; the attention from decoder to states alone (2.4 million parameters
of tiny) learns them in minutes. Encoder, self-attention and words stay, so that what the decoder knows of English
stays. Teacher forcing with cross entropy on the transcript, as Whisper itself was trained (Radford et al. 2022), each
clip used once. At the end the trained weights are averaged with Whisper's own, which keeps what they understand of
natural voices (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from rba_bench.speechlm.composite.decoder_compressor import ROWS, DecoderCompressor, fill_window
from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder
from rba_bench.training.step_trainer import StepTrainer

IGNORED = -100


@dataclass(frozen=True)
class DecoderRecipe:
    """How a decoder is trained.

    Attributes:
        steps: optimiser steps.
        clips: of a step.
        lr: peak of the learning rate, after a linear warm-up and before a cosine down to a hundredth of it.
        warmup: steps of the warm-up.
        weight_decay: of matrices.
        own: weight of Whisper's own weights in the average at the end.
        save_every: steps between checkpoints.
    """

    steps: int = 800
    clips: int = 16
    lr: float = 2e-4
    warmup: int = 20
    weight_decay: float = 0.01
    own: float = 0.25
    save_every: int = 50


Features = Callable[[list[np.ndarray]], tuple[torch.Tensor, torch.Tensor]]
"""Log-mel [B, M, T] of clips and their numbers of frames [B]."""


class DecoderTrainer(StepTrainer):
    """Trains the parts of a decoder that `DecoderSettings.trained` names, on clips that come as they are used.

    Args:
        compressor: trains in place; in float32. Its settings name the parts.
        encoder: gives the states; does not train.
        clips: from a number of clips that are already used, the transcripts' token ids (of the decoder, without start
            and end) and the samples of the next ones, without end.
        features: of the encoder.
        recipe: see `DecoderRecipe`.
        out: folder of checkpoints and log, claimed by the caller.
        half: compute matrix products in bfloat16, where the processor is faster at that.

    Raises:
        ValueError: the settings name no part.
    """

    def __init__(
        self,
        compressor: DecoderCompressor,
        encoder: TrueLengthWhisperEncoder,
        clips: Callable[[int], Iterator[tuple[list[int], np.ndarray]]],
        features: Features,
        recipe: DecoderRecipe,
        out: Path,
        half: bool = False,
    ) -> None:
        self.compressor, self.encoder, self.features = compressor, encoder, features
        self.recipe, self.half = recipe, half
        trained = compressor.trained_parameters()
        if not trained:
            raise ValueError("the decoder's settings name no part that trains")
        compressor.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        self.pretrained = {name: parameter.detach().clone() for name, parameter in trained.items()}
        rates = (recipe.lr, recipe.warmup, recipe.weight_decay)
        super().__init__(trained, recipe.steps, *rates, out, recipe.save_every)
        self.coming = clips(self.step * recipe.clips)

    def run(self, note: Callable[[int, float], None] = lambda step, loss: None) -> None:
        """See `StepTrainer.run`; the weights are averaged then."""
        super().run(note)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.lerp_(self.pretrained[name], self.recipe.own)

    def loss(self) -> tuple[torch.Tensor, float]:
        """See `StepTrainer.loss`: mean cross entropy of the transcripts' tokens and ends."""
        batch = [next(self.coming) for _ in range(self.recipe.clips)]
        settings = self.compressor.sizes
        room = self.compressor.decoder.max_target_positions
        inputs, labels = teacher_forced([ids for ids, _ in batch], settings.start, settings.end, room)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            states = self._states([wave for _, wave in batch])
            hidden = self.compressor.decoder(
                input_ids=inputs, encoder_hidden_states=states, use_cache=False
            ).last_hidden_state
            real = labels != IGNORED
            logits = hidden[real] @ self.compressor.decoder.embed_tokens.weight.T
        loss = nn.functional.cross_entropy(logits.float(), labels[real])
        return loss, loss.item()

    @torch.no_grad()
    def _states(self, waves: list[np.ndarray]) -> torch.Tensor:
        """[B, T', D] of the whole window."""
        mels, lengths = self.features(waves)
        tower = self.encoder
        windows = fill_window(mels, lengths, 2 * tower.mel_stride * tower.max_source_positions)
        return torch.cat([tower(windows[i : i + ROWS])[0] for i in range(0, len(windows), ROWS)])


def teacher_forced(
    transcripts: list[list[int]], start: tuple[int, ...], end: int, room: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a decoder reads and what it is to write next, token ids [B, N]; IGNORED where nothing is asked of it.

    Args:
        transcripts: token ids without start and end.
        start: see `DecoderSettings`.
        end: see `DecoderSettings`.
        room: largest N; what is behind it is cut off.
    """
    longest = len(start) + max(len(row) for row in transcripts)
    inputs = torch.full((len(transcripts), longest), end)
    labels = torch.full((len(transcripts), longest), IGNORED)
    for number, row in enumerate(transcripts):
        size = len(start) + len(row)
        inputs[number, :size] = torch.tensor([*start, *row])
        labels[number, len(start) - 1 : size] = torch.tensor([*row, end])
    return inputs[:, :room], labels[:, :room]
