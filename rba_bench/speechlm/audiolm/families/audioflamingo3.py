"""AudioFlamingo3: Qwen2-Audio's kind of encoder over windows of 30 s, a two-layer projector, Qwen2.

Up to ten minutes are heard (`max_audio_len` of the processor), each window on its own. Attention in the encoder is
masked at the clip's end, so clips are encoded at their true length. The text stands before the audio, as in the
processor's own requests. The class is registered for sequence-to-sequence only; `loading.auto_class` finds it there.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from rba_bench.speechlm.audiolm.families.base import length_mask
from rba_bench.speechlm.audiolm.families.whisper_type import WhisperType, at_length


class AudioFlamingo3(WhisperType):
    """`AudioFlamingo3ForConditionalGeneration`."""

    allows_true_length: ClassVar[bool] = True
    text_first: ClassVar[bool] = True

    @property
    def max_seconds(self) -> float | None:
        """Whole windows within the processor's `max_audio_len`."""
        window = self.extractor.chunk_length
        return float(self.processor.max_audio_len // window * window)

    def tokens_of(self, frames: Any) -> Any:
        """25 a second: stride 2 in the convolutions, then pairs are averaged."""
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; states are pooled, one for each audio token."""
        mels = self.mels(features)
        frames = features["frames"].to(mels.device)
        tower = at_length(self.tower, mels.shape[-1] // 2)
        mask = length_mask(frames, mels.shape[-1]).long()
        states = tower(mels, input_features_mask=mask).last_hidden_state
        return self.gather(states, self.tokens_of(frames), features["windows"])

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`; state by state."""
        return self.model.model.multi_modal_projector(states), lengths
