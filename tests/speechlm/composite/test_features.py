from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from whisper.audio import log_mel_spectrogram

from rba_bench.errors import UserError
from rba_bench.speechlm.composite.processing import LogMelFeatureExtractor


@pytest.mark.parametrize("mels", [80, 128])
def test_features_are_openai_whispers_at_true_length(clips: list[np.ndarray], mels: int) -> None:
    features = LogMelFeatureExtractor(feature_size=mels)(clips)
    assert features["input_features"].shape == (len(clips), mels, 200)
    assert features["feature_lengths"].tolist() == [30, 45, 80, 125, 200]
    for row, length, clip in zip(features["input_features"], features["feature_lengths"], clips, strict=True):
        assert torch.equal(row[:, :length], log_mel_spectrogram(clip.copy(), n_mels=mels))
        assert not row[:, length:].any()


def test_features_agree_with_transformers_inside_the_clip(clips: list[np.ndarray]) -> None:
    stock = WhisperFeatureExtractor(feature_size=80)(clips[-1], sampling_rate=16_000, return_tensors="pt")
    ours = LogMelFeatureExtractor()(clips[-1])["input_features"]
    # the last frames see the clip's end: reflected here, followed by silence there
    torch.testing.assert_close(ours[:, :, :198], stock["input_features"][:, :, :198], atol=1e-3, rtol=0)


@pytest.mark.parametrize("samples", [0, 1, 200, 399, 400, 401, 559, 560, 561, 16_000, 32_000, 40_000])
def test_frame_count_is_known_before_the_features(samples: int) -> None:
    extractor = LogMelFeatureExtractor(max_seconds=2.0)
    wave = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    features = extractor(wave)
    assert (
        features["feature_lengths"].item()
        == features["input_features"].shape[-1]
        == extractor.n_frames(samples)
    )
    assert extractor.is_truncated(samples) == (samples > 32_000)


def test_clips_that_cannot_be_heard_are_refused() -> None:
    extractor = LogMelFeatureExtractor()
    second = np.zeros(16_000, dtype=np.float32)
    with pytest.raises(UserError, match="44100 Hz"):
        extractor(second, sampling_rate=44_100)
    with pytest.raises(UserError, match="mono float wave"):
        extractor([np.zeros(16_000, dtype=np.int16)])
    with pytest.raises(UserError, match="mono float wave"):
        extractor([np.zeros((2, 16_000), dtype=np.float32)])
    with pytest.raises(UserError, match="not finite"):
        extractor([np.full(16_000, np.nan, dtype=np.float32)])
    with pytest.raises(UserError, match="80 or 128"):
        LogMelFeatureExtractor(feature_size=64)
    with pytest.raises(UserError, match="max_seconds"):
        LogMelFeatureExtractor(max_seconds=float("nan"))


def test_a_saved_extractor_is_the_same(tmp_path: Path, clips: list[np.ndarray]) -> None:
    LogMelFeatureExtractor(feature_size=128, max_seconds=0.5).save_pretrained(tmp_path)
    loaded = LogMelFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.feature_size, loaded.max_seconds, loaded.max_samples) == (128, 0.5, 8_000)
    assert loaded(clips[-1])["feature_lengths"].item() == 50
