"""Batches of the encoder: few calls, and a clip's states have the same bits whatever is encoded with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
from rba_bench.training.data import clips as module


@pytest.fixture
def shapes(family: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shape of what the encoder was given, call by call."""
    calls: list[tuple[int, ...]] = []
    encode = family.encode_audio

    def counted(features: dict[str, torch.Tensor]) -> Any:
        calls.append(tuple(features["input_features"].shape))
        return encode(features)

    monkeypatch.setattr(family, "encode_audio", counted)
    return calls


def test_states_have_the_same_bits_in_any_company(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    whole = store_for(family).states(rows)
    orders = [rows[::-1], rows[5:] + rows[:5], sorted(rows, key=lambda row: row.duration)]
    for order in orders:
        store = store_for(family)
        for start in range(0, len(order), 7):  # in portions, so with other mates
            states = store.states(order[start : start + 7])
            assert all(torch.equal(states[id_], whole[id_]) for id_ in states)
    filled = store_for(family)
    filled.coming = lambda: rows
    for row in rows[:9]:
        alone = store_for(family).states([row])[row.id]
        assert torch.equal(alone, whole[row.id])
        assert torch.equal(filled.states([row])[row.id], alone)


def test_states_are_those_of_a_clip_encoded_by_itself(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    store = store_for(family)
    for row, states in zip(rows, store.states(rows).values(), strict=True):
        expected, (length,) = family.encode_audio(family.features([store._wave(row)]))
        assert states.shape[0] == length
        torch.testing.assert_close(states, expected[0, :length], rtol=1e-4, atol=1e-5)


def test_batches_are_of_one_number_of_rows_and_few(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], shapes: list[tuple[int, ...]]
) -> None:
    store_for(family).states(rows)
    assert {shape[0] for shape in shapes} == {module.ROWS["cpu"]}
    lengths = {family.steady_frames(round(row.duration * 16_000))[0] for row in rows}
    assert {shape[2] for shape in shapes} == lengths
    assert len(shapes) <= len(rows) // module.ROWS["cpu"] + len(lengths)


def test_coming_clips_fill_a_batch_up_and_are_kept(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], shapes: list[tuple[int, ...]]
) -> None:
    alike = [row for row in rows if row.duration == rows[0].duration]
    assert len(alike) >= 3
    store = store_for(family)
    store.coming = lambda: [row for row in rows if row is not alike[0]]
    store.states([alike[0]])
    assert len(shapes) == 1 and store.encoded == min(len(alike), module.ROWS["cpu"])
    store.states(alike[: module.ROWS["cpu"]])
    assert len(shapes) == 1


def test_a_cache_without_room_still_gives_every_clip(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow]
) -> None:
    whole, none = store_for(family).states(rows), store_for(family, cache=EncoderCache("none", 0))
    assert all(torch.equal(states, whole[id_]) for id_, states in none.states(rows).items())


def test_encoders_without_a_rectangle_encode_groups_as_a_whole(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "steady", False)
    store = store_for(family)
    store.get(rows[:1])
    assert store.encoded == 3
    store.get(rows[1:4])
    assert store.encoded == 6
