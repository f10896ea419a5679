"""A whole study in miniature: two methods, two seeds, both budgets, three steps each."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import RbaError, UserError
from rba_bench.files import read_json, read_jsonl, write_json
from rba_bench.study import report, scores
from rba_bench.study.curves import CURVES, load_curves
from rba_bench.study.folder import Cell, StudyFolder
from rba_bench.study.plan import plan_study
from rba_bench.study.stages import Study, select_runs
from rba_bench.study.study_recipe import StudyRecipe
from rba_bench.study.time_budget import TimePlan

Build = Callable[..., StudyRecipe]


def study_of(recipe: StudyRecipe, out: Path, **part: Any) -> Study:
    return Study(recipe, out, select_runs(recipe, **part))


def stamps(out: Path) -> dict[str, int]:
    """When every result was written."""
    files = [
        *out.rglob("rba_run.json"),
        *out.rglob("run.json"),
        *out.rglob("*.json.gz"),
        *out.rglob("time.json"),
    ]
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in files}


def test_a_study_stopped_half_way_goes_on_and_a_finished_one_only_reads(
    real_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = real_study()
    plan = plan_study(study_of(recipe, tmp_path))
    assert {line.state for line in plan.lines} == {"to do"} and len(plan.lines) == 8 and plan.unknown == 8

    real, calls = scores.condense_run, []

    def stop(folder: Path, metrics: Any) -> Any:
        calls.append(folder)
        if len(calls) == 3:  # the base and one run are kept, the third is evaluated but not kept
            raise KeyboardInterrupt
        return real(folder, metrics)

    monkeypatch.setattr(scores, "condense_run", stop)
    with pytest.raises(KeyboardInterrupt):
        study_of(recipe, tmp_path).run()
    before = stamps(tmp_path)
    states = [line.state for line in plan_study(study_of(recipe, tmp_path)).lines]
    assert states == ["done", "trained", *["to do"] * 6]

    study_of(recipe, tmp_path).run()
    after = stamps(tmp_path)
    assert before.items() <= after.items()
    assert (
        len([name for name in after if name.endswith("rba_run.json")]) == 6
    )  # equal time of rba-single is equal steps
    plan = plan_study(study_of(recipe, tmp_path))
    assert {line.state for line in plan.lines} == {"done"} and plan.seconds == 0

    study_of(recipe, tmp_path).run()
    assert stamps(tmp_path) == after
    made = report.write_study_report(report.collect_study(recipe, tmp_path), tmp_path / "report")
    assert made.data["comparisons"] == 2
    assert curves_of(made.folder) == {
        (budget, method, seed)
        for budget in ("steps", "time")
        for method in ("sft", "rba-single")
        for seed in (1, 2)
    }
    _check_time(recipe, tmp_path)
    _check_refusal(real_study, tmp_path)
    _check_continuing(real_study, tmp_path, monkeypatch)


def curves_of(folder: Path) -> set[tuple[str, str, int]]:
    """Runs whose curves a report has; a run of equal time that is that of equal steps has the same curve."""
    curves = load_curves(folder / CURVES)
    log = list(read_jsonl(folder.parent / "steps" / "sft-seed2" / "train_log.jsonl"))
    (curve,) = (each for each in curves if (each.part, each.method, each.seed) == ("steps", "sft", 2))
    assert [point["loss"] for point in curve.points] == pytest.approx(
        [record["loss"] for record in log], rel=1e-4
    )
    return {(curve.part, curve.method, curve.seed) for curve in curves}


def _check_time(recipe: StudyRecipe, out: Path) -> None:
    """Steps at equal time follow from the speed at equal steps."""
    folder, kept = StudyFolder(out), read_json(out / "time.json")
    runs = {m: [folder.run_record(Cell("steps", m, s)) for s in (1, 2)] for m in recipe.methods}
    assert kept["seconds"] == pytest.approx(sum(run["wall_time_s"] for run in runs["rba-single"]) / 2)
    for method, found in runs.items():
        rate = sum(run["wall_time_s"] for run in found) / 6
        assert kept["methods"][method]["steps"] == max(1, round(kept["seconds"] / rate))
        trained, steps = folder.run_record(Cell("time", method, 1)), kept["methods"][method]["steps"]
        assert trained is None if steps == recipe.steps else trained is not None and trained["steps"] == steps


def _check_refusal(real_study: Build, out: Path) -> None:
    """More methods, seeds and tasks may come to a study; another study may not."""
    with pytest.raises(UserError, match="belongs to another study run.*steps: 3 -> 4"):
        study_of(real_study(steps=4), out).run()
    grown = real_study(seeds=[1, 2, 3], methods=["sft", "rba-single", "rba-group"])
    states = {line.state for line in plan_study(study_of(grown, out)).lines}
    assert states == {"done", "to do"}
    assert grown.identity() == real_study().identity()


def _check_continuing(real_study: Build, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published report goes on elsewhere without checkpoints: only what it lacks is trained."""
    from rba_bench.training import training_run

    published = done.parent / "published"
    report.publish_study_report(
        report.write_study_report(report.collect_study(real_study(), done), done / "report"), published
    )
    lacking = scores.scores_path("steps", "sft", 2)
    (published / "scores" / lacking).unlink()
    trained: list[tuple[str, int, int]] = []
    train = training_run.train

    def noted(recipe: Any, out: Path) -> Any:
        trained.append((recipe.method, recipe.seed, recipe.steps))
        return train(recipe, out)

    monkeypatch.setattr(training_run, "train", noted)
    elsewhere = done.parent / "elsewhere"
    study = Study(real_study(), elsewhere, select_runs(real_study()), published)
    study.run()
    assert trained == [("sft", 2, 3)]
    first = read_json(published / "study.json")
    assert read_json(elsewhere / "time.json") == first["time"]
    again = report.write_study_report(report.collect_study(real_study(), elsewhere), elsewhere / "report")
    assert again.data["scores"] == first["scores"] and again.data["differences"] == first["differences"]
    assert len(curves_of(again.folder)) == 8  # seven of them from the published report
    with pytest.raises(UserError, match="of another study: `steps` is 3 there and 4 here"):
        Study(real_study(steps=4), done.parent / "third", select_runs(real_study()), published).run()
    with pytest.raises(UserError, match="no study report"):
        Study(real_study(), done.parent / "third", select_runs(real_study()), done.parent / "typo").run()
    assert not (done.parent / "third").exists()  # a mistake leaves no signed folder behind


def test_a_run_that_fails_for_good_is_noted_and_the_others_go_on(
    tiny_study: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rba_bench.training import training_run as training

    asked: list[str] = []

    def train(recipe: Any, out: Path) -> None:
        asked.append(recipe.method)
        if recipe.method == "rba-single":
            raise RbaError("the loss of step 2 is not finite")
        note = {"steps": recipe.steps, "wall_time_s": 2.0, "encoding_s": 0.0, "recipe": recipe.resolved()}
        write_json(out / "rba_run.json", note)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(Study, "_score", lambda *words: None)
    recipe = tiny_study(time={"seconds": 10}, alignment_set="set")
    study_of(recipe, tmp_path, seeds=[1]).run()
    assert asked == ["sft", "rba-single", "rba-single", "sft"]  # tried again before the budget `time`
    assert read_json(tmp_path / "time.json")["methods"] == {"sft": {"steps": 15, "seconds_per_step": 2 / 3}}
    (failure,) = report.collect_study(recipe, tmp_path).failures
    assert failure["method"] == "rba-single" and "step 2" in failure["error"]
    assert "failed" in {line.state for line in plan_study(study_of(recipe, tmp_path)).lines}


def test_equal_time_needs_a_measured_speed(tiny_study: Build, tmp_path: Path) -> None:
    plan = TimePlan(tiny_study(), StudyFolder(tmp_path))
    with pytest.raises(RbaError, match="needs the speed of rba-single"):
        plan.determine_steps("sft", (1, 2))
    assert plan.seconds is None and plan.steps("sft") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "1,x"), "whole numbers"),
        (("--seeds", "2,2"), "name each seed once"),
        (("--methods", "rba-grup"), "did you mean 'rba-group'"),
        (("--set", "stepss=4"), "stepss"),
    ],
)
def test_wrong_words_are_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rba_bench.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(["study", "micro", "--plan", *words])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_plan_is_json_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rba_bench.cli.main import main

    out = tmp_path / "out"
    words = [
        "study",
        "micro",
        "--plan",
        "--json",
        "--out",
        str(out),
        "--budget",
        "time",
        "--methods",
        "rba-group,sft",
    ]
    with pytest.raises(SystemExit) as end:
        main([*words, "--seeds", "4,5", "--set", "time={seconds: 90}"])
    assert not end.value.code
    shown = json.loads(capsys.readouterr().out)
    assert [(line["method"], line["seed"]) for line in shown["lines"]] == [
        ("sft", 4), ("rba-group", 4), ("sft", 5), ("rba-group", 5),
    ]  # fmt: skip
    assert {line["train_s"] for line in shown["lines"]} == {90.0} and not out.exists()


def test_a_piece_that_ends_before_the_first_run_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rba_bench.cli.main import main

    def nothing_yet(self: Study) -> None:
        for _ in range(3000):  # a single long call would be let finish first
            time.sleep(0.01)

    monkeypatch.setattr(Study, "run", nothing_yet)
    with pytest.raises(SystemExit) as end:
        main(["study", "micro", "--out", str(tmp_path / "out"), "--stop-after", "1s"])
    assert not end.value.code
    error = capsys.readouterr().err
    assert "the same command goes on" in error and "there is no report" in error and "error:" not in error
