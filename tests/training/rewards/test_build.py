"""From the recipe to rewards: by kind, weighted, priced by length, each answer scored once."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.recipes import load_recipe
from rba_bench.training.options.nested_options import RewardOptions
from rba_bench.training.rewards import TEXT_REWARDS, RewardByKind, TeacherLogprob, build_reward
from tests.training.rewards.conftest import MakeClassifier


class Counting:
    """Numbers its answers and remembers them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        start = len(self.seen)
        self.seen.extend((row.kind, text) for row, text in zip(rows, responses, strict=True))
        return [float(start + n) for n in range(len(rows))]


def test_kinds_go_to_their_rewards_and_equal_answers_are_scored_once(rows: list[AlignmentRow]) -> None:
    counting = Counting()
    reward = RewardByKind({"instruct": counting, "qa": TEXT_REWARDS["alias"]})
    scores = reward([rows[0], rows[3], rows[1], rows[0], rows[9]], ["x", "paris", "x", "y", "x"])
    assert scores[0] == scores[2] != scores[3] and scores[1] == 1.0
    # the third is another instruction's
    assert counting.seen == [("instruct", "x"), ("instruct", "y"), ("instruct", "x")]


def test_groups_of_one_name_in_two_sets_are_told_apart(rows: list[AlignmentRow]) -> None:
    other = replace(rows[9], group_id=rows[0].group_id)
    first, second = RewardByKind({"instruct": Counting()})([rows[0], other], ["x", "x"])
    assert first != second


def test_teacher_logprob_is_that_of_the_text_model(rows: list[AlignmentRow], tiny_textlm_dir: Path) -> None:
    from rba_bench.textlm.local import LocalTextLM

    teacher = LocalTextLM.from_pretrained(str(tiny_textlm_dir), device="cpu", batch_size=4)
    answers = ["the lake in france", "the garden"]
    values = TeacherLogprob(teacher)([rows[0], rows[6]], answers)
    alone = [
        teacher.logprobs([row.user_text], [text])[0]
        for row, text in zip((rows[0], rows[6]), answers, strict=True)
    ]
    assert values == pytest.approx(alone, abs=1e-4) and max(values) < 0 and values[0] != values[1]
    built = build_reward(
        RewardOptions(instruct="teacher-logprob", teacher=str(tiny_textlm_dir)), ["instruct"]
    )
    assert built([rows[0]], answers[:1]) == pytest.approx(values[:1], abs=1e-4)


def test_only_needed_models_are_loaded(rows: list[AlignmentRow], tmp_path: Path) -> None:
    absent = RewardOptions(model=str(tmp_path / "absent"), teacher=str(tmp_path / "gone"))
    assert build_reward(absent, ["qa", "s2tt"])([rows[3]], ["paris"]) == [1.0]
    with pytest.raises(MissingPrerequisite, match=r"^reward\.model: no reward model at"):
        build_reward(absent, ["instruct", "qa"])
    with pytest.raises(MissingPrerequisite, match=r"^reward\.teacher: no text model at"):
        build_reward(absent.model_copy(update={"qa": "teacher-logprob"}), ["qa"])


def test_a_mixture_is_the_weighted_sum_of_raw_values(rows: list[AlignmentRow]) -> None:
    options = RewardOptions(s2tt={"chrf": 0.5, "overlap": -2})
    mixed, plain, overlap = (
        build_reward(choice, ["s2tt"])([rows[6]] * 2, ["the dog", "a cat"])
        for choice in (options, RewardOptions(s2tt="chrf"), RewardOptions(s2tt="overlap"))
    )
    assert mixed == pytest.approx([0.5 * a - 2 * b for a, b in zip(plain, overlap, strict=True)])
    doubled = build_reward(RewardOptions(s2tt={"chrf": 2.0}), ["s2tt"])([rows[6]], ["the dog"])
    assert doubled == pytest.approx([2 * plain[0]])


def test_words_beyond_the_teachers_cost_what_the_recipe_says(rows: list[AlignmentRow]) -> None:
    answers = ["paris", "it is paris , of course", ""]  # the teacher: "paris"
    priced = build_reward(RewardOptions(qa="alias", length_penalty=0.1), ["qa"])([rows[3]] * 3, answers)
    assert priced == pytest.approx([1.0, 1.0 - 0.5, 0.0])


def test_what_is_not_judged_stays_so_and_is_counted(
    rows: list[AlignmentRow], classifier_dir: MakeClassifier
) -> None:
    options = RewardOptions(
        instruct={"reward-model": 1.0, "chrf": 1.0},
        model=str(classifier_dir()),
        max_length=60,
        length_penalty=1,
    )
    reward = build_reward(options, ["instruct", "qa"])
    values = reward([rows[0], rows[0], rows[1], rows[3]], ["go", "go and " * 20, "go and " * 20, "paris"])
    assert [math.isnan(value) for value in values] == [False, True, True, False]
    assert reward.counts() == {"unjudged": 2, "reward_model_too_long": 1}


def test_the_recipe_keys_reach_the_classifier(
    rows: list[AlignmentRow], classifier_dir: MakeClassifier
) -> None:
    options = RewardOptions(model=str(classifier_dir(3)))
    with pytest.raises(UserError, match=r"^reward\.model: it has 3 outputs: set reward\.output"):
        build_reward(options, ["instruct"])
    first, second = (
        build_reward(options.model_copy(update={"output": n}), ["instruct"])([rows[0]], ["go"])
        for n in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("instruct=chrff", "instruct: no reward 'chrff'; did you mean 'chrf'"),
        ("qa={alias: 1, bleuu: 2}", "qa: no reward 'bleuu'; did you mean 'bleu'"),
        ("qa={alias: high}", "qa: the weight of alias must be a number"),
        ("qa={alias: .nan}", "qa: the weight of alias must be a number"),
        ("qa={alias: 0}", "qa: the weight of alias is 0"),
        ("qa={}", "qa: name a reward"),
        ("qa=[alias]", "qa: name a reward"),
        ("length_penalty=-1", "length_penalty"),
        ("output=-1", "output"),
    ],
)
def test_a_wrong_choice_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(RewardOptions, None, [override])
    assert message in str(caught.value) and ";" not in str(caught.value).replace("; did", "")


def test_choices_are_stored_as_they_were_made() -> None:
    options = load_recipe(RewardOptions, None, ["s2tt.chrf=1", "s2tt.similarity=0.5", "qa=exact"])
    stored: dict[str, Any] = options.resolved()
    assert stored["s2tt"] == {"chrf": 1.0, "similarity": 0.5} and stored["qa"] == "exact"
    assert RewardOptions.model_validate(stored) == options
