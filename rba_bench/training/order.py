"""Which groups in which step: one fixed sequence per seed, so that resuming is counting."""

import random
from collections.abc import Sequence

from torch.utils.data import Dataset

from rba_bench.seeding import stable_seed


class GroupOrder(Dataset[tuple[int, str]]):
    """A sequence of (position, group id): whole shuffled epochs one after the other, as long as the run needs.

    Args:
        group_ids: the groups of the training split.
        length: positions in the run, steps times groups per step.
        seed: of the run; epoch e is shuffled by (seed, e).
    """

    def __init__(self, group_ids: Sequence[str], length: int, seed: int) -> None:
        if not group_ids:
            raise ValueError("no group to train on")
        self.group_ids = list(group_ids)
        self.length = length
        self.seed = seed
        self._epochs: dict[int, list[str]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> tuple[int, str]:
        if not 0 <= position < self.length:
            raise IndexError(position)
        epoch, offset = divmod(position, len(self.group_ids))
        return position, self._epoch(epoch)[offset]

    def _epoch(self, number: int) -> list[str]:
        if number not in self._epochs:
            shuffled = list(self.group_ids)
            random.Random(stable_seed("order", self.seed, number)).shuffle(shuffled)
            self._epochs = {number: shuffled, **{k: v for k, v in self._epochs.items() if k == number - 1}}
        return self._epochs[number]


def collate(items: Sequence[tuple[int, str]]) -> dict[str, list]:
    """A batch: positions and group ids."""
    return {"positions": [position for position, _ in items], "groups": [group for _, group in items]}
