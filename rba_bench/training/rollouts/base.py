"""The seam between training and whatever draws answers of the policy."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rba_bench.errors import RbaError
from rba_bench.training.data.clips import Clip
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.rollouts.sampling import Draw

BASE = "policy"  # the name that `rba-bench train server` serves the decoder under


class RolloutGone(RbaError):
    """Whatever draws the answers does not answer any more, or not with what it should."""


class Request(NamedTuple):
    """One answer that is wanted.

    Attributes:
        clip: index into the clips of the call.
        seed: the answer depends on weights, clip, temperature and this alone.
        temperature: 0 is greedy; the seed is unused then.
    """

    clip: int
    seed: int
    temperature: float


class Rollout(Protocol):
    """Draws answers of the policy. Lengths and end tokens are those of the run.

    All processes of a run call `draw` equally often, each with its own clips.
    """

    def renew(self) -> None:
        """The policy's weights have changed: the next draw is of the new ones."""

    def draw(
        self, clips: Sequence[Clip], requests: Sequence[Request], *, with_logprobs: bool = False
    ) -> list[Draw]:
        """One answer for each request, in order.

        Args:
            clips: what is asked about.
            requests: a clip may be asked about several times, at several temperatures.
            with_logprobs: also what the policy gave each token, see `Draw.logprobs`.

        Raises:
            RolloutGone: the engine is gone; the same command goes on where the run stopped.
        """
        ...

    def walk_in_step(self, sync: CollectiveSync) -> None:
        """The processes share weights out: calls of the model go through `sync`."""

    def close(self) -> None:
        """No more draws."""
