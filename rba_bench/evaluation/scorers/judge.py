"""What judges share: their options, what they cost, and the way from samples to votes to scores.

List prices for `--dry-run` are in US dollars per million tokens (prompt, completion) of the standard tier, without
caching or batch discounts, of models whose name pins a version. Source: https://openai.com/api/pricing and the model
pages under https://platform.openai.com/docs/models, as published by 2025-04-14; prices change, so an estimate is a
guide and `price: [prompt, completion]` in a task's `finish` entry overrides it.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.documents import user_text
from rba_bench.evaluation.metric import ItemScore
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.scorer import Cost, Scorer, ScorerOptions
from rba_bench.seeding import stable_seed
from rba_bench.textlm.judging import JudgeModel, Message, Question, Reply, judge_facts, open_votes
from rba_bench.textlm.polling import GIVE_UP, RETRIES, RETRY_TEMPERATURE, SEEDS, Poll

PRICES: dict[str, tuple[float, float]] = {
    "gpt-4o-mini-2024-07-18": (0.15, 0.60),
    "gpt-4o-2024-08-06": (2.50, 10.00),
    "gpt-4o-2024-11-20": (2.50, 10.00),
    "gpt-4.1-2025-04-14": (2.00, 8.00),
    "gpt-4.1-mini-2025-04-14": (0.40, 1.60),
    "gpt-4.1-nano-2025-04-14": (0.10, 0.40),
}
BYTES_PER_TOKEN = 4  # of UTF-8: about right for English and, with three bytes a character, for Chinese
TOKENS_PER_MESSAGE = 4  # role and separators
MILLION = 1_000_000

Value = TypeVar("Value")


def estimated_tokens(question: Question) -> int:
    """Estimated prompt tokens: a quarter of the UTF-8 bytes and four a message; no tokenizer is loaded."""
    size = sum(len(message.content.encode()) for message in question.messages)
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(question.messages)


def price_in_dollars(
    identity: Mapping[str, Any],
    prompt_tokens: int,
    completion_tokens: int,
    price: tuple[float, float] | None = None,
) -> float | None:
    """Estimated dollars; 0.0 for a model that runs on this machine, None if the price is not known.

    Args:
        identity: Of the judge model.
        prompt_tokens: Of all calls.
        completion_tokens: Of all calls.
        price: Dollars per million tokens (prompt, completion), instead of the list.
    """
    price = price or PRICES.get(str(identity.get("model")))
    if price is not None:
        return (prompt_tokens * price[0] + completion_tokens * price[1]) / MILLION
    return None if identity.get("kind") == "endpoint" else 0.0


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge is asked: the options that every judge's entry in `metadata.finish` may hold.

    Attributes:
        max_tokens: Longest reply.
        temperature: Of the first attempt; 0 is greedy.
        top_logprobs: Number of first tokens whose log-probabilities are asked for; 0 = none.
        seed: Base seed; each vote and each retry has its own.
        retries: Attempts after the first that failed.
        price: Dollars per million tokens (prompt, completion), instead of the price list. Changes no score.
    """

    max_tokens: int
    temperature: float
    top_logprobs: int = 0
    seed: int = 0
    retries: int = RETRIES
    price: tuple[float, float] | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **defaults: Any) -> "JudgeSettings":
        """From an entry of `metadata.finish`. Raises UserError for a value that cannot be."""
        options = {key: config.get(key, defaults.get(key)) for key in cls.__dataclass_fields__}
        values = {key: value for key, value in options.items() if value is not None}
        try:
            if "price" in values:
                prompt, completion = values["price"]
                values["price"] = (float(prompt), float(completion))
            whole = {key: int(values[key]) for key in values if key not in ("price", "temperature")}
            settings = cls(**{**values, **whole, "temperature": float(values["temperature"])})
        except (TypeError, ValueError) as error:
            raise UserError(f"judge options {dict(config)} cannot be read: {error}") from error
        if settings.max_tokens < 1 or min(settings.temperature, settings.retries, settings.top_logprobs) < 0:
            raise UserError(
                f"judge options {dict(config)}: max_tokens is at least 1, nothing else is below 0"
            )
        return settings

    def question(self, messages: tuple[Message, ...], vote: int = 0) -> Question:
        """The first attempt at vote number `vote`."""
        return Question(
            messages, self.max_tokens, self.temperature, _vote_seed(self.seed, vote), self.top_logprobs
        )

    def facts(self) -> dict[str, Any]:
        """JSON form for the protocol."""
        facts = {name: value for name, value in asdict(self).items() if name != "price"}
        return {**facts, "retry_temperature": max(self.temperature, RETRY_TEMPERATURE)}


@cache
def _vote_seed(seed: int, vote: int) -> int:
    return stable_seed("vote", seed, vote) % SEEDS


@cache
def _loaded(spec: str, device: str, batch_size: int) -> JudgeModel:
    """Judges of one task share the model."""
    from rba_bench.textlm.text_model import load_judge_model

    return load_judge_model(spec, device, batch_size)


def choose_judge_model(config: Mapping[str, Any], options: ScorerOptions) -> JudgeModel:
    """The judge model that the user names, else the task's own.

    Raises:
        MissingPrerequisite: Neither names one, or it is not there.
    """
    spec = options.judge or config.get("judge")
    if not spec:
        raise MissingPrerequisite(
            "this task is scored by a judge: name one with --judge (openai:<base_url>#<model>, a folder, a Hub id), "
            "or --judge none to leave those metrics out"
        )
    return _loaded(str(spec), options.device, options.batch_size)


class Judge(Scorer, Generic[Value]):
    """A scorer that asks a text LLM about each answer.

    Attributes:
        templates: The prompt texts, for the protocol.
        own_options: Names of its options in an entry of `metadata.finish`, beside those of `JudgeSettings`.
        give_up: Number of unusable replies in a row that ends the asking; None where no model is asked.

    Args:
        judge_model: The text LLM.
        settings: How it is asked.
        cache_folder: Folder of the vote cache.
    """

    templates: tuple[str, ...]
    own_options: tuple[str, ...] = ()
    give_up: int | None = GIVE_UP

    def __init__(self, judge_model: JudgeModel, settings: JudgeSettings, cache_folder: Path) -> None:
        self.judge_model = judge_model
        self.settings = settings
        self.cache_folder = cache_folder
        self._report: dict[str, Any] = {}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], options: ScorerOptions, judge_model: JudgeModel | None = None
    ) -> Self:
        """The judge of an entry of `metadata.finish`.

        Args:
            config: `judge`, the options of `JudgeSettings`, and those in `own_options`.
            options: What the user chose.
            judge_model: The text LLM; None to load the one that is named.

        Raises:
            UserError: An option that does not exist, or a value that cannot be.
            MissingPrerequisite: No judge is named, or something that it needs is not there.
        """
        allowed = ["judge", *JudgeSettings.__dataclass_fields__, *cls.own_options]
        if unknown := sorted(set(config) - set(allowed)):
            raise UserError(f"unknown options {unknown} of judge {cls.name!r}; known: {', '.join(allowed)}")
        settings = JudgeSettings.from_config(config, **cls.default_settings(config))
        judge_model = judge_model or choose_judge_model(config, options)
        return cls(judge_model, settings, options.cache, **cls.read_own_options(config, options))

    @classmethod
    @abstractmethod
    def default_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Values of `JudgeSettings` where the entry says nothing."""

    @classmethod
    def read_own_options(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """Keyword arguments of the constructor from `own_options`."""
        return {}

    @abstractmethod
    def score_by_rule(self, sample: Sample) -> ItemScore | None:
        """The score of an item that needs no judge; None if it does."""

    @abstractmethod
    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """One question for each vote on an item."""

    @abstractmethod
    def read(self, reply: Reply) -> Value | None:
        """The vote in a reply, None if it is malformed."""

    @abstractmethod
    def verdict(self, values: Sequence[Value], facts: list[dict[str, Any]]) -> ItemScore:
        """The score of an item from all its votes and their JSON forms."""

    @abstractmethod
    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[Value]]) -> dict[str, Any]:
        """What the report says of the votes on the items that were judged."""

    def protocol_options(self) -> dict[str, Any]:
        """What else changes the scores: part of the protocol."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Judge, prompts, decoding, rules: part of the protocol hash."""
        return {
            "name": self.name,
            "judge": judge_facts(self.judge_model.identity()),
            "prompt": judge_prompts.prompt_fingerprint(*self.templates),
            "decoding": self.settings.facts(),
            "reading": judge_prompts.VERDICTS_VERSION,
            **self.protocol_options(),
        }

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """Calls still to be made, without retries; the completion tokens are an upper bound."""
        questions = [
            question
            for sample in samples
            if self._score_without_judge(sample) is None
            for question in self.questions(sample)
        ]
        with open_votes(self.cache_folder) as cache:
            poll = Poll(self.judge_model, cache, self.settings.retries, self.give_up)
            missing, cached = poll.open_questions(questions, self.read)
        prompt = sum(estimated_tokens(question) for question in missing)
        completion = sum(question.max_tokens for question in missing)
        dollars = price_in_dollars(self.judge_model.identity(), prompt, completion, self.settings.price)
        return Cost(len(missing), cached, prompt, completion, dollars)

    def score(self, samples: Sequence[Sample]) -> list[ItemScore]:
        """The scores of each sample, in order."""
        scores = [self._score_without_judge(sample) for sample in samples]
        open_items = [i for i, score in enumerate(scores) if score is None]
        questions = [self.questions(samples[i]) for i in open_items]
        with open_votes(self.cache_folder) as cache:
            poll = Poll(self.judge_model, cache, self.settings.retries, self.give_up)
            stream = iter(poll.collect([q for group in questions for q in group], self.read, self.name))
        judged: list[tuple[Sample, list[Value]]] = []
        for i, group in zip(open_items, questions, strict=True):
            votes = [next(stream) for _ in group]
            facts = [vote.facts() for vote in votes]
            values = [vote.value for vote in votes if vote.value is not None]
            if len(values) == len(votes):
                score = self.verdict(values, facts)
            else:
                reason = next(vote.failures[-1] for vote in votes if vote.value is None)
                score = ItemScore(judge={self.name: {"votes": facts}}, failure=f"{self.name}: {reason}")
            scores[i] = score
            if not score.failure:
                judged.append((samples[i], values))
        complete = [score for score in scores if score is not None]
        self._report = {
            "judge_name": self.judge_model.name,
            "n": len(samples),
            "n_judged": len(judged),
            "n_failed": sum(bool(score.failure) for score in complete),
            **poll.account.facts(),
            **(self.summary([s for s, _ in judged], [v for _, v in judged]) if judged else {}),
        }
        return complete

    def report(self) -> dict[str, Any]:
        """Agreement, noise, bias, failures and calls of the last `score`."""
        return self._report

    def by_rule(self, metric: str, score: float, rule: str) -> ItemScore:
        """A score without a judge, with the rule that gave it."""
        return ItemScore({metric: score}, {self.name: {"rule": rule}})

    def _score_without_judge(self, sample: Sample) -> ItemScore | None:
        if (score := self.score_by_rule(sample)) is not None:
            return score
        if request_text(sample):
            return None
        return ItemScore(failure=f"{self.name}: no text of what is spoken to show the judge")


def request_text(sample: Sample) -> str:
    """What the user asked for: the text beside the audio, then what is spoken."""
    return user_text({"prompt": sample.prompt, "instruction": sample.instruction})


def is_unanswered(sample: Sample) -> bool:
    """Whether the model failed on an item, or answered it with nothing."""
    return sample.status == "error" or not sample.extracted.strip()


def vote_count(config: Mapping[str, Any], default: int) -> int:
    """The option `votes`. Raises UserError if it is no number from 1."""
    votes = config.get("votes", default)
    if not isinstance(votes, int) or isinstance(votes, bool) or votes < 1:
        raise UserError(f"votes: {votes!r} of a judge: use 1 or more")
    return votes
