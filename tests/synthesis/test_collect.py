"""Rounds of sampling and answering, whole and interrupted."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_teacher import FakeTeacher

from rba_bench.errors import RbaError, UserError
from rba_bench.files import read_jsonl
from rba_bench.micro import world
from rba_bench.synthesis.collection import ANSWERS, INSTRUCTIONS, collect
from rba_bench.synthesis.filters import INSTRUCTION_REASONS, KEPT, normalise
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.textlm.text_model import Decoding, Generation

RECIPE = SynthesisRecipe(
    n_instructions=30,
    round_size=16,
    instruction_temperature=1.1,
    response_temperature=0.6,
    response_top_p=0.9,
)


def test_usable_units_and_a_full_log(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    units = collect(RECIPE, teacher, tmp_path)
    assert len(units) == 30 and len({unit.group_id for unit in units}) == 30
    for unit in units:
        item = world.parse(f"{unit.prompt} {unit.instruction}".strip())
        assert item is not None and item.split == "train" and item.kind == unit.kind
        assert world.grade(item, unit.response).valid
    candidates = list(read_jsonl(tmp_path / INSTRUCTIONS))
    assert [record["index"] for record in candidates] == list(range(len(candidates)))
    assert len(candidates) % RECIPE.round_size == 0
    reasons = Counter(record["reason"] for record in candidates)
    assert reasons[KEPT] == 30
    assert set(reasons) <= {KEPT, *INSTRUCTION_REASONS}
    assert {"truncated", "empty", "unparsed", "held_out", "surplus"} <= set(reasons)


def test_magpie_feeds_the_template_alone_with_the_recipes_settings(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    collect(RECIPE, teacher, tmp_path)
    assert set(teacher.prompts) == {"<|bos|><|user|>"}
    assert {(d.temperature, d.top_p) for d in teacher.decodings} == {(1.1, 1.0), (0.6, 0.9)}
    seeds = [record["seed"] for record in read_jsonl(tmp_path / INSTRUCTIONS)]
    assert len(set(seeds)) == len(seeds)


def test_questions_with_short_answers(tmp_path: Path) -> None:
    """RBA-QA: one kind only, answers of so many words at most; what is dropped is counted and replaced."""
    changes = {"kinds": {"qa": 20}, "n_instructions": 20, "max_answer_words": 3, "voices_per_instruction": 1}
    units = collect(RECIPE.model_copy(update=changes), FakeTeacher(), tmp_path)
    assert len(units) == 20
    assert {unit.kind for unit in units} == {"qa"}
    assert {len(unit.response.split()) for unit in units} == {1, 2, 3}
    reasons = Counter(record["reason"] for record in read_jsonl(tmp_path / ANSWERS))
    assert reasons[KEPT] == 20 and reasons["too_long"] > 0


def test_a_teacher_that_is_asked_for_questions(tmp_path: Path) -> None:
    """Instead of Magpie sampling: topics in turn, a hint behind the question that the student never sees."""

    class Asked(FakeTeacher):
        def chat(
            self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]
        ) -> list[Generation]:
            self.prompts += user_texts
            answers = [
                f"Who likes {text.split()[-1]} number {seed % 997}" if text.startswith("Ask") else "Ann"
                for text, seed in zip(user_texts, seeds, strict=True)
            ]
            return [Generation(answer, 3, "ok") for answer in answers]

    teacher = Asked()
    recipe = SynthesisRecipe.model_validate(
        {
            **{"tagger": None, "kind": "qa", "n_instructions": 10, "round_size": 16},
            **{"instruction_prompt": "Ask something about {topic}", "topics": ["birds", "rivers"]},
            "answer_prompt": " Answer in one word.",
        }
    )
    units = collect(recipe, teacher, tmp_path)
    assert {unit.kind for unit in units} == {"qa"} and {unit.response for unit in units} == {"Ann"}
    assert {prompt.split()[-1] for prompt in teacher.prompts if prompt.startswith("Ask")} == {
        "birds",
        "rivers",
    }
    assert all("one word" not in unit.instruction for unit in units)
    assert sum(prompt.endswith(" Answer in one word.") for prompt in teacher.prompts) == 10


def test_unusable_answers_are_replaced_by_further_instructions(tmp_path: Path) -> None:
    units = collect(RECIPE, FakeTeacher(bad_answers=3), tmp_path)
    reasons = Counter(record["reason"] for record in read_jsonl(tmp_path / ANSWERS))
    assert len(units) == 30 == reasons[KEPT]
    assert reasons["empty"] > 0


@pytest.mark.parametrize("log", [INSTRUCTIONS, ANSWERS])
def test_every_torn_log_is_completed_to_the_same_bytes(tmp_path: Path, log: str) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    units = collect(RECIPE, FakeTeacher(bad_answers=2), whole)
    wanted = {name: (whole / name).read_bytes() for name in (INSTRUCTIONS, ANSWERS)}
    rng = random.Random(0)
    torn.mkdir()
    for _ in range(12):
        # What a kill can leave: answers never run ahead of instructions.
        size = rng.randrange(len(wanted[log]))
        other = wanted[ANSWERS if log == INSTRUCTIONS else INSTRUCTIONS]
        (torn / log).write_bytes(wanted[log][:size])
        (torn / (ANSWERS if log == INSTRUCTIONS else INSTRUCTIONS)).write_bytes(
            b"" if log == INSTRUCTIONS else other
        )
        assert collect(RECIPE, FakeTeacher(bad_answers=2), torn) == units
        assert {name: (torn / name).read_bytes() for name in wanted} == wanted


def test_finished_logs_need_no_teacher(tmp_path: Path) -> None:
    units = collect(RECIPE, FakeTeacher(), tmp_path)
    idle = FakeTeacher()
    assert collect(RECIPE, idle, tmp_path) == units
    assert idle.calls == 0


def test_another_seed_gives_other_instructions(tmp_path: Path) -> None:
    one = collect(RECIPE, FakeTeacher(), tmp_path / "one")
    two = collect(RECIPE.model_copy(update={"seed": 1}), FakeTeacher(), tmp_path / "two")
    assert len({normalise(u.instruction) for u in one} & {normalise(u.instruction) for u in two}) < 10


def test_split_goes_by_the_words(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"validation_fraction": 0.4})
    units = collect(recipe, FakeTeacher(), tmp_path)
    assert Counter(unit.split for unit in units).keys() == {"train", "validation"}
    everything = collect(
        RECIPE.model_copy(update={"validation_fraction": 0.0}), FakeTeacher(), tmp_path / "all"
    )
    assert {unit.split for unit in everything} == {"train"}


def test_a_barren_teacher_is_given_up_with_the_reasons(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"kinds": {"s2tt": 30}, "max_candidates": 32})
    with pytest.raises(RbaError, match=r"32 candidates gave \d+ of 30 .*quota \d+.*raise max_candidates"):
        collect(recipe, FakeTeacher(), tmp_path)


def test_a_damaged_log_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / INSTRUCTIONS).write_text("not json\n")
    with pytest.raises(UserError, match="damaged"):
        collect(RECIPE, FakeTeacher(), tmp_path)


def test_answers_keep_their_lines_and_instructions_have_one(tmp_path: Path) -> None:
    class Poet(FakeTeacher):
        def _instruction(self, seed: int) -> Generation:
            made = super()._instruction(seed)
            return Generation(made.text.replace(" ", "\n", 1), made.n_tokens, made.status)

        def _answer(self, text: str, seed: int) -> Generation:
            return Generation(" - roses \r\n\r\n\r\n\r\n  - violets\n", 8, "ok")

    units = collect(RECIPE, Poet(), tmp_path)
    assert len(units) == 30 and {unit.response for unit in units} == {"- roses\n\n  - violets"}
    assert not any("\n" in unit.instruction for unit in units)
