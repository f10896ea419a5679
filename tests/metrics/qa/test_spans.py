"""Where answers stand in a text, with as few close looks as there are places where one may begin."""

import pytest

from rba_bench.metrics.qa import asserted_match, spans
from rba_bench.metrics.qa.readings import read_english
from rba_bench.metrics.qa.spans import answer_forms, find_spans

NAMES = [
    f"{first} {last}" for first in ("Ada", "Berta", "Cilla", "Dora") for last in ("Ax", "Bo", "Cy", "Day")
]


@pytest.mark.parametrize(
    ("text", "alias", "said"),
    [
        ("the town of new york", "New York", "new york"),
        ("it is newyork", "New York", "newyork"),
        ("a butter fly sat there", "butterfly", "butter fly"),
        ("Butterflies are insects", "butterfly", "Butterflies"),
        ("it was Bezos, Jeff", "Jeff Bezos", "Bezos , Jeff"),
        ("it was Bezos Jeff", "Jeff Bezos", ""),
        ("by J. R. R. Tolkien, I think", "JRR Tolkien", "JRR Tolkien"),
        ("by Henry the 8th", "Henry VIII", "Henry the 8th"),
        ("in December 1941", "1941", "December 1941"),
        ("romeo", "rome", ""),
    ],
)
def test_an_answer_is_found_however_it_begins(text: str, alias: str, said: str) -> None:
    tokens = read_english(text)
    found = find_spans(tokens, answer_forms(alias))
    assert [" ".join(t.raw for t in tokens[span.start : span.end]) for span in found] == [said] * bool(said)


def test_few_places_of_a_text_need_a_closer_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the text and twice the spellings, each absent, cost no more looks."""
    looks = []
    look = spans._answer_end

    def counted(*args: object) -> int:
        looks.append(args)
        return look(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(spans, "_answer_end", counted)
    text = read_english("nobody can tell who it was , but it may have been Cilla Bo . " * 3)
    forms = [form for name in NAMES for form in answer_forms(name)]
    assert len(find_spans(text, forms)) == 3
    assert len(looks) == 3 * 4 < len(text) * len(forms) / 20  # each time the four who are called Cilla


@pytest.mark.parametrize("answer", ["It is n't Paris.", "n't", "n't Paris", "n't n't"])
def test_a_negation_that_stands_apart_denies(answer: str) -> None:
    """As older tokenizers write it; the verb is the word before."""
    assert all(token.text for token in read_english(answer))
    assert asserted_match(answer, ["Paris"]) == asserted_match(answer, ["Paris", "New York City"]) == 0.0
    assert asserted_match("It is n't Lyon. It is Paris.", ["Paris"]) == 1.0
