"""Training of a CTC compressor: the loss against all alignments, learning, and going on after a kill."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.composite.ctc_compressor import LETTERS, CompressorSizes, CTCCompressor
from rba_bench.training.connector import (
    CompressorTrainer,
    ConnectorRecipe,
    EncodedClip,
    StatesFile,
    collate,
    ctc_loss,
    make_batches,
    spell,
    transcripts,
)

WIDTH, PIECES = 8, 12
RECIPE = ConnectorRecipe(
    epochs=30, lr=1e-2, warmup=5, batch_seconds=4.0, negatives=PIECES, dropout=0.1, mask_width=2, save_every=7
)


def _compressor(layers: int = 1, letters_after: int = 0) -> CTCCompressor:
    torch.manual_seed(0)
    sizes = CompressorSizes(16, layers, 2, 16, 3, PIECES, letters_after)
    made = CTCCompressor(sizes, WIDTH, 16)
    made.set_pieces(range(100, 100 + PIECES), torch.randn(200, 16))
    return made


def _clips(n: int = 12) -> list[EncodedClip]:
    """Each word piece is six states of its own kind, with a pause between pieces."""
    rng = np.random.default_rng(0)
    sounds = rng.standard_normal((PIECES + 1, WIDTH)) * 2
    clips = []
    for _ in range(n):
        tokens = tuple(int(token) for token in rng.integers(100, 100 + PIECES, rng.integers(2, 5)))
        kinds = [kind for token in tokens for kind in [token - 99] * 6 + [0] * 4]
        states = sounds[kinds] + 0.1 * rng.standard_normal((len(kinds), WIDTH))
        clips.append(EncodedClip(states.astype("<f2"), " ".join(map(str, tokens)), tokens))
    return clips


def test_the_loss_sums_over_all_alignments() -> None:
    compressor = _compressor().eval()
    states, lengths = torch.randn(1, 6, WIDTH), torch.tensor([6])
    hidden, n_frames, _ = compressor.frames(states, lengths)
    chances = compressor.scores(hidden)[0].softmax(-1)
    assert int(n_frames) == 3
    target, total = [4, 7], 0.0
    for path in product(range(PIECES + 1), repeat=3):
        runs = [label for i, label in enumerate(path) if label and (i == 0 or path[i - 1] != label)]
        if runs == [piece + 1 for piece in target]:
            total += math.prod(float(chances[frame, label]) for frame, label in enumerate(path))
    everything = torch.arange(PIECES)
    loss, letters = ctc_loss(compressor, states, lengths, [target], everything)
    assert float(letters) == 0  # this compressor reads none
    assert float(loss) == pytest.approx(-math.log(total) / 2, rel=1e-4)


def test_a_sample_of_pieces_stands_for_all_of_them() -> None:
    """Over many samples the normaliser is about that of all pieces."""
    compressor = _compressor().eval()
    states, lengths = torch.randn(2, 30, WIDTH), torch.tensor([30, 22])
    targets = [[4, 7], [1]]
    full = float(ctc_loss(compressor, states, lengths, targets, torch.arange(PIECES))[0])
    generator = torch.Generator().manual_seed(0)
    sampled = [
        float(
            ctc_loss(compressor, states, lengths, targets, torch.randperm(PIECES, generator=generator)[:8])[0]
        )
        for _ in range(60)
    ]
    assert abs(sum(sampled) / 60 - full) < 0.1 * full
    assert min(sampled) < full < max(sampled)


def test_it_learns_to_read_clips(tmp_path: Path) -> None:
    compressor, clips = _compressor(), _clips()
    losses: list[float] = []
    recipe = replace(RECIPE, epochs=60, lr=2e-2, dropout=0.0, mask_width=0, mask_every=9.0)
    CompressorTrainer(compressor, clips, recipe, tmp_path).run(lambda _, loss: losses.append(loss))
    read = transcripts(compressor, clips)
    right = sum(list(clip.tokens) == row for clip, row in zip(clips, read, strict=True))
    assert right >= 10 and losses[-1] < 0.5


def test_the_middle_layer_learns_letters_which_the_layers_above_read(tmp_path: Path) -> None:
    names = "abcdefghijkl"
    clips = [replace(clip, text="".join(names[token - 100] for token in clip.tokens)) for clip in _clips()]
    compressor = _compressor(2, 1)
    recipe = replace(RECIPE, epochs=60, lr=2e-2, dropout=0.0, mask_width=0, mask_every=9.0)
    CompressorTrainer(compressor, clips, recipe, tmp_path).run()
    states, lengths = collate([clip.states for clip in clips])
    with torch.no_grad():
        hidden, n_frames, letters = compressor.frames(states, lengths)
        assert letters is not None
        read = []
        for row, length in zip(letters.argmax(-1), n_frames.tolist(), strict=True):
            runs = torch.unique_consecutive(row[:length])
            read.append("".join(LETTERS[label - 1] for label in runs.tolist() if label))
        assert sum(text == clip.text for text, clip in zip(read, clips, strict=True)) >= 10
        torch.nn.init.zeros_(compressor.from_letter.weight)
        assert not torch.allclose(compressor.frames(states, lengths)[0], hidden, atol=1e-2)


def test_transcripts_are_spelled_without_what_is_not_said_as_written() -> None:
    spelled = "".join(LETTERS[label - 1] for label in spell("It's a well-known fact, isn't it?"))
    assert spelled == "it's a well known fact isn't it"
    assert spell("In 1969") == []  # "nineteen sixty-nine"


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe, clips = replace(RECIPE, epochs=4), _clips()
    whole = _compressor()
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    trainer = CompressorTrainer(whole, clips, recipe, tmp_path / "whole")
    trainer.run()

    cut = CompressorTrainer(_compressor(), clips, recipe, tmp_path / "cut")
    plain, n_steps = cut.loss, 0

    def dies() -> tuple[torch.Tensor, float]:
        nonlocal n_steps
        n_steps += 1
        if n_steps == recipe.save_every + 3:
            raise KeyboardInterrupt
        return plain()

    cut.loss = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = CompressorTrainer(_compressor(), clips, recipe, tmp_path / "cut")
    assert again.step == recipe.save_every < trainer.total
    again.run()
    ours, theirs = whole.state_dict(), again.compressor.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_transcript_must_be_sayable(tmp_path: Path) -> None:
    clip = EncodedClip(np.zeros((20, WIDTH), "<f2"), "x", (5,))
    with pytest.raises(UserError, match="lacks word piece 5"):
        CompressorTrainer(_compressor(), [clip], RECIPE, tmp_path)


def test_batches_are_of_like_length_and_bounded() -> None:
    lengths = [100, 10, 90, 11, 400, 12]
    batches = make_batches(lengths, 4.0)
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert all(max(lengths[i] for i in b) * len(b) <= 200 or len(b) == 1 for b in batches)
    assert {1, 3, 5} <= set(batches[0])


def test_states_are_kept_in_one_file_and_a_torn_end_is_overwritten(tmp_path: Path) -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 5, WIDTH))
    StatesFile(tmp_path, WIDTH).append(iter([(first, {"text": "a"})]))
    with open(tmp_path / "states.f16", "ab") as torn:
        torn.write(b"xxx")
    again = StatesFile(tmp_path, WIDTH)
    assert len(again) == 1
    again.append(iter([(second[:3], {"text": "b c", "voice": "v"})]))
    clips = StatesFile(tmp_path, WIDTH).read(lambda text: [ord(letter) for letter in text])
    assert [(clip.text, clip.tokens) for clip in clips] == [("a", (97,)), ("b c", (98, 32, 99))]
    np.testing.assert_allclose(clips[1].states, second[:3], rtol=1e-3, atol=1e-3)
    with pytest.raises(MissingPrerequisite, match="encode the clips again"):
        StatesFile(tmp_path / "none", WIDTH).read(lambda text: [])
