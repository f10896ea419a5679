"""Granite Speech: a conformer, a Q-Former over windows of 15 states (3 tokens each, 10 a second), Granite with LoRA.

What is its own: the encoder has no mask, so only clips of one length go together; the text model multiplies
embeddings, residuals and logits by constants, all inside its own forward; a LoRA adapter in the checkpoint is for
audio only, and the stock `generate` switches it off unless it is given features; the template writes today's date
unless it is given a system turn. Log-mel features are computed here, as the stock extractor needs torchaudio for them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.families.adapter import Features
from rba_bench.speechlm.audiolm.families.dialogue import Turns, render_dialogue
from rba_bench.speechlm.audiolm.families.processors import (
    ADAPTER,
    Unpadded,
    adapter_identity,
    audio_settings,
    encode_by_length,
    load_adapter,
    load_parts,
    need_peft,
    switched_adapter,
    without_adapter,
)
from rba_bench.speechlm.speech_model import SAMPLING_RATE

AUDIO = "<|audio|>"
# The system turn of the model card; without one the template names the day of the run.
SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: April 9, 2025.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
QUIETEST = 1e-10  # power floor before the logarithm
RANGE = 8.0  # what lies so many powers of ten below the loudest value is lifted to there


class GraniteFeatures:
    """Log-mel frames, two stacked: `GraniteSpeechFeatureExtractor` without torchaudio.

    Args:
        n_fft: size of the Fourier transform.
        win_length: samples of a frame.
        hop_length: samples between frames.
        n_mels: mel bands, HTK scale, triangles of height 1.
    """

    def __init__(
        self, n_fft: int = 512, win_length: int = 400, hop_length: int = 160, n_mels: int = 80, **_: Any
    ) -> None:
        from transformers.audio_utils import mel_filter_bank

        self.n_fft, self.win_length, self.hop_length = n_fft, win_length, hop_length
        bank = mel_filter_bank(
            n_fft // 2 + 1, n_mels, 0.0, SAMPLING_RATE / 2, SAMPLING_RATE, norm=None, mel_scale="htk"
        )
        self.bank = torch.from_numpy(bank).float()

    def __call__(self, clip: np.ndarray) -> torch.Tensor:
        """[T, 2 * n_mels] of one clip; T is `frames(len(clip))`."""
        wave = torch.from_numpy(np.array(clip, dtype=np.float32))
        reach = self.n_fft // 2
        # `stft` cannot mirror more than there is; such clips carry no token anyway (see `n_tokens`).
        spectrum = torch.stft(
            wave,
            self.n_fft,
            self.hop_length,
            self.win_length,
            torch.hann_window(self.win_length),
            pad_mode="reflect" if len(wave) > reach else "constant",
            return_complex=True,
        )
        power = spectrum.abs().square().T @ self.bank
        logs = power.clamp(min=QUIETEST).log10()
        logs = torch.maximum(logs, logs.max() - RANGE) / 4 + 1
        return logs[: len(logs) // 2 * 2].reshape(-1, 2 * logs.shape[-1])

    def frames(self, n_samples: int) -> int:
        """Stacked frames of a clip, 20 ms each."""
        return (n_samples // self.hop_length + 1) // 2


class GraniteSpeech(Unpadded):
    """`GraniteSpeechForConditionalGeneration`."""

    @classmethod
    def load_model(cls, config: Any, folder: Path, device: str, trust_remote_code: bool = False) -> Any:
        """With its adapter, where the config announces one.

        Raises:
            MissingPrerequisite: peft is missing.
            UserError: the adapter is not there, or files are damaged or incomplete.
        """
        if config.has_lora_adapter:
            if not (folder / ADAPTER).is_file():
                raise UserError(
                    f"{folder} lacks {ADAPTER}, which its config announces; copy the checkpoint again"
                )
            need_peft("Granite Speech")
        with without_adapter(folder) as plain:
            model = super().load_model(config, plain, device, trust_remote_code)
        model.adapter_files = adapter_identity(folder) if config.has_lora_adapter else {}
        if config.has_lora_adapter:
            load_adapter(model, folder)
        return model.to(device).eval()

    @classmethod
    def load_processor(cls, folder: Path, trust_remote_code: bool = False) -> Any:
        """Without torchaudio."""
        return load_parts(folder, _features, trust_remote_code)

    @property
    def encoder(self) -> Any:
        """See `Trainable.encoder`."""
        return self.model.model.encoder

    def parts(self) -> dict[str, list[nn.Module]]:
        """See `Trainable.parts`; the Q-Former is the projector."""
        inner = self.model.model
        return {
            "encoder": [self.encoder],
            "projector": [inner.projector],
            "llm": [self.decoder, self.model.get_output_embeddings()],
        }

    @property
    def generator(self) -> Any:
        """The model with its adapter on: the stock `generate` turns it off when embeddings come instead of audio."""
        return _WithAdapter(self.model)

    @contextmanager
    def reading_speech(self) -> Iterator[None]:
        """With the adapter."""
        with switched_adapter(self.model, True) if self.has_adapter else nullcontext():
            yield

    def render(self, prompt: str, turns: Turns = ()) -> str:
        """The model card's turn: placeholder and text as one string, under the card's system turn."""
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{AUDIO}{prompt}"}]
        return render_dialogue(self._by_template, turns, messages)

    def n_tokens(self, n_samples: int) -> int:
        """Three for each window of 15 states, the last one filled up; 0 below one analysis window."""
        if n_samples <= self.processor.feature_extractor.n_fft // 2:
            return 0
        config = self.model.config
        blocks = math.ceil(self.processor.feature_extractor.frames(n_samples) / config.window_size)
        return blocks * (config.window_size // config.downsample_rate)

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """`input_features` [N, T, 160], padded behind, and `frames` [N]."""
        rows = [self.processor.feature_extractor(self.truncate(clip)) for clip in clips]
        return {
            "input_features": pad_sequence(rows, batch_first=True),
            "frames": torch.tensor([len(row) for row in rows]),
        }

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; 50 states a second."""
        weight = self.encoder.input_linear.weight
        mels = features["input_features"].to(weight.device, weight.dtype)
        return encode_by_length(mels, features["frames"], lambda rows: self.encoder(rows).last_hidden_state)

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The Q-Former, window by window: a clip's tokens do not depend on padding behind its last window."""
        config = self.model.config
        blocks = (lengths + config.window_size - 1) // config.window_size
        # zeros behind the end are what the stock code fills the last window with
        mask = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        tokens = self.model.model.projector(states * mask[..., None])
        return tokens, blocks * (config.window_size // config.downsample_rate)


class _WithAdapter:
    """`generate` of a model with adapters on; everything else is the model's."""

    def __init__(self, model: Any) -> None:
        object.__setattr__(self, "_model", model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)

    def generate(self, **kwargs: Any) -> Any:
        """Transformers' own, past the override of Granite Speech that looks for features."""
        from transformers import GenerationMixin

        with switched_adapter(self._model, True) if self._model._hf_peft_config_loaded else nullcontext():
            return GenerationMixin.generate(self._model, **kwargs)


def _features(folder: Path) -> GraniteFeatures:
    settings = audio_settings(folder, "audio_processor", "feature_extractor")
    return GraniteFeatures(**{**settings, **settings.get("melspec_kwargs", {})})
