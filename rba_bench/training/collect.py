"""On-policy data for the coming steps: sample answers, reward them, make pairs, keep them until their step.

With `refresh_every` N the answers of N steps are drawn at once by the policy of the first of them. What is drawn but
not yet used belongs to the run's state: it is saved in checkpoints, because a resumed run could not draw it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.seeding import stable_seed
from rba_bench.textlm.base import Decoding
from rba_bench.training.clips import ClipStore, ResponseTokens
from rba_bench.training.pairs import Answer, Pair, Sample, Voice, group_pair, single_pair, slots
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rewards import Reward
from rba_bench.training.rollout import sample


@dataclass(frozen=True)
class Outcome:
    """What the rollout of one group gave.

    Attributes:
        pairs: preference pairs; fewer than `items` where samples were equally good.
        items: pairs there could have been (clips for RBA-Single, 1 for RBA-Group).
        stats: means over the group's samples: `truncated`, `match` (equal to the teacher's answer), `length` (tokens),
            and with a reward `reward`, `reward_best`, `reward_worst`.
    """

    pairs: list[Pair]
    items: int
    stats: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values, clips by row id."""
        sides = [[_side(pair.chosen), _side(pair.rejected)] for pair in self.pairs]
        return {"pairs": sides, "items": self.items, "stats": self.stats}

    @classmethod
    def from_json(cls, value: dict[str, Any], rows: dict[str, AlignmentRow]) -> "Outcome":
        """The inverse of `to_json`."""
        pairs = [
            Pair(*(Answer(rows[id_], tuple(tokens)) for id_, tokens in sides)) for sides in value["pairs"]
        ]
        return cls(pairs, value["items"], value["stats"])


def _side(answer: Answer) -> tuple[str, list[int]]:
    return answer.row.id, list(answer.tokens)


class Collector:
    """Draws and keeps outcomes.

    Args:
        recipe: the run.
        policy: the policy as it trains.
        store: clips.
        responder: tokens of teacher answers.
        reward: needed for `rba-group`.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        policy: SpeechPolicy,
        store: ClipStore,
        responder: ResponseTokens,
        reward: Reward | None = None,
    ) -> None:
        self.recipe = recipe
        self.policy = policy
        self.store = store
        self.responder = responder
        self.reward = reward
        self.waiting: dict[int, Outcome] = {}  # by position in the run
        self.drawn = 0  # samples so far

    def take(self, position: int) -> Outcome:
        """Remove and return the outcome of a position that `draw` has filled."""
        return self.waiting.pop(position)

    def draw(self, jobs: Sequence[tuple[int, str]], step: int) -> None:
        """Sample the groups of `jobs` (position, group id) with the current policy; `step` goes into the seeds."""
        voices: list[Voice] = []
        bounds = [0]
        for _, group_id in jobs:
            fill = self.recipe.method == "rba-group"
            voices += slots(self.store.groups[group_id], self.recipe.voices_per_group, fill)
            bounds.append(len(voices))
        samples = self._sample(voices, step)
        rewards = [0.0] * len(samples)
        if self.recipe.method == "rba-group":
            if self.reward is None:
                raise ValueError("rba-group needs a reward")
            rewards = self.reward([one.row for one in samples], [one.text for one in samples])
        for (position, group_id), start, stop in zip(jobs, bounds, bounds[1:], strict=False):
            turn = stable_seed("turn", self.recipe.seed, position, group_id)
            self.waiting[position] = self._outcome(samples[start:stop], rewards[start:stop], turn)
        self.drawn += len(samples)

    def _sample(self, voices: Sequence[Voice], step: int) -> list[Sample]:
        decoding = Decoding(self.recipe.max_new_tokens, self.recipe.temperature)
        found: dict[int, Sample] = {}
        clips = self.store.get([voice.row for voice in voices])
        order = sorted(range(len(voices)), key=lambda index: len(clips[index].prompt_ids))
        tokenizer = self.store.processor.tokenizer
        for start in range(0, len(order), self.recipe.rollout_batch):
            batch = order[start : start + self.recipe.rollout_batch]
            unique = {voices[index].row.id: index for index in batch}
            place = {id_: number for number, id_ in enumerate(unique)}
            requests = [place[voices[index].row.id] for index in batch]
            seeds = [self._seed(voices[index], step) for index in batch]
            sounds = [clips[index] for index in unique.values()]
            drawn = sample(self.policy, sounds, requests, seeds, decoding, sorted(self.responder.end_ids))
            for index, draw in zip(batch, drawn, strict=True):
                text = tokenizer.decode(draw.tokens, skip_special_tokens=True).strip()
                found[index] = Sample(voices[index].row, draw.tokens, draw.ended, text)
        return [found[index] for index in range(len(voices))]

    def _seed(self, voice: Voice, step: int) -> int:
        return stable_seed("rollout", self.recipe.seed, step, voice.row.id, voice.repeat)

    def _outcome(self, samples: list[Sample], rewards: list[float], turn: int) -> Outcome:
        teachers = [self.responder(one.row.prompt, one.row.response) for one in samples]
        matches = [one.tokens == teacher for one, teacher in zip(samples, teachers, strict=True)]
        stats = {
            "truncated": _mean([not one.ended for one in samples]),
            "match": _mean(matches),
            "length": _mean([len(one.tokens) for one in samples]),
        }
        if self.recipe.method != "rba-group":
            made = [single_pair(one, teacher) for one, teacher in zip(samples, teachers, strict=True)]
            return Outcome([pair for pair in made if pair is not None], len(samples), stats)
        stats |= {"reward": _mean(rewards), "reward_best": max(rewards), "reward_worst": min(rewards)}
        pair = group_pair(samples, rewards, self.recipe.reward.min_gap, turn)
        return Outcome([] if pair is None else [pair], 1, stats)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
