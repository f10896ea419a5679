"""Sealing hears every clip as training will, or a sample, and says what that can miss."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import MANIFEST, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes
from tests.audio.mutations import encoded

ROWS = 60


def row(number: int) -> dict[str, Any]:
    data = clips.encode_flac((0.1 * np.sin(np.arange(1_600) * (number + 3) / 90)).astype(np.float32))
    texts = dict.fromkeys(("prompt", "source_lang", "target_lang", "topic", "difficulty", "voice"), "")
    return {
        **texts,
        "id": f"c{number}",
        "group_id": f"g{number}",
        "kind": "qa",
        "instruction": "who is it",
        "response": "ann",
        "split": "train",
        "audio": {"bytes": data, "path": f"{number}.flac"},
        "audio_sha256": sha256_bytes(data),
        "sampling_rate": 16_000,
        "duration": 0.1,
    }


def with_audio(data: bytes | None) -> dict[str, Any]:
    return {"audio": {"bytes": data, "path": "x"}, "audio_sha256": sha256_bytes(data or b"")}


def folder_of(place: Path, changes: dict[int, dict[str, Any]]) -> Path:
    """Three files of small row groups; rows changed by number."""
    rows = [{**row(number), **changes.get(number, {})} for number in range(ROWS)]
    for part in range(3):
        table = pa.Table.from_pylist(rows[part * 20 : (part + 1) * 20], schema=shard_schema())
        pq.write_table(table, place / f"part-{part}.parquet", row_group_size=8)
    return place


NAN = np.full(1_600, 0.1, dtype=np.float32)
NAN[7] = np.nan
BAD = {
    3: (with_audio(b"RIFF broken"), "not audio"),
    12: (with_audio(None), "holds no audio bytes"),
    21: (with_audio(encoded("WAV", "PCM_16", np.zeros(1_600))), "silent"),
    26: (with_audio(encoded("WAV", "PCM_16", np.full(1_600, 0.5))), "silent"),
    33: (with_audio(encoded("WAV", "FLOAT", NAN)), "not finite"),
    38: (with_audio(row(38)["audio"]["bytes"][:400]), "damaged|cut short"),
    47: ({"audio_sha256": "0" * 64}, "was replaced"),
    52: ({"duration": 3.0}, r"lasts 0\.10 s, not 3\.00 s"),
    55: ({"duration": float("nan")}, "not nan s"),
    58: ({"sampling_rate": 8_000}, "recorded at 16000 Hz, not 8000 Hz"),
    59: ({"audio_sha256": None}, "no audio_sha256"),
}


@pytest.mark.parametrize("number", BAD)
def test_one_bad_clip_anywhere_is_found_and_named(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = BAD[number]
    with pytest.raises(
        UserError,
        match=f"1 of {ROWS} clips .*: c{number} .*row {number % 20} of part-{number // 20}.*({message})",
    ):
        seal_alignment_set(folder_of(tmp_path, {number: changes}))
    assert f"bad clip c{number} " in capsys.readouterr().err
    assert not (tmp_path / MANIFEST).exists()


def test_all_bad_clips_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=f"{len(BAD)} of {ROWS} clips .* c3 .* c12 .* c21 .*and {len(BAD) - 3} more"
    ):
        seal_alignment_set(folder_of(tmp_path, {number: changes for number, (changes, _) in BAD.items()}))
    told = capsys.readouterr().err
    assert all(f"bad clip c{number} " in told for number in BAD)


def test_the_manifest_says_how_many_were_heard(tmp_path: Path) -> None:
    folder_of(tmp_path, {})
    assert {"clips_heard": ROWS, "clips": ROWS}.items() <= seal_alignment_set(tmp_path).manifest[
        "sealed"
    ].items()
    assert "bad_share_at_most" not in json.loads((tmp_path / MANIFEST).read_text())["sealed"]


def test_a_sample_says_what_it_can_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path, {})
    sealed = seal_alignment_set(tmp_path, sample=30).manifest["sealed"]
    assert (sealed["clips_heard"], sealed["clips"], sealed["confidence"]) == (30, ROWS, 0.95)
    assert sealed["bad_share_at_most"] == pytest.approx(0.0950, abs=1e-3), (
        "1 - 0.05 ** (1 / 30), about 3 / 30"
    )
    assert "decoded 30 of 60 clips, none bad: at most 9.50% of all are" in capsys.readouterr().err
    assert "bad_share_at_most" not in seal_alignment_set(tmp_path, sample=1_000).manifest["sealed"], (
        "that is all of them"
    )
    with pytest.raises(UserError, match="use 1 or more"):
        seal_alignment_set(tmp_path, sample=0)


def test_a_sample_finds_bad_clips_as_often_as_it_says(tmp_path: Path) -> None:
    """20 % bad, 8 heard of 60: missed with probability C(48, 8) / C(60, 8) = 0.147."""
    bad = {number: {"duration": 3.0} for number in range(0, ROWS, 5)}
    missed = 0
    for trial in range(30):
        place = tmp_path / str(trial)
        place.mkdir()
        renamed = {**bad, 1: {"instruction": f"trial {trial}"}}  # the draw depends on the content
        try:
            seal_alignment_set(folder_of(place, renamed), sample=8)
            missed += 1
        except UserError as error:
            assert "of 8 clips" in str(error)
    assert missed <= 11, "more than 11 of 30 has probability 4e-4"
