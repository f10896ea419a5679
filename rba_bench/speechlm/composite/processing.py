"""Processor of the composite: log-mel features as openai-whisper computes them, and text with audio to model inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.processing_utils import ProcessorMixin

from rba_bench.errors import UserError
from rba_bench.textlm.chat import render_chat

_SAMPLING_RATE = 16_000
_HOP = 160  # samples, 10 ms
_SHORTEST = 400  # samples, one analysis window; shorter clips are filled up with zeros


class LogMelFeatureExtractor(FeatureExtractionMixin):
    """Waves to log-mel [B, M, T] with `whisper.audio.log_mel_spectrogram`, without padding to 30 s.

    Args:
        feature_size: mel bins, 80 or 128.
        max_seconds: longer clips are cut; ask `is_truncated` to know.
    """

    model_input_names = ["input_features", "feature_lengths"]

    def __init__(self, feature_size: int = 80, max_seconds: float = 30.0, **kwargs: Any) -> None:
        if feature_size not in (80, 128):
            raise UserError(f"openai-whisper has filters for 80 or 128 mel bins, not {feature_size}")
        if not max_seconds * _SAMPLING_RATE >= _SHORTEST:
            raise UserError(f"max_seconds must be at least {_SHORTEST / _SAMPLING_RATE}, not {max_seconds}")
        kwargs.pop("sampling_rate", None)
        super().__init__(**kwargs)
        self.feature_size = feature_size
        self.max_seconds = max_seconds
        self.sampling_rate = _SAMPLING_RATE

    @property
    def max_samples(self) -> int:
        """Samples at which a clip is cut."""
        return int(self.max_seconds * _SAMPLING_RATE)

    def is_truncated(self, n_samples: int) -> bool:
        """Whether a clip of `n_samples` loses its end."""
        return n_samples > self.max_samples

    def n_frames(self, n_samples: int) -> int:
        """Mel frames (10 ms) of a clip of `n_samples`."""
        return max(min(n_samples, self.max_samples), _SHORTEST) // _HOP

    def __call__(
        self, audio: np.ndarray | Sequence[np.ndarray], sampling_rate: int = _SAMPLING_RATE, **_: Any
    ) -> BatchFeature:
        """Features of one clip or several.

        Args:
            audio: mono float waves at 16 kHz in [-1, 1].
            sampling_rate: their rate in Hz; anything but 16,000 is refused.

        Returns:
            `input_features` float32 [B, M, T], zero behind a clip's end; `feature_lengths` int64 [B], frames.

        Raises:
            UserError: wrong rate, shape or type, or samples that are not finite.
        """
        if sampling_rate != _SAMPLING_RATE:
            raise UserError(
                f"the composite takes audio at 16000 Hz, but the clip has {sampling_rate} Hz: resample it first"
            )
        # whisper pulls in its decoder and numba: too much for everyone who only reads a configuration
        from whisper.audio import log_mel_spectrogram

        mels = []
        waves = [audio] if isinstance(audio, np.ndarray) and audio.ndim == 1 else list(audio)
        for wave in map(np.asarray, waves):
            if wave.ndim != 1 or not np.issubdtype(wave.dtype, np.floating):
                raise UserError(f"a clip must be a mono float wave, not {wave.dtype} of shape {wave.shape}")
            samples = np.array(
                wave[: self.max_samples], dtype=np.float32
            )  # a copy: torch wants writable memory
            if not np.isfinite(samples).all():
                raise UserError("a clip has samples that are not finite")
            padding = max(0, _SHORTEST - samples.size)
            mels.append(log_mel_spectrogram(samples, n_mels=self.feature_size, padding=padding))
        lengths = [mel.shape[1] for mel in mels]
        features = torch.zeros(len(mels), self.feature_size, max(lengths, default=0))
        for row, mel in zip(features, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        return BatchFeature(
            {"input_features": features, "feature_lengths": torch.tensor(lengths, dtype=torch.long)}
        )


__all__ = ["CompositeProcessor", "LogMelFeatureExtractor"]


class CompositeProcessor(ProcessorMixin):
    """Feature extractor + tokenizer + chat template.

    Args:
        feature_extractor: `LogMelFeatureExtractor`.
        tokenizer: the text model's tokenizer; must know `audio_token` as one token.
        chat_template: Jinja template; the tokenizer's own by default.
        stack_factor: k of the model this processor feeds (`CompositeConfig.stack_factor`).
        audio_token: the placeholder.
        mel_stride: stride of the encoder's first convolution (1 in Whisper).
        compresses: whether the model has a compressor: a clip then has one placeholder, which the model repeats.

    Raises:
        UserError: the tokenizer does not know the placeholder.
    """

    def __init__(
        self,
        feature_extractor: LogMelFeatureExtractor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        stack_factor: int = 4,
        audio_token: str = "<|audio|>",
        mel_stride: int = 1,
        compresses: bool = False,
    ) -> None:
        if tokenizer is None or feature_extractor is None:
            raise UserError("a composite processor needs a feature extractor and a tokenizer")
        self.audio_token = audio_token
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        if self.audio_token_id is None or self.audio_token_id == tokenizer.unk_token_id:
            raise UserError(f"the tokenizer does not know {audio_token}: add it as a special token")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.stack_factor = stack_factor
        self.mel_stride = mel_stride
        self.compresses = compresses
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template or tokenizer.chat_template)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Path | str, *args: Any, **kwargs: Any
    ) -> "CompositeProcessor":
        """Load from a folder or Hub id."""
        from rba_bench.speechlm.composite import register

        register()  # the feature extractor is found by name
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What is stored; without a compressor as it was before there was one, as records hash the file."""
        stored: dict[str, Any] = super().to_dict(*args, **kwargs)
        if not self.compresses:
            stored.pop("compresses", None)
        return stored

    @property
    def model_input_names(self) -> list[str]:
        """Keys of what `__call__` returns."""
        return ["input_ids", "attention_mask", "input_features", "feature_lengths"]

    def n_audio_tokens(self, n_samples: int) -> int:
        """Placeholders that a clip of `n_samples` at 16 kHz takes in the text."""
        if self.compresses:
            return 1
        states = (-(-self.feature_extractor.n_frames(n_samples) // self.mel_stride) + 1) // 2
        return -(-states // self.stack_factor)

    def render(self, prompt: str, response: str | None = None, **template: Any) -> str:
        """The chat of one spoken turn: `prompt` beside the audio, then the generation prompt or the response.

        Args:
            prompt: text beside the audio, e.g. "translate german to english :"; may be empty.
            response: what the assistant says, closed with the end of turn; None opens the assistant's turn.
            **template: variables of the chat template.
        """
        parts = [{"type": "text", "text": prompt}, {"type": "audio"}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
        if response is not None:
            messages.append({"role": "assistant", "content": response})
        return self.render_messages(messages, add_generation_prompt=response is None, **template)

    def render_messages(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **template: Any
    ) -> str:
        """Any chat as text.

        Text and audio parts are joined by single spaces before the template sees them, so that the template
        of any text model will do.
        """
        flat = []
        for message in messages:
            content = message["content"]
            if not isinstance(content, str):
                parts = [self.audio_token if part["type"] == "audio" else part["text"] for part in content]
                content = " ".join(part for part in parts if part)
            flat.append({**message, "content": content})
        return render_chat(
            self.tokenizer,
            flat,
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **template,
        )

    def __call__(
        self,
        text: str | Sequence[str],
        audio: np.ndarray | Sequence[np.ndarray] | None = None,
        sampling_rate: int = 16_000,
        padding_side: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Model inputs of texts and the clips in them.

        Control strings in a text are control tokens, whoever wrote them: for words of others, which must stay words,
        the family's `prompt_ids` and `answer_ids` are the way.

        Args:
            text: chats as `render` gives them; each placeholder stands for one clip.
            audio: clips in order of appearance over the whole batch, mono float at 16 kHz; or one clip.
            sampling_rate: rate of the clips in Hz (16,000).
            padding_side: "left" to generate, "right" to train; the tokenizer's default otherwise.
            **kwargs: handed to the tokenizer; `add_special_tokens` is off, as the template writes them.

        Returns:
            `input_ids` and `attention_mask` [B, L]; with audio `input_features` [N, M, T], `feature_lengths`
            [N].

        Raises:
            UserError: placeholders and clips differ in number, or a clip is not usable.
        """
        texts = [text] if isinstance(text, str) else list(text)
        clips: list[np.ndarray] = []
        if audio is not None:
            clips = [audio] if isinstance(audio, np.ndarray) and audio.ndim == 1 else list(audio)
        expanded = self._expand(texts, [self.n_audio_tokens(len(clip)) for clip in clips])
        if padding_side is not None:
            kwargs["padding_side"] = padding_side
        options = {"padding": True, "add_special_tokens": False, "return_tensors": "pt", **kwargs}
        tokens = self.tokenizer(expanded, **options)
        data = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        if clips:
            data.update(self.feature_extractor(clips, sampling_rate=sampling_rate))
        return BatchFeature(data)

    def _expand(self, texts: Sequence[str], counts: Sequence[int]) -> list[str]:
        """Each placeholder repeated as often as its clip has audio tokens."""
        n_placeholders = sum(text.count(self.audio_token) for text in texts)
        if n_placeholders != len(counts):
            raise UserError(
                f"the text has {n_placeholders} times {self.audio_token}, but {len(counts)} clips are given"
            )
        remaining = iter(counts)
        expanded = []
        for text in texts:
            head, *tails = text.split(self.audio_token)
            expanded.append(head + "".join(self.audio_token * next(remaining) + tail for tail in tails))
        return expanded
