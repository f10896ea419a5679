"""The micro test sets are held out, balanced and the same on every run."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rba_bench.audio import clips
from rba_bench.audio.espeak import BANKS
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes, sha256_file
from rba_bench.micro import testsets, world

pytest.importorskip("espeakng_loader")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        testsets.TEST_SETS, "micro_fleurs", testsets.SetSpec("micro_fleurs", "s2tt", 16, "fleurs")
    )
    monkeypatch.setitem(
        testsets.TEST_SETS, "micro_alpacaeval", testsets.SetSpec("micro_alpacaeval", "instruct", 16)
    )


def rows(folder: Path) -> list[dict]:
    return pq.read_table(folder / "test.parquet").to_pylist()


def test_two_makings_give_the_same_bytes(small: None, tmp_path: Path) -> None:
    first = testsets.load_testset("micro_fleurs", tmp_path / "a")
    second = testsets.load_testset("micro_fleurs", tmp_path / "b")
    assert sha256_file(first / "test.parquet") == sha256_file(second / "test.parquet")
    assert sorted(p.name for p in first.parent.iterdir()) == ["micro_fleurs"], "nothing half-made is left"


def test_rows_are_held_out_and_playable(small: None, tmp_path: Path) -> None:
    found = rows(testsets.load_testset("micro_fleurs", tmp_path))
    assert Counter(r["source_lang"] == "en" for r in found) == {True: 8, False: 8}
    assert {r["voice"] for r in found} == {v.name for v in BANKS["test"]}
    for row in found:
        item = world.parse(f"{row['prompt']} {row['instruction']}")
        assert item is not None and item.split == "test" and item.source == "fleurs"
        assert row["audio_sha256"] == sha256_bytes(row["audio"]["bytes"])
        wave = clips.decode_clip(row["audio"]["bytes"])
        assert abs(len(wave) / row["sampling_rate"] - row["duration"]) < 1e-3
        assert row["references"] == world.references(item)


def test_instructions_cover_every_topic(small: None, tmp_path: Path) -> None:
    found = rows(testsets.load_testset("micro_alpacaeval", tmp_path))
    assert Counter(r["topic"] for r in found) == dict.fromkeys(world.TOPICS, 2)


def test_the_consistency_set_says_every_instruction_in_four_voices(tmp_path: Path) -> None:
    found = rows(testsets.load_testset("micro_speaker_consistency", tmp_path))
    assert len(found) == 24 * 4
    assert Counter(r["topic"] for r in found) == dict.fromkeys(world.TOPICS, 12)
    voices: dict[str, set[str]] = {}
    for row in found:
        voices.setdefault(row["instruction"], set()).add(row["voice"])
    assert len(voices) == 24 and {len(v) for v in voices.values()} == {4}
    assert len({r["audio_sha256"] for r in found}) == len(found)


def test_other_voices_and_noise_are_other_clips(small: None, tmp_path: Path) -> None:
    usual = rows(testsets.load_testset("micro_fleurs", tmp_path))
    other = rows(
        testsets.load_testset("micro_fleurs", tmp_path, voices="train", noise=testsets.Noise((0.0,), "brown"))
    )
    assert [r["instruction"] for r in usual] == [r["instruction"] for r in other]
    assert not {r["audio_sha256"] for r in usual} & {r["audio_sha256"] for r in other}


def test_unknown_set_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="micro_covost2"):
        testsets.load_testset("micro_nothing", tmp_path)
