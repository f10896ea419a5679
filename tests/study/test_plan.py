"""The plan of a study: its hours, what fits, what can be resolved; and stopping when the time is up."""

import _thread
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.files import write_json
from rba_bench.metrics.bootstrap import mean_rows, mean_score
from rba_bench.study.deadline import parse_duration, stopping_after
from rba_bench.study.folder import Cell
from rba_bench.study.plan import plan_study
from rba_bench.study.power import (
    ASSUMED,
    Variances,
    detectable,
    estimate_variances,
    items_needed,
    pilot_variances,
    seeds_needed,
)
from rba_bench.study.seed_estimates import difference_over_seeds, resample_systems, share_over_seeds
from rba_bench.study.stages import Study, select_runs
from rba_bench.study.study_recipe import StudyRecipe
from tests.study.invented import system

Build = Callable[..., StudyRecipe]


def test_hours_come_from_the_probe_and_say_how_many_seeds_fit(tiny_study: Build, tmp_path: Path) -> None:
    recipe = tiny_study(
        seeds=[1, 2, 3], steps=10, hours=0.5, left_out=["nothing"], references=["base", "text"]
    )
    probe = {
        "seconds_per_step": {"sft": 3.0, "rba-single": 7.0},
        "seconds_per_item": {"micro_covost2": 0.5},
        "items": {"micro_covost2": 400},
        "texts": {"micro_covost2": 400},
    }
    write_json(tmp_path / "probe" / "probe.json", probe)
    plan = plan_study(Study(recipe, tmp_path, select_runs(recipe, budgets=["steps"])))
    assert (plan.training_s, plan.evaluation_s) == (3 * (30 + 70), (3 * 2 + 2) * 200)
    assert plan.seconds == plan.training_s + plan.evaluation_s and plan.unknown == 0
    # one seed takes 30 + 70 + 2 x 200 = 500 s of 1,800
    assert (plan.seeds_that_fit, plan.left_out, plan.done_s) == (3, ("nothing",), 0)
    recipe = recipe.model_copy(update={"hours": 1100 / 3600})
    plan = plan_study(Study(recipe, tmp_path, select_runs(recipe)))
    # equal time is not measured yet: sft takes what ten steps of rba-single do, whose own runs are the same as before
    times = {(line.method, line.train_s, line.eval_s) for line in plan.lines if line.budget == "time"}
    assert times == {("sft", 70.0, 200.0), ("rba-single", 0.0, 0.0)}
    assert plan.seeds_that_fit == 1  # of 770 s each


def test_tasks_of_the_first_seed_and_runs_that_are_the_same_save_time(
    tiny_study: Build, tmp_path: Path
) -> None:
    tasks = {"micro_covost2": "bleu", "micro_fleurs": "bleu"}
    recipe = tiny_study(tasks=tasks, first_seed_tasks=["micro_fleurs"], steps=10)
    assert [list(recipe.tasks_of(seed)) for seed in (0, 1, 2)] == [
        list(tasks),
        list(tasks),
        ["micro_covost2"],
    ]
    probe = {
        "seconds_per_step": {},
        "seconds_per_item": dict.fromkeys(tasks, 0.5),
        "items": dict.fromkeys(tasks, 40),
    }
    write_json(tmp_path / "probe" / "probe.json", probe)
    steps = {"sft": {"steps": 30}, "rba-single": {"steps": 10}}
    write_json(tmp_path / "time.json", {"seconds": 50.0, "like": "rba-single", "methods": steps})
    study = Study(recipe, tmp_path, select_runs(recipe))
    lines = {(line.budget, line.method, line.seed): line for line in plan_study(study).lines}
    assert [lines["steps", "sft", seed].eval_s for seed in (1, 2)] == [40.0, 20.0]

    system("rba-single", 1, np.ones(6)).save(study.folder.scores)
    assert study.take_over(Cell("time", "rba-single", 1))  # as many steps as at equal steps
    assert not study.take_over(Cell("time", "sft", 1)) and not study.take_over(Cell("steps", "rba-single", 1))
    lines = {(line.budget, line.method, line.seed): line for line in plan_study(study).lines}
    assert lines["time", "rba-single", 1].state == "done" and lines["time", "rba-single", 2].state == "to do"


def test_nothing_is_estimated_where_nothing_was_measured(tiny_study: Build, tmp_path: Path) -> None:
    plan = plan_study(Study(tiny_study(hours=1), tmp_path, select_runs(tiny_study())))
    assert (plan.unknown, plan.seeds_that_fit, plan.power) == (len(plan.lines), None, ())


def test_a_method_may_have_some_seeds_and_budgets_alone(tiny_study: Build, tmp_path: Path) -> None:
    recipe = tiny_study(
        methods={"sft": None, "rba-single": None, "gkd": {"seeds": [2], "budgets": ["steps"]}}, seeds=[1, 2]
    )
    selection = select_runs(recipe)
    assert [cell.seed for cell in selection.cells("steps") if cell.method == "gkd"] == [2]
    assert {cell.method for cell in selection.cells("time")} == {"sft", "rba-single"}
    assert plan_study(Study(recipe, tmp_path, selection)).left_out == (
        "gkd has 1 of 2 seeds and equal steps alone",
    )
    named = select_runs(recipe, seeds=[7])  # seeds that are asked for replace those of the methods
    assert [(cell.method, cell.seed) for cell in named.cells("steps")][-1] == ("gkd", 7)
    with pytest.raises(ValueError, match="methods.gkd.seeds: 3 is no seed of the study"):
        tiny_study(methods={"sft": None, "rba-single": None, "gkd": {"seeds": [3]}})


def pilot(
    rng: np.random.Generator, shape: tuple[int, int], effect: float, variances: Variances
) -> np.ndarray:
    """Differences [S, n] of invented systems."""
    seeds, items = shape
    return (
        effect
        + rng.normal(0, variances.items**0.5, (1, items))
        + rng.normal(0, variances.seeds**0.5, (seeds, 1))
        + rng.normal(0, variances.rest**0.5, shape)
    )


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    """By the interval of the study itself, on simulated studies."""
    variances, items = Variances(0.1, 0.0002, 0.02), 120
    rng, studies, found = np.random.default_rng(3), 150, 0
    effect = detectable(variances, items, 3)
    for _ in range(studies):
        differences = pilot(rng, (3, items), effect, variances)
        rows = [mean_rows(values) for values in (*differences, *np.zeros((3, items)))]
        systems = resample_systems(rows, mean_score, range(items))
        found += difference_over_seeds(systems[:3], systems[3:]).mark == 1
    assert found / studies == pytest.approx(0.8, abs=0.12)


def test_needed_items_and_seeds_are_the_fewest_that_resolve_the_aim() -> None:
    items = items_needed(ASSUMED, 6)
    assert items is not None and detectable(ASSUMED, items, 6) <= 0.03 < detectable(ASSUMED, items - 1, 6)
    assert items_needed(ASSUMED, 3) is None  # seeds that differ by a point, with two degrees of freedom
    seeds = seeds_needed(ASSUMED, 2000)
    assert seeds is not None and detectable(ASSUMED, 2000, seeds) <= 0.03 < detectable(
        ASSUMED, 2000, seeds - 1
    )
    assert seeds_needed(ASSUMED, 100) is None  # such items alone vary too much


def test_variances_of_a_pilot_are_those_it_was_made_with() -> None:
    rng, true = np.random.default_rng(5), Variances(0.06, 0.002, 0.1)
    many = [estimate_variances(pilot(rng, (3, 300), 0.0, true)) for _ in range(200)]
    for name in ("items", "seeds", "rest"):
        mean = float(np.mean([getattr(each, name) for each in many]))
        assert mean == pytest.approx(getattr(true, name), rel=0.15), name


def test_the_pilot_is_what_the_study_has_evaluated(tiny_study: Build) -> None:
    recipe, rng = tiny_study(methods=["sft", "kd", "gkd"], time={"like": "sft"}), np.random.default_rng(1)
    runs = [
        system(m, s, rng.integers(0, 2, 60))
        for m, seeds in (("sft", (1, 2)), ("kd", (1, 2)), ("gkd", (1,)))
        for s in seeds
    ]
    found = pilot_variances(recipe, runs, "instruct", "valid_rate")
    assert found.pairs == 1 and found.rest > 0  # gkd shares one seed with the baseline: no spread over seeds
    assert pilot_variances(recipe, runs[:1], "instruct", "valid_rate") == ASSUMED


def test_a_share_is_of_the_same_items() -> None:
    """Where a system is right on half of what the other one is right on, item by item, the share hardly varies."""
    whole = np.tile([1.0, 1.0, 0.0, 0.0], 50)
    half = np.tile([1.0, 0.0, 0.0, 0.0], 50)
    ours, ceiling = resample_systems([mean_rows(half), mean_rows(whole)], mean_score, range(200))
    share = share_over_seeds([ours], ceiling)
    assert share.value == 0.5 and 0.35 < share.low < 0.5 < share.high < 0.65
    same = share_over_seeds([ceiling], ceiling)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1.5 h", 5400), ("45", 45)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_what_is_no_duration_is_refused() -> None:
    for text in ("soon", "2 weeks", "0h", ""):
        with pytest.raises(UserError, match="no duration"):
            parse_duration(text)


def test_the_work_ends_when_the_time_is_up_and_other_interrupts_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        started = time.monotonic()
        with stopping_after(0.05):
            while time.monotonic() < started + 20:
                pass
        assert time.monotonic() - started < 10
        with pytest.raises(KeyboardInterrupt), stopping_after(60.0):
            _thread.interrupt_main(signal.SIGTERM)
            while time.monotonic() < started + 20:
                pass
    finally:
        signal.signal(signal.SIGTERM, before)
