"""Rewards that compare words, and the count of surplus ones."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.textlm.local import LocalTextLM
from rba_bench.training.rewards.reward import TEXT_REWARDS, TeacherLogprob, extra_words


def test_text_rewards_against_the_teacher(rows: list[AlignmentRow]) -> None:
    paris, dog = rows[3], rows[6]  # "paris", "the dog sleeps in the garden"
    assert TEXT_REWARDS["exact"]([paris] * 3, ["Paris.", "it is paris", "rome"]) == [1.0, 0.0, 0.0]
    answers = ["it is paris", "paris or rome", "it is not paris"]
    assert TEXT_REWARDS["asserted"]([paris] * 3, answers) == [1.0, 0.0, 0.0]
    assert TEXT_REWARDS["alias"]([paris] * 3, ["Paris.", "it is paris", "rome"]) == [1.0, 1.0, 0.0]
    for name in ("bleu", "chrf"):
        same, near, far = TEXT_REWARDS[name]([dog] * 3, [dog.response, "the dog sleeps in a garden", "a cat"])
        assert same == pytest.approx(1.0) and same > near > far


def test_overlap_is_the_f1_of_the_words(rows: list[AlignmentRow]) -> None:
    dog = rows[6]
    answers = ["Garden the in sleeps dog the!", "the dog", "", "a cat"]
    assert TEXT_REWARDS["overlap"]([dog] * 4, answers) == pytest.approx([1.0, 2 * 2 / 8, 0.0, 0.0])


def test_surplus_words_are_characters_where_no_spaces_are_written() -> None:
    assert extra_words("one two three", "one", "en") == 2
    assert extra_words("one", "one two three", "en") == 0
    assert extra_words("湖 很大", "湖", "zh-CN") == 2


def test_bleu_is_that_of_the_answer_against_the_teachers(rows: list[AlignmentRow]) -> None:
    """Four of six words: all n-grams are right, and brevity costs exp(1 - 6 / 4); the other way round there is none."""
    row = next(row for row in rows if row.response == "pack a map and go early")
    [value] = TEXT_REWARDS["bleu"]([row], ["pack a map and"])
    assert value == pytest.approx(math.exp(-0.5), rel=1e-6)


def test_references_and_constraints_of_the_set_decide_where_it_has_some(rows: list[AlignmentRow]) -> None:
    row = replace(rows[3], references=("Rome", "the eternal city"))
    assert TEXT_REWARDS["alias"]([row] * 3, ["It is Rome.", "the Eternal City", "paris"]) == [1.0, 1.0, 0.0]
    checks = [
        {"name": "detectable_format:item_count", "arguments": {"num_items": 2}},
        {"name": "keywords:existence", "arguments": {"keywords": ["apple"]}},
    ]
    asked = {"instructions": checks, "instruction": "Name two fruits.", "about": []}
    row = replace(rows[3], kind="ifeval", constraints=json.dumps(asked))
    assert TEXT_REWARDS["checks"]([row] * 3, ["apple, pear", "pear, plum", ""]) == [1.0, 0.5, 0.0]
    assert math.isnan(TEXT_REWARDS["checks"]([rows[3]], ["apple, pear"])[0])


def test_the_mean_likelihood_does_not_favour_short_answers(
    rows: list[AlignmentRow], tiny_textlm_dir: Path
) -> None:
    teacher = LocalTextLM.from_pretrained(tiny_textlm_dir)
    row, answers = rows[6], ["the dog", "the dog sleeps in the garden"]
    sums = TeacherLogprob(teacher)([row] * 2, answers)
    means = TeacherLogprob(teacher, mean=True)([row] * 2, answers)
    sizes = [len(teacher.tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1 for answer in answers]
    assert sums[0] > sums[1] and means == pytest.approx(
        [total / size for total, size in zip(sums, sizes, strict=True)]
    )
