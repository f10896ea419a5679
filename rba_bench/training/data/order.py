"""Which groups in which step: one fixed sequence per seed, so that resuming is counting.

Whole shuffled epochs follow one another. An epoch of a million groups is 4 MB of numbers, and what stands at position p
is known without walking there. The shuffles come from the raw words of PCG64, whose stream numpy promises to keep, and
a stable sort: the same on every platform and with every version.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch.utils.data import Dataset

from rba_bench.seeding import stable_seed

COMING_STEPS = 4  # whose clips may be encoded ahead, where a batch of the encoder has room
WEIGHT_STEPS = 10**6  # shares of draws are fractions of at most this denominator


@dataclass(frozen=True)
class ShuffleWindow:
    """Shuffling that reads a set nearly in one go: blocks of neighbouring groups, mixed within windows of blocks.

    Attributes:
        block: groups that lie together and stay within one window.
        blocks: blocks of a window; they come from anywhere in the set.
    """

    block: int = 64
    blocks: int = 16


def steps_for(epochs: float, n_groups: int, groups_per_step: int) -> int:
    """Optimiser steps that take every group at least `epochs` times; at least 1."""
    if epochs <= 0 or n_groups < 1 or groups_per_step < 1:
        raise ValueError("epochs, n_groups and groups_per_step must be positive")
    groups = Fraction(epochs).limit_denominator(WEIGHT_STEPS) * n_groups
    return max(1, -(-groups // groups_per_step))


def permutation(n: int, *seed: str | int, window: ShuffleWindow | None = None) -> np.ndarray:
    """The numbers 0 to n - 1 in an order that depends on n, `seed` and `window` alone, [n] int32."""
    words = np.random.PCG64(stable_seed(*seed)).random_raw(n)
    if window is None or n <= window.block * window.blocks:
        return np.argsort(words, kind="stable").astype(np.int32)
    starts = np.arange(0, n, window.block)
    shuffled = starts[permutation(len(starts), *seed, "blocks")]
    numbers = (shuffled[:, None] + np.arange(window.block)).ravel()
    numbers = numbers[numbers < n]  # the last block of the set may be short
    number_of_window = np.arange(n) // (window.block * window.blocks)
    return numbers[np.lexsort((words, number_of_window))].astype(np.int32)


class GroupOrder(Dataset[tuple[int, str]]):
    """A sequence of (position, group id), as long as the run needs.

    Without weights all groups are shuffled together: each comes once an epoch. With weights the parts (alignment sets)
    take turns, evenly spaced, part k at its share of the positions, each shuffled by itself and begun again when it is
    used up.

    Args:
        group_ids: the groups of the training split; those of one part lie together.
        length: positions in the run, steps times groups per step.
        seed: of the run; epoch e is shuffled by (seed, e).
        sizes: groups of each part, in order; needed for `weights`.
        weights: share of the draws of each part, in any unit.
        window: shuffle for nearly sequential reading; None shuffles everything.
    """

    def __init__(
        self,
        group_ids: Sequence[str],
        length: int,
        seed: int,
        *,
        sizes: Sequence[int] = (),
        weights: Sequence[float] | None = None,
        window: ShuffleWindow | None = None,
    ) -> None:
        if not group_ids:
            raise ValueError("no group to train on")
        sizes = sizes if weights is not None else [len(group_ids)]
        if sum(sizes) != len(group_ids) or min(sizes) < 1 or len(weights or sizes) != len(sizes):
            raise ValueError(f"parts of {list(sizes)} groups do not make {len(group_ids)}")
        self.group_ids = group_ids
        self.length = length
        self.seed = seed
        self.window = window
        self.sizes = list(sizes)
        self.firsts = np.cumsum([0, *sizes]).tolist()
        given = [1.0] if weights is None else weights
        shares = [Fraction(weight).limit_denominator(WEIGHT_STEPS) for weight in given]
        if min(shares) <= 0:
            raise ValueError("weights must be positive")
        # share of each part among itself and the later ones; the last is 1
        self._turns = [share / sum(shares[number:]) for number, share in enumerate(shares)]
        self._epochs: dict[tuple[int, int], np.ndarray] = {}
        self._spares: GroupOrder | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> tuple[int, str]:
        return position, self.group_ids[self.number(position)]

    def number(self, position: int) -> int:
        """Place in `group_ids` of the group at a position. Raises IndexError beyond the run."""
        if not 0 <= position < self.length:
            raise IndexError(position)
        return self._number(position)

    def spare(self, position: int, turn: int, turns: int) -> str:
        """The group that takes the place of a position's at its `turn`-th further try (1, 2, ... `turns`).

        They come from where the sequence would go on behind the run, `turns` for each position: which one is known
        without knowing which other positions needed any.
        """
        if not 1 <= turn <= turns:
            raise IndexError(turn)
        if self._spares is None:
            self._spares = copy.copy(self)
            self._spares._epochs = {}  # far ahead of those of the run, which would be forgotten
        return self.group_ids[self._spares._number(self.length + position * turns + turn - 1)]

    def _number(self, position: int) -> int:
        part, turn = 0, position  # turn = draws of this part and the later ones before this one
        for share in self._turns:
            before, after = _count(share, turn), _count(share, turn + 1)
            if after > before:
                turn = before
                break
            part, turn = part + 1, turn - before
        number, offset = divmod(turn, self.sizes[part])
        key = (part, number)
        if key not in self._epochs:
            kept = {at: epoch for at, epoch in self._epochs.items() if at[0] != part or at[1] == number - 1}
            epoch = permutation(self.sizes[part], "order", self.seed, part, number, window=self.window)
            self._epochs = {**kept, key: epoch}
        return int(self.firsts[part] + self._epochs[key][offset])


def _count(share: Fraction, turns: int) -> int:
    """How many of the first `turns` turns a part of this share has; evenly spaced."""
    return (share.numerator * turns * 2 + share.denominator) // (share.denominator * 2)


def coming(order: GroupOrder, positions: Sequence[int], processes: int, accumulate: int) -> Iterator[str]:
    """Group ids of a process's next `COMING_STEPS` steps, soonest first.

    Args:
        order: the run's.
        positions: of its present batch.
        processes: that share the batches out.
        accumulate: batches of a step.
    """
    for number in range(1, COMING_STEPS * accumulate + 1):
        ahead = (position + number * len(positions) * processes for position in positions)
        yield from (order[position][1] for position in ahead if position < len(order))


def collate(items: Sequence[tuple[int, str]]) -> dict[str, list]:
    """A batch: positions and group ids."""
    return {"positions": [position for position, _ in items], "groups": [group for _, group in items]}
