"""Each adapter held to the stock forward pass and generate of its model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.speechlm.audiolm import contract

Clips = list[np.ndarray]
STOCK = {
    "qwen2_audio_dir": contract.stock_inputs,
    "audioflamingo3_dir": contract.stock_inputs,
    "glmasr_dir": contract.stock_inputs,
    "voxtral_dir": contract.voxtral_inputs,
}
AT_TRUE_LENGTH = ("qwen2_audio_dir", "audioflamingo3_dir")


@pytest.fixture
def folder_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    return lambda name: request.getfixturevalue(name)


@pytest.mark.parametrize("name", STOCK)
def test_answers_are_those_of_the_stock_path(
    name: str, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    contract.answers_are_stock(folder_of(name), speech, STOCK[name])


@pytest.mark.parametrize("name", STOCK)
def test_embeddings_and_logits_are_those_of_the_full_forward(
    name: str, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    contract.embeds_and_logits_are_stock(folder_of(name), speech[1], STOCK[name])


@pytest.mark.parametrize("name", STOCK)
def test_batch_mates_do_not_matter(name: str, folder_of: Callable[[str], Path], speech: Clips) -> None:
    contract.batch_mates_do_not_matter(folder_of(name), speech)


@pytest.mark.parametrize("name", STOCK)
def test_cached_clips_are_not_encoded_again(
    name: str, folder_of: Callable[[str], Path], speech: Clips
) -> None:
    contract.cached_clips_are_not_encoded_again(folder_of(name), speech)


@pytest.mark.parametrize("name", AT_TRUE_LENGTH)
def test_true_length_is_exact(name: str, folder_of: Callable[[str], Path], speech: Clips) -> None:
    contract.padding_is_recorded_and_harmless(folder_of(name), speech)
