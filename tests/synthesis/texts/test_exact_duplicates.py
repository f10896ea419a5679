"""Same words, found by 64 bits each."""

import random
from pathlib import Path

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.synthesis.texts import exact_duplicates
from rba_bench.synthesis.texts.exact_duplicates import ExactDuplicates, load_keys, save_keys, text_keys


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


def test_saved_keys_go_on_where_a_killed_run_stopped(texts: list[str], tmp_path: Path) -> None:
    first = ExactDuplicates()
    keys = text_keys(texts[:400])
    save_keys(tmp_path / "a.npy", keys[first.add(keys)])
    again = ExactDuplicates()
    assert again.add(load_keys(tmp_path / "a.npy")).all()
    rest = text_keys(texts[400:])
    assert again.add(rest).tolist() == first.add(rest).tolist()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing")
    np.save(tmp_path / "b.npy", np.zeros((2, 2), np.float32))
    for name in ("a.npy", "b.npy", "none.npy"):
        with pytest.raises(UserError, match="remove it"):
            load_keys(tmp_path / name)
