"""A number for each answer, and the least that it must reach: log-likelihood under a text model, or a reward.

`likelihood` is the mean natural-log probability of a token of the answer (the end token counts) given what the teacher
was asked: one pass an answer. It tells how expected an answer is, not how good: texts that repeat themselves score
high. `reward` is a reward model's verdict on request and answer, as a training with `reward-model` would reward it.

A share of the lowest is not offered. Which answers are the lowest of a set is known only when all have been asked, but
clips are spoken long before; and of a single shard a fixed share is bad only by chance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, model_validator

from rba_bench.assets import resolve_model
from rba_bench.errors import UserError
from rba_bench.recipes import Recipe
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.text_model import TextLM

if TYPE_CHECKING:
    from rba_bench.textlm.local import LocalTextLM

QUALITY_REASONS = {
    "low_score": "an answer below text_filters.quality.min",
    "not_scored": "request and answer are too long for the model of text_filters.quality",
}


class QualityOptions(Recipe):
    """Answers are scored; those below a threshold are dropped."""

    scorer: Literal["likelihood", "reward"] = Field(
        description="mean log-likelihood of a token of the answer, or the output of a reward model"
    )
    min: float | None = Field(None, description="answers that score less are dropped; null: only recorded")
    model: str | None = Field(
        None,
        description="a local text model (null: the teacher), or a reward model: asset:NAME, a folder or a Hub id",
    )
    output: int | None = Field(
        None, ge=0, description="which output of a reward model counts, where it has more than two"
    )
    device: str = "cpu"
    batch_size: int = Field(32, ge=1, description="answers that a named model scores at once")

    @model_validator(mode="after")
    def _consistent(self) -> "QualityOptions":
        if self.scorer == "reward" and self.model is None:
            raise ValueError("scorer reward needs `model`: a folder or Hub id of a reward model")
        if self.scorer == "likelihood" and self.output is not None:
            raise ValueError("output belongs to scorer reward")
        if self.model is not None and parse_endpoint(self.model) is not None:
            raise ValueError("servers do not score given answers: name a local model")
        return self


def signed_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """`text_filters` of a recipe as JSON values, as they sign a folder.

    Folders of versions without `quality` can be resumed: it counts where it is used. Where and in what batches a model
    computes does not count.
    """
    others = {key: value for key, value in filters.items() if key != "quality"}
    quality = filters["quality"]
    if quality is None:
        return others
    return {**others, "quality": {k: v for k, v in quality.items() if k not in ("device", "batch_size")}}


class AnswerScorer(Protocol):
    """Scores answers; higher is better."""

    def score(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """A number for each user turn and its answer; NaN where the two are too long to be read."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides the scores beside the texts."""
        ...


RewardLoader = Callable[[QualityOptions], AnswerScorer]


class LikelihoodScorer:
    """Mean natural-log probability of a token of the answer.

    Args:
        model: Under which model.
    """

    def __init__(self, model: "LocalTextLM") -> None:
        self.model = model

    def score(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """See `AnswerScorer`."""
        pairs = zip(user_texts, responses, strict=True)
        sizes = [
            (len(prompt), len(answer)) for prompt, answer in (self.model.scored_ids(*pair) for pair in pairs)
        ]
        room = self.model.context or math.inf
        fitting = [i for i, size in enumerate(sizes) if sum(size) <= room]
        sums = self.model.logprobs([user_texts[i] for i in fitting], [responses[i] for i in fitting])
        scores = [math.nan] * len(sizes)
        for i, value in zip(fitting, sums, strict=True):
            scores[i] = value / sizes[i][1]
        return scores

    def identity(self) -> dict[str, Any]:
        """See `AnswerScorer`."""
        return {"scorer": "likelihood", **self.model.identity()}


def load_scorer(
    options: QualityOptions, teacher: TextLM, load_reward: RewardLoader | None = None
) -> AnswerScorer:
    """The scorer that a recipe names.

    Args:
        options: Of the recipe.
        teacher: Scores by itself where no model is named.
        load_reward: Reads reward models: those belong to training, which this part of the package does not know.

    Raises:
        UserError: the teacher cannot score, or the model cannot be used.
        MissingPrerequisite: it is not there.
    """
    if options.scorer == "reward":
        if load_reward is None:
            raise UserError("text_filters.quality: `rba-bench synth` knows the reward models; use it")
        return load_reward(options)
    from rba_bench.textlm.local import LocalTextLM

    if options.model is not None:
        return LikelihoodScorer(load_scoring_model(options.model, options.device, options.batch_size))
    if not isinstance(teacher, LocalTextLM):
        raise UserError(
            "text_filters.quality: a teacher behind a server or on a cluster does not score given answers: name a "
            "local model with text_filters.quality.model"
        )
    return LikelihoodScorer(teacher)


def load_scoring_model(spec: str, device: str, batch_size: int) -> "LocalTextLM":
    """A local text model that scores given answers; what it scores contains no thinking, so its turns do not either.

    Raises:
        UserError: it cannot be used.
        MissingPrerequisite: it is not there.
    """
    from rba_bench.textlm.chat import disable_thinking, template_in_folder
    from rba_bench.textlm.local import LocalTextLM
    from rba_bench.textlm.weights import local_folder

    path = resolve_model(spec, "teacher")  # of a world that ships, it is the text model
    template = disable_thinking(template_in_folder(local_folder(path, "text model")), {})
    return LocalTextLM.from_pretrained(path, device, batch_size, template=template)
