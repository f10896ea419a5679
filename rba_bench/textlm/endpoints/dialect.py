"""Dialects: how requests are adapted to a server, learnt from what it refuses.

Parameters with the same meaning (`max_completion_tokens`), and what does not decide how an answer is drawn, are changed
without asking. Temperature, `top_p` and the seed of a drawn answer are the protocol of a model under test: they are
given up only where the user has said so (`EndpointOptions.without`). A judge that accepts no other temperature gives
the votes that it can. `notes` lists every change, for the record.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rba_bench.textlm.endpoints.address import OPTIONAL, WITHOUT, one_line
from rba_bench.textlm.endpoints.health import PARAMETER, RequestFailure

MOST_LEAST_TOKENS = 256  # larger minima are a misunderstanding
USUAL_LEAST_TOKENS = 16  # where a server says "too few" and no number
_NO_ROOM = re.compile(r"higher max_|output limit was reached")  # it thought until there was none for a word
_LIMIT_WORDS = r"max_(?:completion_|output_|new_)?tokens"
_UNSUPPORTED = re.compile(
    r"not support|unsupported|unknown|unrecognized|not permitted|not allowed|deprecated|extra"
)
_REFUSED = re.compile(
    rf"{_UNSUPPORTED.pattern}|invalid|\bonly\b|must|cannot|should be|out of range|unexpected"
)
_STREAM_ONLY = re.compile(
    r"non-?stream|(?:only|must|require|enable|support|set|use)\b.{0,60}\bstream|\bstream.{0,60}\b(?:only|must|require|true)"
)
_LOWER_BOUND = re.compile(
    r"(?:>=?|at least|minimum(?: value)?(?: is| of)?:?|greater than or equal to|(?:greater|more) than)\s*`?(\d+)"
)
_UPPER_BOUND = re.compile(
    r"(?:<=|max(?:imum)?(?: allowed)?(?: is| of)?:?|at most|less than or equal to|0 (?:and|to)|up to)\s*`?(\d+)"
)


@dataclass(frozen=True)
class Dialect:
    """How requests differ from the protocol.

    Attributes:
        renamed: `max_completion_tokens` instead of `max_tokens`.
        least_tokens: The limit is raised to it.
        most_logprobs: `top_logprobs` is lowered to it; 0 = none are requested; None = as the question says.
        dropped: Parameters that are not sent.
        warm: Temperature 1 is sent whatever the protocol says.
        stream: The answer is asked for in pieces.
        plain_stream: `stream_options` is not sent.
    """

    renamed: bool = False
    least_tokens: int = 1
    most_logprobs: int | None = None
    dropped: frozenset[str] = frozenset()
    warm: bool = False
    stream: bool = False
    plain_stream: bool = False

    def translate(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload as the server accepts it."""
        omitted = set(self.dropped)
        # of greedy requests alone, unless the temperature is not the protocol's either
        if "greedy seed" in self.dropped and _greedy(self, payload):
            omitted.add("seed")
        translated = {name: value for name, value in payload.items() if name not in omitted}
        if "max_tokens" in translated:
            limit = max(translated.pop("max_tokens"), self.least_tokens)
            translated["max_completion_tokens" if self.renamed else "max_tokens"] = limit
        if self.warm and "temperature" in translated:
            translated["temperature"] = 1
        if self.most_logprobs is not None and "logprobs" in translated:
            translated["top_logprobs"] = min(translated["top_logprobs"], self.most_logprobs)
            if not self.most_logprobs:
                del translated["logprobs"], translated["top_logprobs"]
        if self.stream:
            translated |= {"stream": True} if self.plain_stream else _STREAMED
        return translated

    def notes(self) -> list[str]:
        """What differs from the request as the protocol has it."""
        dropped = [f"no {name}" for name in sorted(self.dropped) if name != "greedy seed"]
        changes = {
            "max_completion_tokens": self.renamed,
            f"at least {self.least_tokens} tokens": self.least_tokens > 1,
            f"top_logprobs at most {self.most_logprobs}": bool(self.most_logprobs),
            "no logprobs": self.most_logprobs == 0,
            "temperature 1": self.warm and "temperature" not in self.dropped,
            "no seed where it is greedy": "greedy seed" in self.dropped,
            "streamed": self.stream,
        }
        return [note for note, holds in changes.items() if holds] + dropped


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def adapt_dialect(
    dialect: Dialect, failure: RequestFailure, payload: Mapping[str, Any], may_omit: Collection[str] = ()
) -> Dialect | RequestFailure:
    """What a refusal teaches.

    Args:
        dialect: In which the request was sent.
        failure: The refusal.
        payload: Of the request, before it was put into the dialect.
        may_omit: What of the decoding may be given up.

    Returns:
        Another dialect in which the request is worth sending again, or the failure: as it is, or, where something
        refused is the protocol's, as `decoding` with the way out.
    """
    sent, message = dialect.translate(payload), failure.detail.lower()
    must_stream = not dialect.stream and _STREAM_ONLY.search(message)
    if failure.kind == "server":
        return replace(dialect, stream=True) if must_stream else failure
    if failure.kind not in ("request", "forbidden") or not message.strip():
        return failure
    if "stream_options" in sent and "stream_options" in message:
        return replace(dialect, plain_stream=True)
    if must_stream:
        return replace(dialect, stream=True)
    if _NO_ROOM.search(message):
        reason = f"{failure.reason}; RBA_ENDPOINT_LEAST_TOKENS=N gives it room, and the record says so"
        return replace(failure, reason=one_line(reason, 400))
    if adapted := _adapt_limit(dialect, sent, message) or _adapt_logprobs(dialect, sent, message):
        return adapted
    if "add_special_tokens" in sent and "add_special_tokens" in message:
        return _without(dialect, "add_special_tokens")
    return _adapt_decoding(dialect, failure, sent, message, may_omit)


def _adapt_limit(dialect: Dialect, sent: Mapping[str, Any], message: str) -> Dialect | None:
    """The length limit under another name, or raised to the least that the server takes."""
    if "max_tokens" in sent and (
        "max_completion_tokens" in message
        or (re.search(r"\bmax_tokens\b", message) and _UNSUPPORTED.search(message))
    ):
        return replace(dialect, renamed=True)
    limit = sent.get("max_tokens", sent.get("max_completion_tokens"))
    if limit is None or not re.search(_LIMIT_WORDS, message):
        return None
    if bound := _LOWER_BOUND.search(message):
        least = int(bound[1][:9]) + bool(re.match(r">\s*\d|(?:greater|more) than\s*`?\d", bound[0]))
    else:
        least = USUAL_LEAST_TOKENS if re.search(r"below|too (?:small|low|short)|minimum", message) else 0
    return replace(dialect, least_tokens=least) if limit < least <= MOST_LEAST_TOKENS else None


def _adapt_logprobs(dialect: Dialect, sent: Mapping[str, Any], message: str) -> Dialect | None:
    """Fewer log-probabilities of the first token, or none."""
    if "logprobs" not in sent or "logprob" not in message:
        return None
    bound = _UPPER_BOUND.search(message)
    most = int(bound[1][:9]) if bound else 0
    return replace(dialect, most_logprobs=most if 0 < most < sent["top_logprobs"] else 0)


def _adapt_decoding(
    dialect: Dialect,
    failure: RequestFailure,
    sent: Mapping[str, Any],
    message: str,
    may_omit: Collection[str],
) -> Dialect | RequestFailure:
    """Give up what decides how the answer is drawn, where it may be."""
    where = message.partition(PARAMETER)[2] or message  # the words of a question may stand in the message
    refused = [name for name in OPTIONAL if name in sent and re.search(rf"\b{name}\b", where)]
    # 1 is the value that servers require
    refused.sort(key=lambda name: name == "temperature" and sent[name] == 1)
    if not refused or not _REFUSED.search(message):
        return failure
    name = refused[0]
    if name == "seed" and _greedy(dialect, sent) and "greedy seed" not in dialect.dropped:
        return _without(dialect, "greedy seed")  # nothing is drawn
    if name not in may_omit:
        reason = f"{failure.reason}; {WITHOUT}={name} asks without it, and the record says so"
        return RequestFailure("decoding", one_line(reason, 400))
    if name == "temperature" and not dialect.warm and sent["temperature"] != 1:
        return replace(dialect, warm=True)
    return _without(dialect, name)


def _greedy(dialect: Dialect, payload: Mapping[str, Any]) -> bool:
    return not payload.get("temperature") and not dialect.warm and "temperature" not in dialect.dropped


def _without(dialect: Dialect, name: str) -> Dialect:
    return replace(dialect, dropped=dialect.dropped | {name})
