"""Answers to beat from files and runs, and what is said of those that are missing."""

import json

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.sources import baselines
from rba_bench.evaluation.sources.source import Place, load_source


def document(name, instruction, baseline="", extra=""):
    return {"id": name, "instruction": instruction, "baseline": baseline, "extra": extra}


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


ROWS = [
    {"instruction": "Name a river.", "output": "The Rhine", "generator": "somebody"},
    {"instruction": "Name a hill", "output": "Arthur's Seat", "generator": "somebody"},
]


@pytest.mark.parametrize("name", ["answers.json", "answers.jsonl"])
def test_json_and_jsonl_are_the_same_baseline(tmp_path, name):
    found = baselines.read_baseline(write(tmp_path / name, ROWS))
    assert found.by_instruction == {"name a river": "The Rhine", "name a hill": "Arthur's Seat"}
    assert found.name == "somebody" and not found.position
    assert found.sha256 == baselines.read_baseline(write(tmp_path / "copy.json", ROWS)).sha256
    changed = [ROWS[0], {**ROWS[1], "output": "another"}]
    assert found.sha256 != baselines.read_baseline(write(tmp_path / "copy.json", changed)).sha256


def test_samples_of_a_run_answer_by_name_before_words(tmp_path):
    rows = [
        {"id": "a", "instruction": "say it", "response": "raw, cut", "extracted": "raw"},
        {"id": "b", "instruction": "say it", "response": "second voice", "extracted": "second voice"},
    ]
    found = baselines.read_baseline(write(tmp_path / "samples.jsonl", rows))
    documents, unmatched = baselines.attach_baseline(
        [document("a", "say it"), document("b", "say it"), document("c", "Say it!")], found
    )
    assert [d["baseline"] for d in documents] == ["raw", "second voice", "raw"] and unmatched == []


def test_an_empty_answer_is_no_answer(tmp_path):
    rows = [{"id": "a", "output": "  "}, {"id": "b", "output": "yes"}]
    found = baselines.read_baseline(write(tmp_path / "a.json", rows))
    documents, unmatched = baselines.attach_baseline([document("a", "x"), document("b", "y")], found)
    assert [d["baseline"] for d in documents] == ["", "yes"] and unmatched == ["a"]


def test_positions_are_known_for_alpaca_evals_own_answers_alone(tmp_path):
    rows = [
        {"instruction": f"item {n}", "output": "x", "generator": "gpt4_1106_preview", "dataset": "vicuna"}
        for n in range(805)
    ]
    known = baselines.read_baseline(write(tmp_path / "known.json", rows))
    assert known.position["item 804"] == 804
    others = [{**row, "generator": "another"} for row in rows]
    assert not baselines.read_baseline(write(tmp_path / "others.json", others)).position
    assert not baselines.read_baseline(write(tmp_path / "few.json", rows[:-1])).position
    documents, _ = baselines.attach_baseline([document("a", "Item: 3", extra='{"key": 1}')], known)
    assert json.loads(documents[0]["extra"]) == {"index": 3, "key": 1}


def test_words_are_compared_without_case_spacing_and_punctuation():
    assert baselines.normalise_instruction("  What's “Ä_1”,\nthen?") == "what s ä 1 then"
    assert baselines.normalise_instruction("one") != baselines.normalise_instruction("two")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{torn", "cannot be read"),
        ("a.json", "{}", "not a list of objects"),
        ("a.json", "[]", "not a list of objects"),
        ("a.jsonl", '"words"\n', "not a list of objects"),
        ("a.json", '[{"instruction": "x"}]', "entry 1 needs `instruction` or `id`, and `output`"),
        ("a.json", '[{"output": "x"}]', "entry 1 needs"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        baselines.read_baseline(tmp_path / name)


def test_absent_file_and_unfinished_run(tmp_path):
    with pytest.raises(MissingPrerequisite, match="give a JSON or JSONL file of answers, or a run folder"):
        baselines.read_baseline(tmp_path / "absent")
    with pytest.raises(UserError, match="has not finished"):
        baselines.read_baseline(tmp_path)


def test_a_baseline_of_another_test_set_is_refused(tmp_path):
    found = baselines.read_baseline(write(tmp_path / "a.json", ROWS))
    with pytest.raises(UserError, match="somebody answers none of the 1 items"):
        baselines.attach_baseline([document("a", "something else")], found)


def test_stored_answers_and_their_replacement(tmp_path, capsys):
    documents = [document("a", "Name a river", "Spree"), document("b", "Name a sea", "")]
    stored = baselines.with_baseline(documents, {"repo": "x"}, Place(), "teacher")
    assert [d["baseline"] for d in stored.documents] == ["Spree", ""]
    assert stored.origin["baseline"]["name"] == "teacher" and stored.origin["baseline"]["unmatched"] == 1
    assert "teacher has no answer to 1 of 2 items" in capsys.readouterr().err
    own = str(write(tmp_path / "a.json", ROWS))
    replaced = baselines.with_baseline(documents, {}, Place(options={"baseline": own}), "teacher")
    assert [d["baseline"] for d in replaced.documents] == ["The Rhine", ""]


def test_helpers_are_no_sources():
    for name in ("baselines", "source", "hub", "../asr"):
        with pytest.raises(UserError, match=f"unknown source '{name}'"):
            load_source(name, {}, Place())
