"""Topic and difficulty of instructions, by an LLM that can only say one of the labels.

The eight topics and five levels are those of the RBA paper's Table 1, where Llama-3.1-8B-Instruct tagged. A server is
held to the labels by a JSON schema (`response_format`, as vLLM, SGLang, llama.cpp and OpenAI know it); a local model
scores each label as its answer, all of them in one pass (`textlm.choices`).

Labels are not calibrated by their likelihood for a text without content (Zhao et al. 2021, arXiv 2102.09690). That
takes away what a model rightly expects, as most requests are of few kinds; and with SmolLM2-135M-Instruct 6 of 100
topics were then right instead of 29. A model that small cannot label: 38 are right by always saying "information
seeking" (`benchmarks/labels.py`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rba_bench.audio.set_labels import LEVELS, TOPICS
from rba_bench.errors import RbaError
from rba_bench.synthesis.quality import load_scoring_model
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.endpoints.client import EndpointClient
from rba_bench.textlm.endpoints.health import EndpointRequest, RequestFailure

if TYPE_CHECKING:
    from rba_bench.textlm.local import LocalTextLM

TOPIC_PROMPT = (
    "Which kind of request is this? Answer with one of: " + ", ".join(TOPICS) + ".\n\nRequest: {text}"
)
LEVEL_PROMPT = (
    "How difficult is it to answer this request well? Answer with one of: " + ", ".join(LEVELS) + ".\n\n"
    "Request: {text}"
)
SCHEMA = {
    "type": "object",
    "properties": {
        "topic": {"type": "string", "enum": list(TOPICS)},
        "difficulty": {"type": "string", "enum": list(LEVELS)},
    },
    "required": ["topic", "difficulty"],
    "additionalProperties": False,
}
TAG_TOKENS = 48  # of a server's reply


@dataclass(frozen=True)
class Labels:
    """Topic and difficulty of an instruction; "" where the LLM gave none."""

    topic: str = ""
    difficulty: str = ""


class Labeller(Protocol):
    """Labels instructions."""

    def label(self, texts: Sequence[str]) -> list[Labels]:
        """Labels of each text, in order."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides the labels beside the texts."""
        ...


class LikelihoodLabeller:
    """The label that a local model finds likeliest as its answer.

    Args:
        model: Scores the labels.
    """

    def __init__(self, model: "LocalTextLM") -> None:
        self.model = model

    def label(self, texts: Sequence[str]) -> list[Labels]:
        """See `Labeller`; a text depends on no other."""
        found = [self._likeliest(prompt, labels, texts) for prompt, labels in QUESTIONS]
        return [Labels(topic, level) for topic, level in zip(*found, strict=True)]

    def identity(self) -> dict[str, Any]:
        """See `Labeller`."""
        return {"method": "likelihood", "prompts": [TOPIC_PROMPT, LEVEL_PROMPT], **self.model.identity()}

    def _likeliest(self, prompt: str, labels: Sequence[str], texts: Sequence[str]) -> list[str]:
        """A label for each text; "" for one that is too long for the model."""
        from rba_bench.textlm.choices import choice_logprobs

        scores = choice_logprobs(self.model, [prompt.replace("{text}", text) for text in texts], labels)
        return ["" if math.isnan(row[0]) else labels[row.index(max(row))] for row in scores]


QUESTIONS = ((TOPIC_PROMPT, tuple(TOPICS)), (LEVEL_PROMPT, tuple(LEVELS)))


class SchemaLabeller:
    """The labels that a server's model writes, held to them by a JSON schema where the server knows how.

    A server that refuses the schema is asked in words; a reply without a known label gives "".

    Args:
        client: The server and the model.
    """

    def __init__(self, client: EndpointClient) -> None:
        self.client = client
        self._schema = True

    def label(self, texts: Sequence[str]) -> list[Labels]:
        """See `Labeller`.

        Raises:
            RbaError: the server does not work.
        """
        try:
            found = self._ask(texts)
        except RbaError:  # of a server that refuses every request: perhaps for the schema alone
            if not self._schema:
                raise
            self._schema = False
            found = self._ask(texts)
        return [_read_labels("" if isinstance(reply, RequestFailure) else reply.text) for reply in found]

    def identity(self) -> dict[str, Any]:
        """See `Labeller`."""
        model = self.client.identity()
        return {
            "method": "json schema" if self._schema else "words",
            "model": model["model"],
            "schema": SCHEMA,
        }

    def _ask(self, texts: Sequence[str]) -> list[Any]:
        calls = [EndpointRequest("chat", self._payload(text), lenient=True) for text in texts]
        replies = dict(self.client.run(len(calls), calls.__getitem__))
        return [replies[position] for position in range(len(calls))]

    def _payload(self, text: str) -> dict[str, Any]:
        question = (
            f"Label this request. topic: one of {', '.join(TOPICS)}. difficulty, of answering it well: one of "
            f"{', '.join(LEVELS)}. Reply with JSON such as "
            '{"topic": "advice", "difficulty": "easy"}.\n\nRequest: ' + text
        )
        payload = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": TAG_TOKENS,
            "temperature": 0,
            "seed": 0,
        }
        if self._schema:
            schema = {"name": "labels", "strict": True, "schema": SCHEMA}
            payload["response_format"] = {"type": "json_schema", "json_schema": schema}
        return payload


def _read_labels(text: str) -> Labels:
    """Labels in the JSON object of a reply; "" for those that it does not have."""
    start, end = text.find("{"), text.rfind("}")
    try:
        content = json.loads(text[start : end + 1]) if 0 <= start < end else {}
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    topic, level = content.get("topic"), content.get("difficulty")
    return Labels(topic if topic in TOPICS else "", level if level in LEVELS else "")


def load_labeller(model: str, device: str, batch_size: int) -> Labeller:
    """The labeller that a recipe names: a server's model by schema, a local one by likelihood.

    Raises:
        UserError: the name is malformed, or the model cannot be used.
        MissingPrerequisite: it is not there.
    """
    if parse_endpoint(model) is not None:
        return SchemaLabeller(EndpointClient.from_spec(model))
    return LikelihoodLabeller(load_scoring_model(model, device, batch_size))
