"""What a hosted judge costs, for `--dry-run`.

List prices in US dollars per million tokens (prompt, completion) of the standard tier, without caching or batch
discounts, of models whose name pins a version. Source: https://openai.com/api/pricing and the model pages under
https://platform.openai.com/docs/models, as published by 2025-04-14; prices change, so an estimate is a guide and
`price: [prompt, completion]` in a task's `finish` entry overrides it.

What judges share: their options, what they would cost, and the way from samples to votes to scores.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.documents import user_text
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.scorer import Addition, Cost, FinishOptions
from rba_bench.seeding import stable_seed
from rba_bench.textlm.judging import (
    GIVE_UP,
    RETRIES,
    RETRY_TEMPERATURE,
    SEEDS,
    JudgeModel,
    Message,
    Poll,
    Question,
    Reply,
    Vote,
    VoteCache,
    judge_facts,
)

AS_OF = "2025-04-14"
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


def tokens(texts: list[str]) -> int:
    """Estimated tokens of a conversation: a quarter of its UTF-8 bytes and four a message; no tokenizer is loaded."""
    size = sum(len(text.encode()) for text in texts)
    return -(-size // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(texts)


def price_in_dollars(
    identity: Mapping[str, Any],
    prompt_tokens: int,
    completion_tokens: int,
    price: tuple[float, float] | None = None,
) -> float | None:
    """Estimated dollars; 0.0 for a model run here, None if the price is not known.

    Args:
        identity: What the judge says of itself.
        prompt_tokens: Of all calls.
        completion_tokens: Of all calls.
        price: Dollars per million tokens (prompt, completion), instead of the list.
    """
    known = price or PRICES.get(str(identity.get("model")))
    if known is not None:
        return (prompt_tokens * known[0] + completion_tokens * known[1]) / MILLION
    return None if identity.get("kind") == "endpoint" else 0.0


Value = TypeVar("Value")


@dataclass(frozen=True)
class Settings:
    """How a judge is asked: the options that every judge's entry in `metadata.finish` may hold.

    Attributes:
        max_tokens: Longest reply.
        temperature: Of the first attempt; 0 is greedy.
        top_logprobs: First tokens whose odds are asked for; 0 = none.
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
    def of(cls, config: Mapping[str, Any], **defaults: Any) -> "Settings":
        """From an entry of `metadata.finish`. Raises UserError for a value that cannot be."""
        given = {key: config.get(key, defaults.get(key)) for key in cls.__dataclass_fields__}
        values = {key: value for key, value in given.items() if value is not None}
        try:
            if "price" in values:
                prompt, completion = values["price"]
                values["price"] = (float(prompt), float(completion))
            whole = {key: int(values[key]) for key in values if key not in ("price", "temperature")}
            settings = cls(**{**values, **whole, "temperature": float(values["temperature"])})
        except (TypeError, ValueError) as error:
            raise UserError(f"judge options {dict(config)} cannot be read: {error}") from error
        if (
            settings.max_tokens < 1
            or settings.temperature < 0
            or settings.retries < 0
            or settings.top_logprobs < 0
        ):
            raise UserError(
                f"judge options {dict(config)}: max_tokens is at least 1, nothing else is below 0"
            )
        return settings

    def question(self, messages: tuple[Message, ...], vote: int = 0) -> Question:
        """The first attempt at vote number `vote`."""
        seed = stable_seed("vote", self.seed, vote) % SEEDS
        return Question(messages, self.max_tokens, self.temperature, seed, self.top_logprobs)

    def facts(self) -> dict[str, Any]:
        """JSON form for the protocol."""
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_logprobs": self.top_logprobs,
            "seed": self.seed,
            "retries": self.retries,
            "retry_temperature": max(self.temperature, RETRY_TEMPERATURE),
        }


@cache
def _loaded(spec: str, device: str, batch_size: int) -> JudgeModel:
    """Judges of one task share the model."""
    from rba_bench.textlm.text_model import load_judge_model

    return load_judge_model(spec, device, batch_size)


def asker_of(config: Mapping[str, Any], options: FinishOptions) -> JudgeModel:
    """The judge that the user names, else the task's own.

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


def check_keys(name: str, config: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises UserError for an option that does not exist."""
    allowed = ["judge", *Settings.__dataclass_fields__, *known]
    if unknown := sorted(set(config) - set(allowed)):
        raise UserError(f"unknown options {unknown} of judge {name!r}; known: {', '.join(allowed)}")


class Judge(ABC, Generic[Value]):
    """A finisher that asks a text LLM about each answer.

    Attributes:
        name: In records and reports.
        metrics: What it adds.
        templates: The prompt texts, for the protocol.
        give_up: Replies of no use in a row that end the asking; None where nobody is asked.
    """

    name: str
    metrics: tuple[Metric, ...]
    templates: tuple[str, ...]
    give_up: int | None = GIVE_UP

    def __init__(self, asker: JudgeModel, settings: Settings, cache_folder: Path) -> None:
        self.asker = asker
        self.settings = settings
        self.cache_folder = cache_folder
        self._report: dict[str, Any] = {}

    @abstractmethod
    def ruled(self, sample: Sample) -> Addition | None:
        """The score of an item that needs no judge; None if it does."""

    @abstractmethod
    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """One question for each vote on an item."""

    @abstractmethod
    def read(self, reply: Reply) -> Value | None:
        """The vote in a reply, None if it is malformed."""

    @abstractmethod
    def verdict(self, values: Sequence[Value], facts: list[dict[str, Any]]) -> Addition:
        """The score of an item from all its votes and their JSON forms."""

    @abstractmethod
    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[Value]]) -> dict[str, Any]:
        """What the report says of the votes on the items that were judged."""

    def options(self) -> dict[str, Any]:
        """What else changes the scores: part of the protocol."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Judge, prompts, decoding, rules: part of the protocol hash."""
        return {
            "name": self.name,
            "judge": judge_facts(self.asker.identity()),
            "prompt": judge_prompts.fingerprint(*self.templates),
            "decoding": self.settings.facts(),
            "reading": judge_prompts.VERDICTS_VERSION,
            **self.options(),
        }

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """Calls still to be made, without retries; the completion tokens are an upper bound."""
        asked = [
            q for sample in samples if self._without_judge(sample) is None for q in self.questions(sample)
        ]
        with self._votes() as votes:
            missing, cached = self._poll(votes).open_questions(asked, self.read)
        prompt = sum(tokens([m.content for m in question.messages]) for question in missing)
        completion = sum(question.max_tokens for question in missing)
        dollars = price_in_dollars(self.asker.identity(), prompt, completion, self.settings.price)
        return Cost(len(missing), cached, prompt, completion, dollars)

    def finish(self, samples: Sequence[Sample]) -> list[Addition]:
        """One addition per sample, in order."""
        additions = {i: known for i, s in enumerate(samples) if (known := self._without_judge(s)) is not None}
        asked = [i for i in range(len(samples)) if i not in additions]
        questions = [self.questions(samples[i]) for i in asked]
        with self._votes() as kept:
            poll = self._poll(kept)
            stream = iter(poll.collect([q for group in questions for q in group], self.read, self.name))
        judged: list[tuple[Sample, list[Value]]] = []
        for i, group in zip(asked, questions, strict=True):
            votes = [next(stream) for _ in group]
            additions[i] = self._decided(votes)
            if not additions[i].failed:
                judged.append((samples[i], [vote.value for vote in votes if vote.value is not None]))
        self._report = {
            "n": len(samples),
            "n_judged": len(judged),
            "n_failed": sum(bool(addition.failed) for addition in additions.values()),
            **poll.account.facts(),
            **(self.summary([s for s, _ in judged], [v for _, v in judged]) if judged else {}),
        }
        return [additions[i] for i in range(len(samples))]

    def report(self) -> dict[str, Any]:
        """Agreement, noise, bias, failures and calls of the last `finish`."""
        return self._report

    def _votes(self) -> VoteCache:
        return VoteCache(self.cache_folder)

    def _poll(self, votes: VoteCache) -> Poll:
        return Poll(self.asker, votes, self.settings.retries, self.give_up)

    def _without_judge(self, sample: Sample) -> Addition | None:
        if (addition := self.ruled(sample)) is not None:
            return addition
        return (
            None
            if request(sample)
            else Addition(failed=f"{self.name}: no text of what is spoken to show the judge")
        )

    def _decided(self, votes: Sequence[Vote[Value]]) -> Addition:
        facts = [vote.facts() for vote in votes]
        values = [vote.value for vote in votes if vote.value is not None]
        if len(values) == len(votes):
            return self.verdict(values, facts)
        reason = next(vote.failures[-1] for vote in votes if vote.value is None)
        return Addition(judge={self.name: {"votes": facts}}, failed=f"{self.name}: {reason}")


def request(sample: Sample) -> str:
    """What the user asked for: the text beside the audio, then what is spoken."""
    return user_text({"prompt": sample.prompt, "instruction": sample.instruction})


def unanswered(sample: Sample) -> bool:
    """Whether the model gave no answer at all."""
    return sample.status == "error"


def ruled_addition(name: str, scores: dict[str, float], rule: str) -> Addition:
    """A score without a judge, with the rule that gave it."""
    return Addition(scores, judge={name: {"rule": rule}})
