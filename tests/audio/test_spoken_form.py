"""Written texts as they are said."""

import sys
import time
from pathlib import Path

import pytest

from rba_bench.audio import spoken_form as module
from rba_bench.audio.spoken_form import spoken_form
from rba_bench.errors import MissingPrerequisite

TABLE = [
    tuple(part.replace("\\n", "\n") for part in line.split("\t"))
    for line in Path(__file__).with_name("spoken_forms.tsv").read_text(encoding="utf-8").splitlines()
]


@pytest.fixture
def grammar() -> None:
    pytest.importorskip("wetext")


def test_the_table_is_large() -> None:
    assert len(TABLE) >= 80 and all(len(row) == 2 for row in TABLE)


@pytest.mark.usefixtures("grammar")
@pytest.mark.parametrize(("written", "said"), TABLE)
def test_what_is_said(written: str, said: str) -> None:
    assert spoken_form(written, "en") == said


@pytest.mark.usefixtures("grammar")
@pytest.mark.parametrize(
    "text", ["", " ", "#", "###", "😀", "🙂 5", "a\\b 5", '5 {a: "b"}', "\n\n5\n", "5" * 400, "1,2,3,,4"]
)
def test_odd_texts_do_not_fail_and_lose_no_words(text: str) -> None:
    said = spoken_form(text, "en")
    assert any(c.isalnum() for c in said) == any(c.isalnum() for c in text)
    assert said.count("\n") == text.count("\n") and ("😀" in text) == ("😀" in said)


@pytest.mark.usefixtures("grammar")
def test_nothing_is_left_to_say_and_saying_it_again_changes_nothing() -> None:
    for written, said in TABLE:
        assert not any(character.isdigit() for character in said), written
        assert spoken_form(said, "en") == said, written


@pytest.mark.usefixtures("grammar")
def test_long_texts_take_time_in_proportion() -> None:
    spoken_form("1 apple", "en")
    started = time.process_time()
    said = spoken_form("I have 5 apples and 12 pears today. " * 200, "en")
    assert time.process_time() - started < 3.0 and said.count("twelve pears") == 200


@pytest.mark.usefixtures("grammar")
def test_other_languages() -> None:
    assert spoken_form("今天是2024年3月5日。", "zh") == "今天是二零二四年三月五日。"
    assert spoken_form("500円です", "ja") == "五百円です"
    assert spoken_form("Das kostet 5 Euro.", "de") == "Das kostet 5 Euro."


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module._normalizer.cache_clear()
    monkeypatch.setitem(sys.modules, "wetext", None)
    with pytest.raises(MissingPrerequisite, match="install it with .*synth"):
        spoken_form("5 apples", "en")
    module._normalizer.cache_clear()
