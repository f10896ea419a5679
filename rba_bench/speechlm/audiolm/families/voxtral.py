"""Voxtral: Whisper encoder over windows of 30 s, four states a token, a two-layer projector, Llama.

Every window counts 375 audio tokens whatever it holds, and nothing is masked: the decoder reads the silence behind a
short clip. True length would be another prompt and another model, so it is not done. There is no limit to the number
of windows but the decoder's context. Unlike the other families the log-mel of a long clip is made of the whole clip
and then cut into windows.

Checkpoints come with `tekken.json`, which the package `mistral-common` reads. Its tokenizer writes the turn from the
messages themselves, audio included; here it is asked once per prompt with a moment of silence. The waves do not pass
through it, so that they are not rounded to 16 bits as they are on the stock path.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra
from rba_bench.speechlm.audiolm.families.base import Features
from rba_bench.speechlm.audiolm.families.whisper_type import WhisperType
from rba_bench.speechlm.base import SAMPLING_RATE
from rba_bench.textlm.chat import render


class Voxtral(WhisperType):
    """`VoxtralForConditionalGeneration`."""

    @property
    def max_seconds(self) -> float | None:
        """No limit but the context."""
        return None

    @property
    def writes_turns(self) -> bool:
        """Whether the tokenizer is that of `mistral-common`, which takes messages instead of a template."""
        return "MistralCommon" in type(self.tokenizer).__name__

    def find_stops(self) -> list[int]:
        """The end token; `mistral-common` shows no template to look into."""
        if not self.writes_turns:
            return super().find_stops()
        return [int(self.tokenizer.eos_token_id)]

    def render(self, prompt: str) -> str:
        """See `AudioFamily.render`; the processor itself writes no templates."""
        if not self.tokenizer.chat_template:
            raise MissingPrerequisite(
                f"Voxtral's turns are written by mistral-common: {extra('voxtral')}, and keep tekken.json "
                "beside the weights"
            )
        messages = [{"role": "user", "content": self.user_turn(prompt)}]
        return render(self.tokenizer, messages, add_generation_prompt=True, **self.template)

    def _prompt_ids(self, prompt: str) -> tuple[int, ...]:
        if not self.writes_turns:
            return super()._prompt_ids(prompt)
        turn = [
            {"type": "audio", "base64": _silence()} if part["type"] == "audio" else part
            for part in self.user_turn(prompt)
        ]
        found = self.tokenizer.apply_chat_template([{"role": "user", "content": turn}], return_dict=True)
        ids: list[int] = []
        for token, run in groupby(found["input_ids"]):  # the silence's tokens become one placeholder
            ids.extend([token] if token == self.audio_token_id else run)
        return tuple(ids)

    def answer_ids(self, answer: str) -> list[int]:
        """See `AudioFamily.answer_ids`."""
        return [*self.tokenizer.encode(answer, add_special_tokens=False), self.stops[0]]

    def n_windows(self, n_samples: int) -> int:
        """Windows of a clip."""
        return max(1, -(-n_samples // self.extractor.n_samples))

    def tokens_of(self, frames: Any) -> Any:
        """The same for every window, however many frames hold sound."""
        del frames
        return self.n_tokens(1)

    def n_tokens(self, n_samples: int) -> int:
        """375 a window."""
        audio = self.model.config.audio_config
        per_window = audio.max_source_positions * audio.hidden_size // audio.intermediate_size
        return int(self.n_windows(n_samples) * per_window)

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """See `AudioFamily.features`; `input_features` [W, M, 3000], `windows` [N]."""
        counts = [self.n_windows(len(clip)) for clip in clips]
        found: dict[int, torch.Tensor] = {}
        for count in sorted(set(counts)):
            rows = [i for i, windows in enumerate(counts) if windows == count]
            mels = self.extractor(
                [np.asarray(clips[i], dtype=np.float32) for i in rows],
                sampling_rate=SAMPLING_RATE,
                padding="max_length",
                max_length=count * self.extractor.n_samples,
                truncation=False,
                return_tensors="pt",
            )["input_features"]
            windows = mels.reshape(len(rows), mels.shape[1], count, -1).transpose(1, 2)
            found.update(zip(rows, windows, strict=True))
        mels = torch.cat([found[i] for i in range(len(clips))])
        return {"input_features": mels, "windows": torch.tensor(counts)}

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`; four encoder states side by side for each audio token."""
        states = self.tower(self.mels(features)).last_hidden_state
        states = states.reshape(len(states), -1, self.model.config.audio_config.intermediate_size)
        lengths = torch.full((len(states),), states.shape[1], device=states.device)
        return self.gather(states, lengths, features["windows"])

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`; state by state."""
        return self.model.model.multi_modal_projector(states), lengths


def _silence() -> str:
    """A tenth of a second of silence as base64 of a wav file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(SAMPLING_RATE // 10, dtype=np.float32), SAMPLING_RATE, format="WAV")
    return base64.b64encode(buffer.getvalue()).decode()
