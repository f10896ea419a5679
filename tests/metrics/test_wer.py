"""Word and character errors against alignments counted by hand, through Whisper's normalisers."""

import jiwer
import numpy as np
import pytest

from rba_bench.metrics.aggregate import score_function
from rba_bench.metrics.wer import character_statistics, primary_error, word_statistics


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", (0, 3)),
        ("the dog sat", "the cat sat", (1, 3)),  # substitution
        ("the sat", "the cat sat", (1, 3)),  # deletion
        ("the big cat sat", "the cat sat", (1, 3)),  # insertion
        ("", "the cat sat", (3, 3)),
        ("a b c d", "", (4, 0)),
        ("", "", (0, 0)),
        ("a b", "[laughter]", (2, 0)),  # normalises to nothing
        ("x y z w", "a b", (4, 2)),  # more errors than words
    ],
)
def test_word_errors_counted_by_hand(hypothesis, reference, expected):
    assert word_statistics(hypothesis, reference) == expected


def test_both_sides_are_normalised_by_language():
    assert word_statistics("I am going to the Centre, twenty-one!", "I'm going to the center 21") == (0, 7)
    assert word_statistics("ich habe DREI Kinder.", "Ich habe drei Kinder", "de") == (0, 4)
    assert word_statistics("ich habe 3 kinder", "Ich habe drei Kinder", "de") == (
        1,
        4,
    )  # numbers: English only
    assert word_statistics("huhner", "Hühner", "de") == (1, 1)  # umlauts count


def test_characters_count_the_spaces_between_words():
    assert character_statistics("the cat", "the cat") == (0, 7)
    assert character_statistics("thecat", "the cat") == (1, 7)
    assert character_statistics("", "the cat") == (7, 7)
    assert character_statistics("the cat", "") == (7, 0)
    assert character_statistics("the  cat.", "The cat") == (0, 7)


@pytest.mark.parametrize("lang", ["zh", "zh-CN", "cmn_hans_cn", "ja"])
def test_unspaced_languages_are_counted_by_character(lang):
    """One character is wrong and one too many; as one word all of it would be one error."""
    reference, hypothesis = "她在2019年买书。", "她在2019年買了书"
    assert word_statistics(hypothesis, reference, lang) == (2, 9)
    assert character_statistics(hypothesis, reference, lang) == (2, 9)
    assert character_statistics("她 在 2019 年 买 书", reference, lang) == (0, 9)  # spaces do not count


def test_only_unspaced_languages_are_ranked_by_characters():
    assert [primary_error(lang) for lang in ("zh-CN", "ja_jp", "th", "ko", "de", "en_us")] == [
        "cer", "cer", "cer", "wer", "wer", "wer",
    ]  # fmt: skip


def test_the_rate_of_a_set_is_jiwers_own():
    rng = np.random.default_rng(0)
    words = ["red", "house", "old", "cat", "here"]
    references = [" ".join(rng.choice(words, 6)) for _ in range(40)]
    heard = [" ".join(rng.choice(words, int(rng.integers(1, 9)))) for _ in range(40)]
    for statistics, oracle in ((word_statistics, jiwer.wer), (character_statistics, jiwer.cer)):
        total = np.sum([statistics(h, r) for h, r in zip(heard, references, strict=True)], axis=0)
        assert score_function("error_rate")(total) == pytest.approx(100 * oracle(references, heard))
