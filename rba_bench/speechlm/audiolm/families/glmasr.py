"""GLM-ASR: rotary encoder over windows of 30 s, four states a token, a two-layer projector, Llama.

The encoder attends to its padding: there is no mask, and a clip's states depend on the silence up to 30 s. Encoding
at true length would be another model, so it is not done. Only what lies within the clip becomes audio tokens (12.5 a
second). The model transcribes: a turn without text gets the processor's `default_transcription_prompt`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from rba_bench.speechlm.audiolm.families.whisper_type import WhisperType


class GlmAsr(WhisperType):
    """`GlmAsrForConditionalGeneration`."""

    @property
    def max_seconds(self) -> float | None:
        """Whole windows within the processor's `max_audio_len`."""
        window = self.extractor.chunk_length
        return float(self.processor.max_audio_len // window * window)

    def user_turn(self, prompt: str) -> list[dict[str, Any]]:
        """Audio, then `prompt` or the default request for a transcript."""
        return super().user_turn(prompt or self.processor.default_transcription_prompt)

    def tokens_of(self, frames: Any) -> Any:
        """12.5 a second: stride 2 in the convolutions, then groups of four."""
        return ((frames - 1) // 2 + 1) // 4

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; four encoder states side by side for each audio token."""
        states = self.tower(self.mels(features)).last_hidden_state
        states = states.reshape(len(states), -1, self.model.config.audio_config.intermediate_size)
        lengths = self.tokens_of(features["frames"].to(states.device))
        return self.gather(states, lengths, features["windows"])

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`; state by state."""
        return self.model.model.multi_modal_projector(states), lengths
