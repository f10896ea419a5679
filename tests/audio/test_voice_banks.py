"""Voice banks: layouts, clips that cannot be used, and the index."""

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rba_bench.audio import voice_banks
from rba_bench.audio.voice_banks import read_reference, read_voice_bank
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_file

RATE = 8000


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))


def tone(file: Path, seconds: float = 4.0, level: float = 0.3) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    sf.write(file, level * np.sin(np.arange(round(seconds * RATE)) / 5), RATE)


def test_clips_in_the_folder_are_speakers_and_so_are_folders(tmp_path: Path) -> None:
    root = tmp_path / "bank"
    tone(root / "anna.wav", 4.5)
    (root / "anna.txt").write_text("what  Anna\nsays\n")
    tone(root / "ben" / "evening" / "b.flac", 4)
    tone(root / "ben" / "a.wav", 1)
    bank = read_voice_bank(root)
    assert [(clip.name, Path(clip.path).name, clip.transcript) for clip in bank.clips] == [
        ("anna", "anna.wav", "what Anna says"),
        ("ben", "b.flac", ""),
    ]
    assert bank.clips[0].seconds == 4.5 and bank.clips[0].sha256 == sha256_file(root / "anna.wav")
    assert read_reference(bank.clips[0]) == (root / "anna.wav").read_bytes()
    assert bank.left_out == {"short": 1} and bank.without == ()


@pytest.mark.parametrize("above", ["", "LibriTTS_R/train-clean-100"])
def test_libritts_has_one_voice_a_speaker_at_any_depth(tmp_path: Path, above: str) -> None:
    root = tmp_path / "bank"
    for speaker, chapter, seconds in (("1089", "134686", 2), ("1089", "134691", 5), ("121", "121726", 5)):
        file = root / above / speaker / chapter / f"{speaker}_{chapter}_000002_000000.wav"
        tone(file, seconds)
        file.with_suffix(".normalized.txt").write_text(f"said in {chapter}")
        file.with_suffix(".original.txt").write_text("no")
    bank = read_voice_bank(root)
    assert [(clip.name, clip.transcript) for clip in bank.clips] == [
        ("1089", "said in 134691"),
        ("121", "said in 121726"),
    ]


def test_what_cannot_be_used_is_counted_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "bank"
    tone(root / "a" / "1.wav", 4, level=0.0)
    (root / "a" / "2.wav").write_bytes(b"RIFF but no sound")
    (root / "a" / "3.wav").write_bytes(b"")
    tone(root / "a" / "4.wav", 2.9)
    tone(root / "a" / "5.wav", 31)
    tone(root / "b.wav", 4)
    whole = (root / "b.wav").read_bytes()
    (root / "torn.wav").write_bytes(whole[: len(whole) // 2])
    (root / ".hidden.wav").write_bytes(b"")
    (root / "notes.txt").write_text("no clip")
    bank = read_voice_bank(root)
    assert [clip.name for clip in bank.clips] == ["b"]
    assert bank.left_out == {"short": 1, "long": 1, "silent": 1, "broken": 3}
    assert bank.without == ("a", "torn")
    assert "1 voices; left out: 1 shorter than min_seconds" in bank.summary()
    assert len(read_voice_bank(root, min_seconds=2).clips) == 2
    with pytest.raises(
        UserError, match="no clip in .* can be used as a voice: 3 shorter than min_seconds, 1 no sound"
    ):
        read_voice_bank(root, min_seconds=60, max_seconds=90)


def test_no_bank_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no voice bank at"):
        read_voice_bank(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no clips"):
        read_voice_bank(tmp_path)


def test_a_bank_of_all_libritts_speakers_is_listed_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bank"
    tone(root / "0" / "0.flac", 3.5)
    data = (root / "0" / "0.flac").read_bytes()
    for n in range(1, 2456):
        (root / str(n)).mkdir()
        (root / str(n) / "x.flac").write_bytes(data)
    started = time.process_time()
    bank = read_voice_bank(root)
    assert len(bank.clips) == 2456 and time.process_time() - started < 20

    def never(*_: object) -> None:
        raise AssertionError("a known clip was read again")

    with monkeypatch.context() as patch:
        patch.setattr(voice_banks, "_measure", never)
        started = time.process_time()
        assert read_voice_bank(root) == bank and time.process_time() - started < 3
    tone(root / "7" / "x.flac", 2.0)  # changed: looked at again
    assert len(read_voice_bank(root).clips) == 2455
