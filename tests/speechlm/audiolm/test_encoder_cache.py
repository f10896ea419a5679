"""States by clip: bounded in memory, kept on disk, never mixed up."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache, encode_with_cache, encoder_tag
from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM
from rba_bench.speechlm.speech_model import SpeechRequest
from tests.speechlm.audiolm.contract import GREEDY


def _states(value: float, rows: int = 4) -> torch.Tensor:
    return torch.full((rows, 8), value)  # 128 bytes at 4 rows


def test_the_least_recently_used_states_go_first() -> None:
    cache = EncoderCache("tag", max_bytes=256)
    cache.put("a", _states(1.0))
    cache.put("b", _states(2.0))
    assert torch.equal(cache.get("a"), _states(1.0))
    cache.put("c", _states(3.0))
    assert cache.get("b") is None
    assert cache.get("a") is not None and cache.get("c") is not None
    assert (cache.hits, cache.misses) == (3, 1)
    cache.put("a", _states(4.0))  # replaced, not counted twice
    assert torch.equal(cache.get("c"), _states(3.0))


def test_nothing_larger_than_the_bound_is_kept() -> None:
    cache = EncoderCache("tag", max_bytes=100)
    cache.put("a", _states(1.0))
    assert cache.get("a") is None


def test_a_row_of_a_batch_does_not_hold_the_batch() -> None:
    batch = torch.zeros(100, 8)
    cache = EncoderCache("tag", max_bytes=2**20)
    cache.put("a", batch[:1])
    kept = cache.get("a")
    assert kept is not None and kept.untyped_storage().nbytes() == 32


def test_states_on_disk_outlive_the_process_and_belong_to_one_encoder(tmp_path: Path) -> None:
    EncoderCache("tag one" * 4, 2**20, tmp_path).put("clip + noise=10dB/7", _states(5.0).bfloat16())
    again = EncoderCache("tag one" * 4, 2**20, tmp_path).get("clip + noise=10dB/7")
    assert again is not None and torch.equal(again, _states(5.0).bfloat16())
    assert EncoderCache("tag two" * 4, 2**20, tmp_path).get("clip + noise=10dB/7") is None
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    assert EncoderCache("tag one" * 4, 2**20, tmp_path).get("clip + noise=10dB/7") is None


def test_tags_tell_weights_setup_padding_and_dtype_apart() -> None:
    base = ("w", "s", "30s", "float32")
    tags = {encoder_tag(*base)}
    for place in range(4):
        tags.add(encoder_tag(*(part + "!" if i == place else part for i, part in enumerate(base))))
    assert len(tags) == 5


def test_each_distinct_clip_is_encoded_once() -> None:
    clips = [np.full(3, value, np.float32) for value in (1, 2, 3)]
    seen: list[float] = []

    def encode(batch: list[np.ndarray]) -> list[torch.Tensor]:
        seen.extend(float(clip[0]) for clip in batch)
        return [_states(float(clip[0])) for clip in batch]

    requests = [
        SpeechRequest(clips[0], key="one"),
        SpeechRequest(clips[1]),
        SpeechRequest(clips[0].copy(), key="one"),  # same content, another array
        SpeechRequest(clips[1], prompt="again"),
        SpeechRequest(clips[2], key="three"),
    ]
    cache = EncoderCache("tag", 2**20)
    for expected in ([1, 2, 3], [1, 2, 3, 2]):  # without a key nothing outlives the batch
        states = encode_with_cache(requests, cache, encode)
        assert [float(rows[0, 0]) for rows in states] == [1, 2, 1, 2, 3]
        assert seen == expected


def test_a_second_run_finds_its_clips_on_disk(
    qwen2_audio_dir: Path, speech: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [SpeechRequest(clip, key=f"clip {i}") for i, clip in enumerate(speech[:2])]
    first = TransformersSpeechLM.from_pretrained(qwen2_audio_dir, cache_folder=tmp_path)
    expected = first.generate(requests, GREEDY)
    again = TransformersSpeechLM.from_pretrained(qwen2_audio_dir, cache_folder=tmp_path)

    def refuse(features: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(again.family, "encode_audio", refuse)
    assert again.generate(requests, GREEDY) == expected
    padded = TransformersSpeechLM.from_pretrained(qwen2_audio_dir, cache_folder=tmp_path, true_length=False)
    assert padded.generate(requests, GREEDY) == expected
    assert padded.cache is not None and padded.cache.misses == 2  # other padding, other entry


def test_a_full_disk_ends_the_keeping_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a file").write_text("")
    cache = EncoderCache("tag", 2**20, tmp_path / "a file")  # cannot hold anything
    cache.put("a", _states(1.0))
    cache.put("b", _states(2.0))
    assert cache.get("a") is not None
    assert capsys.readouterr().err.count("not kept on disk") == 1
