"""The composite: a Whisper-type encoder at true length, a stacking projector, any causal LM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rba_bench.errors import UserError, first_line
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily, Features
from rba_bench.speechlm.audiolm.families.dialogue import Messages
from rba_bench.speechlm.speech_model import SAMPLING_RATE


class Composite(AudioFamily):
    """Adapter of `CompositeForConditionalGeneration`; features are `input_features` [N, M, T] and `feature_lengths`."""

    allows_true_length = True  # the encoder was made for it; there is no other form
    steady = True
    text_first = True

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """The composite's own class."""
        from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration

        return CompositeForConditionalGeneration

    @classmethod
    def load_processor(cls, folder: Path, trust_remote_code: bool = False) -> Any:
        """The composite's own processor."""
        from rba_bench.speechlm.composite.processing import CompositeProcessor

        try:
            return CompositeProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no usable processor: {first_line(error)}") from error

    @property
    def compresses(self) -> bool:  # type: ignore[override]
        """See `AudioFamily.compresses`."""
        return self.model.model.compressor is not None

    def parts(self) -> dict[str, list[nn.Module]]:
        """See `Trainable.parts`: a compressor belongs to the encoder, as it ends what is cached."""
        parts = super().parts()
        if self.compresses:
            parts["encoder"].append(self.model.model.compressor)
        return parts

    def identity(self) -> dict[str, Any]:
        """What a record says of the model beside path, weights and setup: its kind."""
        return {"kind": "composite"}

    @property
    def banned(self) -> list[int]:
        """See `AudioFamily.banned`."""
        return [self.audio_token_id]

    def encoder_sha256(self) -> str:
        """Hash of the encoder's weights: checkpoints that trained other parts share its states."""
        weights = [
            (name, weight)
            for module in self.parts()["encoder"]
            for name, weight in sorted(module.state_dict().items())
        ]
        stored = ((name, weight.cpu().contiguous().view(torch.uint8)) for name, weight in weights)
        return sha256_json([[name, sha256_bytes(data.numpy().tobytes())] for name, data in stored])

    @property
    def padding(self) -> str:
        """There is no other form: a decoder needs what it was trained on, all else true length."""
        return "30s" if self.writes else "true-length"

    @property
    def writes(self) -> bool:
        """Whether audio tokens are what Whisper's decoder writes."""
        return getattr(self.model.model.compressor, "whole_window", False)

    @property
    def max_seconds(self) -> float | None:
        """Where the processor cuts clips."""
        return float(self.processor.feature_extractor.max_seconds)

    def refusal(self, n_samples: int) -> str:
        """See `AudioFamily.refusal`: the encoder's table of positions may end before the processor cuts."""
        if self.processor.feature_extractor.n_frames(n_samples) > self.max_frames:
            seconds = n_samples / SAMPLING_RATE
            return f"audio of {seconds:.1f} s is longer than the encoder's {self.max_frames / 100:g} s"
        return ""

    def _by_template(self, messages: Messages) -> str:
        return str(self.processor.render_messages(messages, **self.template))

    @property
    def _adds_special(self) -> bool:
        return False  # the template writes them all

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer as the chat template closes it, up to the first end token.

        Raises:
            UserError: the template does not put the answer right behind the generation prompt, or does not end it.
        """
        opening = self.processor.render("")

        def write(contents: Sequence[str]) -> str:  # what the template writes behind its generation prompt
            turn = str(self.processor.render("", contents[0]))
            if not turn.startswith(opening):
                raise UserError(
                    "the chat template does not put the answer behind its generation prompt: cannot train on it"
                )
            return turn[len(opening) :]

        ids = self.content.ids(write, [answer])
        for position, token in enumerate(ids):
            if token in self.stops:
                return ids[: position + 1]
        raise UserError(
            "the chat template does not close the assistant's turn with an end token: cannot train on it"
        )

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `AudioFamily.head`."""
        logits: torch.Tensor = self.model.text_logits(hidden)
        return logits

    def n_tokens(self, n_samples: int) -> int:
        """See `AudioFamily.n_tokens`."""
        if self.compresses:  # at most one token for two states of 20 ms
            states = (self.processor.feature_extractor.n_frames(n_samples) + 1) // 2
            return -(-states // 2)
        return int(self.processor.n_audio_tokens(n_samples))

    def frames_needed(self, n_samples: int) -> int:
        """See `AudioFamily.frames_needed`: at least one state more than the clip's."""
        return int(self.processor.feature_extractor.n_frames(n_samples)) + 2 * self.encoder.mel_stride

    @property
    def max_frames(self) -> int:
        """See `AudioFamily.max_frames`: what the encoder has positions for."""
        return 2 * int(self.encoder.mel_stride) * int(self.encoder.config.max_source_positions)

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """See `AudioFamily.features`."""
        features = self.processor.feature_extractor(list(clips), sampling_rate=SAMPLING_RATE)
        return {name: features[name] for name in ("input_features", "feature_lengths")}

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.encode_audio`."""
        weight = next(self.model.model.audio_tower.parameters())
        mels = features["input_features"].to(weight.device, weight.dtype)
        states, lengths = self.model.encode_audio(mels, features["feature_lengths"].to(weight.device))
        return states, lengths

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `AudioFamily.project`."""
        embeds, counts = self.model.project(states, lengths)
        return embeds, counts
