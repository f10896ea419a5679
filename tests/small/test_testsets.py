"""The test sets of the track small: balanced over voices, spoken by unseen voices, the same on every run."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.audio import clips, espeak, piper
from rba_bench.audio.speech_engines import VOICE_BANKS
from rba_bench.evaluation.sources.small import small_texts
from rba_bench.evaluation.task_registry import resolve_tasks
from rba_bench.files import sha256_bytes, sha256_file
from rba_bench.small import testsets, training_speech
from rba_bench.small.texts import SPLITS, VOICES, load_items

pytest.importorskip("espeakng_loader")
SPEAK = """
import sys
from pathlib import Path
from rba_bench.small import testsets
first = testsets.load_items
testsets.load_items = lambda name, split: first(name, split)[: int(sys.argv[3])]
print(testsets.load_testset(sys.argv[1], sys.argv[2], Path(sys.argv[4])))
"""


def spoken_elsewhere(cache: Path, name: str, split: str, items: int) -> Path:
    """Parquet file of the first items of a set, spoken by a process of its own."""
    line = [sys.executable, "-c", SPEAK, name, split, str(items), str(cache)]
    made = subprocess.run(line, capture_output=True, text=True, check=True)
    return Path(made.stdout.strip()) / "test.parquet"


def texts(name: str, split: str = "test") -> list[dict[str, Any]]:
    return testsets.testset_texts(name, split)


def test_two_processes_speak_the_same_bytes(tmp_path: Path) -> None:
    files = [spoken_elsewhere(tmp_path / where, "small_asr", "dev", 6) for where in "ab"]
    assert sha256_file(files[0]) == sha256_file(files[1])
    assert files[0].parent.relative_to(tmp_path / "a") == files[1].parent.relative_to(tmp_path / "b")
    rows = pq.read_table(files[0]).to_pylist()
    assert [row["instruction"] for row in rows] == [item.text for item in load_items("small_asr", "dev")[:6]]
    assert {row["voice"] for row in rows} == {voice.name for voice in VOICE_BANKS["clear-dev"]}
    for row in rows:
        assert row["audio_sha256"] == sha256_bytes(row["audio"]["bytes"])
        wave = clips.decode_clip(row["audio"]["bytes"])
        assert len(wave) / row["sampling_rate"] == pytest.approx(row["duration"]) and abs(wave).max() > 0.05


@pytest.mark.assets
def test_two_processes_speak_the_same_bytes_with_the_natural_voice(tmp_path: Path) -> None:
    if not is_cached(ASSETS["piper-en_US-joe-medium"]):
        pytest.skip("fetch it with `rba-bench assets fetch piper-en_US-joe-medium`")
    files = [spoken_elsewhere(tmp_path / where, "small_qa", "test", 4) for where in "ab"]
    assert sha256_file(files[0]) == sha256_file(files[1])
    voices = [row["voice"] for row in pq.read_table(files[0]).to_pylist()]
    assert voices[::2] == ["piper-joe"] * 2 and "piper-joe" not in voices[1::2]


@pytest.mark.parametrize("name", ["small_qa", "small_instruct", "small_asr"])
def test_half_of_the_clips_are_natural_and_every_voice_meets_every_part(name: str) -> None:
    rows = texts(name)
    by_voice = Counter(row["voice"] for row in rows)
    assert by_voice["piper-joe"] == len(rows) // 2
    others = [count for voice, count in by_voice.items() if voice != "piper-joe"]
    assert len(others) == len(VOICE_BANKS["clear-test"]) and max(others) - min(others) <= 1
    parts = Counter((row["voice"], row["level"], row["open_ended"]) for row in rows)
    assert len(parts) == len(by_voice) * len({(row["level"], row["open_ended"]) for row in rows})


def test_consistency_says_every_question_in_every_voice() -> None:
    voices: dict[str, set[str]] = {}
    for row in texts("small_consistency"):
        voices.setdefault(row["group_id"], set()).add(row["voice"])
    assert {len(names) for names in voices.values()} == {VOICES}
    assert all("piper-joe" in names for names in voices.values())


def test_test_and_development_voices_are_unseen() -> None:
    shapes = {bank: {voice.shape for voice in espeak.BANKS[bank]} for bank in ("clear-test", "clear-dev")}
    assert not shapes["clear-test"] & shapes["clear-dev"]
    assert not (shapes["clear-test"] | shapes["clear-dev"]) & set(training_speech.SHAPES)
    dev = {row["voice"] for name in SPLITS for split in SPLITS[name][1:] for row in texts(name, split)}
    assert dev == {voice.name for voice in VOICE_BANKS["clear-dev"]}
    assert not dev & {voice.name for bank in testsets.BANKS for voice in VOICE_BANKS[bank]}


def test_another_engine_is_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piper, "_load_package", lambda: None)
    hashes = set()
    for version in ("1.8.0", "1.9.0"):
        monkeypatch.setattr(piper, "version", lambda _name, version=version: version)
        hashes.add(testsets._content_hash(list(testsets._spoken("small_qa", "test", load_items("small_qa")))))
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("name", "voices", "clips"),
    [("small_qa_trained_voices", 8, 96), ("small_consistency_part", VOICES, 24 * VOICES)],
)
def test_a_part_meets_all_voices_and_levels(name: str, voices: int, clips: int) -> None:
    [spec] = resolve_tasks([name], "small")
    options = {key: value for key, value in spec.config["dataset_kwargs"].items() if key != "source"}
    items = small_texts(options).documents
    assert len(items) == clips and len({item["voice"] for item in items}) == voices
    assert max(Counter(item["group"] for item in items).values()) == clips // 3
    if name == "small_qa_trained_voices":
        assert {item["voice"] for item in items} == {voice.name for voice in VOICE_BANKS["clear-train"]}
