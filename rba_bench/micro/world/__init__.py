"""The micro world: a small bilingual grammar that writes instructions, answers them and judges answers."""

from rba_bench.micro.world.core import (
    KINDS,
    TOPICS,
    Grade,
    WorldItem,
    grade,
    parse,
    references,
    sample_answer,
    sample_item,
    translation_prompt,
)

__all__ = [
    "KINDS",
    "TOPICS",
    "Grade",
    "WorldItem",
    "grade",
    "parse",
    "references",
    "sample_answer",
    "sample_item",
    "translation_prompt",
]
