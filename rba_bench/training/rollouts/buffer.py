"""On-policy data for the coming steps: sample answers, judge them, hand them to the method, keep what it made of them.

With `refresh_every` N the answers of N steps are drawn at once by the policy of the first of them. What is drawn but
not yet used belongs to the run's state: it is saved in checkpoints, because a resumed run could not draw it again.
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
from rba_bench.training.data.clips import ClipInput, ClipStore, ResponseTokens
from rba_bench.training.data.pairs import Outcome, Sample, SampleRequest
from rba_bench.training.methods.method import Method
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.rewards import RewardByKind
from rba_bench.training.rewards.trajectory import Extra, Trajectories, mean_extras
from rba_bench.training.rollouts.rollout import Draw, LocalRollout, Request, Rollout, RolloutUnavailable
from rba_bench.training.training_recipe import TrainingRecipe


class RolloutBuffer:
    """Draws and keeps outcomes.

    Args:
        recipe: the run.
        method: what wants the samples.
        policy: the policy as it trains.
        store: clips.
        responder: tokens of teacher answers.
        reward: where samples are judged.
        rollout: what draws the samples; by default the policy itself, in this process.

    Attributes:
        waiting: outcomes by position in the run.
        trajectories: what is added to the rewards of spoken samples (TARS), where anything is.
        spare: the group for a position's n-th further try, see `GroupOrder.spare`; the trainer gives it.
        agree: whether any process wishes something; the trainer gives it where there are several.
        drawn: samples so far.
        judged: of these, how many the reward was asked about.
        stopped: what is done, and said, when a step's samples cannot be drawn.
        shown: which groups are kept for people to read; None = none.
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
    ) -> None:
        self.recipe = recipe
        self.method = method
        self.policy = policy
        self.store = store
        self.responder = responder
        self.reward = reward
        self.rollout = self._local() if rollout is None else rollout
        self.waiting: dict[int, Outcome] = {}
        self.shown: SampleSelection | None = None
        self._told: list[dict[str, Any]] = []
        self.trajectories: Trajectories | None = None
        self.spare: Callable[[int, int, int], str] | None = None
        self.agree: Callable[[bool], bool] = bool
        self.drawn = 0
        self.judged = 0
        self.stopped: Callable[[RolloutUnavailable], RolloutUnavailable] = lambda error: error
        self._verdicts = (0, 0)

    def take(self, position: int) -> Outcome:
        """Remove and return the outcome of a position that `draw` has filled."""
        return self.waiting.pop(position)

    def draw(self, jobs: Sequence[tuple[int, str]], step: int) -> None:
        """Sample the groups of `jobs` (position, group id) with the current policy; `step` goes into the seeds.

        Groups that teach nothing make room for others as often as the recipe allows. Who comes instead depends on the
        position alone, so a step is the same however it is split; all processes go through equally many rounds.
        """
        self._draw(jobs, step, 0)
        turns = self._turns()
        if self.spare is None:
            return
        for turn in range(1, turns + 1):
            dull = [position for position, _ in jobs if not self.method.teaches(self.waiting[position])]
            if not self.agree(bool(dull)):
                return
            self._draw([(position, self.spare(position, turn, turns)) for position in dull], step, turn)

    def _turns(self) -> int:
        """How often another group may come in the place of one."""
        return self.recipe.policy_gradient.resample if self.recipe.kind == "policy-gradient" else 0

    def _draw(self, jobs: Sequence[tuple[int, str]], step: int, turn: int) -> None:
        """One round: the groups of the run (turn 0), or others in their places."""
        voices: list[SampleRequest] = []
        bounds = [0]
        for position, group_id in jobs:
            if self.method.samples(position // self.recipe.groups_per_step):
                voices += self.method.requests(self.store.groups[group_id])
            bounds.append(len(voices))
        # a group that came before in this step is asked anew, not for the same answers again
        salt = step if turn == 0 else stable_seed("again", step, turn)
        try:
            samples = self._sample(voices, salt)
        except RolloutUnavailable as error:
            raise self.stopped(error) from error
        rewards = self._judge(samples)
        extra = self.trajectories(samples, rewards, bounds) if self.trajectories else {}
        for (position, group_id), start, stop in zip(jobs, bounds, bounds[1:], strict=False):
            ties = stable_seed("turn", self.recipe.seed, salt, group_id)
            added = [extra.get(place) for place in range(start, stop)]
            made = self._outcome(samples[start:stop], rewards[start:stop], ties, added)
            if self.shown is not None and self.shown(position):
                made = self._with_samples(made, group_id, samples[start:stop], rewards[start:stop])
            drawn = step if stop > start else None
            tries = turn if self._turns() else None
            self.waiting[position] = replace(made, group=group_id if turn else "", step=drawn, redrawn=tries)
        self.drawn += len(samples)

    def answer(self, voices: Sequence[SampleRequest], step: int) -> list[Sample]:
        """Answers of the current policy, for validation; not counted."""
        try:
            return self._sample(voices, step)
        except RolloutUnavailable as error:  # in the middle of a step's end: nothing to save
            raise RolloutUnavailable(
                f"{error}: start it again; the same command goes on from where it saved"
            ) from error

    def take_verdicts(self) -> tuple[int, int]:
        """Since the last call: answers that the reward was asked about, and those that it could judge."""
        found, self._verdicts = self._verdicts, (0, 0)
        return found

    def _judge(self, samples: Sequence[Sample]) -> list[float]:
        if self.reward is None:
            return [0.0] * len(samples)
        rewards = self.reward([one.row for one in samples], [one.text for one in samples])
        self.reward.run_dummy_forwards()
        self.judged += len(samples)
        asked, told = self._verdicts
        self._verdicts = asked + len(rewards), told + sum(not math.isnan(reward) for reward in rewards)
        return rewards

    def _sample(self, voices: Sequence[SampleRequest], step: int) -> list[Sample]:
        clips, places = self.clips(voices)
        requests = [
            Request(place, self._seed(voice, step), voice.temperature)
            for voice, place in zip(voices, places, strict=True)
        ]
        drawn = self.rollout.draw(clips, requests, with_logprobs=self.method.old_logprobs)
        return [self._read(voice, draw) for voice, draw in zip(voices, drawn, strict=True)]

    def _local(self) -> LocalRollout:
        recipe, ends = self.recipe, sorted(self.responder.end_ids)
        return LocalRollout(self.policy, ends, recipe.max_new_tokens, recipe.rollout_batch, self.any_clip)

    def any_clip(self) -> ClipInput:
        """A clip for an answer that nobody needs."""
        return self.store.get([self.store.groups[next(iter(self.store.groups))][0]])[0]

    def clips(self, voices: Sequence[SampleRequest | Sample]) -> tuple[list[ClipInput], list[int]]:
        """Distinct clips of some requests, and where each request's is."""
        order: dict[tuple[str, bool], int] = {}
        places = [order.setdefault((voice.row.id, voice.as_text), len(order)) for voice in voices]
        rows = {place: voice.row for voice, place in zip(voices, places, strict=True)}
        clips: dict[int, ClipInput] = {}
        for get, as_text in ((self.store.get, False), (self.store.text, True)):
            mine = [place for (_, read), place in order.items() if read == as_text]
            clips.update(zip(mine, get([rows[place] for place in mine]), strict=True))
        return [clips[place] for place in range(len(order))], places

    def _read(self, voice: SampleRequest, draw: Draw) -> Sample:
        """What is rewarded of an answer is what evaluation scores."""
        text = self.text_of(voice.row, draw.tokens)
        return Sample(
            voice.row, draw.tokens, draw.ended, text, voice.as_text,
            logprobs=draw.logprobs, greedy=voice.temperature == 0, temperature=voice.temperature,
        )  # fmt: skip

    def _seed(self, voice: SampleRequest, step: int) -> int:
        return stable_seed("rollout", self.recipe.seed, step, voice.row.id, voice.repeat)

    def _outcome(
        self, samples: list[Sample], rewards: list[float], turn: int, extra: Sequence[Extra | None] = ()
    ) -> Outcome:
        teachers = [self.responder(one.row.response) for one in samples]
        worth = rewards
        if self.trajectories is not None:
            added = [0.0 if one is None else self.trajectories.worth(one) for one in extra]
            worth = [reward + more for reward, more in zip(rewards, added, strict=True)]
        made = self.method.outcome(samples, worth, teachers, turn)
        if not samples:
            return made
        stats = {
            "truncated": _mean([not one.ended for one in samples]),
            "match": _mean([one.tokens == teacher for one, teacher in zip(samples, teachers, strict=True)]),
            "length": _mean([len(one.tokens) for one in samples]),
        }
        judged = [reward for reward in rewards if not math.isnan(reward)]
        if self.reward is not None and judged:
            stats |= {"reward": _mean(judged), "reward_best": max(judged), "reward_worst": min(judged)}
            stats["unjudged"] = 1 - len(judged) / len(rewards)
        stats |= mean_extras([one for one in extra if one is not None])
        return replace(made, stats=stats | made.stats)

    def _with_samples(
        self, made: Outcome, group_id: str, samples: Sequence[Sample], rewards: Sequence[float]
    ) -> Outcome:
        rows = self.store.groups[group_id][: self.recipe.voices_per_group]
        judged = None if self.reward is None else rewards
        return replace(made, shown=group_record(rows, samples, judged, made, self.text_of))

    def show(self, positions: Sequence[int], group_ids: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        """Keep what people get to read of some groups, with the step they belong to.

        Args:
            positions: of the groups in the run.
            group_ids: theirs.
            outcomes: what their rollouts gave; empty where nothing is sampled, and only what is given can be shown.
        """
        if self.shown is None:
            return
        for number, (position, group_id) in enumerate(zip(positions, group_ids, strict=True)):
            outcome = outcomes[number] if outcomes else Outcome(0)
            told = outcome.shown
            if told is None and self.shown(position):
                rows = self.store.groups[group_id][: self.recipe.voices_per_group]
                told = group_record(rows, (), None, outcome, self.text_of)
            if told is not None:
                self._told.append({"step": self.shown.step(position), **told})

    def take_told(self) -> list[dict[str, Any]]:
        """What `show` has kept since the last call."""
        told, self._told = self._told, []
        return told

    def text_of(self, row: AlignmentRow, tokens: Sequence[int]) -> str:
        """What the tokens of an answer to `row` say."""
        family = self.store.family
        return answer_of(decode_tokens(family.tokenizer, tokens, family.opened(row.prompt)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
