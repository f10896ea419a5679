"""Words in any script."""

import subprocess
import sys

import pytest

from rba_bench.synthesis.filters import normalise
from rba_bench.synthesis.texts.words import hash64, shingles, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What's the time, Mr Wolf?", ["what", "s", "the", "time", "mr", "wolf"]),
        ("Ｆｕｌｌ width ﬁne", ["full", "width", "fine"]),
        ("Straße_lang", ["strasse", "lang"]),
        ("東京 2020年", ["東", "京", "2020", "年"]),
        ("ラーメンを食べる", list("ラーメンを食べる")),
        ("मुझे चाय", ["मुझे", "चाय"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("ที่", ["ที่"]),  # a letter with two marks
        ("Привет, мир!", ["привет", "мир"]),
        ("?! ...", []),
        ("\u0301", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_words_of_latin_texts_are_those_of_the_exact_filter() -> None:
    text = "Ｗｈｏ's THERE?! Über-straße, café 3.5"
    assert " ".join(words(text)) == normalise(text)


def test_hindi_words_that_differ_in_vowel_signs_differ() -> None:
    assert words("की") != words("के")
    assert normalise("की") == normalise("के"), "which is why the exact filter has its own words here"


def test_shingles() -> None:
    assert shingles(["a", "b", "c"], 2) == ["a b", "b c"]
    assert shingles(["a"], 2) == ["a"] and shingles([], 2) == []
    assert shingles(["a", "b"], 2) == ["a b"]


def test_a_hash_is_the_same_in_every_process() -> None:
    program = "from rba_bench.synthesis.texts.words import hash64; print(hash64('a b'))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(told) == hash64("a b") and hash64("\ud800") < 2**64
