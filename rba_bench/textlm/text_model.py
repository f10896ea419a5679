"""Text LLMs: the interface that callers use, decoding and answers (shared with speech models), and how one is loaded.

A user names a text LLM as a folder, a Hub id, a GGUF file, or `openai:<base_url>#<model>`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rba_bench.errors import UserError
from rba_bench.textlm.chat import Variables
from rba_bench.textlm.endpoints.address import EndpointOptions, parse_endpoint
from rba_bench.textlm.judging import JudgeModel, Message

SAMPLER = "2"  # raise it when equal seeds draw other tokens; 1 was Gumbel-max with a stream for each row
Status = Literal["ok", "empty", "truncated", "error", "not_heard", "no_reply"]


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn.

    Attributes:
        max_new_tokens: longest answer, in tokens of the model, without the end token.
        temperature: 0 is greedy (the likeliest token each time); otherwise logits are divided by it.
        top_p: draw from the smallest set of tokens that holds this much probability; 1.0 = all of them.

    Raises:
        UserError: a value out of range.
    """

    max_new_tokens: int = 48
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}: use 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}: use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}: use more than 0 and at most 1")

    @property
    def greedy(self) -> bool:
        """Whether no random numbers are drawn."""
        return self.temperature == 0

    @property
    def name(self) -> str:
        """The protocol's name in tables: `greedy`, `sampled-t1.0`, `sampled-t0.7-p0.9`."""
        if self.greedy:
            return "greedy"
        nucleus = "" if self.top_p == 1 else f"-p{float(self.top_p)}"
        return f"sampled-t{float(self.temperature)}{nucleus}"


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: the raw reply without surrounding spaces, and without special tokens but those that mark thinking or
            turns (see `replies`, which says what of it is the answer); a reply cut at `max_new_tokens` is kept.
        n_tokens: tokens drawn, without the end token.
        status: `ok`; `empty` (no text); `truncated` (no end token came within `max_new_tokens`);
            `error` (the model failed: out of memory, too long for it, refused by its content filter);
            `not_heard` (the clip holds no usable sound); `no_reply` (its server gave no usable reply, whatever was
            tried). The last two are no failures of the model.
        error: what went wrong; may also hold a remark beside a usable answer (such as audio that was cut).
        heard: the transcript that was answered, where a recogniser stood before the model; "" elsewhere.
        reasoning: thinking that a server sent apart from the text.
    """

    text: str
    n_tokens: int
    status: Status
    error: str = ""
    heard: str = ""
    reasoning: str = ""


class TextLM(ABC):
    """A text LLM: answers, continues and scores. Results are in the order of the requests.

    One request that cannot be answered yields a Generation of status `error` (`no_reply` where a server failed); it
    never ends the run.

    Attributes:
        streams: True if `chat_stream` gives answers as they complete (a server).
    """

    streams: bool = False

    @abstractmethod
    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Answer each user turn. A sampled answer depends on model, text and its seed alone."""

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        """Answer conversations, each of which ends with a user turn; one of a single turn is answered as by `chat`.

        Raises:
            UserError: the model answers single turns alone.
        """
        if any(len(messages) != 1 for messages in conversations):
            raise UserError("this text model answers single turns alone: name another one for dialogues")
        return self.chat([messages[0].content for messages in conversations], decoding, seeds)

    @abstractmethod
    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Continue raw text (special tokens written out, none added) up to the end of a turn."""

    @abstractmethod
    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Natural-log probability of each response and its end token, given the user turn."""

    @abstractmethod
    def pre_query_template(self) -> str:
        """The chat template up to where the user's words begin: it makes the model ask (Magpie)."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What identifies the model in records: kind, path, hash of the weights, number of parameters."""

    def chat_stream(
        self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Generation]]:
        """`(position, answer)` in any order, each position exactly once; by default the answers of `chat`."""
        yield from enumerate(self.chat(user_texts, decoding, seeds))

    def tokens_read(self) -> int | None:
        """Tokens of all prompts so far; by default None: nobody counts them."""
        return None

    def observed(self) -> dict[str, list[str]]:
        """What the answers so far said of the model behind a server; {} by default."""
        return {}


__all__ = ["load_judge_model", "load_textlm", "parse_endpoint"]


def load_textlm(
    spec: str,
    device: str = "cpu",
    batch_size: int = 32,
    *,
    trust_remote_code: bool = False,
    endpoint: EndpointOptions | None = None,
    template: Variables | None = None,
) -> TextLM:
    """The text LLM behind a spec.

    Args:
        spec: a folder, a Hub id or a GGUF file (see `weights.local_folder`), or `openai:<base_url>#<model>` whose key
            `endpoint_keys` finds.
        device: a torch device or `auto`; local models only.
        batch_size: rows per batch; local models only.
        trust_remote_code: run Python code that ships with a local model.
        endpoint: timeouts, retries, concurrency; by default from the environment.
        template: variables of the chat template, such as `{"enable_thinking": False}`; servers get them as
            `chat_template_kwargs`, which vLLM, SGLang and llama.cpp know.

    Raises:
        UserError: the spec is malformed, or the model is none that can be used.
        MissingPrerequisite: the model is not there.
    """
    if parse_endpoint(spec) is not None:
        from rba_bench.textlm.endpoints.text_llm import EndpointLM

        return EndpointLM.from_spec(spec, endpoint, template)
    from rba_bench.textlm.local import LocalTextLM

    return LocalTextLM.from_pretrained(spec, device, batch_size, trust_remote_code, dict(template or {}))


def load_judge_model(
    spec: str,
    device: str = "cpu",
    batch_size: int = 32,
    *,
    trust_remote_code: bool = False,
    endpoint: EndpointOptions | None = None,
    template: Variables | None = None,
) -> JudgeModel:
    """What answers questions about answers (a judge): as `load_textlm`, with messages and log-probabilities.

    A local judge whose template knows `enable_thinking` does not think unless `template` says so: it is asked for a
    word or a digit.
    """
    if parse_endpoint(spec) is not None:
        from rba_bench.textlm.endpoints.text_llm import EndpointLM

        return EndpointLM.from_spec(spec, endpoint, template)
    from rba_bench.textlm.local import LocalJudge

    return LocalJudge(spec, device, batch_size, trust_remote_code, dict(template or {}))
