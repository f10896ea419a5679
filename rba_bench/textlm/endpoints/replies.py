"""Replies of servers: parsed, checked and cleaned in one place, so that no other code sees raw JSON.

A reply becomes an `Answer` of plain, bounded values, or `Unusable` with the reason. The text is kept wherever there is
one: half an emoji or a NUL becomes U+FFFD, a count or a probability that cannot be true is left out.
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Route = Literal["chat", "completion", "speech"]
Logprobs = tuple[tuple[str, float], ...]

TEXT_CHARACTERS = 1_000_000  # of one answer; 32,000 tokens of prose are 160,000
MOST_PARTS = 200_000  # lists and objects of one body; as Python objects they are thirty times as large
REPLACEMENT = "\ufffd"
_MOST_TOKENS = 10**9  # larger counts are none
_LONGEST_INTEGER = 30  # digits; Python refuses to read more than 4,300, and no field needs so many
_MOST_ODDS = 100  # rows of the first token that are read
_ROUNDING = 1e-3  # by which one log-probability may exceed 0
_TOTAL_ROUNDING = 0.02  # by which the probabilities of all may exceed 1: some servers compute in 16 bits
# Where the thinking stands apart: DeepSeek and SGLang; vLLM, OpenRouter and Ollama's OpenAI door; others
REASONING = ("reasoning_content", "reasoning", "thinking")
# `type` of the parts of the content that think
_THINKING_PARTS = ("thinking", "reasoning", "reasoning_text", "reasoning.text")
_REPORTED = ("model", "system_fingerprint")
_LONGEST_REPORT = 200
# Encodings that servers write besides Unicode. Python's others are no text ("zlib") or slow on purpose ("punycode").
_CHARSETS = re.compile(
    r"(?:iso-?8859|latin|windows-|cp\d|gb|big5|euc|shift|koi8|us-ascii)[a-z0-9_-]*$", re.IGNORECASE
)
# Tab and line breaks stay; the second range holds DEL and the controls of Latin-1.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Unusable(ValueError):
    """A reply that holds no answer; the message is the reason, not yet washed of secrets."""


@dataclass(frozen=True)
class ServerAnswer:
    """One usable answer.

    Attributes:
        text: Without surrounding spaces, lone surrogates and control characters.
        refused: Why it is a refusal, "" if it is none.
        finish: The server's `finish_reason`, "" if it gives none.
        reasoning: What the server tells apart as the model's thinking (`reasoning_content`, `reasoning`, or parts of
            the content).
        logprobs: `(token, natural-log probability)` of the first token, likeliest first; () if not given or impossible.
        prompt_tokens: As the server counted them, 0 if it did not.
        completion_tokens: As the server counted them, 0 if it did not.
        reports: `model` and `system_fingerprint`, as far as given.
        latency_s: Wall time from first sending to answer, retries included.
    """

    text: str
    refused: str = ""
    finish: str = ""
    reasoning: str = ""
    logprobs: Logprobs = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reports: Mapping[str, str] = field(default_factory=dict)
    latency_s: float = 0.0


def clean_text(text: str) -> str:
    """`text` as any file, database and terminal can hold it.

    The halves of a character outside the Basic Multilingual Plane are put together; a lone half becomes U+FFFD, and so
    does every control character but tab and line breaks.
    """
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _CONTROLS.sub(REPLACEMENT, whole)


def parse_body(data: bytes, charset: str | None = None) -> Any:
    """The JSON in a body.

    Of two equal keys the last one counts. Bytes that are no text become U+FFFD: servers cut answers inside a letter.

    Args:
        data: The body.
        charset: What the server says it is written in; believed only where the bytes are no Unicode.

    Raises:
        Unusable: There is none.
    """
    if data.count(b"[") + data.count(b"{") > MOST_PARTS:
        raise Unusable(f"the answer has more than {MOST_PARTS:,} parts")
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        if charset and _CHARSETS.match(charset):
            with suppress(LookupError, UnicodeDecodeError):
                text = data.decode(charset)
    try:
        # what is too long for a count becomes a float, if need be infinite
        return json.loads(text, parse_int=lambda n: int(n) if len(n) <= _LONGEST_INTEGER else float(n))
    except RecursionError:
        raise Unusable("the answer is nested too deeply") from None
    except ValueError:
        page = " (it is a web page)" if re.match(r"\s*<(?:!doctype|html|\?xml)", text, re.IGNORECASE) else ""
        raise Unusable(f"the answer is not JSON{page}") from None


def parse_answer(body: object, route: Route) -> ServerAnswer:
    """The answer in the JSON of a reply.

    Args:
        body: As `read_json` or `Events.body` give it.
        route: What was asked.

    Raises:
        Unusable: It holds none.
    """
    if not isinstance(body, Mapping):
        raise Unusable("the answer is no JSON object")
    choice = _first_choice(body, route)
    if choice is None:
        message = error_message(body)
        raise Unusable(f"the answer holds no choices{': ' if message else ''}{message}")
    text, refusal, reasoning = _texts(choice, route)
    if len(text) > TEXT_CHARACTERS or len(reasoning) > TEXT_CHARACTERS:
        raise Unusable(f"the answer is longer than {TEXT_CHARACTERS:,} characters")
    finish = choice.get("finish_reason")
    filtered = "refused by the content filter" if finish == "content_filter" else ""
    usage = body.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    return ServerAnswer(
        text=text or refusal,
        refused=filtered or ("refused by the model" if refusal else ""),
        finish=clean_text(finish)[:_LONGEST_REPORT] if isinstance(finish, str) else "",
        reasoning=reasoning,
        logprobs=_first_logprobs(choice),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        reports={
            name: clean_text(value)[:_LONGEST_REPORT]
            for name in _REPORTED
            if isinstance(value := body.get(name), str) and value.strip()
        },
    )


def error_message(body: object) -> str:
    """What the error in a body says, in words or as OpenAI, vLLM, SGLang and FastAPI write it; "" if nothing."""
    if isinstance(body, str):
        return "" if body.lstrip().startswith("<") else clean_text(body).strip()  # no web page
    if not isinstance(body, Mapping):
        return ""
    inner = body.get("error", body)
    if isinstance(inner, str):
        return clean_text(inner)
    if not isinstance(inner, Mapping):
        return ""
    message = inner.get("message") or inner.get("detail") or (inner is not body and inner.get("msg")) or ""
    return clean_text(message if isinstance(message, str) else json.dumps(message))


def _first_choice(body: Mapping[str, Any], route: Route) -> Mapping[str, Any] | None:
    """The first choice if it holds what was asked for; some gateways report an error in its place."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("finish_reason") == "error":
        return None
    name, kind = ("message", dict) if route == "chat" else ("text", str)
    return choice if isinstance(choice.get(name), kind) else None


def _texts(choice: Mapping[str, Any], route: Route) -> tuple[str, str, str]:
    """Text, refusal and reasoning of a choice."""
    if route == "completion":
        return clean_text(choice["text"]).strip(), "", ""
    message = choice["message"]
    content, audio = message.get("content"), message.get("audio")
    if content is not None and not isinstance(content, str | list):
        raise Unusable("the content of the answer is no text")
    text = _plain(content)
    if not text and isinstance(audio, Mapping):  # an answer that was spoken: OpenAI's place for its words
        text = _plain(audio.get("transcript"))
    apart = [_plain(message.get(name), thinking=True) for name in REASONING]
    inside = _plain(content, thinking=True) if isinstance(content, list) else ""
    reasoning = next((text for text in (*apart, inside) if text), "")
    return text, _plain(message.get("refusal")), reasoning


def _plain(content: object, thinking: bool = False) -> str:
    return clean_text(content_text(content, thinking)).strip()


def content_text(content: object, thinking: bool = False) -> str:
    """Text of a message's content as it was sent.

    Args:
        content: A string, or a list of parts.
        thinking: Of the parts that think instead of those that answer.
    """
    if isinstance(content, str):
        return content
    whole = content if isinstance(content, list) else []
    if whole and all(isinstance(part, str) for part in whole):
        return "" if thinking else "".join(whole)
    texts: list[object] = []
    for part in whole:
        if isinstance(part, Mapping) and (str(part.get("type")) in _THINKING_PARTS) == thinking:
            inside = part.get("text", part.get("thinking"))
            # Mistral's `thinking` is a list of text parts
            pieces = inside if isinstance(inside, list) else []
            texts += [piece.get("text") for piece in pieces if isinstance(piece, Mapping)] or [inside]
    return "".join(text for text in texts if isinstance(text, str))


def _first_logprobs(choice: Mapping[str, Any]) -> Logprobs:
    """Likeliest first tokens; none at all if one of them is impossible, for then the rest means nothing either."""
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    first = tokens[0] if isinstance(tokens, list) and tokens else None
    rows = first.get("top_logprobs") if isinstance(first, Mapping) else None
    if not isinstance(rows, list):
        return ()
    likely: list[tuple[str, float]] = []
    for row in rows[:_MOST_ODDS]:
        token, value = (row.get("token"), row.get("logprob")) if isinstance(row, Mapping) else (None, None)
        if (
            not isinstance(token, str)
            or not isinstance(value, int | float)
            or isinstance(value, bool)
            or math.isnan(value)
            or value > _ROUNDING
        ):
            return ()
        if value > -math.inf:
            likely.append((clean_text(token), min(0.0, float(value))))
    if sum(math.exp(value) for _, value in likely) > 1 + _TOTAL_ROUNDING:
        return ()
    return tuple(sorted(likely, key=lambda pair: -pair[1]))


def _count(value: object) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= _MOST_TOKENS else 0  # type: ignore[operator,return-value]
