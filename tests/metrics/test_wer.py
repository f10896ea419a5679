"""Word and character errors against alignments counted by hand, through the normalisers."""

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


# (language, what is heard, reference, word errors, words, character errors, characters), all counted by hand
BY_LANGUAGE = [
    # Thai: marks are vowels and tones. "water" without its tone; "new" against "mai" with another tone
    ("th", "นำ", "น้ำ", 1, 3, 1, 3),
    ("th", "น้ำ", "น้ำ", 0, 3, 0, 3),
    ("th", "ไม่", "ใหม่", 2, 4, 2, 4),
    ("th", "Sure: น้ำ", "น้ำ", 1, 3, 1, 3),
    ("th", "๒๕", "25", 0, 2, 0, 2),
    # Hindi: the vowel sign of "ki" against "ke" is one of two characters
    ("hi", "के", "कि", 1, 1, 1, 2),
    ("hi", "वह घर गया।", "वह घर गया", 0, 3, 0, 9),
    ("hi", "वह घर गय", "वह घर गया", 1, 3, 1, 9),
    ("hi", "२०१९", "2019", 0, 1, 0, 4),
    ("ta", "தமிழ", "தமிழ்", 1, 1, 1, 5),
    ("bn", "বাংলা", "বাংলা।", 0, 1, 0, 5),
    # Arabic: vowel points are the reader's business, letters are not; Persian: Arabic and Persian letters are one
    ("ar", "كَتَبَ", "كتب", 0, 1, 0, 3),
    ("ar", "مُحَمَّدٌ", "محمد", 0, 1, 0, 4),
    ("ar", "كتـــب", "كتب", 0, 1, 0, 3),
    ("ar", "كاتب", "كتب", 1, 1, 1, 3),
    ("ar", "احمد", "أحمد", 1, 1, 1, 4),
    ("ar", "٢٠١٩", "2019", 0, 1, 0, 4),
    ("fa", "كتاب علي", "کتاب علی", 0, 2, 0, 8),
    ("fa", "می\u200cروم", "میروم", 0, 1, 0, 5),
    ("he", "שָׁלוֹם", "שלום", 0, 1, 0, 4),
    ("he", "צה״ל", "צהל", 0, 1, 0, 3),
    # Turkish: capital I is the dotless ı, capital İ the dotted i
    ("tr", "IŞIK", "ışık", 0, 1, 0, 4),
    ("tr", "İstanbul", "istanbul", 0, 1, 0, 8),
    ("tr", "ISTANBUL", "istanbul", 1, 1, 1, 8),
    ("az", "QIZIL", "qızıl", 0, 1, 0, 5),
    # Chinese, Japanese: words of other scripts stay whole
    ("zh", "我爱北京", "我爱北京", 0, 4, 0, 4),
    ("zh", "Sure, here is the transcript: 我爱北京", "我爱北京", 5, 4, 5, 4),
    ("zh", "我用iPhone拍照", "我用 iPhone 拍照", 0, 5, 0, 5),
    ("zh", "我用 android 拍照", "我用iPhone拍照", 1, 5, 1, 5),
    ("zh-CN", "２０１９年", "2019年", 0, 5, 0, 5),
    ("ja", "ﾄｳｷｮｳへ行く", "トウキョウへ行く", 0, 8, 0, 8),
    ("ja", "Transcript: 東京へ行く", "東京へ行く。", 1, 5, 1, 5),
    ("ja", "がぎ", "か\u3099き\u3099", 0, 2, 0, 2),
    ("ja", "人々", "人人", 1, 2, 1, 2),
    ("lo", "ນໍ້າ", "ນ້ຳ", 0, 3, 0, 3),
    ("my", "မြန်", "မြန်", 0, 4, 0, 4),
    ("km", "ខ្មែរ", "ខ្មែរ", 0, 5, 0, 5),
    # Latin, Greek, Cyrillic: accents count, capitals, punctuation and stress marks do not
    ("de", "STRASSE", "Straße", 1, 1, 2, 6),
    ("de", "Grösse", "Größe", 1, 1, 2, 5),
    ("fr", "l’été", "L'ÉTÉ !", 0, 2, 0, 5),
    ("fr", "cafe", "café", 1, 1, 1, 4),
    ("ca", "colegi", "col·legi", 1, 1, 1, 7),
    ("ca", "collegi", "col·legi", 0, 1, 0, 7),
    ("es", "que\u0301", "qué", 0, 1, 0, 3),
    ("vi", "ma", "má", 1, 1, 1, 2),
    ("el", "ΟΔΟΣ", "οδος", 0, 1, 0, 4),
    ("ru", "за\u0301мок", "замок", 0, 1, 0, 5),
    ("ru", "иод", "йод", 1, 1, 1, 3),
    ("uk", "Ки\u0301їв", "Київ", 0, 1, 0, 4),
    ("bg", "и", "ѝ", 1, 1, 1, 1),
    ("ko", "안녕 하세요", "안녕하세요", 2, 1, 1, 5),
]


@pytest.mark.parametrize(
    ("lang", "heard", "reference", "words", "of_words", "characters", "of_characters"), BY_LANGUAGE
)
def test_errors_by_language(lang, heard, reference, words, of_words, characters, of_characters):
    assert word_statistics(heard, reference, lang) == (words, of_words)
    assert character_statistics(heard, reference, lang) == (characters, of_characters)


@pytest.mark.parametrize(
    "lang", ["de", "fr", "es", "it", "pt", "ru", "uk", "el", "et", "vi", "cy", "nl", "mn"]
)
def test_european_languages_are_normalised_as_whisper_does_it(lang):
    from whisper.normalizers import BasicTextNormalizer

    from rba_bench.metrics.text import normalize

    whisper = BasicTextNormalizer()
    for text in (
        "„Ja“, sagte er: 50 % – das ist's! (leise) [Lachen]", "L'été à l'école, n'est-ce pas?",
        "¿Qué pasó en 1.999?", "Поезд №5 идёт в Йошкар-Олу…", "Μια καλή μέρα, Γιώργο!", "Tiếng Việt rất hay.",
        "Tere! Öö õues.", "Dw i'n hoffi coffi.", "Энэ бол 3-р байр",
    ):  # fmt: skip
        assert normalize(text, lang) == whisper(text).strip()
