"""Long clips are cut in their pauses; clips of one window share a batch."""

from collections.abc import Sequence

import numpy as np

from rba_bench.speechlm.clip_batches import split_long_clip, transcribe_in_batches


def test_a_cut_falls_into_the_pause() -> None:
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.3, 16_000 * 70).astype(np.float32)
    for second in (27.0, 54.5):
        audio[round(second * 16_000) : round((second + 0.5) * 16_000)] *= 0.001
    pieces = split_long_clip(audio)
    edges = np.cumsum([len(piece) for piece in pieces[:-1]]) / 16_000
    assert 27.0 < edges[0] < 27.5 and 54.5 < edges[1] < 55.0
    assert np.array_equal(np.concatenate(pieces), audio)
    assert len(split_long_clip(audio[: 16_000 * 30])) == 1


def test_batches_are_of_one_window_and_the_longest_come_first() -> None:
    clips = [np.full(length, number, np.float32) for number, length in enumerate((3, 9, 4, 8, 1))]
    batches: list[list[int]] = []

    def names(batch: Sequence[np.ndarray]) -> list[str]:
        batches.append([len(clip) for clip in batch])
        return [f" {int(clip[0])} " for clip in batch]

    assert transcribe_in_batches(clips, 2, names) == ["0", "1", "2", "3", "4"]
    assert batches == [[9, 8], [4, 3], [1]]
    batches.clear()
    assert transcribe_in_batches(clips, 3, names, lambda clip: len(clip) // 4) == ["0", "1", "2", "3", "4"]
    assert batches == [[9, 8], [4], [3, 1]]
