"""How a server wants to be asked: learnt from what it refuses.

Words with the same meaning (`max_completion_tokens`) and what does not decide how an answer is drawn are put in another
way without asking. Temperature, `top_p` and the seed of a drawn answer are the protocol of a model under test: there
they are given up only where the user has said so (`EndpointOptions.without`). A judge that takes no other temperature
gives the votes that it can. Whatever was changed is told by `notes`, for the record.
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
    """What is said in another way.

    Attributes:
        renamed: `max_completion_tokens` instead of `max_tokens`.
        least_tokens: The limit is raised to it.
        most_odds: `top_logprobs` is lowered to it; 0 = odds are not asked for; None = as the question says.
        dropped: Parameters that are not sent.
        warm: Temperature 1 is sent whatever the protocol says.
        stream: The answer is asked for in pieces.
        plain_stream: `stream_options` is not sent.
    """

    renamed: bool = False
    least_tokens: int = 1
    most_odds: int | None = None
    dropped: frozenset[str] = frozenset()
    warm: bool = False
    stream: bool = False
    plain_stream: bool = False

    def speak(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload as the server takes it."""
        said = {name: value for name, value in payload.items() if not self._omits(name, payload)}
        if "max_tokens" in said:
            limit = max(said.pop("max_tokens"), self.least_tokens)
            said["max_completion_tokens" if self.renamed else "max_tokens"] = limit
        if self.warm and "temperature" in said:
            said["temperature"] = 1
        if self.most_odds is not None and "logprobs" in said:
            said["top_logprobs"] = min(said["top_logprobs"], self.most_odds)
            if not self.most_odds:
                del said["logprobs"], said["top_logprobs"]
        if self.stream:
            said |= {"stream": True} if self.plain_stream else _STREAMED
        return said

    def _omits(self, name: str, payload: Mapping[str, Any]) -> bool:
        """A seed is left out of greedy requests alone, unless the temperature is not the protocol's either."""
        return name in self.dropped or (
            name == "seed" and "greedy seed" in self.dropped and _greedy(self, payload)
        )

    def notes(self) -> list[str]:
        """What differs from the request as the protocol has it."""
        dropped = [f"no {name}" for name in sorted(self.dropped) if name != "greedy seed"]
        said = {
            "max_completion_tokens": self.renamed,
            f"at least {self.least_tokens} tokens": self.least_tokens > 1,
            f"top_logprobs at most {self.most_odds}": bool(self.most_odds),
            "no logprobs": self.most_odds == 0,
            "temperature 1": self.warm and "temperature" not in self.dropped,
            "no seed where it is greedy": "greedy seed" in self.dropped,
            "streamed": self.stream,
        }
        return [note for note, holds in said.items() if holds] + dropped


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def adapt_dialect(
    dialect: Dialect, trouble: RequestFailure, payload: Mapping[str, Any], may_omit: Collection[str] = ()
) -> Dialect | RequestFailure:
    """What a refusal teaches.

    Args:
        dialect: In which the request was sent.
        trouble: The refusal.
        payload: Of the request, before it was put into the dialect.
        may_omit: What of the decoding may be given up.

    Returns:
        Another dialect in which the request is worth sending again, or the trouble: as it is, or, where something
        refused is the protocol's, as `decoding` with the way out.
    """
    said, heard = dialect.speak(payload), trouble.detail.lower()
    if trouble.kind == "server":
        return replace(dialect, stream=True) if not dialect.stream and _STREAM_ONLY.search(heard) else trouble
    if trouble.kind not in ("request", "forbidden") or not heard.strip():
        return trouble
    if "stream_options" in said and "stream_options" in heard:
        return replace(dialect, plain_stream=True)
    if not dialect.stream and _STREAM_ONLY.search(heard):
        return replace(dialect, stream=True)
    if _NO_ROOM.search(heard):
        reason = f"{trouble.reason}; RBA_ENDPOINT_LEAST_TOKENS=N gives it room, and the record says so"
        return replace(trouble, reason=one_line(reason, 400))
    if taught := _limit(dialect, said, heard) or _odds(dialect, said, heard):
        return taught
    if "add_special_tokens" in said and "add_special_tokens" in heard:
        return _without(dialect, "add_special_tokens")
    return _decoding(dialect, trouble, said, heard, may_omit)


def _limit(dialect: Dialect, said: Mapping[str, Any], heard: str) -> Dialect | None:
    """The length limit under another name, or raised to the least that the server takes."""
    if "max_tokens" in said and (
        "max_completion_tokens" in heard
        or (re.search(r"\bmax_tokens\b", heard) and _UNSUPPORTED.search(heard))
    ):
        return replace(dialect, renamed=True)
    limit = said.get("max_tokens", said.get("max_completion_tokens"))
    if limit is None or not re.search(_LIMIT_WORDS, heard):
        return None
    bound = _LOWER_BOUND.search(heard)
    least = (
        int(bound[1][:9]) + bool(re.match(r">\s*\d|(?:greater|more) than\s*`?\d", bound[0])) if bound else 0
    )
    if not bound and re.search(r"below|too (?:small|low|short)|minimum", heard):
        least = USUAL_LEAST_TOKENS
    return replace(dialect, least_tokens=least) if limit < least <= MOST_LEAST_TOKENS else None


def _odds(dialect: Dialect, said: Mapping[str, Any], heard: str) -> Dialect | None:
    """Fewer odds of the first token, or none."""
    if "logprobs" not in said or "logprob" not in heard:
        return None
    bound = _UPPER_BOUND.search(heard)
    most = int(bound[1][:9]) if bound else 0
    return replace(dialect, most_odds=most if 0 < most < said["top_logprobs"] else 0)


def _decoding(
    dialect: Dialect, trouble: RequestFailure, said: Mapping[str, Any], heard: str, may_omit: Collection[str]
) -> Dialect | RequestFailure:
    """Give up what decides how the answer is drawn, where it may be."""
    where = heard.partition(PARAMETER)[2] or heard  # the words of a question may stand in the message
    named = [name for name in OPTIONAL if name in said and re.search(rf"\b{name}\b", where)]
    named.sort(key=lambda name: name == "temperature" and said[name] == 1)  # 1 is what it is told to be
    if not named or not _REFUSED.search(heard):
        return trouble
    name = named[0]
    if name == "seed" and _greedy(dialect, said) and "greedy seed" not in dialect.dropped:
        return _without(dialect, "greedy seed")  # nothing is drawn
    if name not in may_omit:
        reason = f"{trouble.reason}; {WITHOUT}={name} asks without it, and the record says so"
        return RequestFailure("decoding", one_line(reason, 400))
    if name == "temperature" and not dialect.warm and said["temperature"] != 1:
        return replace(dialect, warm=True)
    return _without(dialect, name)


def _greedy(dialect: Dialect, payload: Mapping[str, Any]) -> bool:
    return not payload.get("temperature") and not dialect.warm and "temperature" not in dialect.dropped


def _without(dialect: Dialect, name: str) -> Dialect:
    return replace(dialect, dropped=dialect.dropped | {name})
