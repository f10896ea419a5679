"""References with a prefix: one recording to the model, one key to the cache, one transcript to a text oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from rba_bench.audio.clips import AudioError, encode_flac
from rba_bench.evaluation import clip_input
from rba_bench.evaluation.sources.tables import file_clip

RATE = 16_000


@pytest.fixture()
def entries(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spoken prompt of 0.3 s and a clip of 0.7 s at 8 kHz."""
    rng = np.random.default_rng(1)
    found = []
    for name, seconds, rate in (("prompt", 0.3, RATE), ("clip", 0.7, RATE // 2)):
        file = tmp_path / f"{name}.flac"
        file.write_bytes(encode_flac(rng.uniform(-0.4, 0.4, round(seconds * rate)).astype(np.float32), rate))
        found.append(file_clip(file).reference(f"the {name}"))
    return found[0], found[1]


def test_a_prefix_is_heard_first(entries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    prompt, clip = entries
    heard = clip_input.wave({**clip, "prefix": prompt})
    first, second = clip_input.wave(prompt), clip_input.wave(clip)
    np.testing.assert_array_equal(heard[: len(first)], first)
    np.testing.assert_array_equal(heard[-len(second) :], second)
    assert not heard[len(first) : -len(second)].any()
    assert len(heard) == pytest.approx((0.3 + clip_input.PAUSE + 0.7) * RATE, abs=4)
    assert clip_input.duration({**clip, "prefix": prompt}) == pytest.approx(len(heard) / RATE, abs=1e-3)
    assert clip_input.transcript({**clip, "prefix": prompt}) == "the prompt the clip"
    assert heard.dtype == np.float32


def test_the_key_is_of_what_is_heard(entries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    prompt, clip = entries
    keys = {
        clip_input.content_key(value)
        for value in (prompt, clip, {**clip, "prefix": prompt}, {**prompt, "prefix": clip})
    }
    assert len(keys) == 4
    moved = {**clip, "path": "/elsewhere", "prefix": {**prompt, "path": "/there"}}
    assert clip_input.content_key(moved) in keys
    assert clip_input.content_key({**clip, "prefix": None}) == clip["sha256"]


def test_documents_with_and_without_prefix_survive_a_data_set(
    entries: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    prompt, clip = entries
    column = {**clip, "column": "audio"}
    docs = [{"audio": clip}, {"audio": {**column, "prefix": prompt}}]
    plain, prefixed = (row["audio"] for row in Dataset.from_list(docs))
    np.testing.assert_array_equal(clip_input.wave(plain), clip_input.wave(clip))
    assert clip_input.content_key(plain) == clip["sha256"]
    assert clip_input.duration(prefixed) == pytest.approx(1.5, abs=1e-3)
    assert clip_input.wave(prefixed).shape == clip_input.wave({**clip, "prefix": prompt}).shape


def test_a_prefix_without_sound_is_the_items_error(
    tmp_path: Path, entries: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"empty\.wav"):
        clip_input.wave({**entries[1], "prefix": file_clip(tmp_path / "empty.wav").reference()})
