"""From lm-eval's `generation_kwargs` to a `Decoding`, a base seed and stop strings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.errors import UserError
from rba_bench.textlm.base import Decoding

DEFAULT_SEED = 1234
PROTOCOLS = ("greedy", "sampled")
KEYS = ("protocol", "do_sample", "temperature", "top_p", "max_gen_toks", "seed", "until")


@dataclass(frozen=True)
class Settings:
    """How to answer.

    Attributes:
        protocol: `greedy`, `sampled` (T = 1, no truncation) or `custom`.
        decoding: What the model is told.
        seed: Base seed; an item's seed is derived from it, its prompt and its audio hash.
        until: Strings at whose first occurrence an answer is cut.
    """

    protocol: str
    decoding: Decoding
    seed: int
    until: tuple[str, ...]


def settings(kwargs: Mapping[str, Any]) -> Settings:
    """Read `generation_kwargs`; unnamed decoding is greedy.

    Raises:
        UserError: an unknown key, or values that contradict the named protocol.
    """
    unknown = sorted(kwargs.keys() - set(KEYS))
    if unknown:
        raise UserError(f"unknown generation setting {', '.join(unknown)}; known: {', '.join(KEYS)}")
    named = str(kwargs.get("protocol", "custom"))
    if named not in (*PROTOCOLS, "custom"):
        raise UserError(f"unknown protocol {named!r}; known: greedy, sampled, custom")
    sampled = bool(kwargs.get("do_sample", named == "sampled"))
    temperature = float(kwargs.get("temperature", 1.0)) if sampled else 0.0
    decoding = Decoding(
        max_new_tokens=int(kwargs.get("max_gen_toks", Decoding().max_new_tokens)),
        temperature=temperature,
        top_p=float(kwargs.get("top_p", 1.0)) if temperature else 1.0,
    )
    protocol = _protocol(decoding)
    if named in PROTOCOLS and protocol != named:
        raise UserError(
            f"protocol {named} contradicts {dict(kwargs)}: name it `custom` or leave the rest out"
        )
    return Settings(protocol, decoding, int(kwargs.get("seed", DEFAULT_SEED)), _strings(kwargs.get("until")))


def _protocol(decoding: Decoding) -> str:
    if decoding.temperature == 0:
        return "greedy"
    return "sampled" if decoding.temperature == 1 and decoding.top_p == 1 else "custom"


def _strings(until: str | Sequence[str] | None) -> tuple[str, ...]:
    if until is None:
        return ()
    return (until,) if isinstance(until, str) else tuple(until)


def cut(text: str, until: Sequence[str]) -> str:
    """`text` up to the first of the stop strings."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text
