"""Whisper's decoder learns clips: the loss is Whisper's own, one part trains, and the end is an average."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.compose import ComposeOptions, compose
from rba_bench.speechlm.composite.decoder_compressor import fill_window
from rba_bench.training.decoder_adaptation import IGNORED, DecoderRecipe, DecoderTrainer, teacher_forced

RECIPE = DecoderRecipe(steps=12, clips=2, lr=2e-3, warmup=1)
TEXTS = [[40, 41, 42], [50, 51, 52, 53, 54]]


def waves() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(n) * 0.1).astype(np.float32) for n in (16_000, 24_000)]


def clips(begin: int) -> Iterator[tuple[list[int], np.ndarray]]:
    spoken = waves()
    while True:
        yield TEXTS[begin % 2], spoken[begin % 2]
        begin += 1


@pytest.fixture(scope="module")
def composed(whisper_dir: Path, tiny_textlm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder") / "composite"
    return compose(whisper_dir, tiny_textlm_dir, out, ComposeOptions("decoder")).path


def trainer_of(composed: Path, out: Path, recipe: DecoderRecipe = RECIPE, **settings: Any) -> DecoderTrainer:
    family = load_family(composed)
    compressor, tower = family.model.model.compressor, family.model.model.audio_tower
    compressor.sizes = replace(compressor.sizes, **{"trained": ("encoder_attn",), **settings})

    def features(spoken: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        made = family.features(spoken)
        return made["input_features"], made["feature_lengths"]

    out.mkdir(parents=True, exist_ok=True)
    return DecoderTrainer(compressor, tower, clips, features, recipe, out)


def test_it_reads_the_start_and_what_was_said_and_writes_what_comes_next() -> None:
    inputs, labels = teacher_forced([[7, 8], [9]], (1, 2), 3, 99)
    assert inputs.tolist() == [[1, 2, 7, 8], [1, 2, 9, 3]]
    assert labels.tolist() == [[IGNORED, 7, 8, 3], [IGNORED, 9, 3, IGNORED]]
    cut = teacher_forced([[7, 8], [9]], (1, 2), 3, 3)
    assert [tensor.tolist() for tensor in cut] == [[[1, 2, 7], [1, 2, 9]], [[IGNORED, 7, 8], [IGNORED, 9, 3]]]


def test_the_loss_is_that_of_whisper_itself(composed: Path, whisper_dir: Path, tmp_path: Path) -> None:
    trainer = trainer_of(composed, tmp_path / "out")
    _, shown = trainer.loss()
    whisper = WhisperForConditionalGeneration.from_pretrained(whisper_dir).eval()
    mels, frames = trainer.features(waves())
    settings = trainer.compressor.sizes
    inputs, labels = teacher_forced(TEXTS, settings.start, settings.end, 64)
    with torch.no_grad():
        theirs = whisper(
            input_features=fill_window(mels, frames, 3000), decoder_input_ids=inputs, labels=labels
        ).loss
    assert shown == pytest.approx(theirs.item(), rel=1e-5)


def test_one_part_learns_and_is_averaged_with_what_it_was(composed: Path, tmp_path: Path) -> None:
    trainer = trainer_of(composed, tmp_path / "out", replace(RECIPE, own=0.0))
    before = {n: p.detach().clone() for n, p in trainer.compressor.named_parameters()}
    losses: list[float] = []
    trainer.run(lambda step, loss: losses.append(loss))
    after = dict(trainer.compressor.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".encoder_attn." in name for name in changed)
    assert trainer.loss()[1] < losses[0]
    averaged = trainer_of(composed, tmp_path / "half", replace(RECIPE, own=0.25))
    averaged.run()
    for name, ours in averaged.compressor.named_parameters():
        torch.testing.assert_close(ours, 0.75 * after[name] + 0.25 * before[name])
    again = trainer_of(composed, tmp_path / "half", replace(RECIPE, own=0.25))
    again.run()  # nothing is left to train: from the last checkpoint the same average
    ours = dict(averaged.compressor.named_parameters())
    assert all(torch.equal(parameter, ours[name]) for name, parameter in again.compressor.named_parameters())


def test_a_decoder_without_parts_to_train_is_refused(composed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part"):
        trainer_of(composed, tmp_path / "out", trained=())
