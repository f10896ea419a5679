"""Rollouts by the policy itself, in this process."""

from collections.abc import Callable, Sequence

from rba_bench.textlm.base import Decoding
from rba_bench.training.data.clips import Clip
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.rollouts.base import Request
from rba_bench.training.rollouts.sampling import Draw, drives, sample


class LocalRollout:
    """Draws with the weights as they train: there is nothing to hand over.

    Args:
        policy: the policy as it trains.
        end_ids: tokens that end an answer.
        max_new_tokens: longest answer.
        batch: answers sampled together.
        any_clip: a clip for the answer that keeps other processes company.
    """

    def __init__(
        self,
        policy: SpeechPolicy,
        end_ids: Sequence[int],
        max_new_tokens: int,
        batch: int,
        any_clip: Callable[[], Clip],
    ) -> None:
        self.policy = policy
        self.end_ids = sorted(end_ids)
        self.max_new_tokens = max_new_tokens
        self.batch = batch
        self.any_clip = any_clip
        self.sync = CollectiveSync()

    def renew(self) -> None:
        """Nothing to do."""

    def walk_in_step(self, sync: CollectiveSync) -> None:
        """Call the model as often as the other processes do."""
        self.sync = sync

    def close(self) -> None:
        """Nothing to do."""

    def draw(
        self, clips: Sequence[Clip], requests: Sequence[Request], *, with_logprobs: bool = False
    ) -> list[Draw]:
        """Answers to all requests, longest prompts first so that batches hold prompts of like length."""
        drawn: dict[int, Draw] = {}
        driven = drives(self.policy)  # may call the model, so all processes ask here
        for temperature in sorted({request.temperature for request in requests}):
            mine = [i for i, request in enumerate(requests) if request.temperature == temperature]
            mine.sort(key=lambda i: (-len(clips[requests[i].clip].prompt_ids), i))
            size = len(mine) if driven else self.batch
            for start in range(0, len(mine), size):
                batch = mine[start : start + size]
                self.sync.enter()
                answers = self._sample(clips, [requests[i] for i in batch], temperature, with_logprobs)
                drawn.update(zip(batch, answers, strict=True))
        self.sync.leave(lambda: self._sample([self.any_clip()], [Request(0, 0, 0.0)], 0.0, False))
        return [drawn[i] for i in range(len(requests))]

    def _sample(
        self, clips: Sequence[Clip], batch: Sequence[Request], temperature: float, with_logprobs: bool
    ) -> list[Draw]:
        distinct = list(dict.fromkeys(request.clip for request in batch))
        order = {clip: number for number, clip in enumerate(distinct)}
        return sample(
            self.policy,
            [clips[clip] for clip in distinct],
            [order[request.clip] for request in batch],
            [request.seed for request in batch],
            Decoding(self.max_new_tokens, temperature),
            self.end_ids,
            with_logprobs=with_logprobs,
            agree=self.sync.all_done,
            slots=self.batch,
        )
