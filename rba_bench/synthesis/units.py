"""Usable instructions, as the stages hand them on: one group of an alignment set each."""

from dataclasses import dataclass

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


def text_id(text: str) -> str:
    """Id of a text from its words alone: the same words have one id in every alignment set."""
    return sha256_bytes(normalise(text).encode())[:16]


def split_of(text_hash: str, validation_fraction: float) -> str:
    """`train` or `validation`, by the id of a text alone: equal texts never lie on both sides."""
    return "validation" if stable_seed("split", text_hash) / 2**63 < validation_fraction else "train"
