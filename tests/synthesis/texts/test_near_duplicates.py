"""Near duplicates against brute force, in any batches, after a kill, in bounded memory."""

import random
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("datasketch")

from rba_bench.errors import UserError
from rba_bench.synthesis.texts import near_duplicates
from rba_bench.synthesis.texts.near_duplicates import (
    BANDS,
    PADDING,
    SKETCH,
    NearDuplicateOptions,
    NearDuplicates,
    Sketches,
    TextsInTurn,
    jaccard,
    sketch_texts,
)

OPTIONS = NearDuplicateOptions(threshold=0.7, shingle_words=2)


def similarity(a: str, b: str) -> float:
    one, two = ({*pairwise(["|", *text.split(), "|"])} for text in (a, b))
    return len(one & two) / len(one | two)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """600 texts of few words, a third of them earlier ones with a change."""
    rng = random.Random(5)
    made: list[str] = []
    for _ in range(600):
        tokens = [rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 25))]
        if made and rng.random() < 0.35:
            tokens = rng.choice(made).split()
            if rng.random() < 0.8:
                tokens[rng.randrange(len(tokens))] = rng.choice("abcdefgh")
        made.append(" ".join(tokens))
    return made


def judge(texts: list[str], batch: int, options: NearDuplicateOptions = OPTIONS) -> list[int]:
    index = NearDuplicates(options)
    parts = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    return [int(number) for part in parts for number in index.add(sketch_texts(part, options))]


def test_what_is_dropped_is_alike_and_hardly_anything_alike_stays(texts: list[str]) -> None:
    kept: list[str] = []
    alike_but_kept = dropped = 0
    for text, earlier in zip(texts, judge(texts, 600), strict=True):
        if earlier >= 0:
            assert similarity(text, kept[earlier]) >= 0.7
            dropped += 1
        else:
            alike_but_kept += any(similarity(text, other) >= 0.7 for other in kept)
            kept.append(text)
    assert dropped > 80
    assert alike_but_kept <= 0.06 * (dropped + alike_but_kept)


def test_the_size_of_the_batches_does_not_matter(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = judge(texts, 600)
    assert judge(texts, 1) == judge(texts, 37) == expected
    monkeypatch.setattr(near_duplicates, "_PART", 50)
    assert judge(texts, 600) == expected


@pytest.mark.parametrize("batch", [1, 37, 600])
def test_in_turn_it_is_as_if_each_text_came_alone(texts: list[str], batch: int) -> None:
    """Some are dropped for other reasons, after all of a batch were looked up together: they drop no other."""
    skipped = set(random.Random(1).sample(range(len(texts)), 150))
    asked = [place for place in range(len(texts)) if place not in skipped]
    alone, index, found = NearDuplicates(OPTIONS), NearDuplicates(OPTIONS), []
    expected = [int(alone.add(sketch_texts([texts[place]], OPTIONS))[0]) for place in asked]
    for start in range(0, len(texts), batch):
        part = range(start, min(start + batch, len(texts)))
        usable = [place - start for place in part if place not in skipped]
        in_turn = TextsInTurn(index, sketch_texts([texts[place] for place in part], OPTIONS), usable)
        found += [in_turn.add(row) for row in usable]
    assert found == expected
    assert sum(number >= 0 for number in found) > 40
    assert len(index) == len(alone)


def test_the_earlier_text_stays_and_a_dropped_one_drops_no_other() -> None:
    a = "one two three four five six seven eight nine ten eleven twelve"
    b = "one two three four five six seven eight nine ten eleven xx"
    c = "yy two three four five six seven eight nine ten eleven xx"
    assert similarity(a, b) == similarity(b, c) > 0.7 > similarity(a, c)
    assert judge([a, b, c], 3) == [-1, 0, -1]
    assert judge([b, a, c], 3) == [-1, 0, 0]


def test_same_words_are_always_found(texts: list[str]) -> None:
    new = list(dict.fromkeys(texts))
    index = NearDuplicates(OPTIONS)
    index.insert(sketch_texts(new, OPTIONS))
    shouted = [f"{text.upper()}!" for text in new]
    earlier = index.add(sketch_texts(shouted, OPTIONS))
    assert (earlier >= 0).all() and (earlier <= np.arange(len(new))).all()


def test_texts_without_words_repeat_nothing() -> None:
    assert judge(["?!", "...", ""], 3) == [-1, -1, -1]


def test_kept_sketches_go_on_where_a_killed_run_stopped(texts: list[str]) -> None:
    expected = judge(texts, 600)
    first, again = NearDuplicates(OPTIONS), NearDuplicates(OPTIONS)
    for start in (0, 150):
        sketches = sketch_texts(texts[start : start + 150], OPTIONS)
        again.insert(sketches[first.add(sketches) < 0])
    assert len(again) == len(first)
    assert again.add(sketch_texts(texts[300:], OPTIONS)).tolist() == expected[300:]


def test_similarity_of_sketches_is_that_of_the_shingles(texts: list[str]) -> None:
    short = [text for text in texts if len(text.split()) < SKETCH]
    values = sketch_texts(short, OPTIONS).values
    expected = [similarity(a, b) for a, b in pairwise(short)]
    assert jaccard(values[:-1], values[1:]).tolist() == pytest.approx(expected)


def test_similarity_of_long_texts_is_estimated() -> None:
    rng = random.Random(2)
    errors = []
    for _ in range(60):
        tokens = [str(rng.randrange(10_000)) for _ in range(200)]
        changed = [token if rng.random() < 0.93 else "x" for token in tokens]
        a, b = " ".join(tokens), " ".join(changed)
        values = sketch_texts([a, b], OPTIONS).values
        errors.append(float(jaccard(values[:1], values[1:])[0]) - similarity(a, b))
    assert abs(np.mean(errors)) < 0.03 and np.std(errors) < 0.12


def test_signatures_are_those_of_datasketch() -> None:
    from datasketch import MinHash

    one, two = "a b c d e f g h i j k l m n o p", "a b c d e f g h i j k l m n o z"
    bands = sketch_texts([one, two], OPTIONS).bands
    signatures = []
    for text in (one, two):
        minhash = MinHash(BANDS * OPTIONS.rows, seed=1, scheme="affine32", hashfunc=int)
        minhash.update_batch(
            [near_duplicates.hash64(run) % PADDING for run in near_duplicates.text_shingles(text, 2)]
        )
        signatures.append(minhash.hashvalues.reshape(BANDS, OPTIONS.rows))
    same = (signatures[0] == signatures[1]).all(axis=1)
    assert 0 < same.sum() < BANDS
    assert (bands[0] == bands[1]).tolist() == same.tolist()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    rows = NearDuplicateOptions(threshold=threshold).rows
    assert 1 - (1 - threshold**rows) ** BANDS >= 0.94
    assert rows == 32 or 1 - (1 - threshold ** (rows + 1)) ** BANDS < 0.94


def test_a_million_long_texts_stay_below_250_mb() -> None:
    index = NearDuplicates(OPTIONS)
    fixed, n = index.nbytes, 2000
    rng = np.random.default_rng(0)
    long = Sketches(
        rng.integers(0, 2**32, (n, BANDS), dtype=np.uint32),
        np.sort(rng.integers(0, PADDING, (n, SKETCH), dtype=np.uint32), axis=1),
    )
    index.insert(long)
    arrays = (index._next[:n].nbytes, index._values[: n * SKETCH].nbytes, index._ends[:n].nbytes)
    assert index.nbytes == fixed + sum(arrays)
    assert fixed + (index.nbytes - fixed) / n * 1_000_000 < 250e6


def test_a_full_index_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_NUMBER_BITS", 1)
    with pytest.raises(UserError, match="several sets"):
        NearDuplicates(OPTIONS).insert(sketch_texts(["a", "b"], OPTIONS))
