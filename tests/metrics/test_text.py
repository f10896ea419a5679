"""Characters that look the same to a reader must be the same to every metric, and the others must not."""

import pytest

from rba_bench.metrics.text import normalize, plain_characters
from rba_bench.metrics.wer import character_statistics, word_statistics


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("don’t", "don't"),
        ("don‘t", "don't"),
        ("donʼt", "don't"),
        ("don′t", "don't"),
        ("don`t", "don't"),
        ("don´t", "don't"),
        ("“yes” „no“ «si»", '"yes" "no" "si"'),
        ("Par\u200bis", "Paris"),
        ("Par\u00adis", "Paris"),
        ("\ufeffParis", "Paris"),
        ("\u202bParis\u202c\u200f", "Paris"),
        ("Par\u2060is\u200d", "Paris"),
        ("Paris\ufe0f", "Paris"),
        ("\x00Par\x07is\x7f", "Paris"),
        ("New\u00a0York", "New York"),
        ("New\u202fYork\u3000City", "New York City"),
        ("one\u2028two\r", "one\ntwo\n"),
        ("Spider\u2011Man", "Spider-Man"),
        ("\u22125", "-5"),
        ("1914\u20131918", "1914-1918"),
        ("no \u2014 yes", "no — yes"),
        ("Ｐａｒｉｓ！", "Paris!"),
        ("ﬁsh", "fish"),
        ("ｶﾞｽ", "ガス"),
        ("cafe\u0301", "café"),
        ("A\u030angstro\u0308m", "Ångström"),
        ("10² and 3½", "10² and 3½"),
        ("C# isn't C++, 5 % of $3", "C# isn't C++, 5 % of $3"),
    ],
)
def test_what_a_reader_cannot_tell_apart_becomes_one_character(written, plain):
    assert plain_characters(written) == plain
    assert plain_characters(plain) == plain


@pytest.mark.parametrize(
    ("heard", "reference"),
    [
        ("don’t stop", "don't stop"),
        ("we can`t and we won′t", "we can't and we won't"),
        ("they said “stop”", 'they said "stop"'),
        ("Par\u00adis in\u00a0spring\u200b", "Paris in spring"),
        ("cafe\u0301 au lait", "café au lait"),
        ("Ｈｅｌｌｏ there", "hello there"),
        ("a well\u2011known song", "a well-known song"),
    ],
)
def test_characters_are_no_errors_in_english_transcripts(heard, reference):
    assert word_statistics(heard, reference)[0] == 0
    assert word_statistics(reference, heard)[0] == 0
    assert character_statistics(heard, reference)[0] == 0


@pytest.mark.parametrize("lang", ["de", "fr", "zh", "hi", "uk"])
def test_invisible_characters_are_no_errors_in_any_language(lang):
    text = "слово été 你好 Wort"
    assert normalize(f"\ufeff{text[:3]}\u200b{text[3:]}\u00ad", lang) == normalize(text, lang)


def test_a_wrong_word_is_still_an_error():
    assert word_statistics("don’t shop", "don't stop")[0] == 1
