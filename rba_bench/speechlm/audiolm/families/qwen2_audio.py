"""Qwen2-Audio: Whisper encoder pooled to 25 tokens a second, one linear layer, Qwen2.

Stock behaviour that is kept: the turn reads `Audio 1: <|audio_bos|><|AUDIO|>...<|audio_eos|>` and then the text (the
processor's template); at most 30 s are heard; attention in the encoder is masked at the clip's end. There is no
`get_audio_features` (transformers 5.23), so `encode_audio` repeats the dozen lines of `Qwen2AudioModel.forward`
around the encoder.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from transformers.masking_utils import create_bidirectional_mask

from rba_bench.speechlm.audiolm.families.base import length_mask
from rba_bench.speechlm.audiolm.families.whisper_type import MARGIN, WhisperType, at_length


class Qwen2Audio(WhisperType):
    """`Qwen2AudioForConditionalGeneration`."""

    allows_true_length: ClassVar[bool] = True
    steady: ClassVar[bool] = True

    def frames_needed(self, n_samples: int) -> int:
        """See `AudioFamily.frames_needed`."""
        needed = self.n_frames(n_samples) + MARGIN
        return needed if self.true_length else max(needed, self.most_frames)

    @property
    def most_frames(self) -> int:
        """See `AudioFamily.most_frames`: one window."""
        return int(self.extractor.nb_max_frames)

    def tokens_of(self, frames: Any) -> Any:
        """25 a second: stride 2 in the convolutions, then pairs are averaged."""
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; states are pooled, one for each audio token."""
        mels = self.mels(features)
        n_states = mels.shape[-1] // 2
        frames = features["frames"].to(mels.device)
        mask = create_bidirectional_mask(
            config=self.tower.config,
            inputs_embeds=mels.new_empty(len(mels), n_states, 1),
            attention_mask=length_mask((frames - 1) // 2 + 1, n_states).long(),
        )
        states = at_length(self.tower, n_states)(mels, attention_mask=mask).last_hidden_state
        return self.gather(states, self.tokens_of(frames), features["windows"])

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`; state by state."""
        return self.model.model.multi_modal_projector(states), lengths
