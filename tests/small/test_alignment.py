"""The alignment set of the track small: what is spoken, by whom, and what training reads of it."""

import json
from pathlib import Path

import pytest

from rba_bench.audio.alignment_index import IndexedSet
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.speech_engines import VOICE_BANKS
from rba_bench.errors import UserError
from rba_bench.small.alignment import BANK, VOICES_PER_TEXT, load_alignment_set
from rba_bench.training.data.groups import TrainingData, choices

CHECKS = {"instructions": [{"name": "startend:last_words", "arguments": {"phrase": "bye"}}], "about": []}
LINES = [
    {"id": "qa-train-000", "kind": "qa", "instruction": "Who wrote Hamlet?", "answer": "Shakespeare did.",
     "references": ["William Shakespeare", "Shakespeare"]},
    {"id": "magpie-0001", "kind": "instruct", "instruction": "How do I boil an egg?", "answer": "Put it in water."},
    {"id": "instruct-train-007", "kind": "ifeval", "instruction": "Say good bye.", "answer": "Good bye",
     "constraints": CHECKS},
    {"id": "magpie-0011", "kind": "instruct", "instruction": "What is a lake?", "answer": "Water in a hollow."},
]  # fmt: skip


def write(folder: Path, lines: list[dict[str, object]]) -> Path:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_every_text_is_said_by_four_training_voices_and_keeps_what_judges_it(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    folder = load_alignment_set(write(tmp_path, LINES), tmp_path / "a")
    again = load_alignment_set(tmp_path / "texts.jsonl", tmp_path / "b")
    assert (folder.name, AlignmentSet.open(folder).sha256) == (again.name, AlignmentSet.open(again).sha256)

    opened = AlignmentSet.open(folder)
    groups = opened.groups()
    names = {voice.name for voice in VOICE_BANKS[BANK]}
    assert all(
        len({row.voice for row in rows} & names) == VOICES_PER_TEXT == len(rows) for rows in groups.values()
    )
    assert {key: (rows[0].kind, rows[0].response) for key, rows in groups.items()} == {
        line["id"]: (line["kind"], line["answer"]) for line in LINES
    }
    assert groups["qa-train-000"][0].references == ("William Shakespeare", "Shakespeare")
    assert json.loads(groups["instruct-train-007"][3].constraints) == CHECKS
    assert groups["magpie-0001"][0].references == () and groups["magpie-0001"][0].constraints == ""
    indexed = IndexedSet(opened)  # what training reads group by group
    assert indexed.rows(indexed.index.find("qa-train-000")) == groups["qa-train-000"]
    data = TrainingData.open(choices(str(folder)))
    assert data.all.kinds == ("ifeval", "instruct", "qa") and len(data.all) == len(LINES)


def test_test_and_development_voices_take_no_part() -> None:
    shapes = {voice.shape for voice in VOICE_BANKS[BANK]}
    held_out = {voice.shape for bank in ("clear-test", "clear-dev") for voice in VOICE_BANKS[bank]}
    assert len(shapes) == len(VOICE_BANKS[BANK]) and not shapes & held_out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "s2tt"}, "line 2 is of kind 's2tt'"),
        ({"answer": " "}, "line 2 lacks answer"),
        ({"id": LINES[0]["id"]}, "an id occurs twice"),
    ],
)
def test_wrong_texts_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_alignment_set(write(tmp_path, [LINES[0], {**LINES[1], **change}]), tmp_path)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(
        UserError, match="no alignment set asset:small-aligment: there is asset:small-alignment"
    ):
        AlignmentSet.open("asset:small-aligment")
