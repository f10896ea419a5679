"""On-policy data for the coming steps: sample answers, reward them, and keep what the method makes of them.

With `refresh_every` N, the answers of N steps are sampled at once by the policy of the first of these steps. Outcomes
whose step has not come belong to the state of the run: checkpoints hold them, because a resumed run could not sample
them again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.seeding import stable_seed
from rba_bench.textlm.replies import answer_of
from rba_bench.textlm.sampling import decode_tokens
from rba_bench.training.callbacks.samples import SampleSelection, group_record
from rba_bench.training.data.clips import ClipStore, ResponseTokens
from rba_bench.training.data.pairs import Outcome, Sample, SampleRequest
from rba_bench.training.methods.method import Method
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.rewards import RewardByKind
from rba_bench.training.rewards.trajectory import Extra, Trajectories, mean_extras
from rba_bench.training.rollouts.rollout import LocalRollout, Request, Rollout, RolloutUnavailable
from rba_bench.training.training_recipe import TrainingRecipe


class RolloutBuffer:
    """Samples groups ahead of their steps and keeps their outcomes.

    Args:
        recipe: the run.
        method: decides what is sampled, and makes outcomes of the samples.
        policy: the policy as it trains.
        store: clips.
        responder: tokens of the teacher's answers.
        reward: of the samples; None where the method uses no reward.
        rollout: the engine that samples; by default the policy itself, in this process.
        trajectories: adds to the rewards of spoken samples (TARS); None for all other methods.
        selection: which groups are kept for people to read; None: none.

    Attributes:
        waiting: outcomes by position in the run.
        drawn: samples so far.
        judged: samples so far that the reward was asked about.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        method: Method,
        policy: SpeechPolicy,
        store: ClipStore,
        responder: ResponseTokens,
        reward: RewardByKind | None = None,
        rollout: Rollout | None = None,
        trajectories: Trajectories | None = None,
        selection: SampleSelection | None = None,
    ) -> None:
        self.recipe = recipe
        self.method = method
        self.policy = policy
        self.store = store
        self.responder = responder
        self.reward = reward
        self.rollout = rollout or LocalRollout(
            policy, sorted(responder.end_ids), recipe.max_new_tokens, recipe.rollout_batch, store.any_input
        )
        self.trajectories = trajectories
        self.selection = selection
        self.waiting: dict[int, Outcome] = {}
        self.drawn = 0
        self.judged = 0
        self._records: list[dict[str, Any]] = []
        self._verdicts = (0, 0)
        self._turns = recipe.policy_gradient.resample if recipe.kind == "policy-gradient" else 0

    def take(self, position: int) -> Outcome:
        """Remove and return the outcome of a position that `draw` has filled."""
        return self.waiting.pop(position)

    def draw(
        self,
        jobs: Sequence[tuple[int, str]],
        step: int,
        spare: Callable[[int, int, int], str] | None = None,
        any_process: Callable[[bool], bool] = bool,
    ) -> None:
        """Sample groups with the current policy.

        A group that teaches nothing is replaced by another one, as often as the recipe allows. Which one depends on the
        position alone, so a step is the same however it is split. All processes make equally many rounds.

        Args:
            jobs: position in the run and group id of each group.
            step: optimiser steps taken; part of the seeds.
            spare: the group of a position's n-th further try (`GroupOrder.spare`); None replaces nothing.
            any_process: whether any process needs another round.

        Raises:
            RolloutUnavailable: the engine does not answer.
        """
        self._draw_round(jobs, step, 0)
        for turn in range(1, self._turns + 1) if spare is not None else ():
            empty = [position for position, _ in jobs if not self.method.teaches(self.waiting[position])]
            if spare is None or not any_process(bool(empty)):
                return
            replacements = [(position, spare(position, turn, self._turns)) for position in empty]
            self._draw_round(replacements, step, turn)

    def _draw_round(self, jobs: Sequence[tuple[int, str]], step: int, turn: int) -> None:
        """One round: the groups of the run (turn 0), or their replacements."""
        requests: list[SampleRequest] = []
        bounds = [0]
        for position, group_id in jobs:
            if self.method.samples_in_step(position // self.recipe.groups_per_step):
                requests += self.method.requests(self.store.groups[group_id])
            bounds.append(len(requests))
        # a group that came before in this step gets other seeds, and so other answers
        salt = step if turn == 0 else stable_seed("again", step, turn)
        samples = self._sample(requests, salt)
        rewards = [0.0] * len(samples)
        if self.reward is not None:
            rewards = self.reward([sample.row for sample in samples], [sample.text for sample in samples])
            self.reward.run_dummy_forwards()
            self.judged += len(samples)
            asked, judged = self._verdicts
            self._verdicts = asked + len(rewards), judged + sum(not math.isnan(value) for value in rewards)
        extras = self.trajectories(samples, rewards, bounds) if self.trajectories else {}
        for (position, group_id), start, stop in zip(jobs, bounds, bounds[1:], strict=False):
            ties = stable_seed("turn", self.recipe.seed, salt, group_id)
            group_extras = [extras.get(index) for index in range(start, stop)]
            outcome = self._outcome(samples[start:stop], rewards[start:stop], ties, group_extras)
            if self.selection is not None and self.selection(position):
                group_rewards = None if self.reward is None else rewards[start:stop]
                record = self._record(group_id, samples[start:stop], group_rewards, outcome)
                outcome = replace(outcome, shown=record)
            self.waiting[position] = replace(
                outcome,
                group=group_id if turn else "",
                step=step if stop > start else None,
                redrawn=turn if self._turns else None,
            )
        self.drawn += len(samples)

    def answer(self, requests: Sequence[SampleRequest], step: int) -> list[Sample]:
        """Answers of the current policy, for validation; they are not counted."""
        try:
            return self._sample(requests, step)
        except RolloutUnavailable as error:  # in the middle of a step's end: nothing to save
            raise RolloutUnavailable(
                f"{error}: start it again; the same command continues from the last checkpoint"
            ) from error

    def take_verdicts(self) -> tuple[int, int]:
        """Since the last call: answers that the reward was asked about, and answers that it could judge."""
        verdicts, self._verdicts = self._verdicts, (0, 0)
        return verdicts

    def _sample(self, requests: Sequence[SampleRequest], step: int) -> list[Sample]:
        clips, indices = self.store.distinct_inputs(requests)
        seeds = [
            stable_seed("rollout", self.recipe.seed, step, request.row.id, request.repeat)
            for request in requests
        ]
        draws = self.rollout.draw(
            clips,
            [
                Request(index, seed, request.temperature)
                for request, index, seed in zip(requests, indices, seeds, strict=True)
            ],
            with_logprobs=self.method.old_logprobs,
        )
        return [
            # the reward reads the text that evaluation would score
            Sample(
                request.row, draw.tokens, draw.ended, self.text_of(request.row, draw.tokens), request.as_text,
                logprobs=draw.logprobs, greedy=request.temperature == 0, temperature=request.temperature,
            )
            for request, draw in zip(requests, draws, strict=True)
        ]  # fmt: skip

    def _outcome(
        self, samples: list[Sample], rewards: list[float], turn: int, extras: Sequence[Extra | None] = ()
    ) -> Outcome:
        """What the method makes of a group's samples, with their statistics."""
        teachers = [self.responder(sample.row.response) for sample in samples]
        totals = rewards
        if self.trajectories is not None:
            added = [0.0 if extra is None else self.trajectories.worth(extra) for extra in extras]
            totals = [reward + extra for reward, extra in zip(rewards, added, strict=True)]
        outcome = self.method.outcome(samples, totals, teachers, turn)
        if not samples:
            return outcome
        matches = [sample.tokens == teacher for sample, teacher in zip(samples, teachers, strict=True)]
        stats = {
            "truncated": _mean([not sample.ended for sample in samples]),
            "match": _mean(matches),
            "length": _mean([len(sample.tokens) for sample in samples]),
        }
        judged = [reward for reward in rewards if not math.isnan(reward)]
        if self.reward is not None and judged:
            stats |= {"reward": _mean(judged), "reward_best": max(judged), "reward_worst": min(judged)}
            stats["unjudged"] = 1 - len(judged) / len(rewards)
        stats |= mean_extras([extra for extra in extras if extra is not None])
        return replace(outcome, stats=stats | outcome.stats)

    def _record(
        self, group_id: str, samples: Sequence[Sample], rewards: Sequence[float] | None, outcome: Outcome
    ) -> dict[str, Any]:
        rows = self.store.groups[group_id][: self.recipe.voices_per_group]
        return group_record(rows, samples, rewards, outcome, self.text_of)

    def keep_records(
        self, positions: Sequence[int], group_ids: Sequence[str], outcomes: Sequence[Outcome]
    ) -> None:
        """Keep the records of the selected groups, with the step that they belong to, for `take_records`.

        Args:
            positions: of the groups in the run.
            group_ids: of the same groups.
            outcomes: of the same groups; empty where the method samples nothing.
        """
        if self.selection is None:
            return
        for number, (position, group_id) in enumerate(zip(positions, group_ids, strict=True)):
            outcome = outcomes[number] if outcomes else Outcome(0)
            record = outcome.shown
            if record is None and self.selection(position):
                record = self._record(group_id, (), None, outcome)
            if record is not None:
                self._records.append({"step": self.selection.step(position), **record})

    def take_records(self) -> list[dict[str, Any]]:
        """The records that were kept since the last call."""
        records, self._records = self._records, []
        return records

    def text_of(self, row: AlignmentRow, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens."""
        family = self.store.family
        return answer_of(decode_tokens(family.tokenizer, tokens, family.opened(row.prompt)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
