"""Same words, found by 64 bits each."""

import random

import pytest

from rba_bench.synthesis.texts import exact_duplicates
from rba_bench.synthesis.texts.exact_duplicates import ExactDuplicates, text_keys


@pytest.fixture
def texts() -> list[str]:
    rng = random.Random(1)
    return [f"Text {rng.randrange(300)}{rng.choice(['!', '', '?'])}" for _ in range(1000)]


@pytest.mark.parametrize("recent", [7, 1 << 16])
@pytest.mark.parametrize("batch", [1, 13, 1000])
def test_only_the_first_of_the_same_words_is_new(
    texts: list[str], batch: int, recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_duplicates, "RECENT", recent)
    known, told = ExactDuplicates(), []
    for start in range(0, len(texts), batch):
        told += known.add(text_keys(texts[start : start + batch])).tolist()
    seen: set[str] = set()
    expected = []
    for text in texts:
        plain = text.rstrip("!?").lower()
        expected.append(plain not in seen)
        seen.add(plain)
    assert told == expected and len(known) == len(seen) == sum(told)


def test_a_store_of_the_new_keys_goes_on_where_the_first_stopped(texts: list[str]) -> None:
    first, again = ExactDuplicates(), ExactDuplicates()
    keys = text_keys(texts[:400])
    assert again.add(keys[first.add(keys)]).all()
    assert all(key in again for key in keys.tolist()) and 7 not in again
    rest = text_keys(texts[400:])
    assert again.add(rest).tolist() == first.add(rest).tolist()
