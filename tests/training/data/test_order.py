"""The order of the groups: whole epochs, weights, windows, the same numbers for ever."""

import time
from collections import Counter

import numpy as np
import pytest

from rba_bench.training.data.order import GroupOrder, ShuffleWindow, coming, permutation, steps_for

PINNED = [3, 1, 6, 0, 5, 4, 7, 11, 9, 10, 2, 8]
PINNED_WINDOW = [7, 5, 14, 4, 13, 12, 15, 6, 18, 17, 3, 1, 2, 0, 19, 16, 8, 11, 10, 9]


def numbers(order: GroupOrder) -> list[int]:
    return [order.number(position) for position in range(len(order))]


def test_a_permutation_is_pinned() -> None:
    """Other platforms and later versions must give these numbers: a resumed run depends on them."""
    assert permutation(12, "order", 3, 0).tolist() == PINNED
    windowed = permutation(20, "order", 3, 0, window=ShuffleWindow(block=4, blocks=2))
    assert windowed.tolist() == PINNED_WINDOW


def test_epochs_are_whole_and_differ() -> None:
    order = GroupOrder([f"g{i}" for i in range(10)], 35, seed=3)
    seen = numbers(order)
    assert all(sorted(seen[start : start + 10]) == list(range(10)) for start in (0, 10, 20))
    assert len({tuple(seen[start : start + 10]) for start in (0, 10, 20)}) == 3
    assert order[4] == (4, f"g{seen[4]}")
    assert numbers(GroupOrder([f"g{i}" for i in range(10)], 35, seed=4)) != seen


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_any_position_without_walking_there(weights: list[float] | None) -> None:
    """What a resumed run asks for first is what the uninterrupted one had there."""
    make = lambda: GroupOrder(list("abcdefgh"), 100, 1, sizes=[5, 3], weights=weights)  # noqa: E731
    whole = numbers(make())
    for position in (99, 0, 57, 13, 56):
        assert make().number(position) == whole[position]
    for position in (-1, 100):
        with pytest.raises(IndexError):
            make().number(position)


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_further_groups_of_a_position_are_known_without_the_others(weights: list[float] | None) -> None:
    """They go on where the run ends, three for each position, whichever positions need them and in any order."""
    make = lambda n: GroupOrder(list("abcdefgh"), n, 1, sizes=[5, 3], weights=weights)  # noqa: E731
    longer = [make(40).group_ids[number] for number in numbers(make(40))]
    order = make(10)
    assert [order.spare(position, turn, 3) for position in range(10) for turn in (1, 2, 3)] == longer[10:]
    assert (make(10).spare(7, 2, 3), make(10).spare(0, 1, 3)) == (longer[10 + 22], longer[10])
    assert numbers(order) == numbers(make(10))
    with pytest.raises(IndexError):
        order.spare(0, 4, 3)


def test_weights_are_shares_of_the_draws_evenly_spaced() -> None:
    order = GroupOrder([str(i) for i in range(60)], 1000, 5, sizes=[50, 7, 3], weights=[0.5, 0.3, 0.2])
    part = np.digitize(numbers(order), [50, 57])
    for stop in range(1, 1001):
        for which, share in enumerate((0.5, 0.3, 0.2)):
            assert abs((part[:stop] == which).sum() - share * stop) <= 1.5
    small = [number for number in numbers(order) if number >= 57]  # begun again and again, whole each time
    assert all(sorted(small[start : start + 3]) == [57, 58, 59] for start in range(0, 198, 3))


def test_equal_weights_in_any_unit() -> None:
    ids = [str(i) for i in range(9)]
    one = GroupOrder(ids, 50, 5, sizes=[6, 3], weights=[0.25, 0.75])
    assert numbers(one) == numbers(GroupOrder(ids, 50, 5, sizes=[6, 3], weights=[100, 300]))


def test_without_weights_parts_are_one() -> None:
    ids = [str(i) for i in range(9)]
    assert numbers(GroupOrder(ids, 27, 5, sizes=[6, 3])) == numbers(GroupOrder(ids, 27, 5))


def test_a_window_reads_few_blocks_at_a_time() -> None:
    window = ShuffleWindow(block=10, blocks=4)
    made = permutation(1003, "w", window=window)
    assert sorted(made.tolist()) == list(range(1003))
    for start in range(0, 960, 40):
        blocks = Counter((made[start : start + 40] // 10).tolist())
        assert len(blocks) <= 5  # four, and one more where the short block has shifted the bounds
    first = made[:40]
    assert (np.diff(first // 10) != 0).sum() > 15, "groups of a window are mixed"
    assert np.abs(np.diff(made.reshape(17, 59)[:, 0])).max() > 200, "blocks come from anywhere"


def test_a_small_set_has_one_window() -> None:
    assert permutation(40, "a", window=ShuffleWindow(10, 4)).tolist() == permutation(40, "a").tolist()


def test_every_group_is_equally_often_at_every_place() -> None:
    """Chi-square of 1,200 shuffles of 6 against the uniform distribution; 99.9 % of fair ones are below 52.6."""
    table = np.zeros((6, 6))
    for epoch in range(1200):
        table[np.arange(6), permutation(6, "fair", epoch)] += 1
    assert ((table - 200) ** 2 / 200).sum() < 52.6


def test_a_million_groups() -> None:
    class Ids(list[str]):
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, place):  # type: ignore[no-untyped-def, override]
            return str(place)

        def __bool__(self) -> bool:
            return True

    order = GroupOrder(Ids(), 3 * 10**6, seed=1)
    started = time.process_time()
    seen = {order[position][1] for position in range(10**6 - 500, 10**6 + 500)}
    assert time.process_time() - started < 5
    assert len(seen) > 990
    assert sum(epoch.nbytes for epoch in order._epochs.values()) == 8 * 10**6


@pytest.mark.parametrize(
    ("epochs", "n", "per_step", "steps"),
    [(2, 100, 8, 25), (1, 10, 4, 3), (0.5, 10, 4, 2), (1, 3, 8, 1), (0.1, 10, 1, 1)],
)
def test_steps_for(epochs: float, n: int, per_step: int, steps: int) -> None:
    assert steps_for(epochs, n, per_step) == steps


def test_what_makes_no_sense() -> None:
    for epochs, n, per_step in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="positive"):
            steps_for(epochs, n, per_step)
    with pytest.raises(ValueError, match="no group"):
        GroupOrder([], 3, 1)
    with pytest.raises(ValueError, match="do not make 3"):
        GroupOrder(list("abc"), 3, 1, sizes=[2, 2], weights=[1, 1])
    with pytest.raises(ValueError, match="positive"):
        GroupOrder(list("abc"), 3, 1, sizes=[2, 1], weights=[1, 0])


def test_what_comes_next_is_the_processes_own_share_up_to_the_end_of_the_run() -> None:
    order = GroupOrder([f"g{number}" for number in range(40)], 40, 3)
    mine = list(coming(order, [4, 5], processes=4, accumulate=1))
    assert mine == [order[position][1] for position in (12, 13, 20, 21, 28, 29, 36, 37)]
    assert list(coming(order, [28, 29], processes=4, accumulate=2)) == [order[36][1], order[37][1]]
    assert list(coming(order, [36], processes=8, accumulate=1)) == []
