"""The order of the quickstart's stages and where things land; the stages themselves are tested elsewhere."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rba_bench import quickstart
from rba_bench.assets import ASSETS
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.recipes import load_recipe, recipe_file
from rba_bench.training.training_recipe import TrainingRecipe


@dataclass
class Board:
    files: tuple[Path, ...]
    data: dict[str, Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Stages replaced by notes of their calls."""
    noted: list[tuple[Any, ...]] = []

    def evaluate(request: Any) -> list[Any]:
        noted.append(("eval", request.model, request.out, request.limit))
        name = Path(request.model).name.replace("+", "-").replace(":", "-")
        folder = request.out / name / f"run-{name}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        return [SimpleNamespace(run_id=folder.name)]

    def build_board(records: list[Path], out: Path, baseline_row: str, allow_partial: bool = False) -> Board:
        noted.append(("leaderboard", len(set(records)), out, baseline_row, allow_partial))
        return Board(
            (out / "index.md", out / "a.csv", out / "records.json"), {"sections": [], "files": ["a.csv"]}
        )

    def train(recipe: Any, out: Path) -> None:
        noted.append(("train", recipe.method, Path(recipe.alignment_set), out, recipe.base))

    def make_set(recipe: str, overrides: Any = (), out: Path | None = None) -> None:
        noted.append(("synth", out))

    monkeypatch.setattr(quickstart, "make_set", make_set)
    monkeypatch.setattr("rba_bench.training.training_run.train", train)
    monkeypatch.setattr("rba_bench.evaluation.runner.evaluate", evaluate)
    monkeypatch.setattr("rba_bench.leaderboard.board.build_board", build_board)
    monkeypatch.setattr(
        "rba_bench.leaderboard.site.local_site.write_site",
        lambda records, out: SimpleNamespace(page=out / "index.html"),
    )
    return noted


def test_micro_stages_run_in_order_on_one_data_set(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    result = quickstart.run_quickstart(tmp_path, "micro")
    assert [call[0] for call in calls] == ["synth", *["train"] * 3, *["eval"] * 7, "leaderboard"]
    assert {call[2] for call in calls if call[0] == "train"} == {tmp_path / "alignment-set"}
    assert [call[1] for call in calls if call[0] == "train"] == ["sft", "rba-single", "rba-group"]
    evaluated = [call[1] for call in calls if call[0] == "eval"]
    checkpoints = [str(tmp_path / "checkpoints" / method) for method in quickstart.METHODS]
    assert evaluated == ["base", *checkpoints, "text", "cascade", "constant"]
    assert calls[-1] == ("leaderboard", 7, tmp_path / "leaderboard", "sft", False)
    assert len(result.seconds) == 12
    summary = result.summary()
    assert dict(result.paths())["checkpoint rba-group"] == tmp_path / "checkpoints" / "rba-group"
    assert summary["tables"] == [tmp_path / "leaderboard" / "index.md", tmp_path / "leaderboard" / "a.csv"]
    assert summary["leaderboard"] == {"sections": []} and len(summary["records"]) == 7


def test_small_evaluates_before_and_after_training_and_ends_with_a_page(
    calls: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    result = quickstart.run_small(tmp_path, "models/mine")
    assert [call[0] for call in calls] == [*["eval"] * 5, "synth", "train", "eval", "leaderboard"]
    evaluated = [call[1] for call in calls if call[0] == "eval"]
    aligned = tmp_path / "checkpoints" / "rba-single"
    assert evaluated == [
        "text:asset:smollm2-135m-instruct",
        "cascade:asset:whisper-tiny.en+asset:smollm2-135m-instruct",
        "models/mine",
        "asset:small-aligned-sft",
        "asset:small-aligned-rba-single",
        str(aligned),
    ]
    assert {call[3] for call in calls if call[0] == "eval"} == {quickstart.ITEMS}
    assert ("train", "rba-single", tmp_path / "alignment-set", aligned, "models/mine") in calls
    assert calls[-1] == ("leaderboard", 6, tmp_path / "leaderboard", "mine", True)
    assert (
        result.summary()["page"] == tmp_path / "page" / "index.html"
        and result.page in dict(result.paths()).values()
    )


def test_without_a_source_of_weights_it_says_so_and_takes_the_micro_track(
    calls: list[tuple[Any, ...]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rba_bench.cli.main import main

    def unreachable() -> None:
        raise MissingPrerequisite("asset x cannot be fetched (the package index cannot be reached)")

    monkeypatch.setattr(quickstart, "fetch_weights", unreachable)
    with pytest.raises(SystemExit) as end:
        main(["quickstart", "--json", "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert end.value.code == 0 and json.loads(out)["track"] == "micro"
    assert json.loads(out)["checkpoints"]["sft"] == str(tmp_path / "checkpoints" / "sft")
    assert "asset x cannot be fetched" in err and "[1/12] synth" in err and "[12/12] leaderboard" in err
    with pytest.raises(SystemExit) as end:  # who asks for small gets no other
        main(["quickstart", "--track", "small", "--out", str(tmp_path)])
    assert end.value.code == 3
    with pytest.raises(UserError, match="did you mean 'small'"):
        quickstart.run_quickstart(tmp_path, "smal")


def test_the_weights_that_small_names_are_assets_and_its_overrides_fit_its_recipes() -> None:
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

    assert {quickstart.LLM, quickstart.ENCODER, quickstart.VOICE, quickstart.BASE} <= ASSETS.keys()
    made = load_recipe(SynthesisRecipe, recipe_file("small/synth"), quickstart.SET)
    trained = load_recipe(TrainingRecipe, recipe_file("small/rba-single"), quickstart.RUN)
    assert trained.max_answer_tokens == made.response_max_new_tokens  # no answer of the set is left out
    assert trained.voices_per_group == made.voices_per_instruction
    assert trained.steps * trained.groups_per_step >= made.n_instructions  # each instruction is seen


def test_methods_are_compared_on_equal_terms() -> None:
    recipes = [load_recipe(TrainingRecipe, recipe_file(m)) for m in quickstart.METHODS]
    assert [(recipe.method, recipe.track) for recipe in recipes] == [(m, "micro") for m in quickstart.METHODS]
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
