"""The quickstart notebook runs, and shows what was stored when it last ran."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("make_notebook", ROOT / "dev" / "make_notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _module()


def _kinds(outputs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(each["output_type"], *sorted(each.get("data", {}))) for each in outputs]


def test_every_cell_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    """In one process, 17 s, a third of it imports; the last cell loads the checkpoint through the Auto classes."""
    shown = MAKER.run(NOTEBOOK, tmp_path)
    stored = [cell["outputs"] for cell in MAKER.code_cells(NOTEBOOK)]
    assert [_kinds(outputs) for outputs in shown] == [_kinds(outputs) for outputs in stored], (
        "run dev/make_notebook.py"
    )
    assert shown[-1] == stored[-1]  # names and sizes of what was loaded, the same on every machine


def test_stored_outputs_are_complete_small_and_of_no_machine() -> None:
    cells = MAKER.code_cells(NOTEBOOK)
    ending = [cell for cell in cells if "=" not in "".join(cell["source"]).splitlines()[-1].split("(")[0]]
    assert all(cell["outputs"] for cell in ending if "import" not in "".join(cell["source"]).splitlines()[-1])
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = json.dumps([cell["outputs"] for cell in cells])
    assert len(outputs) < 60_000
    assert "<audio controls" in outputs
    assert not re.search(r"/(home|tmp|root|work|Users|var)/", re.sub(r"data:audio/[^\"]+", "", outputs))


def test_a_cell_that_fails_is_told(tmp_path: Path) -> None:
    broken = {"cells": [{"cell_type": "code", "source": ["1 + 1\n", "undefined_name"]}]}
    try:
        MAKER.run(broken, tmp_path)
    except RuntimeError as error:
        assert "NameError: name 'undefined_name' is not defined" in str(error)
    else:
        raise AssertionError("a failing cell went unnoticed")
