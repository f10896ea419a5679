"""What a teacher says should come next: its next-token distributions at the answer positions of some branches.

K counts all answer positions of those branches (end token included), branch after branch in ascending order:

    branches (0, 2), answers of 3 and 2 tokens  ->  K = 5:   0.0  0.1  0.2   2.0  2.1

Two forms. `StateTargets` holds the teacher's hidden states, and logits over the whole vocabulary are made a chunk at a
time, so that [K, V] never exists at once. `TopKTargets` holds the likeliest tokens, as a cache keeps them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StateTargets:
    """Distributions as hidden states: softmax(head(states) / T), whatever T the loss wants.

    Attributes:
        branches: numbers of the branches, ascending.
        states: [K, Ht] last hidden states of the teacher, after its final norm; Ht is the teacher's width.
        head: states [..., Ht] to logits [..., V]. V is that of the student's head, or less where that has more
            padding rows; the student's logits are then cut to the first V.

    Raises:
        ValueError: branches out of order.
    """

    branches: tuple[int, ...]
    states: Tensor
    head: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        _check(self.branches)

    def __len__(self) -> int:
        """K."""
        return len(self.states)

    def part(self, start: int, stop: int) -> "StateTargets":
        """Positions `start` up to `stop`; `branches` stays, and no longer says which."""
        return StateTargets(self.branches, self.states[start:stop], self.head)

    def to(self, device: torch.device | str) -> "StateTargets":
        """The same with its states on a device; the head stays where it is."""
        return StateTargets(self.branches, self.states.to(device), self.head)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """[K, V] float32, not divided by a temperature, without gradient."""
        return self.head(self.states).float()


@dataclass(frozen=True)
class TopKTargets:
    """Distributions as the k likeliest tokens and what is left, at a temperature T that was chosen before.

    sum(exp(logits)) + exp(log_rest) = 1 at every position, but for the rounding of what was kept on disk.

    Attributes:
        branches: numbers of the branches, ascending.
        ids: [K, k] int64 tokens, likeliest first.
        logits: [K, k] float32 natural-log probabilities of these tokens at temperature T.
        log_rest: [K] float32 natural log of the probability of all other tokens together; -inf where k is the whole
            vocabulary.

    Raises:
        ValueError: branches out of order, or shapes that do not fit together.
    """

    branches: tuple[int, ...]
    ids: Tensor
    logits: Tensor
    log_rest: Tensor

    def __post_init__(self) -> None:
        _check(self.branches)
        if self.ids.shape != self.logits.shape or self.ids.shape[:1] != self.log_rest.shape:
            shapes = tuple(self.ids.shape), tuple(self.logits.shape), tuple(self.log_rest.shape)
            raise ValueError(f"ids {shapes[0]}, logits {shapes[1]} and rest {shapes[2]} do not fit together")

    def __len__(self) -> int:
        """K."""
        return len(self.ids)

    def part(self, start: int, stop: int) -> "TopKTargets":
        """Positions `start` up to `stop`; `branches` stays, and no longer says which."""
        cut = slice(start, stop)
        return TopKTargets(self.branches, self.ids[cut], self.logits[cut], self.log_rest[cut])

    def to(self, device: torch.device | str) -> "TopKTargets":
        """The same on a device."""
        moved = (tensor.to(device) for tensor in (self.ids, self.logits, self.log_rest))
        return TopKTargets(self.branches, *moved)


Targets = StateTargets | TopKTargets


def _check(branches: tuple[int, ...]) -> None:
    if any(one >= other for one, other in zip(branches, branches[1:], strict=False)):
        raise ValueError(f"branches {branches} are not in ascending order")
