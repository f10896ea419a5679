"""Phi-4-multimodal: a conformer at 80 ms a token, two linear layers, Phi-4-mini with a LoRA adapter for speech.

What is its own: the stock mask of padded clips adds 1 to attention instead of forbidding it (transformers 5.23), so
answers of a padded batch differ from those of a clip alone; here only clips of one length go together, without a
mask. The adapter lies in `speech-lora/` and has to be switched on by hand. The processor is not loaded whole, because
its image part needs torchvision.

A text beyond `original_max_position_embeddings` changes the rotary factors; the stock `generate` then computes the
whole text anew, which happens here only where prompt and audio alone are that long.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

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
)
from rba_bench.speechlm.speech_model import SAMPLING_RATE

LORA = "speech-lora"
SHORTEST = 2_000  # samples: fewer give one state or none


class Phi4Multimodal(Unpadded):
    """`Phi4MultimodalForCausalLM`, as transformers itself implements it."""

    adapter_folder: ClassVar[str] = LORA

    @classmethod
    def load_model(cls, config: Any, folder: Path, device: str, trust_remote_code: bool = False) -> Any:
        """With the adapter for speech on, where the checkpoint has one.

        Raises:
            MissingPrerequisite: peft is missing.
            UserError: damaged or incomplete files.
        """
        model = super().load_model(config, folder, device, trust_remote_code)
        lora = folder / LORA
        model.adapter_files = adapter_identity(lora)
        if (lora / ADAPTER).is_file():
            need_peft("Phi-4-multimodal")
            load_adapter(model, lora)
        return model.to(device).eval()

    @classmethod
    def load_processor(cls, folder: Path, trust_remote_code: bool = False) -> Any:
        """Without the image part, which needs torchvision."""
        return load_parts(folder, _features, trust_remote_code)

    @property
    def encoder(self) -> Any:
        """See `Trainable.encoder`."""
        return self._embed.encoder

    def parts(self) -> dict[str, list[nn.Module]]:
        """See `Trainable.parts`; encoder and projector lie inside the decoder, which is listed by its layers."""
        inner = self.model.model
        return {
            "encoder": [self.encoder],
            "projector": [self._embed.up_proj_for_speech, self._embed.down_proj_for_speech],
            "llm": [inner.embed_tokens, inner.layers, inner.norm, self.model.get_output_embeddings()],
        }

    def unused(self) -> list[nn.Module]:
        """See `Trainable.unused`: the eyes, and the projector for speech beside images."""
        embed = self._embed
        images = self.model.model.embed_tokens_extend.image_embed
        return [images, embed.up_proj_for_vision_speech, embed.down_proj_for_vision_speech]

    def find_audio_token(self) -> int:
        """Id of the placeholder, in the audio part of the config."""
        return int(self.model.config.audio_config.audio_token_id)

    def render(self, prompt: str, turns: Turns = ()) -> str:
        """By the template; where it takes strings only, placeholder and text as one string."""
        placeholder = str(self.tokenizer.convert_ids_to_tokens(self.audio_token_id))
        try:
            text = super().render(prompt, turns)
        except UserError:  # the template adds strings, and cannot add a list of parts
            text = ""
        if placeholder in text:
            return text
        return render_dialogue(
            self._by_template, turns, [{"role": "user", "content": f"{placeholder}{prompt}"}]
        )

    @property
    def extractor(self) -> Any:
        """`Phi4MultimodalFeatureExtractor`."""
        return self.processor.feature_extractor

    def n_frames(self, n_samples: int) -> int:
        """Mel frames of a clip, 10 ms each, none of them beyond its end."""
        return max(0, (n_samples - self.extractor.win_length) // self.extractor.hop_length + 1)

    def n_tokens(self, n_samples: int) -> int:
        """One for each 80 ms begun; 0 for what is too short for the model."""
        if n_samples < SHORTEST:
            return 0
        return int(self.extractor._compute_audio_embed_size(torch.tensor([self.n_frames(n_samples)]))[0])

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """`input_features` [N, T, M], padded behind, and `frames` [N]; each clip by itself."""
        waves = [np.array(self.truncate(clip), dtype=np.float32) for clip in clips]
        read = [self.extractor(wave, sampling_rate=SAMPLING_RATE) for wave in waves]
        rows = [features["audio_input_features"][0] for features in read]
        return {
            "input_features": pad_sequence(rows, batch_first=True),
            "frames": torch.tensor([len(row) for row in rows]),
        }

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`."""
        weight = self._embed.up_proj_for_speech.weight
        mels = features["input_features"].to(weight.device, weight.dtype)
        return encode_by_length(mels, features["frames"], lambda rows: self._embed.encoder(rows, None))

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two layers for speech without images."""
        inner = torch.nn.functional.gelu(self._embed.up_proj_for_speech(states))
        return self._embed.down_proj_for_speech(inner), lengths

    @property
    def _embed(self) -> Any:
        return self.model.model.embed_tokens_extend.audio_embed


def _features(folder: Path) -> Any:
    from transformers import Phi4MultimodalFeatureExtractor

    settings = audio_settings(folder, "audio_processor", "feature_extractor")
    names = (
        "feature_size", "sampling_rate", "hop_length", "n_fft", "win_length", "preemphasis", "padding_value",
        "audio_compression_rate", "audio_downsample_rate", "audio_feat_stride", "mel_min_frequency",
        "mel_max_frequency",
    )  # fmt: skip
    return Phi4MultimodalFeatureExtractor(**{name: settings[name] for name in names if name in settings})
