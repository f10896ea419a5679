"""A text LLM behind any OpenAI-compatible server: `vllm serve`, SGLang, llama.cpp, hosted APIs."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from rba_bench.errors import UserError
from rba_bench.textlm.chat import Variables
from rba_bench.textlm.endpoints.address import EndpointOptions, one_line
from rba_bench.textlm.endpoints.client import EndpointClient, EndpointRequest
from rba_bench.textlm.endpoints.health import RequestFailure
from rba_bench.textlm.endpoints.replies import ServerAnswer
from rba_bench.textlm.judging import JudgeModel, Message, Question, Reply, ReplyStatus
from rba_bench.textlm.text_model import Decoding, Generation, Status, TextLM

# How OpenAI, vLLM, SGLang and llama.cpp say that a request does not fit into the model
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|too (long|many tokens)|maximum (context|input)", re.I
)
MAX_TOP_LOGPROBS = 20  # OpenAI's bound, and vLLM's by default


class EndpointLM(TextLM, JudgeModel):
    """Answers questions (`JudgeModel`) and user turns (`TextLM`) over HTTP.

    Greedy decoding is temperature 0; servers with batched kernels may still differ between runs. The seed is sent
    with every request; whether it is obeyed is the server's business.

    Args:
        client: The server and the model.

    Attributes:
        name: Last part of the model's name.
        stops: Strings that end a completion, beside what the server knows.
    """

    streams = True

    def __init__(self, client: EndpointClient, stops: Sequence[str] = ()) -> None:
        self.client = client
        self.stops = tuple(stops)
        self.name = client.model.rstrip("/").rpartition("/")[2]

    @classmethod
    def from_spec(
        cls, spec: str, options: EndpointOptions | None = None, template: Variables | None = None
    ) -> "EndpointLM":
        """The model of `openai:<base_url>#<model>`, the key from the environment.

        Raises:
            UserError: the spec is malformed.
            MissingPrerequisite: the key is unusable.
        """
        return cls(EndpointClient.from_spec(spec, options, template))

    def identity(self) -> dict[str, Any]:
        """Kind, URL, model and a hash of both; the same before and after answering. No credentials."""
        return self.client.identity()

    def tokens_read(self) -> int:
        """See `TextLM.tokens_read`; as the server counts them."""
        return self.client.prompt_tokens

    def observed(self) -> dict[str, list[str]]:
        """What the answers so far said they come from: `model`, `system_fingerprint`."""
        return self.client.observed()

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """`(position, reply)` as they complete, each position exactly once; see `JudgeModel.ask`.

        Raises:
            RbaError: the server does not work at all; UserError or MissingPrerequisite by what is wrong.
        """
        with closing(self.client.run(len(questions), lambda i: _judge_request(questions[i]))) as outcomes:
            for index, outcome in outcomes:
                yield index, self._reply(questions[index], outcome)

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Answer each user turn; see `TextLM.chat`."""
        answers = dict(self.chat_stream(user_texts, decoding, seeds))
        return [answers[i] for i in range(len(user_texts))]

    def chat_stream(
        self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Generation]]:
        """`(position, answer)` to user turns as they complete, each position exactly once.

        Raises:
            RbaError: the server does not work at all; UserError or MissingPrerequisite by what is wrong.
        """
        yield from self._answers([[Message("user", text)] for text in user_texts], decoding, seeds)

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        """Answer conversations; see `TextLM.converse`."""
        answers = dict(self._answers(conversations, decoding, seeds))
        return [answers[i] for i in range(len(conversations))]

    def _answers(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Generation]]:
        calls = [
            EndpointRequest("chat", {"messages": _as_json(messages), **sampling_parameters(decoding, seed)})
            for messages, seed in zip(conversations, seeds, strict=True)
        ]
        with closing(self.client.run(len(calls), calls.__getitem__)) as outcomes:
            for index, outcome in outcomes:
                yield index, to_generation(outcome)

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Continue raw text over `/completions`; see `TextLM.complete`."""
        plain: dict[str, Any] = {"add_special_tokens": False}  # they are written out; vLLM would add its own
        if self.stops:
            plain["stop"] = list(self.stops)
        calls = [
            EndpointRequest("completion", {"prompt": prompt, **sampling_parameters(decoding, seed), **plain})
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        answers = dict(self.client.run(len(calls), calls.__getitem__))
        return [to_generation(answers[i]) for i in range(len(calls))]

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Not offered. Raises UserError: OpenAI-compatible servers do not score given answers under a chat template."""
        del user_texts, responses
        raise UserError(
            f"{self.client.base_url} cannot score given answers: give the model as a local folder or Hub id instead "
            "(only raw /completions with echo do that, in vLLM and older hosted engines, without a chat template)"
        )

    def pre_query_template(self) -> str:
        """Not offered. Raises UserError: servers do not tell their chat template."""
        raise UserError(
            f"{self.client.base_url} does not show the chat template of {self.client.model!r}: give the template, or "
            "the model as a local folder or Hub id"
        )

    def _reply(self, question: Question, outcome: ServerAnswer | RequestFailure) -> Reply:
        if isinstance(outcome, RequestFailure):
            status: ReplyStatus = "refused" if outcome.kind == "filtered" else "error"
            return Reply("", status=status, error=outcome.reason)
        # servers report the log-probabilities of all tokens: in a reply that thinks, the first are not the verdict's
        logprobs = () if outcome.reasoning else outcome.logprobs[: question.top_logprobs]
        answered_by = one_line(self.client.key.wash(outcome.reports.get("model", "")))
        used = (outcome.prompt_tokens, outcome.completion_tokens, outcome.latency_s, answered_by)
        return Reply(outcome.text, logprobs, "refused" if outcome.refused else "ok", outcome.refused, *used)


def sampling_parameters(decoding: Decoding, seed: int) -> dict[str, Any]:
    """The decoding as request parameters."""
    asked = {"max_tokens": decoding.max_new_tokens, "temperature": decoding.temperature, "seed": seed}
    return asked if decoding.top_p == 1 else {**asked, "top_p": decoding.top_p}


def to_generation(outcome: ServerAnswer | RequestFailure) -> Generation:
    """An outcome of `EndpointClient.run`: cut answers are `truncated`, filtered ones `error`, failures `no_reply`.

    A model that thought until there was no room for a word was cut off too.
    """
    if isinstance(outcome, RequestFailure):
        # the model's failure only where it refuses the content, or cannot hold the request
        too_long = outcome.kind == "request" and _TOO_LONG.search(outcome.reason)
        failed: Status = "error" if too_long or outcome.kind == "filtered" else "no_reply"
        return Generation("", 0, "not_heard" if outcome.kind == "unheard" else failed, outcome.reason)
    status: Status = "truncated" if outcome.finish == "length" else "ok"
    if outcome.refused and not outcome.text:
        status = "error"
    elif not outcome.text and not (outcome.finish == "length" and outcome.reasoning):
        status = "empty"
    return Generation(
        outcome.text, outcome.completion_tokens, status, outcome.refused, reasoning=outcome.reasoning
    )


def _as_json(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _judge_request(question: Question) -> EndpointRequest:
    payload: dict[str, Any] = {
        "messages": _as_json(question.messages),
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "seed": question.seed,
    }
    if question.top_logprobs:
        payload |= {"logprobs": True, "top_logprobs": min(question.top_logprobs, MAX_TOP_LOGPROBS)}
    return EndpointRequest("chat", payload, lenient=True)
