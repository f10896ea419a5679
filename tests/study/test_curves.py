"""Training curves: what is kept of a log, that it reads back alike, whose it is, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.files import sha256_json, write_json
from rba_bench.leaderboard.tables import csv_text
from rba_bench.study import report
from rba_bench.study.analysis import StudyData
from rba_bench.study.curves import (
    COLUMNS,
    CURVES,
    Curve,
    flat_curves,
    load_curves,
    match_curves,
)
from rba_bench.study.folder import StudyFolder
from rba_bench.study.pictures import CURVE_FIGURES
from rba_bench.study.scores import SystemScores
from rba_bench.study.study_recipe import StudyRecipe
from rba_bench.training.step_curve import FIGURES, VALIDATIONS, thin_log
from tests.study.invented import system


def log(steps: int) -> list[dict[str, float]]:
    """A loss that falls, an accuracy that only even steps have."""
    return [
        {
            "step": step,
            "loss": 10.0 / step,
            "elapsed_s": 2.0 * step,
            **({} if step % 2 else {"accuracy": 1.0}),
        }
        for step in range(1, steps + 1)
    ]


def test_every_figure_that_is_kept_can_be_drawn() -> None:
    assert set(CURVE_FIGURES) == {*FIGURES, *VALIDATIONS}


@pytest.fixture
def systems() -> list[SystemScores]:
    """SFT and RBA-Single with two seeds; the weights of seed 1 of SFT are a real record's."""
    right = np.arange(8) % 2
    return [system(method, seed, right) for method in ("sft", "rba-single") for seed in (1, 2)]


def curves_of(systems: list[SystemScores]) -> tuple[Curve, ...]:
    points = thin_log(log(64), [{"step": 64, "validation_loss": 1 / 3}])
    return tuple(Curve(one.part, one.method, one.seed, one.weights[:12], points) for one in systems)


def test_a_file_reads_back_alike(systems: list[SystemScores], tmp_path: Path) -> None:
    curves = curves_of(systems)
    (tmp_path / CURVES).write_text(csv_text(flat_curves(curves)))
    assert load_curves(tmp_path / CURVES) == curves
    assert csv_text(flat_curves(load_curves(tmp_path / CURVES))) == (tmp_path / CURVES).read_text()
    assert load_curves(tmp_path / "none.csv") == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [",".join(["x", *COLUMNS[1:]]), *lines[1:]],
        lambda lines: [lines[0], lines[1] + ",1", *lines[2:]],
        lambda lines: [lines[0], lines[1].rpartition(",")[0], *lines[2:]],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [*lines, *(lines[-1].replace(",64,", f",{step},") for step in range(65, 99))],
        lambda lines: [lines[0], lines[1].replace("sft,1,", "sft,one,")],
        lambda lines: [lines[0], lines[1].replace(",4.0,", ",nan,")],
        lambda lines: [lines[0], lines[1].replace(",4.0,", ",1e300,")],
        lambda lines: [lines[0], lines[1].replace(",4.0,", ",<b>,")],
    ],
    ids=["column", "long", "short", "falling", "endless", "seed", "nan", "huge", "markup"],
)
def test_a_damaged_file_is_refused(change, systems: list[SystemScores], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / CURVES
    lines = csv_text(flat_curves(curves_of(systems)[:1])).splitlines()
    file.write_text("\n".join(lines) + "\n")
    load_curves(file)
    assert change(lines) != lines
    file.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(UserError, match=r"curves\.csv is damaged .*: remove it"):
        load_curves(file)


def test_a_curve_belongs_to_the_run_that_was_scored(systems: list[SystemScores], tmp_path: Path) -> None:
    known = curves_of(systems)
    other = Curve("steps", "sft", 1, "0" * 12, known[0].points)
    assert match_curves(systems, [other]) == ()
    assert {curve.run for curve in match_curves(systems[1:], known)} == {
        one.weights[:12] for one in systems[1:]
    }

    run = tmp_path / "steps" / "sft-seed1"
    write_json(run / "rba_run.json", {"method": "sft", "steps": 3})
    (run / "train_log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log(3)))
    trained = systems[0].model_copy(update={"weights": sha256_json({"method": "sft", "steps": 3})})
    (curve,) = match_curves([trained, *systems[1:]], (), [StudyFolder(tmp_path)])
    assert (curve.method, curve.seed, len(curve.points)) == ("sft", 1, 3)
    same = trained.model_copy(update={"part": "time"})  # a run at equal time that is that at equal steps
    assert [each.part for each in match_curves([trained, same], (), [StudyFolder(tmp_path)])] == [
        "steps",
        "time",
    ]
    (run / "train_log.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match="sft-seed1 is damaged"):
        match_curves([trained], (), [StudyFolder(tmp_path)])


def test_a_report_keeps_its_curves_and_makes_itself_again(
    systems: list[SystemScores], tmp_path: Path
) -> None:
    recipe = StudyRecipe.model_validate(
        {"methods": ["sft", "rba-single"], "tasks": {"instruct": "valid_rate"}}
    )
    data = StudyData(recipe, tuple(systems), curves=match_curves(systems, curves_of(systems)))
    for one in systems:
        one.save(tmp_path / report.SCORES)
    report.write_study_report(data, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert {"curves.csv", "curves.js"} <= {file.name for file in before}
    report.write_study_report(report.load_study(tmp_path), tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before

    with pytest.raises(UserError, match="--curves: .* holds no finished training of this study"):
        report.with_curves(data, [tmp_path / "elsewhere"])
    (tmp_path / CURVES).unlink()  # a report without curves has no section of them and no stale data
    report.write_study_report(report.load_study(tmp_path), tmp_path)
    assert "Training curves" not in (tmp_path / "index.html").read_text()
    assert not (tmp_path / CURVES).exists()
