"""Precision and recall of the text filters of synthesis on labelled texts, as a Markdown table.

    python benchmarks/text_filters.py [--errors]

`tests/synthesis/labelled_texts.tsv` holds 300 texts with what a careful person would drop, written before the rules.
Even rows were used to tune the rules; odd rows were not, but one author wrote both. `hard_texts.tsv` beside it holds
texts that the same author wrote against the finished rules, in words that they might not know: set 1 was used to mend
them afterwards, set 2 was not. Every filter is measured alone:

- filters of single instructions on all instructions, so that the near misses of one are the others' too,
- refusals and boilerplate on the pairs of instruction and answer,
- near duplicates on pairs of texts, decontamination against an index of all items that the sample names.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rba_bench.synthesis.texts.decontamination import build_benchmark_index
from rba_bench.synthesis.texts.near_duplicates import NearDuplicateOptions, NearDuplicates, sketch_texts
from rba_bench.synthesis.texts.text_rules import TextRules, TextRuleSettings

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "synthesis"
LABELS, HARD = FOLDER / "labelled_texts.tsv", FOLDER / "hard_texts.tsv"
SINGLE = {  # filter -> the switch that leaves it on alone
    "unspeakable": "drop_unspeakable",
    "maths": "drop_maths",
    "no_instruction": "drop_no_instruction",
    "unsafe": "drop_unsafe",
    "language": "check_language",
}
ANSWERS = "refusal"
FILTERS = (*SINGLE, ANSWERS, "near_duplicate", "contaminated")


@dataclass(frozen=True)
class Row:
    """A labelled text; `other` is its answer, the earlier text, or an item of a test set, by `about`."""

    number: int
    about: str
    reasons: frozenset[str]
    language: str
    text: str
    other: str
    note: str
    part: str


@dataclass
class Counts:
    """What a filter dropped of the texts that it saw."""

    right: list[Row] = field(default_factory=list)
    wrong: list[Row] = field(default_factory=list)
    missed: list[Row] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return len(self.right) / max(1, len(self.right) + len(self.wrong))

    @property
    def recall(self) -> float:
        return len(self.right) / max(1, len(self.right) + len(self.missed))

    def take(self, row: Row, wanted: bool, dropped: bool) -> None:
        if wanted or dropped:
            (self.right if wanted and dropped else self.missed if wanted else self.wrong).append(row)


def read_labels(file: Path = LABELS) -> list[Row]:
    with open(file, encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            Row(number, row["about"], frozenset(filter(None, row["reasons"].split(","))), row["language"], row["text"],
                row["other"], row["note"], row.get("set") or ("odd" if number % 2 else "even"))
            for number, row in enumerate(rows, 1)
        ]  # fmt: skip


def rules_with(language: str, **on: object) -> TextRules:
    """Rules of one language of which only those named are in force."""
    off = dict.fromkeys((*SINGLE.values(), "drop_refusals"), False)
    return TextRules(TextRuleSettings.model_validate({**off, **on, "language": language}))


def judges(rows: Sequence[Row], cache: Path) -> dict[str, Callable[[Row], bool]]:
    """For each filter whether it drops a row."""
    languages = sorted({row.language for row in rows})
    single = {
        name: {language: rules_with(language, **{switch: True}) for language in languages}
        for name, switch in SINGLE.items()
    }
    items = [row.other for row in rows if row.about == "contaminated"]
    index = build_benchmark_index([("labelled", items, "")], root=cache)
    contaminated, answers = rules_with("en", benchmark_index=str(index)), rules_with("en", drop_refusals=True)

    def near(row: Row) -> bool:
        known = NearDuplicates(NearDuplicateOptions())
        return bool(known.add(sketch_texts([row.other, row.text], known.options))[1] >= 0)

    return {
        **{
            name: lambda row, rules=rules: rules[row.language].judge_instruction(row.text) is not None
            for name, rules in single.items()
        },
        ANSWERS: lambda row: answers.judge_answer(row.text, row.other) is not None,
        "near_duplicate": near,
        "contaminated": lambda row: contaminated.judge_instruction(row.text) is not None,
    }


def measure(rows: Sequence[Row], cache: Path) -> dict[str, dict[str, Counts]]:
    """Counts by filter and part: `even` and `odd` rows, or sets `1` and `2`; and `all`."""
    drops = judges(rows, cache)
    parts = (*sorted({row.part for row in rows}), "all")
    counts = {name: {part: Counts() for part in parts} for name in FILTERS}
    for row in rows:
        for name in FILTERS:
            own = name in (ANSWERS, "near_duplicate", "contaminated")
            if row.about != name if own else row.about == ANSWERS:
                continue
            wanted = bool(row.reasons & ({ANSWERS, "boilerplate"} if name == ANSWERS else {name}))
            dropped = drops[name](row)
            for part in (row.part, "all"):
                counts[name][part].take(row, wanted, dropped)
    return counts


def table(counts: dict[str, dict[str, Counts]]) -> Iterator[str]:
    """Lines of a Markdown table: precision and recall of each filter by part."""
    parts = [part for part in next(iter(counts.values())) if part != "all"]
    yield "| filter | to drop | " + " | ".join(f"precision, {part} | recall, {part}" for part in parts) + " |"
    yield "|---|---:|" + "---:|---:|" * len(parts)
    for name, by_part in counts.items():
        total = len(by_part["all"].right) + len(by_part["all"].missed)
        cells = [
            f"{value:.2f}" for part in parts for value in (by_part[part].precision, by_part[part].recall)
        ]
        if total:
            yield f"| {name} | {total} | {' | '.join(cells)} |"


def main() -> None:
    """Print the tables, and on demand what was judged wrongly."""
    parser = argparse.ArgumentParser(description="Precision and recall of the text filters.")
    parser.add_argument("--errors", action="store_true", help="list wrong judgements")
    chosen = parser.parse_args()
    for file in (LABELS, HARD):
        with tempfile.TemporaryDirectory() as cache:
            counts = measure(read_labels(file), Path(cache))
        print(f"{file.name}:\n", *table(counts), "", sep="\n")
        for name, parts in counts.items() if chosen.errors else ():
            for what in ("wrong", "missed"):
                for row in getattr(parts["all"], what):
                    print(f"{name}: {what} {row.number}: {row.text!r} {row.other!r} {row.note}")


if __name__ == "__main__":
    main()
