"""The probe of a study measures what is not measured yet, on the first items of each task."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rba_bench.study import probe
from rba_bench.study.probe import probe_study, read_probe
from rba_bench.study.stages import Study, select_runs
from rba_bench.study.study_recipe import StudyRecipe

CONSISTENCY = (
    "micro_speaker_consistency"  # an answer alone has no score: there must be others to the same words
)


def test_methods_and_tasks_are_measured_once(
    real_study: Callable[..., StudyRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "ITEMS", 12)
    recipe = real_study(tasks={CONSISTENCY: "answer_agreement"}, claims=[])
    study = Study(recipe, tmp_path, select_runs(recipe, methods=["sft"]))
    measured = probe_study(study)
    assert set(measured.seconds_per_step) == {"sft"} and 0 < measured.seconds_per_step["sft"] < 60
    assert 0 < measured.seconds_per_item[CONSISTENCY] < 10
    assert measured.items[CONSISTENCY] > 12 and measured.texts[CONSISTENCY] < measured.items[CONSISTENCY]
    monkeypatch.setattr("rba_bench.training.training_run.train", None)
    monkeypatch.setattr("rba_bench.evaluation.runner.evaluate", None)
    assert probe_study(study) == measured == read_probe(study.folder)
