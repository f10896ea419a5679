"""Agreement of answers: hand-computed values, symmetry, and nothing gained by saying nothing."""

import itertools

import numpy as np
import pytest

from rba_bench.metrics.agreement import exact_agreement, mean_cosine, token_overlap


def test_exact_agreement_is_the_share_of_equal_pairs() -> None:
    assert exact_agreement(["Paris.", "paris", "the city of Paris", " PARIS!"]) == pytest.approx(3 / 6)
    assert exact_agreement(["a b", "b a"]) == 0.0
    assert exact_agreement(["Zürich", "zürich"], "de") == 1.0


def test_token_overlap_by_hand() -> None:
    # "a b c" and "b c d e" share two words: 2 * 2 / (3 + 4)
    assert token_overlap(["alpha beta gamma", "beta gamma delta epsilon"]) == pytest.approx(4 / 7)
    assert token_overlap(["red red blue", "red blue blue"]) == pytest.approx(
        4 / 6
    )  # words count as often as said
    assert token_overlap(["red blue", "blue red", "green"]) == pytest.approx(1 / 3)


def test_both_are_symmetric_and_at_most_one() -> None:
    answers = ["the tall tower", "a tall tower", "tower", "something else entirely"]
    for metric in (exact_agreement, token_overlap):
        values = {round(metric(list(order)), 12) for order in itertools.permutations(answers)}
        assert len(values) == 1 and 0 <= values.pop() <= 1
        assert metric(["same words here"] * 4) == 1.0


def test_silence_agrees_with_nothing() -> None:
    assert exact_agreement(["", ""]) == token_overlap(["", " "]) == 0.0
    assert exact_agreement(["yes", "yes", ""]) == pytest.approx(1 / 3)
    assert mean_cosine(np.array([[0.0, 0.0], [0.0, 0.0]])) == 0.0


def test_symbols_are_compared_as_written() -> None:
    assert exact_agreement(["(1969)", "(1969)"]) == 1.0
    assert exact_agreement(["(1969)", "(1970)"]) == 0.0


def test_cosine_of_known_vectors() -> None:
    vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    assert mean_cosine(vectors) == pytest.approx(1 / 3)
    assert mean_cosine(-vectors) == pytest.approx(1 / 3)
    rng = np.random.default_rng(1)
    many = rng.standard_normal((5, 7))
    naive = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in itertools.combinations(many, 2)]
    assert mean_cosine(many) == pytest.approx(np.mean(naive))


@pytest.mark.parametrize("metric", [exact_agreement, token_overlap, lambda x: mean_cosine(np.ones((1, 2)))])
def test_one_answer_has_no_agreement(metric) -> None:
    with pytest.raises(ValueError, match="two answers"):
        metric(["alone"])
