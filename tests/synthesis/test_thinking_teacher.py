"""A teacher that thinks by default: told not to it does not, and what it thinks is never spoken nor learnt."""

from pathlib import Path

import pytest
from stages_of import candidates, decisions

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.synthesis import pipeline
from rba_bench.synthesis.filters import ANSWER_REASONS, KEPT, read_reply
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import answer_candidates, load_teacher, sample_candidates
from rba_bench.textlm.text_model import Generation
from tests.thinking_lm import TURNS


@pytest.fixture
def recipe(thinker: Path) -> SynthesisRecipe:
    return SynthesisRecipe(
        teacher=str(thinker),
        tagger=None,
        n_instructions=2,
        round_size=8,
        response_temperature=0.0,
        response_max_new_tokens=60,
        voices_per_instruction=1,
        shard_size=2,
    )


def asked(turns=TURNS):
    return [{"index": index, "text": ask} for index, (ask, _) in enumerate(turns)]


def test_it_answers_without_thinking_and_the_manifest_says_so(
    tmp_path: Path, recipe: SynthesisRecipe
) -> None:
    pytest.importorskip("espeakng_loader")
    data = AlignmentSet.open(pipeline.synthesize(recipe, tmp_path / "set"))
    assert data.manifest["teacher"]["template"] == {"enable_thinking": False}
    assert len(data.rows()) == 2 and {row.response for row in data.rows()} <= {right for _, right in TURNS}
    # shards asked ahead are there or not, so only what became part of the set is looked at
    kept = {one["index"] for one in decisions(tmp_path / "set") if one.get("answer") == KEPT}
    tokens = [one["answer"]["n_tokens"] for one in candidates(tmp_path / "set") if one["index"] in kept]
    assert max(tokens) < 20, "nothing was thought"
    assert data.manifest["filters"]["answers"]["dropped"]["unclosed"]["n"] == 0


def test_thinking_that_is_wanted_is_taken_away(recipe: SynthesisRecipe) -> None:
    thinks = recipe.model_copy(update={"template": {"enable_thinking": True}})
    found = answer_candidates(load_teacher(thinks), thinks, asked())
    assert [(one["response"], one["reason"]) for one in found] == [(right, KEPT) for _, right in TURNS]
    assert min(one["n_tokens"] for one in found) > 15, "it thought"


def test_thinking_without_an_end_is_no_answer_and_is_counted(recipe: SynthesisRecipe) -> None:
    thinks = recipe.model_copy(update={"template": {"enable_thinking": True}, "response_max_new_tokens": 4})
    found = answer_candidates(load_teacher(thinks), thinks, asked())
    assert {(one["response"], one["status"], one["reason"]) for one in found} == {
        ("", "unclosed", "unclosed")
    }
    assert "unclosed" in ANSWER_REASONS


def test_instructions_are_read_in_the_same_way(recipe: SynthesisRecipe) -> None:
    class Teacher:
        def pre_query_template(self) -> str:
            return "<|user|>"

        def complete(self, prompts, decoding, seeds):
            said = [
                "<think>a question?</think>who painted it",
                "what is it<|im_end|>\n<|im_start|>assistant\nx",
                "<think>a",
            ]
            return [Generation(text, 5, "ok") for text in said]

    found = sample_candidates(Teacher(), recipe.model_copy(update={"round_size": 3}), 0)
    assert [(one["text"], one["status"]) for one in found] == [
        ("who painted it", "ok"),
        ("what is it", "ok"),
        ("", "unclosed"),
    ]


def test_a_folder_made_with_other_variables_is_not_gone_on_with(
    tmp_path: Path, recipe: SynthesisRecipe
) -> None:
    pytest.importorskip("espeakng_loader")
    from rba_bench.errors import UserError

    pipeline.synthesize(recipe, tmp_path / "set")
    other = recipe.model_copy(update={"template": {"enable_thinking": False, "budget": 1}})
    with pytest.raises(UserError):
        pipeline.synthesize(other, tmp_path / "set")


def test_a_block_with_nothing_behind_it_is_empty() -> None:
    assert read_reply(Generation("<think>so\nso</think>\n", 5, "ok")) == ("", "ok")
