"""Utterances for the build: the world's instructions spoken by a bank of voices, as log-mel features in memory."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rba_bench import progress
from rba_bench.audio import espeak, perturb
from rba_bench.audio.voices import Voice
from rba_bench.micro import world
from rba_bench.seeding import stable_seed


@dataclass(frozen=True)
class Conditions:
    """How utterances are made: who speaks, how loud the noise is, how often there is noise at all."""

    voices: tuple[Voice, ...]
    snr_db: tuple[float, float]
    noisy_share: float
    speed: tuple[float, float] = (0.92, 1.1)
    colours: tuple[str, ...] = ("white",)


@dataclass(frozen=True)
class Utterance:
    """An item as spoken: log-mel float16 [80, T]."""

    item: world.Item
    voice: str
    mel: torch.Tensor


def damaged(wave: np.ndarray, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """`wave` at a drawn speed and, for `noisy_share` of the clips, with noise at a drawn ratio."""
    out = perturb.change_speed(wave, float(np.round(rng.uniform(*conditions.speed), 2)))
    if rng.random() < conditions.noisy_share:
        out = perturb.add_noise(
            out, rng.uniform(*conditions.snr_db), rng, str(rng.choice(conditions.colours))
        )
    return out


def log_mel(wave: np.ndarray) -> torch.Tensor:
    """openai-whisper log-mel, float16 [80, T]."""
    from whisper.audio import log_mel_spectrogram

    return log_mel_spectrogram(wave, n_mels=80).half()


def utterances(items: Sequence[world.Item], conditions: Conditions, seed: int, label: str) -> list[Utterance]:
    """Speak each item once, in a voice drawn from the conditions."""
    pick = random.Random(stable_seed("voices", seed))
    spoken = []
    with progress.bar(label, len(items), unit="clips") as advance:
        for index, item in enumerate(items):
            voice = pick.choice(conditions.voices)
            rng = np.random.default_rng(stable_seed("noise", seed, index))
            wave = damaged(espeak.speak(item.instruction, item.source_lang, voice), conditions, rng)
            spoken.append(Utterance(item, voice.name, log_mel(wave)))
            advance(1)
    return spoken


def draw_items(
    n: int, seed: int, draw: Callable[[random.Random], world.Item] | None = None
) -> list[world.Item]:
    """`n` items of the training split."""
    rng = random.Random(stable_seed("items", seed))
    return [(draw or world.sample_item)(rng) for _ in range(n)]


def batch(mels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-padded float32 features [B, 80, T] and their lengths [B]."""
    lengths = torch.tensor([mel.shape[1] for mel in mels])
    features = torch.zeros(len(mels), mels[0].shape[0], int(lengths.max()))
    for row, mel in zip(features, mels, strict=True):
        row[:, : mel.shape[1]] = mel.float()
    return features, lengths


def mask(features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """SpecAugment (Park et al. 2019): one band of up to 15 mels and two spans of up to 15 frames set to the mean."""
    out = features.clone()
    fill = float(out.mean())
    for row in out:
        low = int(rng.integers(0, 70))
        row[low : low + int(rng.integers(1, 16))] = fill
        for _ in range(2):
            start = int(rng.integers(0, max(1, row.shape[1] - 15)))
            row[:, start : start + int(rng.integers(1, 16))] = fill
    return out
