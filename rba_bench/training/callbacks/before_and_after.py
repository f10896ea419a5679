"""Before and after: a few held-out items answered at the start of a run and at its end, to read side by side."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.callbacks.samples import bounded
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import Voice
from rba_bench.training.losses import sequence_logprobs
from rba_bench.training.rewards import Reward
from rba_bench.training.rollouts.buffer import RolloutBuffer

ITEMS = 10


class Ends:
    """Greedy answers to the same held-out items, with what speaks for them.

    Args:
        rows: held-out clips of each kind; items are taken from the kinds in turn.
        rollout_buffer: policy, clips and sampling.
        reward: judges the answers; None where the run has no reward, or another process judges.
    """

    def __init__(
        self, rows: Mapping[str, Sequence[AlignmentRow]], rollout_buffer: RolloutBuffer, reward: Reward | None
    ) -> None:
        turns = zip_longest(*(rows[kind] for kind in sorted(rows)))
        self.rows = [row for turn in turns for row in turn if row is not None][:ITEMS]
        self.rollout_buffer = rollout_buffer
        self.reward = reward

    def __call__(self) -> list[dict[str, Any]]:
        """The items with the policy's answers now, as JSON values. All processes must call.

        `teacher_nats` is the negative log-probability of the teacher's answer.
        """
        policy = self.rollout_buffer.policy
        training = policy.training
        policy.eval()
        with torch.no_grad():
            samples = self.rollout_buffer.answer([Voice(row, 0, 0.0) for row in self.rows], 0)
            branches = [
                Response(number, self.rollout_buffer.responder(row.response))
                for number, row in enumerate(self.rows)
            ]
            scores = policy(self.rollout_buffer.store.get(self.rows), branches)
            nats = (-sequence_logprobs(scores.logprobs, scores.mask)).tolist()
        policy.train(training)
        rewards: Sequence[float] = [math.nan] * len(samples)
        if self.reward is not None:
            rewards = self.reward(self.rows, [one.text for one in samples])
        return [
            {
                "group": row.group_id,
                "clip": row.id,
                "kind": row.kind,
                "voice": row.voice,
                "prompt": bounded(row.prompt),
                "instruction": bounded(row.instruction),
                "teacher": bounded(row.response),
                "teacher_nats": round(cost, 4),
                "answer": bounded(sample.text),
                "tokens": len(sample.tokens),
                "cut": not sample.ended,
                "reward": None if math.isnan(reward) else reward,
            }
            for row, sample, cost, reward in zip(self.rows, samples, nats, rewards, strict=True)
        ]
