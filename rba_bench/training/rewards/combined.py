"""The reward of a run: `build_reward` makes it from the recipe, out of the single rewards and their combinations.

Combinations are weighted sums, a price for length, and one reward for each kind of item.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
    Reward,
    Similarity,
    TeacherLogprob,
    extra_words,
    naming_key,
)

if TYPE_CHECKING:
    from rba_bench.textlm.text_model import TextLM


class WeightedSum(Reward):
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


class LengthPenalty(Reward):
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


class RewardByKind(Reward):
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
        # what a value may depend on; not the group's name, which several sets may use
        keys = [
            (
                row.kind,
                row.last_user_text,
                repr(row.turns),
                row.response,
                row.target_lang,
                row.constraints,
                *row.references,
                response,
            )
            for row, response in zip(rows, responses, strict=True)
        ]
        by_kind: dict[str, dict[tuple[str, ...], AlignmentRow]] = {}
        for key, row in zip(keys, rows, strict=True):
            by_kind.setdefault(row.kind, {}).setdefault(key, row)
        values: dict[tuple[str, ...], float] = {}
        for kind, distinct in sorted(by_kind.items()):
            scores = self.rewards[kind](list(distinct.values()), [key[-1] for key in distinct])
            values.update(zip(distinct, scores, strict=True))
        self._unjudged += sum(math.isnan(values[key]) for key in keys)
        return [values[key] for key in keys]

    def run_dummy_forwards(self) -> None:
        """Dummy forward passes until no process scores any more."""
        for reward in self._makers:
            reward.run_dummy_forwards()

    def counts(self) -> dict[str, int]:
        """What was left out so far: `unjudged` answers (NaN), and what the rewards themselves count."""
        counts = {"unjudged": self._unjudged}
        for reward in self._makers:
            counts |= reward.counts()
        return counts


def reward_names(options: RewardOptions, kinds: Iterable[str]) -> set[str]:
    """The rewards that some kinds of items need."""
    return {name for kind in kinds for name in options.weights_for(kind)}


def build_reward(
    options: RewardOptions,
    kinds: Iterable[str],
    device: str = "cpu",
    own_llm: "TextLM | None" = None,
    folder: Path | None = None,
) -> RewardByKind:
    """The rewards for the kinds that occur; a model is loaded only if one of them needs it.

    Args:
        options: `reward` of the recipe.
        kinds: Of the items of the alignment set.
        device: Torch device of the models.
        own_llm: The policy's language model on text, for `self-judge`.
        folder: Where the judge's votes are kept; None for RBA_CACHE, which all runs share.

    Raises:
        MissingPrerequisite: a model is absent or not named; the message names the recipe key.
        UserError: a model cannot be used.
    """
    kinds = sorted(set(kinds))
    context = RewardContext(options, device, own_llm, (folder or cache_dir()) / "votes")
    needed = reward_names(options, kinds)
    parts = {name: make(context) for name, make in REWARDS.items() if name in needed}
    rewards: dict[str, Reward] = {}
    for kind in kinds:
        weights = options.weights_for(kind)
        reward = parts[next(iter(weights))]
        if list(weights.values()) != [1.0]:
            reward = WeightedSum([(parts[name], weight) for name, weight in weights.items()])
        if options.length_penalty:
            reward = LengthPenalty(reward, options.length_penalty)
        rewards[kind] = reward
    return RewardByKind(rewards, list(parts.values()))


class RewardContext(NamedTuple):
    """What a reward may be made from.

    Attributes:
        options: `reward` of the recipe.
        device: torch device of the reward's models.
        own_llm: the policy's language model on text, where the run provides it.
        votes: folder in which judge replies are kept.
    """

    options: RewardOptions
    device: str
    own_llm: "TextLM | None"
    votes: Path


def _text_reward(name: str, context: RewardContext) -> Reward:
    return TEXT_REWARDS[name]


def _make_classifier(context: RewardContext) -> Reward:
    options = context.options
    with naming_key("reward.model"):
        return RewardModel.from_pretrained(
            resolve_model(options.model, "reward"),
            context.device,
            options.batch_size,
            options.output,
            options.max_length,
            options.trust_remote_code,
        )


def _make_teacher_logprob(context: RewardContext, mean: bool = False) -> Reward:
    from rba_bench.textlm.local import LocalTextLM
    from rba_bench.textlm.weights import local_folder

    options = context.options
    path = resolve_model(options.teacher, "teacher")
    with naming_key("reward.teacher"):
        # the answers that it scores contain no thinking, so its turn must not begin with a thought
        template = disable_thinking(
            template_in_folder(local_folder(path, "text model")), options.teacher_template
        )
        teacher = LocalTextLM.from_pretrained(
            path, device=context.device, batch_size=options.batch_size, template=template
        )
        return TeacherLogprob(teacher, mean)


def _make_judge(context: RewardContext) -> Reward:
    from rba_bench.textlm.text_model import load_judge_model

    options = context.options
    if options.judge is None:
        raise MissingPrerequisite(
            "reward.judge: name a judge (openai:<base_url>#<model>, a folder or a Hub id)"
        )
    with naming_key("reward.judge"):
        judge_model = load_judge_model(
            options.judge, context.device, options.batch_size, template=options.judge_template
        )
    return JudgeReward(
        judge_model, context.votes, options.judge_reference, options.judge_patience, options.judge_max_tokens
    )


def _make_self_judge(context: RewardContext) -> Reward:
    if context.own_llm is None:
        raise MissingPrerequisite(
            "reward: self-judge needs the language model of the policy, which this run does not provide"
        )
    return SelfJudgeReward(context.own_llm)


def make_similarity(options: RewardOptions, device: str) -> Similarity:
    """The embedding model behind `similarity`, and behind TARS's behaviour.

    Raises:
        MissingPrerequisite: `similarity_model` names none, or it is not there.
    """
    from rba_bench.textlm.embeddings import EMBEDDING, SentenceEmbedder, embedding_folder, embedding_library

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


# A new reward: its class, a line here, and its name in `nested_options.RewardName`
REWARDS: dict[str, Callable[[RewardContext], Reward]] = {
    **{name: partial(_text_reward, name) for name in TEXT_REWARDS},
    "reward-model": _make_classifier,
    "teacher-logprob": _make_teacher_logprob,
    "teacher-logprob-mean": partial(_make_teacher_logprob, mean=True),
    "similarity": lambda context: make_similarity(context.options, context.device),
    "judge": _make_judge,
    "self-judge": _make_self_judge,
}
