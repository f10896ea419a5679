"""Questions to a text LLM that judges: full control of the messages, and the log-probabilities of its first token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

ReplyStatus = Literal["ok", "refused", "error"]


@dataclass(frozen=True)
class Message:
    """One turn: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True)
class Question:
    """One request to a text LLM.

    Attributes:
        messages: The conversation so far, ending with a user turn.
        max_tokens: Longest reply, in tokens.
        temperature: 0 is greedy.
        seed: Of sampling; local models obey it, endpoints may.
        top_logprobs: How many of the likeliest first tokens to report; 0 = none.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int = 0


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
        text: As written, without surrounding spaces.
        top_logprobs: `(token, natural-log probability)` of the first token, likeliest first; empty if not asked for.
        status: `ok`; `refused` (content filter, refusal); `error` (no reply after all retries).
        error: What went wrong, in one line, without secrets.
        prompt_tokens: As counted by the model, 0 if it does not say.
        completion_tokens: As counted by the model, 0 if it does not say.
        latency_s: Wall time from sending to reply, in seconds, retries included.
    """

    text: str
    top_logprobs: tuple[tuple[str, float], ...] = ()
    status: ReplyStatus = "ok"
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0


@runtime_checkable
class JudgeModel(Protocol):
    """A text LLM that answers questions, many at a time.

    Attributes:
        name: Short name for tables.
    """

    name: str

    def identity(self) -> dict[str, Any]:
        """What identifies the model in records; never a key."""
        ...

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """`(position, reply)` as they complete, each position exactly once. One that fails never ends the rest."""
        ...
