"""The rules against 300 labelled texts: floors that the values of today exceed."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lingua")
pytest.importorskip("datasketch")

from rba_bench.synthesis.texts.text_rules import REASONS

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "text_filters.py"
FLOORS = {  # precision and recall of all rows
    "unspeakable": (0.97, 0.9),
    "maths": (0.97, 0.5),
    "no_instruction": (0.95, 0.9),
    "unsafe": (0.95, 0.92),
    "language": (0.9, 0.95),
    "refusal": (0.97, 0.97),
    "near_duplicate": (0.85, 0.55),
    "contaminated": (0.85, 0.75),
}


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("text_filters", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counts(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return script.measure(script.read_labels(), tmp_path_factory.mktemp("index"))


@pytest.mark.parametrize("name", FLOORS)
def test_precision_and_recall(counts: Any, name: str) -> None:
    found = counts[name]["all"]
    precision, recall = FLOORS[name]
    assert found.precision >= precision, [row.text for row in found.wrong]
    assert found.recall >= recall, [row.text for row in found.missed]


def test_the_sample_is_labelled_by_known_reasons_and_covers_every_filter(script: Any) -> None:
    rows = script.read_labels()
    assert len(rows) == 300 and set(FLOORS) == set(script.FILTERS)
    for row in rows:
        assert row.reasons <= set(REASONS) and row.text == row.text.strip() != ""
        assert bool(row.other) == (row.about in ("refusal", "near_duplicate", "contaminated"))
    by_filter = Counter((row.about, bool(row.reasons)) for row in rows)
    assert all(by_filter[name, drop] >= 7 for name in FLOORS for drop in (True, False))
    for part in (0, 1):
        half = [row for row in rows if row.number % 2 == part]
        assert {row.about for row in half if row.reasons} == {row.about for row in half if not row.reasons}


def test_hard_texts_that_the_rules_were_mended_by(script: Any, tmp_path: Path) -> None:
    rows = [row for row in script.read_labels(script.HARD) if row.about in FLOORS]
    counts = script.measure(rows, tmp_path)
    assert Counter(row.part for row in rows).keys() == {"1", "2"}
    for name in ("unsafe", "no_instruction", "refusal"):
        assert counts[name]["1"].recall >= 0.85 and counts[name]["all"].precision >= 0.9
