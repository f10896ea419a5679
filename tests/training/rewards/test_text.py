"""Rewards that compare words, and the count of surplus ones."""

import math

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.rewards.reward import TEXT_REWARDS, extra_words


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
