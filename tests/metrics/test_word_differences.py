"""Words of a text beside those of a transcript: the alignment that word error rates count."""

import pytest

from rba_bench.metrics.text import normalize
from rba_bench.metrics.wer import word_statistics
from rba_bench.metrics.word_differences import (
    DELETED,
    INSERTED,
    SAME,
    SUBSTITUTED,
    Difference,
    error_rate,
    word_differences,
)


def test_each_kind_of_error_is_marked() -> None:
    assert word_differences("Turn the kitchen light off, please.", "turn a kitchen light off now please") == [
        Difference(SAME, "turn", "turn"),
        Difference(SUBSTITUTED, "the", "a"),
        Difference(SAME, "kitchen light off", "kitchen light off"),
        Difference(INSERTED, "", "now"),
        Difference(SAME, "please", "please"),
    ]
    assert word_differences("Is the red cat here?", "Is the cat here?")[1] == Difference(DELETED, "red", "")


def test_spelling_and_numbers_are_no_differences() -> None:
    assert word_differences("I don't have twenty-five colours!", "i do not have 25 colors") == [
        Difference(SAME, "i do not have 25 colors", "i do not have 25 colors")
    ]


@pytest.mark.parametrize(
    ("said", "transcript", "language"),
    [
        ("What is it?", "", "en"),
        ("What is it?", "...", "en"),
        ("the cat sat on the mat", "a cat sat at mat the mat is", "en"),
        ("请告诉我天气", "请告诉他天气吧", "zh"),
        ("Wie spät ist es", "wie spat ist das es", "de"),
    ],
)
def test_the_errors_are_those_of_the_word_error_rate(said: str, transcript: str, language: str) -> None:
    found = word_differences(said, transcript, language)
    errors, words = word_statistics(transcript, said, language)
    assert error_rate(found) == pytest.approx(errors / words)
    assert " ".join(one.said for one in found if one.said) == " ".join(normalize(said, language).split())


def test_nothing_was_said() -> None:
    assert word_differences("", "hello you") == [Difference(INSERTED, "", "hello you")]
    assert word_differences("", "") == [] and error_rate([]) is None
