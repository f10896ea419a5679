"""Results as tables and JSON, and a stdout that nobody else writes on."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel

from rba_bench.cli import output


class Model(BaseModel):
    path: Path


@dataclass
class Record:
    model: Model
    score: float


def test_json_of_models_dataclasses_paths_and_sets() -> None:
    value = {"records": [Record(Model(path=Path("a/b")), 0.5)], "seen": {"y", "x"}, 3: (Path("c"), None)}
    assert output.jsonable(value) == {
        "records": [{"model": {"path": "a/b"}, "score": 0.5}],
        "seen": ["x", "y"],
        "3": ["c", None],
    }


def test_json_has_no_nan_and_keeps_umlauts(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json({"bleu": float("nan"), "text": "schläft", "low": float("-inf")})
    text = capsys.readouterr().out
    assert json.loads(text) == {"bleu": None, "text": "schläft", "low": None}
    assert "schläft" in text


def test_table_aligns_numbers_to_the_right_and_wraps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(("model", "n"), [("[base]", 5), ("x" * 200, 1200)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("[base]") and lines[2].endswith("     5")
    assert lines[3] == "x" * 200 + "  1200"


def test_empty_table_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(("model", "n"), [])
    assert capsys.readouterr().out.splitlines() == ["model  n", "-----  -"]
