"""Spoken AlpacaEval: VoiceBench's configurations, with AlpacaEval's answers to beat."""

import json

import pytest

from rba_bench.audio import clips
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources import baselines, spoken_alpaca
from rba_bench.evaluation.sources.source import Place, load_source
from tests.evaluation.sources.speech import audio_cell, encoded, write_parquet

PROMPTS = (
    "What are the names of some famous actors that started their careers on Broadway?",
    "How did US states get their names?",
    "Hi, my sister and her girlfriends want me to play kickball with them. Can you explain the rules?",
    "A question that AlpacaEval does not hold",
)


def instruction(number: int) -> str:
    """Of AlpacaEval's 805: three are spoken, with another wording of punctuation, case and white space."""
    places = {
        0: PROMPTS[0],
        17: PROMPTS[1].upper() + " ",
        804: PROMPTS[2].replace(", ", ",\n\n  ").replace("?", " ?"),
    }
    return places.get(number, f"instruction number {number}")


def write_answers(folder) -> None:
    rows = [
        {
            "dataset": "helpful_base",
            "instruction": instruction(number),
            "output": f"answer {number}",
            "generator": "gpt4_1106_preview",
        }
        for number in range(805)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(rows))


@pytest.fixture
def data_dir(tmp_path):
    rows = [
        {"audio": audio_cell(encoded(prompt), f"{n}.wav"), "prompt": prompt}
        for n, prompt in enumerate(PROMPTS)
    ]
    rows.append({"audio": audio_cell(b"RIFF torn", "4.wav"), "prompt": "Who wrote this?"})
    root = tmp_path / "data" / "hlt-lab" / "voicebench"
    write_parquet(root / "alpacaeval_full" / "test-00000-of-00001.parquet", rows)
    write_parquet(root / "alpacaeval" / "test-00000-of-00001.parquet", rows[:2])
    write_answers(tmp_path / "data" / "tatsu-lab" / "alpaca_eval")
    return tmp_path / "data"


def test_items_are_heard_only_and_compared_with_gpt4(data_dir, capsys):
    loaded = load_source("voicebench", {"config": "alpacaeval_full"}, Place(data_dir))
    first = loaded.documents[0]
    assert (first["kind"], first["prompt"], first["instruction"]) == ("chat", "", PROMPTS[0])
    assert model_input.load_wave(first["audio"]).shape == clips.decode_clip(encoded(PROMPTS[0])).shape
    assert [d["baseline"] for d in loaded.documents] == ["answer 0", "answer 17", "answer 804", "", ""]
    assert [json.loads(d["extra"])["index"] for d in loaded.documents[:3]] == [0, 17, 804]
    assert loaded.documents[3]["extra"] == ""
    told = capsys.readouterr().err
    assert (
        "no answer to 2 of 5 items" in told and "alpacaeval_full: 5 items, the published set has 636" in told
    )
    assert loaded.origin["revision"] == "local" and loaded.origin["published_items"] == 636
    facts = loaded.origin["baseline"]
    assert facts["name"] == "gpt4_1106_preview" and len(facts["sha256"]) == 64
    assert facts["unmatched_items"] == [d["id"] for d in loaded.documents[3:]]


def test_a_clip_that_cannot_be_heard_is_an_item_all_the_same(data_dir):
    torn = spoken_alpaca.load_voicebench({"config": "alpacaeval_full"}, Place(data_dir)).documents[4]
    assert torn["duration"] == 0.0 and torn["instruction"] == "Who wrote this?"
    with pytest.raises(clips.AudioError):
        model_input.load_wave(torn["audio"])


def test_the_two_configurations_never_share_an_item_name(data_dir):
    names = [
        {d["id"] for d in spoken_alpaca.load_voicebench({"config": config}, Place(data_dir)).documents}
        for config in ("alpacaeval_full", "alpacaeval")
    ]
    assert [len(found) for found in names] == [5, 2] and not names[0] & names[1]


def test_names_do_not_depend_on_order(data_dir, tmp_path):
    before = {
        d["instruction"]: d["id"]
        for d in spoken_alpaca.load_voicebench({"config": "alpacaeval"}, Place(data_dir)).documents
    }
    rows = [{"audio": audio_cell(encoded(p), "x.wav"), "prompt": p} for p in (*PROMPTS[1::-1], PROMPTS[0])]
    write_parquet(tmp_path / "again" / "alpacaeval" / "test-00000-of-00001.parquet", rows)
    write_answers(tmp_path / "again")
    after = [
        d["id"]
        for d in spoken_alpaca.load_voicebench({"config": "alpacaeval"}, Place(tmp_path / "again")).documents
    ]
    assert after == [before[PROMPTS[1]], before[PROMPTS[0]], before[PROMPTS[0]] + "-2"]


def test_own_baseline_replaces_the_stored_one_and_carries_no_difficulty(data_dir, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"instruction": PROMPTS[1], "output": "mine"}) + "\n")
    loaded = spoken_alpaca.load_voicebench({"config": "alpacaeval"}, Place.of(data_dir, baseline=str(own)))
    assert [d["baseline"] for d in loaded.documents] == ["", "mine"]
    assert {d["extra"] for d in loaded.documents} == {""} and loaded.origin["baseline"]["name"] == "own"


def test_answers_without_a_comparison(data_dir):
    loaded = spoken_alpaca.load_voicebench({"config": "alpacaeval"}, Place.of(data_dir, baseline="none"))
    assert {d["baseline"] for d in loaded.documents} == {""}
    assert loaded.origin["baseline"] == {"name": "none"}


def test_missing_baseline_names_every_way_to_get_one(data_dir):
    (data_dir / "tatsu-lab" / "alpaca_eval" / baselines.ALPACA_FILE).unlink()
    with pytest.raises(MissingPrerequisite, match="hf download tatsu-lab/alpaca_eval") as raised:
        spoken_alpaca.load_voicebench({"config": "alpacaeval"}, Place(data_dir))
    for way in ("--baseline FILE", "--baseline RUN", "--baseline none"):
        assert way in str(raised.value)


def test_missing_or_strange_data(tmp_path, data_dir):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingPrerequisite, match="hf download hlt-lab/voicebench --repo-type dataset"):
        spoken_alpaca.load_voicebench({"config": "alpacaeval_full"}, Place(empty))
    with pytest.raises(UserError, match="unknown VoiceBench configuration 'mmsu'"):
        spoken_alpaca.load_voicebench({"config": "mmsu"}, Place(data_dir))
    with pytest.raises(UserError, match="dataset_kwargs lack config"):
        spoken_alpaca.load_voicebench({}, Place(data_dir))
    with pytest.raises(UserError, match="'conifg'; did you mean 'config'"):
        spoken_alpaca.load_voicebench({"conifg": "alpacaeval"}, Place(data_dir))
    write_parquet(
        empty / "alpacaeval" / "test-00000-of-00001.parquet", [{"audio": audio_cell(b"", ""), "text": "a"}]
    )
    with pytest.raises(UserError, match="lacks the columns prompt"):
        spoken_alpaca.load_voicebench({"config": "alpacaeval"}, Place(empty))
