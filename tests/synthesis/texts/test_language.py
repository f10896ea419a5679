"""Texts in other languages than the expected one."""

import pytest

pytest.importorskip("lingua")

from rba_bench.synthesis.texts.language import LanguageCheck, without_names


@pytest.fixture(scope="module")
def english() -> LanguageCheck:
    return LanguageCheck("en")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Wo finde ich heute Abend noch ein offenes Restaurant?", "de"),
        ("Où est-ce que je peux acheter des billets de train ?", "fr"),
        ("明日の天気はどうですか。", "ja"),
        ("Как приготовить борщ без свеклы?", "uk ru bg"),
        ("How do I renew my passport?", None),
        ("Translate 'Wo finde ich ein offenes Restaurant' for me.", None),
        ("What does the sign Rauchen verboten mean?", None),
        ("Who wrote Der Zauberberg?", None),
        ("Is Xochimilco near Tenochtitlan?", None),
        ("Bitte!", None),  # too short to tell
        ("12 34 56 78", None),
        ("?", None),
        ("", None),
    ],
)
def test_foreign_texts_are_told_by_their_language(
    english: LanguageCheck, text: str, code: str | None
) -> None:
    found = english.differs(text)
    assert found is None if code is None else found in code.split()


def test_any_language_may_be_the_expected_one() -> None:
    german = LanguageCheck("de-AT")
    assert german.differs("Wo finde ich heute Abend ein offenes Restaurant?") is None
    assert german.differs("Where do I find a restaurant that is still open?") == "en"
    swahili = LanguageCheck("sw")  # not among the candidates
    assert swahili.active and swahili.differs("Ninawezaje kupika wali na maharage?") is None
    assert swahili.differs("Where do I find a restaurant that is still open?") == "en"
    assert LanguageCheck("no").differs("Hvordan lager jeg en god suppe med fisk og poteter?") is None


@pytest.mark.parametrize("language", ["tlh", "zz", "micro-1", ""])
def test_an_unknown_language_switches_the_check_off_and_says_so(
    language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rba_bench.synthesis.texts import language as module

    module._detector.cache_clear()
    check = LanguageCheck(language)
    assert not check.active and check.differs("Wo finde ich ein offenes Restaurant?") is None
    assert "lingua does not know" in capsys.readouterr().err


def test_a_stricter_limit_drops_more(english: LanguageCheck) -> None:
    text = "Best Rammstein songs?"
    assert LanguageCheck("en", least=0.9).differs(text) is not None
    assert LanguageCheck("en", least=0.0).differs("Wo finde ich ein offenes Restaurant?") is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Tell me about Sagrada Familia in Barcelona.", "Tell me about in ."),
        ("Can I sleep? Yes or no", "Can I sleep? Yes or no"),
        ("Translate “guten Morgen” into plain words", "Translate into plain words"),
        ("Who is Bob?", "Who is ?"),
        ("Don't say 'no' to Ann", "Don't say to"),
        ("'Guten Morgen'", "'Guten Morgen'"),
    ],
)
def test_names_and_quotations_are_no_evidence(text: str, rest: str) -> None:
    assert without_names(text) == rest
