"""The texts of the track `small`: questions, instructions and sentences, written for it.

    small_qa           test, dev, train   short questions about well-known facts, in three levels
    small_instruct     test, dev, train   instructions with constraints that a program checks; half are open-ended
    small_asr          test, dev          everyday sentences to be transcribed
    small_consistency  test               some of the questions of small_qa, to be spoken in VOICES voices

The splits share no text and no fact: every question has a key such as `capital:France`, and a question that asks the
same fact from the other side would have the same key. Test questions were chosen so that SmolLM2-135M-Instruct (Q4_1,
greedy, at most 128 tokens) answers 0.85, 0.65 and 0.45 of the easy, medium and hard ones, in llama.cpp and in
transformers alike. Its score is thus a part of how the set was made: a choice for other scores to be read beside, not
a finding. The questions of dev and train are a little harder for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_jsonl

VERSION = 1  # raise it whenever a text changes
SPLITS: dict[str, tuple[str, ...]] = {
    "small_qa": ("test", "dev", "train"),
    "small_instruct": ("test", "dev", "train"),
    "small_asr": ("test", "dev"),
    "small_consistency": ("test",),
}
LEVELS = ("easy", "medium", "hard")
VOICES = 6  # of each item of small_consistency
CONSISTENCY_ITEMS = 72
DATA = Path(__file__).parent / "data"
# A small LLM answers a sentence rather than repeat it; of ten wordings this one is followed best (dev/LOG.md)
REPEAT = "Repeat the following sentence word for word:"


@dataclass(frozen=True)
class Check:
    """One constraint: a key of `rba_bench.metrics.ifeval.CHECKS` and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Item:
    """One text of the track.

    Attributes:
        key: Name of the item, such as `qa-test-017`; the same in `small_consistency`.
        kind: `qa`, `instruct` or `asr`.
        split: `test`, `dev` or `train`.
        text: What is said aloud.
        references: qa: the answer and its aliases; asr: the sentence itself; instruct: none.
        level: qa: `easy`, `medium` or `hard`.
        subject: qa: such as `geography`.
        fact: qa: key of the fact that is asked for.
        checks: instruct: the constraints.
        about: instruct: beginnings of words of which every fitting answer has one; none where form or content of an
            answer is checked strictly, or is free.
        open_ended: instruct: whether answers differ in more than form, so that a judge can compare them.
    """

    key: str
    kind: str
    split: str
    text: str
    references: tuple[str, ...] = ()
    level: str = ""
    subject: str = ""
    fact: str = ""
    checks: tuple[Check, ...] = ()
    about: tuple[str, ...] = ()
    open_ended: bool = False

    @property
    def constraints(self) -> dict[str, Any]:
        """What `rba_bench.metrics.ifeval.if_rate` reads of an instruction."""
        checks = [{"name": check.name, "arguments": dict(check.arguments)} for check in self.checks]
        return {"instructions": checks, "instruction": self.text, "about": list(self.about)}


def load_items(name: str, split: str = "test") -> list[Item]:
    """The items of a set, always in the same order.

    Args:
        name: Key of SPLITS.
        split: One of its splits.

    Raises:
        UserError: unknown set or split.
    """
    if name not in SPLITS:
        raise UserError(f"no small set {name!r}; there are {', '.join(SPLITS)}")
    if split not in SPLITS[name]:
        raise UserError(f"{name} has no split {split!r}; there are {', '.join(SPLITS[name])}")
    if name == "small_consistency":
        return _spread(load_items("small_qa"), CONSISTENCY_ITEMS)
    kind = name.removeprefix("small_")
    rows = read_jsonl(DATA / f"{kind}.jsonl")
    return [_make_item(kind, row) for row in rows if row["split"] == split]


def _spread(items: list[Item], count: int) -> list[Item]:
    """`count` of the items at equal distances, so that all levels and subjects are among them."""
    return [items[number * len(items) // count] for number in range(count)]


def _make_item(kind: str, row: Mapping[str, Any]) -> Item:
    key, split = row["id"], row["split"]
    if kind == "qa":
        return Item(
            key,
            kind,
            split,
            text=row["question"],
            references=(row["answer"], *row["aliases"]),
            level=row["level"],
            subject=row["subject"],
            fact=row["fact"],
        )
    if kind == "instruct":
        checks = tuple(Check(check["name"], check["arguments"]) for check in row["checks"])
        about = tuple(row["about"])
        return Item(
            key, kind, split, text=row["instruction"], checks=checks, about=about, open_ended=row["open"]
        )
    return Item(key, kind, split, text=row["sentence"], references=(row["sentence"],))
