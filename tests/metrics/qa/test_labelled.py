"""How often each match agrees with a reader, on question, answer pairs that were labelled before the rules were read.

The pairs marked `held out` were written and labelled before any rule, and no rule was changed for them; the others were
used to find what was missing.
"""

import json
import re
from pathlib import Path

import pytest

from rba_bench.metrics.qa import alias_match, asserted_match, exact_match

LABELLED = [json.loads(line) for line in (Path(__file__).parent / "labelled.jsonl").read_text().splitlines()]
TASKS = Path(__file__).parents[3] / "tasks"


def agreement(match, pairs) -> float:
    return sum(bool(match(pair)) == pair["right"] for pair in pairs) / len(pairs)


def asserted(pair) -> float:
    return asserted_match(pair["answer"], pair["aliases"], pair.get("lang", "en"), pair["question"])


def exact(pair) -> float:
    return exact_match(pair["answer"], pair["aliases"], pair.get("lang", "en"))


def loose(pair) -> float:
    return alias_match(pair["answer"], pair["aliases"], pair.get("lang", "en"))


MATCHES = {"asserted_match": asserted, "exact_match": exact, "alias_match": loose}
SPLITS = {
    "all": LABELLED,
    "held out": [pair for pair in LABELLED if pair["split"] == "held out"],
}


def test_the_pairs_are_many_and_of_both_kinds():
    assert len(LABELLED) > 900 and len(SPLITS["held out"]) > 180
    for pairs in SPLITS.values():
        share = sum(pair["right"] for pair in pairs) / len(pairs)
        assert 0.4 < share < 0.65
    distinct = {(pair["question"], tuple(pair["aliases"]), pair["answer"]) for pair in LABELLED}
    assert len(distinct) == len(LABELLED)


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_asserted_agrees_with_a_reader_on_95_of_100_pairs(split):
    assert agreement(asserted, SPLITS[split]) >= 0.95


def test_the_other_matches_do_not():
    """Otherwise the pairs would be too easy to tell the matches apart."""
    assert agreement(exact, LABELLED) < 0.8 and agreement(loose, LABELLED) < 0.85


@pytest.mark.parametrize("benchmark", ["triviaqa", "webquestions", "llama_questions"])
def test_the_readmes_state_the_agreement_as_it_is(benchmark):
    text = (TASKS / benchmark / "README.md").read_text()
    stated = re.findall(r"^\| `(\w+_match)` \| ([\d.]+) \| ([\d.]+) \|", text, flags=re.MULTILINE)
    assert {name for name, *_ in stated} == MATCHES.keys()
    for name, whole, held_out in stated:
        assert float(whole) == pytest.approx(100 * agreement(MATCHES[name], LABELLED), abs=0.051)
        assert float(held_out) == pytest.approx(100 * agreement(MATCHES[name], SPLITS["held out"]), abs=0.051)
    assert f"{len(LABELLED)} question, answer pairs" in text and f"{len(SPLITS['held out'])} held out" in text
