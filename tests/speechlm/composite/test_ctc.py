from pathlib import Path

import numpy as np
import pytest
import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.composite.ctc import CTCRecognizer
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.speechlm.composite.processing import CompositeProcessor

ALPHABET = "abc "


def recogniser_of_classes() -> CTCRecognizer:
    """States are one-hot classes."""
    recognizer = CTCRecognizer(5, ALPHABET)
    recognizer.linear.weight.data.copy_(10 * torch.eye(5))
    recognizer.linear.bias.data.zero_()
    return recognizer


def states_of(*rows: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(rows), 5).float()


def test_repeats_collapse_blanks_separate_and_padding_is_not_heard() -> None:
    states = states_of([1, 1, 0, 1, 2, 2, 4, 3], [0, 0, 3, 3, 3, 0, 1, 2], [0] * 8)
    assert recogniser_of_classes().decode(states, torch.tensor([8, 6, 8])) == ["aab c", "c", ""]


def test_loss_is_the_negative_log_of_all_alignments() -> None:
    recognizer = recogniser_of_classes()
    states = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0)) / 10
    first, second = recognizer(states)[0].exp()
    probability = first[1] * second[1] + first[1] * second[0] + first[0] * second[1]
    torch.testing.assert_close(recognizer.loss(states, torch.tensor([2]), ["a"]), -probability.log())


def test_loss_ignores_padding_and_texts_that_cannot_fit() -> None:
    recognizer = recogniser_of_classes()
    states = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([4, 6])
    together = recognizer.loss(states, lengths, ["ab", "c"])
    alone = [
        recognizer.loss(states[:1, :4], lengths[:1], ["ab"]),
        recognizer.loss(states[1:], lengths[1:], ["c"]),
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())
    assert recognizer.loss(states[:1], lengths[:1], ["abcabc"]).item() == 0.0
    assert recognizer.loss(states[:1], lengths[:1], [""]).item() > 0.0


def test_training_learns_a_transcript() -> None:
    torch.manual_seed(0)
    recognizer = CTCRecognizer(8, ALPHABET)
    states, lengths = torch.randn(2, 12, 8), torch.tensor([12, 9])
    optimizer = torch.optim.Adam(recognizer.parameters(), lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        recognizer.loss(states, lengths, ["ab ca", "bb"]).backward()
        optimizer.step()
    assert recognizer.decode(states, lengths) == ["ab ca", "bb"]


def test_batched_transcripts_are_those_of_single_clips(
    model: CompositeForConditionalGeneration, processor: CompositeProcessor, clips: list[np.ndarray]
) -> None:
    torch.manual_seed(4)
    recognizer = CTCRecognizer(32, ALPHABET)
    encoder = model.model.audio_tower
    features = processor.feature_extractor
    together = recognizer.transcribe(encoder, **features(clips))
    assert together == [recognizer.transcribe(encoder, **features(clip))[0] for clip in clips]
    assert any(together)


def test_a_saved_recogniser_is_the_same(tmp_path: Path) -> None:
    torch.manual_seed(6)
    recognizer = CTCRecognizer(32, "abcäß '")
    recognizer.save(tmp_path)
    loaded = CTCRecognizer.load(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ctc.json", "ctc.safetensors"]
    assert loaded.characters == recognizer.characters
    states = torch.randn(1, 4, 32)
    assert torch.equal(loaded(states), recognizer(states))
    assert next(CTCRecognizer.load(tmp_path, dtype=torch.float16).parameters()).dtype == torch.float16


def test_what_the_user_must_fix(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no CTC recogniser"):
        CTCRecognizer.load(tmp_path)
    with pytest.raises(UserError, match="lacks '1' 'x'"):
        CTCRecognizer(4, ALPHABET).encode("a1x")
    with pytest.raises(UserError, match="twice"):
        CTCRecognizer(4, "aba")
