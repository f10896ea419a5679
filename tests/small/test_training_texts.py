"""The sentences of the base's training: of all kinds, sayable, and none of a test set."""

from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite
from rba_bench.metrics.text import normalize
from rba_bench.small import training_texts
from rba_bench.small.texts import load_items
from rba_bench.small.training_texts import is_speakable, is_told, read_wordnet, training_sentences

# Lines in the layout of wndb(5WN), written for this test: offset, file, kind, number of words, words with their
# senses, number of pointers, pointers; after the bar the definition and, in quotation marks, examples.
LICENCE = "  1 a licence that stands in front of the data\n"
NOUNS = (
    '00000100 06 n 02 lamp 0 light 1 001 @ 00000200 n 0000 | a thing that gives light in a room; "she lit the lamp"',
    "00000300 15 n 01 Old_Harbour 0 001 @i 00000400 n 0000 | a port on a northern sea",
    "00000500 18 n 01 Jane_Miller 0 001 @i 00000600 n 0000 | a sailor who crossed the sea alone (1870-1940)",
)
VERBS = (
    '00000700 29 v 01 wander 0 000 01 + 02 00 | walk about without a goal; "we wandered through the town"',
)
ADJECTIVES = ('00000800 00 a 01 quiet(a) 0 000 | with little or no sound at all; "a quiet street"',)


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for name, lines in (("noun", NOUNS), ("verb", VERBS), ("adj", ADJECTIVES), ("adv", ())):
        (tmp_path / f"data.{name}").write_text(LICENCE + "\n".join(lines))
    return tmp_path


def test_wordnet_is_read(wordnet: Path) -> None:
    net = read_wordnet(wordnet)
    assert net.names == ("Old Harbour", "Jane Miller")
    assert net.words == (("lamp", "noun"), ("light", "noun"), ("wander", "verb"), ("quiet", "adj"))
    assert ("lamp", "a thing that gives light in a room", "noun") in net.definitions
    assert (
        "Jane Miller",
        "a sailor who crossed the sea alone",
        "noun",
    ) in net.definitions  # no years in brackets
    assert net.examples == ("she lit the lamp", "we wandered through the town", "a quiet street")


def test_sentences_are_of_all_kinds_and_distinct(wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [f"Tell me a story about {word}." for word in ("boats", "two cats", "the sea")]
    tested = load_items("small_qa")[0].text
    monkeypatch.setattr(training_texts, "_instructions", lambda: [*told, tested, told[0], "One two"])
    answers = ["Boats float on the sea.", told[1], "Two cats sleep in the sun."]
    monkeypatch.setattr(training_texts, "_answers", lambda: iter(answers))
    sentences = training_sentences(40, seed=1, wordnet=wordnet)
    texts = [sentence.text for sentence in sentences]
    assert {sentence.kind for sentence in sentences[:40]} == set(training_texts.SHARES)
    assert len({normalize(text) for text in texts[:40]}) == 40
    # three voices for what is told; none of a test set, none twice, none of two words
    assert texts[40:] == [*3 * told, answers[0], answers[2]]
    assert all(is_speakable(text) for text in texts[:40]) and all(is_told(text) for text in told)
    assert texts == [sentence.text for sentence in training_sentences(40, seed=1, wordnet=wordnet)]
    assert texts != [sentence.text for sentence in training_sentences(40, seed=2, wordnet=wordnet)]


def test_the_teachers_texts_that_ship_can_be_said_and_are_no_test() -> None:
    instructions, answers = training_texts._instructions(), [*filter(is_told, training_texts._answers())]
    assert len(instructions) > 3_000 and all(is_told(text) for text in instructions)
    assert len(answers) > 3_000 and not any(text.startswith(("*", "1.", "- ")) for text in answers)
    splits = [("small_qa", s) for s in ("test", "dev")] + [("small_instruct", s) for s in ("test", "dev")]
    tested = {normalize(item.text) for name, split in splits for item in load_items(name, split)}
    assert not tested & {normalize(text) for text in instructions}


def test_without_wordnet_the_message_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="install Debian's wordnet-base"):
        training_sentences(10, wordnet=tmp_path)
