"""The draw from Spoken-Alpaca: from parquet and from Arrow files, whatever their order."""

import json

import pytest

from rba_bench.audio import clips
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources import spoken_alpaca
from rba_bench.evaluation.sources.source import Place, load_source
from tests.evaluation.sources.speech import audio_cell, encoded, write_arrow, write_parquet

AUDIO = ("input_audio", "output_audio")
DOCUMENTED = ["1", "7", "8", "0", "10"]  # of ROWS; another draw would be another benchmark
FIRST = "spoken-alpaca-f3b32d56c8f3"


def row(number, **changes):
    text = f"Describe the thing number {number}"
    given = "" if number % 3 else "in a sentence"
    spoken = f"{text} {given}".strip()
    return {
        "instruction": text,
        "input": given,
        "output": f"It is thing {number}.",
        "speech_input": spoken,
        "input_speaker": f"speaker {number % 2}",
        "output_speaker": "speaker 7",
        "input_audio": audio_cell(encoded(spoken), f"{number}.wav"),
        "output_audio": audio_cell(b"", "out.wav"),
        **changes,
    }


ROWS = [row(number) for number in range(12)]


def parquet(root, rows, files=2):
    size = -(-len(rows) // files)
    for number in range(files):
        part = rows[number * size : (number + 1) * size]
        write_parquet(root / "default" / "partial-train" / f"{number:04d}.parquet", part, AUDIO, per_group=4)
    return root


def arrow(root, rows):
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        write_arrow(root / f"data-{number:05d}-of-00002.arrow", part, AUDIO)
    return root


def drawn(root, **options):
    return spoken_alpaca.load_spoken_alpaca({"n": 5, **options}, Place(root))


def test_drawn_items_hold_words_speaker_clip_and_gpt4s_answer(tmp_path, capsys):
    loaded = load_source(
        "spoken_alpaca",
        {"n": 5},
        Place(parquet(tmp_path / "GSQA" / "spoken-alpaca-gpt4", ROWS).parent.parent),
    )
    assert len(loaded.documents) == 5
    for document in loaded.documents:
        number = int(document["instruction"].split()[4])
        assert document["instruction"] == ROWS[number]["speech_input"]
        assert document["baseline"] == f"It is thing {number}." and document["kind"] == "chat"
        assert document["voice"] == f"speaker {number % 2}" and document["prompt"] == ""
        heard = model_input.load_wave(document["audio"])
        assert (heard == clips.decode_clip(ROWS[number]["input_audio"]["bytes"])).all()
    assert loaded.origin["pool"] == 12 and loaded.origin["format"] == "parquet"
    assert (
        loaded.origin["baseline"]["name"].startswith("GPT-4") and loaded.origin["baseline"]["unmatched"] == 0
    )


def test_the_draw_is_the_one_that_is_documented(tmp_path):
    items = drawn(parquet(tmp_path, ROWS)).documents
    assert [d["instruction"].split()[4] for d in items] == DOCUMENTED
    assert items[0]["id"] == FIRST


def test_order_files_and_format_do_not_change_the_draw(tmp_path):
    parts = [
        parquet(tmp_path / "a", ROWS),
        parquet(tmp_path / "b", ROWS[::-1], files=3),
        arrow(tmp_path / "c", ROWS[5:] + ROWS[:5]),
    ]
    found = [[(d["id"], d["audio"]["sha256"]) for d in drawn(part).documents] for part in parts]
    assert found[0] == found[1] == found[2]
    assert [d["id"] for d in drawn(parts[0], seed=7).documents] != [name for name, _ in found[0]]
    longer = [d["id"] for d in drawn(parts[0], n=8).documents]
    assert longer[:5] == [name for name, _ in found[0]]


def test_clips_of_arrow_files_can_be_heard(tmp_path):
    loaded = drawn(arrow(tmp_path, ROWS))
    assert loaded.origin["format"] == "arrow"
    for document in loaded.documents:
        number = int(document["instruction"].split()[4])
        assert (
            model_input.load_wave(document["audio"])
            == clips.decode_clip(ROWS[number]["input_audio"]["bytes"])
        ).all()


def test_repeated_words_are_one_item_and_broken_clips_stay(tmp_path, capsys):
    rows = [*ROWS[:3], row(1, output="another answer"), row(4, input_audio=audio_cell(b"", "4.wav"))]
    loaded = drawn(parquet(tmp_path / "a", rows, files=1), n=200)
    assert len(loaded.documents) == 4 and "only 4 of 200 items" in capsys.readouterr().err
    assert sorted(d["duration"] == 0.0 for d in loaded.documents) == [False, False, False, True]
    broken = drawn(arrow(tmp_path / "b", rows), n=200).documents
    assert sorted(d["duration"] == 0.0 for d in broken) == [False, False, False, True]


def test_words_come_from_instruction_and_input_where_nothing_else_is_stored(tmp_path):
    rows = [{name: value for name, value in r.items() if name != "speech_input"} for r in ROWS]
    bare = [d["instruction"] for d in drawn(parquet(tmp_path / "a", rows)).documents]
    assert bare == [d["instruction"] for d in drawn(parquet(tmp_path / "b", ROWS)).documents]


def test_own_baseline(tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps([{"instruction": r["speech_input"], "output": "mine"} for r in ROWS]))
    loaded = spoken_alpaca.load_spoken_alpaca(
        {"n": 3}, Place.of(parquet(tmp_path / "a", ROWS), baseline=str(own))
    )
    assert {d["baseline"] for d in loaded.documents} == {"mine"} and loaded.origin["baseline"][
        "name"
    ] == "own"


def test_absent_or_strange_files(tmp_path):
    with pytest.raises(MissingPrerequisite, match=r"hf download GSQA/spoken-alpaca-gpt4 .*--revision"):
        drawn(tmp_path)
    write_parquet(tmp_path / "default" / "partial-train" / "0000.parquet", [{"instruction": "a"}], ())
    with pytest.raises(UserError, match="lacks the columns input, output, input_audio"):
        drawn(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "data-00000-of-00001.arrow").write_bytes(b"torn")
    with pytest.raises(UserError, match="is damaged"):
        drawn(tmp_path / "b")
