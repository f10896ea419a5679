"""Log-mel features as openai-whisper computes them, at the clip's true length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from rba_bench.errors import UserError

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
                f"the composite hears 16000 Hz, but the clip has {sampling_rate} Hz: resample it first"
            )
        waves = [audio] if isinstance(audio, np.ndarray) and audio.ndim == 1 else list(audio)
        mels = [self._log_mel(wave) for wave in waves]
        lengths = [mel.shape[1] for mel in mels]
        features = torch.zeros(len(mels), self.feature_size, max(lengths, default=0))
        for row, mel in zip(features, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        return BatchFeature(
            {"input_features": features, "feature_lengths": torch.tensor(lengths, dtype=torch.long)}
        )

    def _log_mel(self, wave: np.ndarray) -> torch.Tensor:
        # whisper pulls in its decoder and numba: too much for everyone who only reads a configuration
        from whisper.audio import log_mel_spectrogram

        wave = np.asarray(wave)
        if wave.ndim != 1 or not np.issubdtype(wave.dtype, np.floating):
            raise UserError(f"a clip must be a mono float wave, not {wave.dtype} of shape {wave.shape}")
        samples = np.array(wave[: self.max_samples], dtype=np.float32)  # a copy: torch wants writable memory
        if not np.isfinite(samples).all():
            raise UserError("a clip has samples that are not finite")
        padding = max(0, _SHORTEST - samples.size)
        return log_mel_spectrogram(samples, n_mels=self.feature_size, padding=padding)
