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


SMALLER = {
    "limit=30": "limit=4",
    "steps=6": "steps=1",
    '"n_instructions": 16, "round_size": 32': '"n_instructions": 6',
}


def _kinds(outputs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(each["output_type"], *sorted(each.get("data", {}))) for each in outputs]


def test_every_cell_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    """In one process, with fewer items and steps; the last cell loads the checkpoint through the Auto classes."""
    text = json.dumps([cell["source"] for cell in NOTEBOOK["cells"]])
    for larger, smaller in SMALLER.items():
        larger, smaller = json.dumps(larger)[1:-1], json.dumps(smaller)[1:-1]
        assert larger in text
        text = text.replace(larger, smaller)
    cells = [
        {**cell, "source": source} for cell, source in zip(NOTEBOOK["cells"], json.loads(text), strict=True)
    ]
    shown = MAKER.run({**NOTEBOOK, "cells": cells}, tmp_path)
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
