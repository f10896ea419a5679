"""The stages `ask` and `filter`: what they decide, whole and interrupted."""

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_teacher import FakeTeacher
from stages_of import candidates, collect, decisions

from rba_bench.errors import RbaError
from rba_bench.files import sha256_file
from rba_bench.micro import world
from rba_bench.synthesis.asking import AHEAD, END_S, AskAhead, InstructionAsker
from rba_bench.synthesis.filters import INSTRUCTION_REASONS, KEPT, normalise
from rba_bench.synthesis.shards import asked_name
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
    found = decisions(tmp_path)
    assert [record["index"] for record in found] == list(range(len(found)))
    assert [record["index"] for record in candidates(tmp_path)] == list(range(len(found)))
    assert len(found) % RECIPE.round_size == 0
    reasons = Counter(record["reason"] for record in found)
    assert reasons[KEPT] == 30
    assert set(reasons) <= {KEPT, *INSTRUCTION_REASONS}
    assert {"truncated", "empty", "unparsed", "held_out", "surplus"} <= set(reasons)


def test_magpie_feeds_the_template_alone_with_the_recipes_settings(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    collect(RECIPE, teacher, tmp_path)
    assert set(teacher.prompts) == {"<|bos|><|user|>"}
    assert {(d.temperature, d.top_p) for d in teacher.decodings} == {(1.1, 1.0), (0.6, 0.9)}
    seeds = [record["seed"] for record in candidates(tmp_path)]
    assert len(set(seeds)) == len(seeds)


def test_questions_with_short_answers(tmp_path: Path) -> None:
    """RBA-QA: one kind only, answers of so many words at most; what is dropped is counted and replaced."""
    changes = {"kinds": {"qa": 20}, "n_instructions": 20, "max_answer_words": 3, "voices_per_instruction": 1}
    units = collect(RECIPE.model_copy(update=changes), FakeTeacher(), tmp_path)
    assert len(units) == 20
    assert {unit.kind for unit in units} == {"qa"}
    assert {len(unit.response.split()) for unit in units} == {1, 2, 3}
    reasons = Counter(record["answer"] for record in decisions(tmp_path) if "answer" in record)
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
    asked = [prompt for prompt in teacher.prompts if prompt.endswith(" Answer in one word.")]
    # all of the shard are answered, as which of them the set has room for is decided later; none twice
    assert len(asked) == len(set(asked)) == 16


def test_unusable_answers_are_replaced_by_further_instructions(tmp_path: Path) -> None:
    units = collect(RECIPE, FakeTeacher(bad_answers=3), tmp_path)
    reasons = Counter(record["answer"] for record in decisions(tmp_path) if "answer" in record)
    assert len(units) == 30 == reasons[KEPT]
    assert reasons["empty"] > 0


def files_of(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.parametrize("stage", ["ask", "filter"])
def test_a_run_that_lost_files_of_a_stage_ends_with_the_same_bytes(tmp_path: Path, stage: str) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    units = collect(RECIPE, FakeTeacher(bad_answers=2), whole)
    wanted, rng = files_of(whole), random.Random(0)
    for harm in ("flip", "delete", "marker", "torn marker"):
        shutil.copytree(whole, torn)
        name = rng.choice(sorted(name for name in wanted if name.startswith(f"{stage}/")))
        marker = torn / "done" / f"{Path(name).name.partition('.')[0].replace('state', 'filter')}.json"
        if harm == "flip":
            (torn / name).write_bytes(wanted[name][:-9] + bytes([wanted[name][-9] ^ 1]) + wanted[name][-8:])
        elif harm == "delete":
            (torn / name).unlink()
        else:
            marker.write_text("{") if harm == "torn marker" else marker.unlink()
        if stage == "ask":  # which is read where the next stage is to be made again
            shutil.rmtree(torn / "filter")
        assert collect(RECIPE, FakeTeacher(bad_answers=2), torn) == units
        assert files_of(torn) == wanted
        shutil.rmtree(torn)


def test_repeated_texts_are_found_across_shards_and_after_a_restart(tmp_path: Path) -> None:
    class Parrot(FakeTeacher):
        def _instruction(self, seed: int) -> Generation:
            return super()._instruction(seed % 60)  # the sixty same texts again and again

    recipe = RECIPE.model_copy(update={"n_instructions": 25})
    units = collect(recipe, Parrot(), tmp_path)
    assert len({normalise(unit.instruction + unit.prompt) for unit in units}) == 25
    reasons = Counter(record["reason"] for record in decisions(tmp_path))
    assert reasons["duplicate"] > 10
    last = max((tmp_path / "filter").glob("filter-*"))
    before = last.read_bytes()
    (tmp_path / "done" / f"{last.name.partition('.')[0]}.json").unlink()
    assert collect(recipe, Parrot(), tmp_path) == units and last.read_bytes() == before


def test_later_stages_need_no_files_of_earlier_ones(tmp_path: Path) -> None:
    units = collect(RECIPE, FakeTeacher(), tmp_path)
    shutil.rmtree(tmp_path / "ask")
    idle = FakeTeacher()
    assert collect(RECIPE, idle, tmp_path) == units and idle.calls == 0


def test_shards_are_asked_ahead_and_taken_in_order(tmp_path: Path) -> None:
    asker = InstructionAsker(RECIPE, FakeTeacher(), {})
    with AskAhead(tmp_path, asker, first=2, lanes=3) as ahead:
        taken = [ahead.take(number) for number in range(2, 9)]
    for number, (records, checksum) in enumerate(taken, start=2):
        assert [record["index"] for record in records] == list(range(number * 16, number * 16 + 16))
        assert sha256_file(tmp_path / asked_name(number)) == checksum
    asked = sorted(file.name for file in (tmp_path / "ask").iterdir())
    assert len(asked) <= 7 + AHEAD + 3 + 1 and asked[0] == "ask-00002.jsonl.gz"


def test_a_stop_ends_a_local_model_between_two_tokens(tmp_path: Path, tiny_textlm_dir: Path) -> None:
    from rba_bench.textlm.local import LocalTextLM

    teacher = LocalTextLM.from_pretrained(tiny_textlm_dir, batch_size=4)
    recipe = RECIPE.model_copy(update={"tagger": None, "instruction_max_new_tokens": 100_000})
    teacher.context = None
    started = time.monotonic()
    with AskAhead(tmp_path, InstructionAsker(recipe, teacher, {}), first=0):
        time.sleep(0.5)
    assert time.monotonic() - started < END_S and not any(
        thread.name.startswith("ask-") for thread in threading.enumerate()
    )
    assert not list(tmp_path.rglob("*.gz"))


def test_a_failure_of_the_teacher_reaches_who_takes_the_shard(tmp_path: Path) -> None:
    class Gone(FakeTeacher):
        def complete(self, *args: Any, **kwargs: Any) -> list[Generation]:
            self.calls += 1
            if self.calls > 2:
                raise RbaError("the server does not answer")
            return super().complete(*args, **kwargs)

    asker = InstructionAsker(RECIPE, Gone(), {})
    with AskAhead(tmp_path, asker, first=0) as ahead, pytest.raises(RbaError, match="does not answer"):
        for number in range(10):
            ahead.take(number)
    assert len(list((tmp_path / "ask").iterdir())) >= 1


def test_finished_shards_need_no_teacher(tmp_path: Path) -> None:
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
