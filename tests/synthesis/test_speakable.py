"""What cannot be said aloud, measured on labelled sentences; languages, hostile lengths."""

import csv
import time
from pathlib import Path

import pytest

from rba_bench.synthesis.texts.speakable import UNSPEAKABLE_KINDS, unspeakable

# Label, what it is, set, sentence. Set 2 was written when the rules were fixed: on it they had precision 1.0 and recall
# 0.975 (two of 80 missed: a regular expression, a link without `https`). Set 3 was written after that, to find faults:
# precision 0.972, recall 0.875 (five of 40 missed). What was missed has rules since, but for the code without a sign of
# code in set 3; and there "a = an" is taken for a formula.
with open(Path(__file__).parent / "speakable.tsv", encoding="utf-8", newline="") as handle:
    ROWS = list(csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("part", ["1", "2", "3"])
def test_precision_and_recall(part: str) -> None:
    told = [
        (label == "drop", unspeakable(text) is not None) for label, _, number, text in ROWS if number == part
    ]
    right = sum(wanted and dropped for wanted, dropped in told)
    assert len(told) >= (85 if part == "3" else 150)
    assert 0.4 < sum(wanted for wanted, _ in told) / len(told) < 0.6
    assert right / sum(dropped for _, dropped in told) >= 0.97  # precision
    assert right / sum(wanted for wanted, _ in told) >= 0.97  # recall


def test_what_is_dropped_is_named_by_its_kind() -> None:
    told = [(what, unspeakable(text)) for label, what, _, text in ROWS if label == "drop"]
    assert {what for what, _ in told} == set(UNSPEAKABLE_KINDS)
    assert sum(what == kind for what, kind in told) / len(told) > 0.8  # some are two things at once


@pytest.mark.parametrize(
    "text",
    ["a < b and", "<a " * 400, "((((" * 500, "a_" * 500, "x." * 500, "/a" * 800, "1-" * 600, "| a " * 300, "{a" * 500,
     "a " * 2000, "\\" * 900, "[1," * 400, "$a" * 700, "-" * 1000],
    ids=lambda text: text[:4],
)  # fmt: skip
def test_a_hostile_text_is_judged_in_no_time(text: str) -> None:
    start = time.process_time()
    unspeakable(text)
    assert time.process_time() - start < 0.5
