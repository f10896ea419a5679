"""Dialogues: what the teacher is fed, what becomes of bad turns, and sets of them from start to end."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from talking_teacher import MARKS, TEMPLATE, TalkingTeacher
from test_pipeline import contents
from test_server_teacher import tokenizer_with

from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet
from rba_bench.audio.clips import decode_clip
from rba_bench.audio.turns import Turn, check_turns, turn_clips
from rba_bench.cards import CARD
from rba_bench.errors import RbaError, UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.synthesis.dialogues import DialogueAsker
from rba_bench.synthesis.export import export_set
from rba_bench.synthesis.filtering import InstructionFilter
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.probe import probe_synthesis
from rba_bench.synthesis.shards import read_records
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe, TextFilterOptions
from rba_bench.synthesis.teacher import find_dialogue_template
from rba_bench.synthesis.units import text_id
from rba_bench.textlm.judging import Message
from rba_bench.textlm.text_model import Generation


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tokenizer with the chat template of the stand-in."""
    folder = tmp_path_factory.mktemp("talking") / "tokenizer"
    tokenizer_with(TEMPLATE, MARKS, "<s>").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recipe(tokenizer: str) -> SynthesisRecipe:
    return SynthesisRecipe.model_validate(
        {
            **{"teacher_tokenizer": tokenizer, "tagger": None, "turns": 3, "n_instructions": 8, "seed": 5},
            **{"round_size": 24, "shard_size": 3, "voices_per_instruction": 2, "validation_fraction": 0.3},
            "answer_prompt": " Answer briefly.",
        }
    )


@pytest.fixture(scope="module")
def finished(recipe: SynthesisRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of dialogues of three turns; read only."""
    pytest.importorskip("espeakng_loader")
    return synthesize(recipe, tmp_path_factory.mktemp("dialogues") / "set", teacher=TalkingTeacher())


def asker(recipe: SynthesisRecipe, teacher: TalkingTeacher) -> DialogueAsker:
    return DialogueAsker(recipe, teacher, {}, template=find_dialogue_template(recipe))


def texts_of(record: dict[str, Any]) -> list[str]:
    return [one["text"] for one in (*record["turns"], record)]


def test_each_turn_is_asked_and_answered_with_all_before_it(recipe: SynthesisRecipe) -> None:
    teacher = TalkingTeacher()
    records = asker(recipe, teacher).records(0)
    whole = next(one for one in records if len(one["turns"]) == 2 and one["reason"] == KEPT)
    said, answers = texts_of(whole), [one["answer"]["response"] for one in whole["turns"]]
    history = f"<s><|user|>{said[0]}<|end|><|assistant|>{answers[0]}<|end|><|user|>"
    assert teacher.prompts.count("<s><|user|>") == 24 and history in teacher.prompts
    assert f"{history}{said[1]}<|end|><|assistant|>{answers[1]}<|end|><|user|>" in teacher.prompts
    assert [
        Message("user", f"{said[0]} Answer briefly."),
        Message("assistant", answers[0]),
        Message("user", f"{said[1]} Answer briefly."),
        Message("assistant", answers[1]),
        Message("user", f"{said[2]} Answer briefly."),
    ] in teacher.conversations
    assert all("briefly" not in prompt for prompt in teacher.prompts)  # or the teacher would say it itself
    seeds = [
        one[key] for record in records for part in (*record["turns"], record) for one, key in _seeded(part)
    ]
    assert len(set(seeds)) == len(seeds)


def _seeded(part: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    return [(part, "seed"), *([(part["answer"], "seed")] if "answer" in part else [])]


def test_a_dialogue_ends_with_the_first_bad_text(recipe: SynthesisRecipe) -> None:
    records = asker(recipe, TalkingTeacher()).records(0)
    assert [record["index"] for record in records] == list(range(24))
    for record in records:
        for one in record["turns"]:
            assert one["reason"] == KEPT and one["answer"]["reason"] == KEPT
        good = record["reason"] == KEPT and record["answer"]["reason"] == KEPT
        assert not good or len(record["turns"]) == 2
        assert ("answer" in record) == (record["reason"] == KEPT)
    ends = Counter((len(one["turns"]), one["reason"]) for one in records if one["reason"] != KEPT)
    assert {reason for _, reason in ends} == {"truncated", "repeated", "closing"}
    assert not any(turn == 0 and reason != "truncated" for turn, reason in ends)


def test_the_first_exchanges_are_those_of_a_set_of_one_turn(recipe: SynthesisRecipe) -> None:
    two, three = (recipe.model_copy(update={"turns": turns}) for turns in (2, 3))
    longer = asker(three, TalkingTeacher()).records(1)
    for shorter, record in zip(asker(two, TalkingTeacher()).records(1), longer, strict=True):
        assert texts_of(shorter) == texts_of(record)[:2]
        assert shorter["seed"] == [*record["turns"], record][len(shorter["turns"])]["seed"]


def test_a_text_with_a_control_token_ends_its_dialogue(recipe: SynthesisRecipe, tmp_path: Path) -> None:
    """Or the next prompt would have a turn that nobody took."""

    class Forger(TalkingTeacher):
        def _answer(self, messages: Any, seed: int) -> Generation:
            return Generation("Like this =next= and so on", 5, "ok")

    tokenizer_with(TEMPLATE, [*MARKS, "=next="], "<s>").save_pretrained(tmp_path)
    teacher = Forger()
    records = asker(recipe.model_copy(update={"teacher_tokenizer": str(tmp_path)}), teacher).records(0)
    assert {one["answer"]["reason"] for one in records if "answer" in one} == {"malformed"}
    assert set(teacher.prompts) == {"<s><|user|>"}


@pytest.mark.parametrize(
    ("query_template", "system", "expected"),
    [
        ("template", None, "<s><|user|>a<|end|><|assistant|>b<|end|><|user|>"),
        ("template", "Go on.", "<s><|system|>Go on.<|end|><|user|>a<|end|><|assistant|>b<|end|><|user|>"),
        ("OPEN ", None, "OPEN a<|end|><|assistant|>b<|end|><|user|>"),
        ("OPEN ", "Go on.", "<s><|system|>Go on.<|end|><|user|>a<|end|><|assistant|>b<|end|><|user|>"),
    ],
)
def test_what_stands_before_the_first_turn_stands_before_later_ones(
    recipe: SynthesisRecipe, query_template: str, system: str | None, expected: str
) -> None:
    changed = recipe.model_copy(update={"query_template": query_template, "turns_prompt": system})
    assert find_dialogue_template(changed).text([("a", "b")]) == expected


def test_a_template_without_system_turns_gets_the_prompt_in_the_first_turn(
    recipe: SynthesisRecipe, tmp_path: Path
) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    tokenizer_with(refusing, MARKS, "<s>").save_pretrained(tmp_path)
    changed = recipe.model_copy(update={"teacher_tokenizer": str(tmp_path), "turns_prompt": "Go on."})
    assert find_dialogue_template(changed).text([("a", "b"), ("c", "d")]) == (
        "<s><|user|>Go on.\n\na<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>d<|end|><|user|>"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tagger": "micro"}, "set tagger to null"),
        ({"kind": "qa"}, "turns: 1"),
        ({"kinds": {"instruct": 5, "qa": 9}}, "turns: 1"),
        ({"source": {"manifest": "x.jsonl"}}, "leave out"),
        ({"turns": 1, "turns_prompt": "Go on."}, "set turns to 2"),
    ],
)
def test_what_has_no_further_turns_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SynthesisRecipe.model_validate({"tagger": None, "turns": 2, "n_instructions": 9, **changes})


def test_a_server_that_shows_no_template_is_refused_at_once(tmp_path: Path) -> None:
    given = {"query_template": "<u>", "query_stops": ["</u>"], "tagger": None, "turns": 2}
    recipe = SynthesisRecipe.model_validate({**given, "teacher": "openai:http://127.0.0.1:9/v1#m"})
    with pytest.raises(UserError, match="turns: .* set teacher_tokenizer .* or turns to 1"):
        synthesize(recipe, tmp_path / "set")


def test_equal_openings_stay_and_equal_dialogues_do_not(recipe: SynthesisRecipe) -> None:
    def record(index: int, *texts: str) -> dict[str, Any]:
        parts = [
            {
                **{
                    "index": index,
                    "text": text,
                    "reason": KEPT,
                    "kind": "instruct",
                    "prompt": "",
                    "topic": "",
                },
                **{"instruction": text, "source_lang": "en", "target_lang": "en", "difficulty": ""},
                "answer": {"response": f"answer to {text}", "reason": KEPT},
            }
            for text in texts
        ]
        return {**parts[-1], "turns": parts[:-1]}

    rows = [
        record(0, "Who was Ada?", "And where did she live?"),
        record(1, "Who was Ada?", "And what did she write?"),
        record(2, "who was ada", "And where did she live"),
        record(3, "Who was Ada? And", "where did she live?"),
    ]
    filters = InstructionFilter(recipe)
    decisions, state = filters.decide(rows)
    assert [one["reason"] for one in decisions] == [KEPT, KEPT, "duplicate", KEPT]
    assert len({one["group_id"] for one in decisions if one["reason"] == KEPT}) == 3 == len(state["texts"])
    assert decisions[0]["group_id"] == text_id("Who was Ada?", "And where did she live?")
    assert decisions[0]["split"] == decisions[1]["split"]
    assert decisions[0]["turns"] == ({"instruction": "Who was Ada?", "response": "answer to Who was Ada?"},)


def test_a_set_of_dialogues(finished: Path, recipe: SynthesisRecipe) -> None:
    data = AlignmentSet.open(finished)
    assert data.has_turns and len(data.groups()) == 8 and len(data.rows()) == 16
    assert check_turns(data.shards)
    kept = {
        record["group_id"]: record
        for file in sorted((finished / "filter").glob("*.gz"))
        for record in read_records(file)
        if record.get("answer") == KEPT
    }
    for row in data.rows():
        record = kept[row.group_id]
        assert row.turns == tuple(Turn(**turn) for turn in record["turns"]) and len(row.turns) == 2
        assert (row.instruction, row.response) == (record["instruction"], record["response"])
        assert row.group_id == text_id(*(turn.instruction for turn in row.turns), row.instruction)
        clips = turn_clips(row.audio)
        assert len(clips) == 2 and all(len(decode_clip(clip)) > 4000 for clip in clips if clip is not None)
        assert None not in clips and len(set(clips)) == 2
    assert {row.split for row in data.rows()} == {"train", "validation"}


def test_manifest_and_card_count_turns(finished: Path) -> None:
    manifest = read_json(finished / MANIFEST)
    assert manifest["schema_version"] == 2 and manifest["counts"]["turns"] == 16 * 3
    clips = [
        decode_clip(clip)
        for row in AlignmentSet.open(finished).rows()
        for clip in turn_clips(row.audio)
        if clip is not None
    ]
    hours = sum(map(len, clips)) / 16_000 / 3600
    assert manifest["counts"]["hours_of_earlier_turns"] == pytest.approx(hours, abs=1e-4)
    turns = [manifest["filters"][f"turn {turn}"] for turn in (1, 2, 3)]
    assert turns[0]["n"] == manifest["filters"]["instructions"]["n"]
    for turn, following in zip(turns, turns[1:], strict=False):
        assert turn["kept"] == following["n"]
    for turn in turns:
        assert turn["n"] - turn["kept"] == sum(found["n"] for found in turn["dropped"].values())
    assert "instruction repeated" in turns[1]["dropped"] | turns[2]["dropped"]
    assert not any("repeated" in name or "closing" in name for name in turns[0]["dropped"])
    card = (finished / CARD).read_text()
    assert "| turn 2 | kept |" in card and "Rows with `turns` end a dialogue" in card


def test_the_set_is_the_same_with_workers_and_after_a_loss(
    finished: Path, recipe: SynthesisRecipe, tmp_path: Path
) -> None:
    out = synthesize(recipe, tmp_path / "set", teacher=TalkingTeacher(), workers=2)
    assert contents(out) == contents(finished)
    rng = random.Random(0)
    for folder in ("ask", "filter", "shards"):
        lost = rng.choice(sorted((out / folder).iterdir()))
        lost.unlink()
    (out / MANIFEST).unlink()
    synthesize(recipe, out, teacher=TalkingTeacher())
    assert contents(out) == contents(finished)
    assert read_json(out / MANIFEST)["counts"] == read_json(finished / MANIFEST)["counts"]


def test_dialogues_are_exported_with_all_their_clips(finished: Path, tmp_path: Path) -> None:
    made = export_set(finished, "ms-swift", tmp_path / "swift")
    assert made.summary["clips"] == 16 * 3 and sum(made.summary["rows"].values()) == 16


def test_a_set_of_dialogues_trains(finished: Path, tiny_composite_dir: Path, tmp_path: Path) -> None:
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import train

    values = {
        **{"method": "sft", "base": str(tiny_composite_dir), "alignment_set": str(finished), "steps": 2},
        **{"groups_per_step": 2, "voices_per_group": 2, "warmup_steps": 1, "report": False},
        "validate_ends": False,
    }
    result = train(TrainingRecipe.model_validate(values), tmp_path / "out")
    losses = [record["loss"] for record in read_jsonl(result.path / "train_log.jsonl")]
    assert result.steps == 2 == len(losses) and all(loss > 0 for loss in losses)


def test_clips_of_earlier_turns_have_names_of_their_own(finished: Path) -> None:
    for shard in AlignmentSet.open(finished).shards:
        for record in pq.read_table(shard).to_pylist():
            assert [turn["audio"]["path"] for turn in record["turns"]] == [
                f"{record['id']}-turn{turn}.flac" for turn in range(2)
            ]


def test_a_dry_run_counts_all_turns(recipe: SynthesisRecipe, finished: Path) -> None:
    probe = probe_synthesis(recipe, 24, teacher=TalkingTeacher())
    counts = read_json(finished / MANIFEST)["counts"]
    hours = (counts["hours"] + counts["hours_of_earlier_turns"]) / counts["clips"]
    assert probe.usable and sum(probe.speech) / len(probe.speech) / 3600 == pytest.approx(hours, rel=0.3)
    assert {"instructions", "answers"} <= probe.seconds.keys()
    with pytest.raises(RbaError, match="`rba-bench synth` knows the reward models"):
        probe_synthesis(
            recipe.model_copy(
                update={
                    "turns": 1,
                    "text_filters": TextFilterOptions.model_validate(
                        {"quality": {"scorer": "reward", "model": "somewhere"}}
                    ),
                }
            ),
            teacher=TalkingTeacher(),
        )
