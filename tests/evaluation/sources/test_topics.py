"""Held-out instructions of an alignment set, so many a topic."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import MANIFEST, shard_schema
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources import held_out
from rba_bench.evaluation.sources.source import Place, load_source
from rba_bench.files import sha256_bytes, sha256_file
from tests.evaluation.sources.speech import said

COUNTS = {"planning": 4, "reasoning": 3, "others": 1}
VOICES = 2
DOCUMENTED = [  # two a topic; another draw would be another benchmark
    ("tell me about others number 0", "voice-1"),
    ("tell me about planning number 2", "voice-1"),
    ("tell me about planning number 0", "voice-1"),
    ("tell me about reasoning number 0", "voice-0"),
    ("tell me about reasoning number 2", "voice-1"),
]


def rows(split="validation", prefix=""):
    """Each instruction in two voices."""
    for topic, count in COUNTS.items():
        for number in range(count):
            text = f"tell me about {topic} number {number}"
            for voice in range(VOICES):
                wave = said(text, voice)
                data = clips.encode_flac(wave, 16_000)
                yield {
                    **dict.fromkeys(("prompt", "difficulty"), ""),
                    "id": f"{prefix}{topic}-{number}-{voice}",
                    "group_id": f"{prefix}{topic}-{number}",
                    "kind": "instruct",
                    "instruction": text,
                    "response": f"the teacher on {topic} {number}",
                    "source_lang": "en",
                    "target_lang": "en",
                    "topic": topic,
                    "voice": f"voice-{voice}",
                    "split": split,
                    "audio": {"bytes": data, "path": "x.flac"},
                    "audio_sha256": sha256_bytes(data),
                    "sampling_rate": 16_000,
                    "duration": len(wave) / 16_000,
                }


def write_set(folder, records):
    """An alignment set as synthesis leaves it."""
    (folder / "shards").mkdir(parents=True)
    name = "shards/part-00000.parquet"
    pq.write_table(
        pa.Table.from_pylist(list(records), schema=shard_schema()), folder / name, row_group_size=64
    )
    manifest = {
        "schema_version": 1,
        "status": "complete",
        "checksums": {name: sha256_file(folder / name)},
        "teacher": {"path": "/models/Llama-3.1-70B-Instruct", "weights_sha256": "0123456789abcdef" * 4},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def folder(tmp_path):
    qa = {**next(rows("validation", "qa-")), "kind": "qa", "topic": "facts"}
    return write_set(tmp_path / "set", [*rows("train", "train-"), *rows(), qa])


def test_one_clip_of_every_drawn_instruction(folder, capsys):
    loaded = load_source("topics", {"per_topic": 3}, Place(folder))
    found = [(d["group"], d["instruction"]) for d in loaded.documents]
    assert len(found) == len(set(found)) == 7
    assert [group for group, _ in found] == ["others"] + ["planning"] * 3 + ["reasoning"] * 3
    for document in loaded.documents:
        assert document["kind"] == "chat" and not document["id"].startswith("train-")
        assert document["baseline"].startswith("the teacher on")
        wave = said(document["instruction"], int(document["voice"][-1]))
        assert abs(model_input.load_wave(document["audio"]) - wave).max() < 2**-15
    assert {d["voice"] for d in loaded.documents} == {"voice-0", "voice-1"}
    assert loaded.origin["topics"] == {"others": 1, "planning": 3, "reasoning": 3}
    assert loaded.origin["split"] == "validation" and len(loaded.origin["revision"]) == 64
    assert loaded.origin["baseline"]["name"] == "teacher Llama-3.1-70B-Instruct 0123456789ab"
    assert "fewer than 3 held-out instructions in others (1)" in capsys.readouterr().err


def test_the_draw_depends_on_words_and_seed_alone(folder, tmp_path):
    again = write_set(tmp_path / "again", [{**r, "id": f"new-{r['id']}"} for r in reversed(list(rows()))])

    def draw(place, **options):
        found = held_out.load_topics({"per_topic": 2, **options}, Place(place)).documents
        return [(d["instruction"], d["voice"]) for d in found]

    assert draw(folder) == draw(again) == DOCUMENTED
    assert draw(folder) != draw(folder, seed=5)


def test_a_test_split_goes_before_validation(tmp_path):
    folder = write_set(tmp_path / "set", [*rows("validation"), *rows("test", "test-")])
    for options, split in (({}, "test"), ({"split": "validation"}, "validation")):
        loaded = held_out.load_topics(options, Place(folder))
        assert loaded.origin["split"] == split
        assert {d["id"].startswith("test-") for d in loaded.documents} == {split == "test"}


def test_comparing_with_a_run(folder, tmp_path):
    own = tmp_path / "samples.jsonl"
    drawn = held_out.load_topics({"versus": "run"}, Place.of(folder, baseline="none")).documents
    assert {d["baseline"] for d in drawn} == {""}
    own.write_text(
        "".join(json.dumps({"id": d["id"], "extracted": f"base on {d['id']}"}) + "\n" for d in drawn)
    )
    loaded = held_out.load_topics({"versus": "run"}, Place.of(folder, baseline=str(own)))
    assert [d["baseline"] for d in loaded.documents] == [f"base on {d['id']}" for d in drawn]
    assert loaded.origin["baseline"]["name"] == "samples"


def test_which_baseline_is_meant_must_be_said(folder):
    with pytest.raises(MissingPrerequisite, match="--baseline none --model BASE"):
        held_out.load_topics({"versus": "run"}, Place(folder))
    with pytest.raises(UserError, match="compares with the teacher: leave --baseline out"):
        held_out.load_topics({}, Place.of(folder, baseline="x.json"))
    with pytest.raises(UserError, match="unknown `versus: sft`"):
        held_out.load_topics({"versus": "sft"}, Place(folder))


def test_where_the_set_lies(folder, tmp_path):
    named = held_out.load_topics({"set": str(folder)}, Place()).documents
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "rba_topics")
    inside = held_out.load_topics({}, Place(tmp_path / "data")).documents
    assert [d["id"] for d in named] == [d["id"] for d in inside]
    with pytest.raises(MissingPrerequisite, match="rba-bench synth --out DIR"):
        held_out.load_topics({}, Place())
    with pytest.raises(MissingPrerequisite, match="no alignment set"):
        held_out.load_topics({}, Place(tmp_path))


def test_nothing_held_out(tmp_path):
    folder = write_set(tmp_path / "set", rows("train"))
    with pytest.raises(
        UserError, match="no items of kind instruct in the split test or validation; splits there: train"
    ):
        held_out.load_topics({}, Place(folder))
