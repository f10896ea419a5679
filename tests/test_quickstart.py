"""The order of the quickstart's stages and where things land; the stages themselves are tested elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rba_bench import quickstart


@dataclass
class Board:
    files: tuple[Path, ...]
    data: dict[str, Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stages replaced by notes of their calls."""
    noted: list[tuple[Any, ...]] = []

    def evaluate(request: Any) -> list[Any]:
        noted.append(("eval", request.model, request.out))
        folder = request.out / Path(request.model).name / f"run-{Path(request.model).name}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        return [SimpleNamespace(run_id=folder.name)]

    def build_board(records: list[Path], out: Path, baseline_row: str) -> Board:
        noted.append(("leaderboard", len(set(records)), out))
        return Board(
            (out / "index.md", out / "a.csv", out / "records.json"), {"sections": [], "files": ["a.csv"]}
        )

    def train(recipe: Any, out: Path) -> None:
        noted.append(("train", recipe.method, Path(recipe.alignment_set), out))

    monkeypatch.setattr(quickstart, "make_set", lambda recipe, out: noted.append(("synth", out)))
    monkeypatch.setattr("rba_bench.training.training_run.train", train)
    monkeypatch.setattr("rba_bench.evaluation.runner.evaluate", evaluate)
    monkeypatch.setattr("rba_bench.leaderboard.board.build_board", build_board)
    return noted


def test_stages_run_in_order_on_one_data_set(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = quickstart.run_quickstart(tmp_path)
    assert [call[0] for call in calls] == ["synth", *["train"] * 3, *["eval"] * 7, "leaderboard"]
    assert {call[2] for call in calls if call[0] == "train"} == {tmp_path / "alignment-set"}
    assert [call[1] for call in calls if call[0] == "train"] == ["sft", "rba-single", "rba-group"]
    evaluated = [call[1] for call in calls if call[0] == "eval"]
    checkpoints = [str(tmp_path / "checkpoints" / method) for method in quickstart.METHODS]
    assert evaluated == ["base", *checkpoints, "text", "cascade", "constant"]
    assert calls[-1] == ("leaderboard", 7, tmp_path / "leaderboard")
    assert len(result.seconds) == 12


def test_result_names_every_artefact(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = quickstart.run_quickstart(tmp_path)
    shown = dict(result.paths())
    assert shown["checkpoint rba-group"] == tmp_path / "checkpoints" / "rba-group"
    assert shown["run records"] == tmp_path / "eval"
    summary = result.summary()
    assert summary["tables"] == [tmp_path / "leaderboard" / "index.md", tmp_path / "leaderboard" / "a.csv"]
    assert summary["leaderboard"] == {"sections": []}
    assert len(summary["records"]) == 7


def test_json_is_one_object(
    calls: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from rba_bench.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["quickstart", "--json", "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert end.value.code == 0
    assert json.loads(out)["checkpoints"]["sft"] == str(tmp_path / "checkpoints" / "sft")
    assert "[1/12] synth" in err and "[12/12] leaderboard" in err


@pytest.mark.parametrize("method", quickstart.METHODS)
def test_every_method_has_its_shipped_recipe(method: str) -> None:
    from rba_bench.recipes import load_recipe, recipe_file
    from rba_bench.training.training_recipe import TrainingRecipe

    recipe = load_recipe(TrainingRecipe, recipe_file(method))
    assert (recipe.method, recipe.track) == (method, "micro")


def test_methods_are_compared_on_equal_terms() -> None:
    from rba_bench.recipes import load_recipe, recipe_file
    from rba_bench.training.training_recipe import TrainingRecipe

    recipes = [load_recipe(TrainingRecipe, recipe_file(m)) for m in quickstart.METHODS]
    for key in (
        "base",
        "seed",
        "steps",
        "groups_per_step",
        "voices_per_group",
        "learning_rate",
        "train_parts",
    ):
        assert len({str(getattr(recipe, key)) for recipe in recipes}) == 1, key
