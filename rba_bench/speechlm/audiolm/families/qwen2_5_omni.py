"""Qwen2.5-Omni's Thinker: windows of 2 s through a Whisper-type encoder, 25 tokens a second, Qwen2.5 with M-RoPE.

The Talker, which speaks, is not loaded. Attention in the encoder stays within windows of `2 * n_window` mel frames
and the stock code drops padding before the first convolution, so true length is the stock computation. With audio
and text alone the three rows of M-RoPE are equal and count up, so one-dimensional positions say the same.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from rba_bench.speechlm.audiolm.families.adapter import pad_states
from rba_bench.speechlm.audiolm.families.processors import audio_settings, load_parts
from rba_bench.speechlm.audiolm.families.whisper_type import WhisperType
from rba_bench.speechlm.composite.encoder import length_mask


class Qwen25Omni(WhisperType):
    """`Qwen2_5OmniThinkerForConditionalGeneration`, from its own checkpoint or from the whole model's."""

    allows_true_length: ClassVar[bool] = True

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """The Thinker, also of a checkpoint that holds Talker and vocoder beside it."""
        from transformers import Qwen2_5OmniThinkerForConditionalGeneration

        return Qwen2_5OmniThinkerForConditionalGeneration

    @classmethod
    def load_processor(cls, folder: Path, trust_remote_code: bool = False) -> Any:
        """Without the image part, which needs torchvision."""
        return load_parts(folder, _features, trust_remote_code)

    def parts(self) -> dict[str, list[nn.Module]]:
        """See `Trainable.parts`; the projector is the encoder's last layer."""
        encoder = self.encoder
        return {
            "encoder": [encoder.conv1, encoder.conv2, encoder.layers, encoder.ln_post],
            "projector": [encoder.proj],
            "llm": [self.decoder, self.model.get_output_embeddings()],
        }

    def unused(self) -> list[nn.Module]:
        """See `Trainable.unused`: the eyes, and two embeddings that no code reads (transformers 5.23)."""
        return [self.model.model.visual, self.encoder.audio_bos_eos_token]

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; states before the encoder's last layer, one for each audio token."""
        mels = self.mels(features)
        frames = features["frames"].to(mels.device)
        mask = length_mask(frames, mels.shape[-1])
        unprojected = copy.copy(
            self.encoder
        )  # shares all modules but the last layer, which `project` applies
        unprojected._modules = {**self.encoder._modules, "proj": nn.Identity()}
        pooled = unprojected(
            mels.permute(0, 2, 1)[mask].permute(1, 0),
            feature_lens=frames,
            aftercnn_lens=(frames - 1) // 2 + 1,
            return_dict=True,
        ).last_hidden_state
        states, lengths = pad_states(torch.split(pooled, self.tokens_of(frames).tolist()))
        return self.gather(states, lengths, features["windows"])

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`; state by state."""
        return self.encoder.proj(states), lengths


def _features(folder: Path) -> Any:
    from transformers import WhisperFeatureExtractor

    settings = audio_settings(folder, "feature_extractor")
    # by name, as older files hold the settings of images in the same object
    names = (
        "feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "padding_value", "dither",
    )  # fmt: skip
    return WhisperFeatureExtractor(**{name: settings[name] for name in names if name in settings})
