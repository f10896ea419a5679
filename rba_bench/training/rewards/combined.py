"""Rewards made of rewards: weighted sums, a price for length, one reward for each kind of item.

From the recipe to the rewards of a run: a model is loaded only if a kind of item that occurs needs it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.assets import resolve_model
from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite
from rba_bench.files import cache_dir
from rba_bench.textlm.chat import disable_thinking, template_in_folder
from rba_bench.training.options.nested_options import RewardOptions
from rba_bench.training.rewards.classifier import RewardModel
from rba_bench.training.rewards.judge import JudgeReward, SelfJudgeReward
from rba_bench.training.rewards.reward import (
    TEXT_REWARDS,
    CollectiveReward,
    Reward,
    Similarity,
    TeacherLogprob,
    extra_words,
    naming_key,
)

if TYPE_CHECKING:
    from rba_bench.textlm.text_model import TextLM


class WeightedSum:
    """Sum of raw values times weights; NaN where one of them is.

    Nothing is standardised: that would make a value depend on batch mates. Choose weights by the rewards' ranges
    (BLEU, chrF, exact, alias and overlap 0 to 1, similarity -1 to 1, judge 1 to 9, self-judge 1 to 5).
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts = tuple(parts)

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        columns = [[weight * value for value in reward(rows, responses)] for reward, weight in self.parts]
        return [sum(values) for values in zip(*columns, strict=True)]


class LengthPenalty:
    """A reward minus `price` for every word that the answer has beyond those of the teacher's answer.

    Reward models and judges like long answers; a listener does not. Shorter answers than the teacher's cost nothing.
    """

    def __init__(self, reward: Reward, price: float) -> None:
        self.reward = reward
        self.price = price

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return [
            value - self.price * extra_words(response, row.response, row.target_lang)
            for value, row, response in zip(self.reward(rows, responses), rows, responses, strict=True)
        ]


class RewardByKind:
    """Sends each row to the reward of its kind; equal answers to one instruction are scored once.

    Scoring equal answers once also keeps rounding noise between batch positions from inventing a reward gap.

    Args:
        rewards: By kind of item.
        makers: The rewards that may have something to count; those of `rewards` if not given.
    """

    def __init__(self, rewards: Mapping[str, Reward], makers: Sequence[Reward] = ()) -> None:
        self.rewards = dict(rewards)
        self._makers = tuple(makers) or tuple(self.rewards.values())
        self._unjudged = 0

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response); NaN for an answer that could not be judged."""
        keys = [(*_asked(row), response) for row, response in zip(rows, responses, strict=True)]
        todo: dict[str, dict[tuple[str, ...], AlignmentRow]] = {}
        for key, row in zip(keys, rows, strict=True):
            todo.setdefault(row.kind, {}).setdefault(key, row)
        known: dict[tuple[str, ...], float] = {}
        for kind in sorted(todo):
            distinct = todo[kind]
            values = self.rewards[kind](list(distinct.values()), [key[-1] for key in distinct])
            known.update(zip(distinct, values, strict=True))
        self._unjudged += sum(math.isnan(known[key]) for key in keys)
        return [known[key] for key in keys]

    def join_collectives(self, sync: Any, shell: Any) -> None:
        """Processes share out the weights that some rewards ask: see `SelfJudgeReward.join_collectives`."""
        for reward in self._makers:
            if isinstance(reward, CollectiveReward):
                reward.join_collectives(sync, shell)

    def run_dummy_forwards(self) -> None:
        """Wait until no process asks those weights any more."""
        for reward in self._makers:
            if isinstance(reward, CollectiveReward):
                reward.run_dummy_forwards()

    def counts(self) -> dict[str, int]:
        """What was left out so far: `unjudged` answers (NaN), and what the rewards themselves count."""
        found = {"unjudged": self._unjudged}
        for reward in self._makers:
            count = getattr(reward, "counts", None)
            found |= count() if callable(count) else {}
        return found


def _asked(row: AlignmentRow) -> tuple[str, ...]:
    """What a value may depend on besides the answer: not the group's name, which several sets may use."""
    return row.kind, row.user_text, row.response, row.target_lang


VOTES = "votes"


def build_reward(
    options: RewardOptions,
    kinds: Iterable[str],
    device: str = "cpu",
    own_llm: "TextLM | None" = None,
    folder: Path | None = None,
) -> RewardByKind:
    """The rewards for the kinds that occur.

    Args:
        options: `reward` of the recipe.
        kinds: Of the items of the alignment set.
        device: Torch device of the models.
        own_llm: The policy's language model on text, for `self-judge`; see `needs_own_llm`.
        folder: Where the judge's votes are kept; None for RBA_CACHE, which all runs share.

    Raises:
        MissingPrerequisite: a model is absent or not named; the message names the recipe key.
        UserError: a model cannot be used.
    """
    wanted = sorted(set(kinds))
    maker = _Maker(options, device, own_llm, (folder or cache_dir()) / VOTES)
    made = {name: maker.make(name, kind) for name, kind in _users(options, wanted).items()}
    rewards: dict[str, Reward] = {}
    for kind in wanted:
        weights = options.weights_for(kind)
        first = made[next(iter(weights))]
        plain = list(weights.values()) == [1.0]
        reward = first if plain else WeightedSum([(made[name], weight) for name, weight in weights.items()])
        price = options.length_penalty
        rewards[kind] = LengthPenalty(reward, price) if price else reward
    return RewardByKind(rewards, list(made.values()))


def needs_own_llm(options: RewardOptions, kinds: Iterable[str]) -> bool:
    """Whether one of the kinds is judged by the policy's own language model."""
    return "self-judge" in _users(options, sorted(set(kinds)))


def _users(options: RewardOptions, kinds: Sequence[str]) -> dict[str, str]:
    """The rewards that are needed, each with the first kind that needs it."""
    users: dict[str, str] = {}
    for kind in kinds:
        for name in options.weights_for(kind):
            users.setdefault(name, kind)
    return users


class _Maker:
    def __init__(self, options: RewardOptions, device: str, own_llm: "TextLM | None", votes: Path) -> None:
        self.options, self.device, self.own_llm, self.votes = options, device, own_llm, votes

    def make(self, name: str, kind: str) -> Reward:
        if name in TEXT_REWARDS:
            return TEXT_REWARDS[name]
        if name == "reward-model":
            return self._classifier()
        if name == "teacher-logprob":
            return self._teacher()
        if name == "similarity":
            return self._similarity()
        if name == "judge":
            return self._judge()
        if self.own_llm is None:
            raise MissingPrerequisite(
                f"reward.{kind}: {name} needs the language model of the policy, which this run does not hand out"
            )
        return SelfJudgeReward(self.own_llm)

    def _classifier(self) -> Reward:
        options = self.options
        with naming_key("reward.model"):
            return RewardModel.from_pretrained(
                resolve_model(options.model, "reward"),
                self.device,
                options.batch_size,
                options.output,
                options.max_length,
                options.trust_remote_code,
            )

    def _teacher(self) -> Reward:
        from rba_bench.textlm.local import LocalTextLM
        from rba_bench.textlm.weights import local_folder

        options = self.options
        path = resolve_model(options.teacher, "teacher")
        with naming_key("reward.teacher"):
            # the answers it scores do not think, so neither does its turn begin with a thought
            template = disable_thinking(
                template_in_folder(local_folder(path, "text model")), options.teacher_template
            )
            return TeacherLogprob(
                LocalTextLM.from_pretrained(
                    path, device=self.device, batch_size=options.batch_size, template=template
                )
            )

    def _similarity(self) -> Reward:
        return make_similarity(self.options, self.device)

    def _judge(self) -> Reward:
        from rba_bench.textlm.text_model import load_judge_model

        options = self.options
        if options.judge is None:
            raise MissingPrerequisite(
                "reward.judge: name a judge (openai:<base_url>#<model>, a folder or a Hub id)"
            )
        with naming_key("reward.judge"):
            asker = load_judge_model(
                options.judge, self.device, options.batch_size, template=options.judge_template
            )
        return JudgeReward(
            asker, self.votes, options.judge_reference, options.judge_patience, options.judge_max_tokens
        )


def make_similarity(options: RewardOptions, device: str) -> Similarity:
    """The embedding model behind `similarity`, and behind TARS's behaviour.

    Raises:
        MissingPrerequisite: `similarity_model` names none, or it is not there.
    """
    from rba_bench.textlm.embeddings import (
        EMBEDDING,
        SentenceEmbedder,
        embedding_folder,
        embedding_library,
    )

    if options.similarity_model is None:
        raise MissingPrerequisite(
            f"reward.similarity_model: name a sentence-transformers model (folder or Hub id), such as {EMBEDDING}"
        )
    with naming_key("reward.similarity_model"):
        embedding_library()
        folder = embedding_folder(options.similarity_model)
        embedder = SentenceEmbedder(folder, device, options.batch_size, options.similarity_prompt)
        embedder.vectors(["hello"])  # what does not work is found before the run begins
    return Similarity(embedder)
