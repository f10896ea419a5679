"""Counts over all clips without touching the audio; a choice of clips in which every voice and topic has its part."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.audio.set_clips import choose_clips, playable, read_clips
from rba_bench.audio.set_labels import LEVELS, TOPICS, paper_shares
from rba_bench.audio.set_statistics import FilterCount, filter_counts, read_statistics
from rba_bench.cards import CARD
from rba_bench.errors import UserError
from tests.audio.looked_at import CLIPS, make_set, rows
from tests.audio.mutations import encoded


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> AlignmentSet:
    return AlignmentSet.open(make_set(tmp_path_factory.mktemp("looked") / "set"))


def test_what_is_counted(looked_at: AlignmentSet) -> None:
    found = read_statistics(looked_at).summary()
    assert (found["groups"], found["clips"]) == (15, CLIPS)
    assert found["hours"] == round(CLIPS * 0.1 / 3600, 4)
    assert found["clips_by"]["topic"] == {"": 15, "advice": 15, "planning": 15}
    assert found["clips_by"]["split"] == {"train": 42, "validation": 3}
    assert found["voices"]["ann"] == {"clips": 15, "hours": round(1.5 / 3600, 4), "wer": 0.0}
    cem = [made["asr_wer"] for made in rows() if made["voice"] == "cem"]
    assert found["voices"]["cem"]["wer"] == pytest.approx(np.mean(cem), abs=1e-4)
    wer = np.asarray([made["asr_wer"] for made in rows()])
    assert found["wer"]["n"] == CLIPS and found["wer"]["mean"] == pytest.approx(wer.mean(), abs=1e-4)
    assert (
        found["wer"]["p90"] == pytest.approx(np.quantile(wer, 0.9), abs=1e-4) and found["wer"]["p100"] == 0.8
    )


def test_columns_that_are_absent_or_null_count_as_unknown(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    for part in sorted(folder.glob("*.parquet")):
        table = pq.read_table(part).drop_columns(["asr_wer", "asr_text"])
        voices = pa.array([None] * table.num_rows, pa.string())
        durations = pa.array([None] * table.num_rows, pa.float64())
        table = table.set_column(table.column_names.index("voice"), "voice", voices)
        table = table.set_column(table.column_names.index("duration"), "duration", durations)
        pq.write_table(table, part)
    found = read_statistics(AlignmentSet.open(folder, verify=False)).summary()
    assert found["wer"] == found["seconds"] == {} and found["hours"] == 0
    assert found["voices"] == {"": {"clips": CLIPS, "hours": 0.0, "wer": None}}


def test_columns_of_another_tool_s_types_do_not_stop_it(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", rows()[:3])
    (part,) = folder.glob("*.parquet")
    table = pq.read_table(part)
    for name, values in (
        ("asr_wer", ["0.5", "many", None]),
        ("asr_text", [[1], [2], []]),
        ("speed", ["fast"] * 3),
    ):
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, part)
    found = seal_alignment_set(folder)  # with its card
    assert read_statistics(found).summary()["wer"] == {} and "WER" not in (folder / CARD).read_text()


def test_no_byte_of_the_audio_is_read(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    expected = read_statistics(AlignmentSet.open(folder)).summary()
    for part in folder.glob("*.parquet"):
        metadata, content = pq.read_metadata(part), bytearray(part.read_bytes())
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                column = metadata.row_group(group).column(place)
                if column.path_in_schema == "audio.bytes":
                    start = column.dictionary_page_offset or column.data_page_offset
                    content[start : start + column.total_compressed_size] = (
                        b"?" * column.total_compressed_size
                    )
        part.write_bytes(content)
    damaged = AlignmentSet.open(folder, verify=False)
    assert read_statistics(damaged).summary() == expected
    with pytest.raises(UserError, match="cannot be read"):
        list(read_clips(damaged, read_statistics(damaged), [0]))


def test_a_missing_shard_is_one_line(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    (folder / "part-1.parquet").unlink()
    with pytest.raises(UserError, match=r"part-1\.parquet cannot be read"):
        read_statistics(AlignmentSet.open(folder, verify=False))


def test_every_voice_and_topic_has_its_part_and_the_worst_are_there(looked_at: AlignmentSet) -> None:
    statistics, made = read_statistics(looked_at), rows()
    chosen = choose_clips(statistics, 9, seed=5)
    assert Counter(made[number]["voice"] for number in chosen) == {"ann": 3, "bob": 3, "cem": 3}
    assert len({(made[number]["voice"], made[number]["topic"]) for number in chosen}) == 9
    assert list(chosen) == sorted(set(chosen)) and list(chosen) == list(choose_clips(statistics, 9, seed=5))
    assert list(chosen) != list(choose_clips(statistics, 9, seed=6))
    worst = choose_clips(statistics, 6, seed=5, worst=3)
    assert {number for number in range(CLIPS) if made[number]["asr_wer"] == 0.8} <= set(worst.tolist())
    assert len(worst) == 6
    assert list(choose_clips(statistics, 1000, seed=5, worst=100)) == list(range(CLIPS))
    assert len(choose_clips(statistics, 0, seed=5, worst=0)) == 0


def test_the_rows_that_are_asked_for_come_with_their_bytes(looked_at: AlignmentSet) -> None:
    made, statistics = rows(), read_statistics(looked_at)
    numbers = [0, 7, 8, 19, 20, 44]  # ends of row groups and shards
    found = list(read_clips(looked_at, statistics, numbers))
    assert [record["id"] for record, _, _ in found] == [f"c{number}" for number in numbers]
    assert [data for _, data, _ in found] == [made[number]["audio"]["bytes"] for number in numbers]
    assert all("audio" not in record and not problem for record, _, problem in found)


def test_browsers_get_flac_and_wav_as_they_are_and_anything_else_as_flac() -> None:
    wave = np.sin(np.arange(800) / 9).astype(np.float32) / 2
    flac, wav, ogg = (
        encoded("FLAC", "PCM_16", wave),
        encoded("WAV", "PCM_16", wave),
        encoded("OGG", "VORBIS", wave),
    )
    assert playable(flac, "") == (flac, "flac", "") and playable(wav, "") == (wav, "wav", "")
    content, ending, problem = playable(ogg, "")
    assert content[:4] == b"fLaC" and ending == "flac" and not problem
    assert playable(None, "none there")[2] == "none there"
    assert "cannot be decoded" in playable(b"RIFF broken", "")[2]


def test_filters_are_read_from_manifests_of_every_kind() -> None:
    reasons = {"maths": {"n": 2, "meaning": "sums"}, "empty": {"n": 0, "meaning": "no text"}}
    assert filter_counts({"filters": {"instructions": {"kept": 3, "dropped": reasons}}}) == [
        FilterCount("instructions", "kept", 3),
        FilterCount("instructions", "maths", 2, "sums"),
    ]
    assert filter_counts({"imported": {"dropped": reasons}}) == [FilterCount("entries", "maths", 2, "sums")]
    for foreign in (
        {},
        {"filters": 3},
        {"filters": {"a": [1], "b": {"dropped": {"x": 1}}}},
        {"imported": "yes"},
    ):
        assert filter_counts(foreign) == []


def test_labels_stand_beside_the_paper_s_where_they_are_the_same() -> None:
    assert sum(TOPICS.values()) == pytest.approx(100) and sum(LEVELS.values()) == pytest.approx(100)
    shares = paper_shares("topic", {"advice": 3, "mine": 2, "": 9})
    assert shares[: len(TOPICS)] == [
        (name, 3 if name == "advice" else 0, share) for name, share in TOPICS.items()
    ]
    assert shares[len(TOPICS) :] == [("", 9, None), ("mine", 2, None)]
    assert paper_shares("topic", {"mine": 2}) == [("mine", 2, None)]
