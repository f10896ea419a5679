"""The list of faults that `dev/mutate.py` makes follows the code: each has its text, once, and its tests."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEV = Path(__file__).parents[1] / "dev"


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate", DEV / "mutate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutate", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_fault_has_its_text_once_and_its_tests(mutate: ModuleType) -> None:
    mutations = mutate._mutations()
    assert len(mutations) >= 40
    mutate.check(mutations)


def test_a_fault_whose_text_is_gone_is_named(mutate: ModuleType) -> None:
    gone = mutate.Mutation("loss", "rba_bench/training/data/packing.py", "no such text", "", ())
    with pytest.raises(
        SystemExit, match="mutation 1: rba_bench/training/data/packing.py holds 'no such text' 0 times"
    ):
        mutate.check([gone])


def test_a_section_of_which_nothing_was_tried_stays_as_it_was(mutate: ModuleType, tmp_path: Path) -> None:
    mutations = mutate._mutations()
    number, tried = next((n, one) for n, one in enumerate(mutations, 1) if one.kind == "server")
    bench = mutate.Bench(tmp_path)
    before = mutate.REPORT.read_text(encoding="utf-8")
    assert mutate.report(mutations, bench, before) == before
    found = {"verdict": "passed", "seconds": 1.0, "test": ""}
    (tmp_path / "results" / f"{mutate.key(tried, True)}.json").write_text(json.dumps(found))
    head, trainer, boards = mutate.report(mutations, bench, before).split("\n## ")
    assert trainer.rstrip("\n") == before.split("\n## ")[1].rstrip("\n") and head in before
    n = sum(not one.file.startswith(mutate.TRAINER) for one in mutations)
    assert f"0 of 1 are caught; {n - 1} of {n} were not run" in boards
    assert f"| {number} | server |" in boards and "| **no** | passed |" in boards
