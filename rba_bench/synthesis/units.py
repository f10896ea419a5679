"""Usable instructions, as the stages hand them on: one group of an alignment set each."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rba_bench.audio.turns import TURNS, Turn
from rba_bench.files import sha256_bytes
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filters import normalise


@dataclass(frozen=True)
class Unit:
    """A usable instruction with its response, ready to be spoken: one group of the alignment set."""

    group_id: str
    split: str
    kind: str
    prompt: str
    instruction: str
    response: str
    source_lang: str
    target_lang: str
    topic: str
    difficulty: str


@dataclass(frozen=True)
class Dialogue(Unit):
    """A usable dialogue: the fields of a unit are those of its last exchange, `turns` are the exchanges before it."""

    turns: tuple[Turn, ...]


_FIELDS = tuple(field.name for field in fields(Unit))


def read_unit(record: Mapping[str, Any]) -> Unit:
    """The unit of a record with its fields; further keys are passed over."""
    values = {name: record[name] for name in _FIELDS}
    if TURNS not in record:
        return Unit(**values)
    return Dialogue(**values, turns=tuple(Turn(**turn) for turn in record[TURNS]))


def text_id(*texts: str) -> str:
    """Id of a text from its words alone: the same words have one id in every alignment set.

    Of several texts, such as the user's turns of a dialogue, it is the id of them all in their order.
    """
    return sha256_bytes("\n".join(map(normalise, texts)).encode())[:16]


def split_of(text_hash: str, validation_fraction: float) -> str:
    """`train` or `validation`, by the id of a text alone: equal texts never lie on both sides."""
    return "validation" if stable_seed("split", text_hash) / 2**63 < validation_fraction else "train"
