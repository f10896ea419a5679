"""What a run leaves to be seen: samples, held-out items before and after, a report; whole after any interruption."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.training.callbacks import run_files as watch
from rba_bench.training.callbacks import samples
from rba_bench.training.callbacks.training_callback import TrainingCallback
from rba_bench.training.data.pairs import AnswerTokens, Outcome, PreferencePair, Sample
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train

SEEN = {"validate_ends": True, "report": True}


def records(path: Path) -> list[Any]:
    return list(read_jsonl(path))


class Killed(Exception):
    """Stands for what leaves no time to save."""


class Ending(TrainingCallback):
    """Ends the run behind a step, by a kill or by Ctrl-C."""

    at, by = 0, "kill"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at and self.by == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == self.at and self.by == "kill":
            raise Killed


def test_samples_are_the_same_whether_or_not_the_run_was_killed(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # drawn three steps ahead, saved every two: some of what is shown travels in the checkpoint
    recipe = recipe_for(method="rba-group", steps=5, samples_every=1, refresh_every=3, save_every=2, **SEEN)
    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("rba_bench.training.callbacks.training_callback.TrainingCallback", Ending)
        for step in (1, 3):  # before the first checkpoint, and behind one
            patch.setattr(Ending, "at", step)
            with pytest.raises(Killed):
                train(recipe, tmp_path / "killed")
        assert [one["step"] for one in records(tmp_path / "killed" / watch.SAMPLES)][-1] == 3
    train(recipe, tmp_path / "killed")
    whole, killed = ((tmp_path / name) for name in ("whole", "killed"))
    for name in (watch.SAMPLES, watch.VALIDATION):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    groups = records(whole / watch.SAMPLES)
    assert [one["step"] for one in groups] == [step for step in range(1, 6) for _ in range(2)]
    assert all(len(one["samples"]) == 2 and one["samples"][0]["reward"] is not None for one in groups)
    for one in groups:
        for pair in one["pairs"]:
            best, worst = (one["samples"][pair[side]["sample"]] for side in ("chosen", "rejected"))
            assert best["reward"] - worst["reward"] == pytest.approx(pair["gap"]) and pair["gap"] > 0


def test_start_and_end_are_compared_whatever_eval_every_says(
    recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    for every, steps in ((0, [0, 3]), (2, [0, 2, 3]), (3, [0, 3])):
        out = tmp_path / str(every)
        train(recipe_for(method="sft", steps=3, eval_every=every, samples_every=0, **SEEN), out)
        found = records(out / watch.VALIDATION)
        figures = [one for one in found if "validation_loss" in one]
        answers = [one for one in found if "answers" in one]
        assert [one["step"] for one in figures] == steps and len(figures) + len(answers) == len(found)
        assert [one["step"] for one in answers] == [0, 3]
        before, after = (one["answers"] for one in answers)
        assert [one["clip"] for one in before] == [one["clip"] for one in after]
        # the only held-out item: what the answers say of it is what the validation says
        for figure, answer in ((figures[0], before), (figures[-1], after)):
            assert answer[0]["teacher_nats"] == pytest.approx(figure["validation_loss"], abs=1e-3)
        log = records(out / watch.TRAIN_LOG)
        assert [one["step"] for one in log] == [1, 2, 3] and "validation_loss" in log[-1]
        assert records(out / watch.SAMPLES) == []
        run = read_json(out / "rba_run.json")["validations"]
        assert run["history"][0][0] == 0 and run["best_step"] > 0


def test_looking_on_changes_no_weight(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    seen = train(recipe_for(steps=2, samples_every=1, **SEEN), tmp_path / "seen").path
    unseen = train(recipe_for(steps=2, samples_every=0), tmp_path / "unseen").path
    assert (seen / "model.safetensors").read_bytes() == (unseen / "model.safetensors").read_bytes()
    assert (seen / watch.REPORT).is_file() and not (unseen / watch.REPORT).exists()
    assert records(unseen / watch.VALIDATION) == []
    assert (
        train(recipe_for(steps=2), seen).steps == 2
    )  # the keys decide nothing, so the folder is the same run's
    (seen / watch.REPORT).unlink()
    train(recipe_for(steps=2, **SEEN), seen)  # killed between its record and its report
    assert (seen / watch.REPORT).is_file()


def test_a_set_without_held_out_items_is_a_line_and_no_error(
    recipe_for: Callable[..., Any], alignment_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only_qa = {"path": str(alignment_dir), "kinds": ["qa"]}
    train(recipe_for(method="sft", steps=1, alignment_set=only_qa, validate_ends=True), tmp_path / "out")
    assert capsys.readouterr().err.count("no validation rows") == 1
    assert records(tmp_path / "out" / watch.VALIDATION) == []
    with pytest.raises(UserError, match="no validation rows"):
        train(recipe_for(method="sft", steps=1, alignment_set=only_qa, eval_every=1), tmp_path / "asked")


def test_ctrl_c_leaves_a_report_of_what_there_is(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rba_bench.training.callbacks.training_callback.TrainingCallback", Ending)
    monkeypatch.setattr(Ending, "at", 2)
    monkeypatch.setattr(Ending, "by", "ctrl-c")
    with pytest.raises(KeyboardInterrupt, match="stopped at step 2 of 4"):
        train(recipe_for(steps=4, **SEEN), tmp_path)
    html = (tmp_path / watch.REPORT).read_text(encoding="utf-8")
    assert "not finished" in html and "step 2 of 4" in html and "has not come to its end" in html
    assert "data:audio/" in html


def test_groups_are_shown_at_the_start_every_n_steps_and_at_the_end() -> None:
    shown = samples.SampleSelection(TrainingRecipe(steps=25, samples_every=10, groups_per_step=8))
    positions = [position for position in range(25 * 8) if shown(position)]
    assert sorted({shown.step(position) for position in positions}) == [1, 10, 20, 25]
    assert len(positions) == 4 * samples.GROUPS
    long = samples.SampleSelection(TrainingRecipe(steps=100_000, samples_every=10, groups_per_step=8))
    assert sum(map(long, range(0, 100_000 * 8, 8))) <= samples.STEPS + 2
    assert not any(map(samples.SampleSelection(TrainingRecipe(samples_every=0)), range(100)))
    assert not any(map(samples.SampleSelection(TrainingRecipe(), writes=False), range(100)))


def test_a_record_says_where_each_side_of_a_pair_comes_from(rows: list[AlignmentRow]) -> None:
    mine = rows[:2]
    given = [Sample(mine[0], (1, 2), True, "one"), Sample(mine[1], (1, 2), False, "two" * 5_000)]
    pairs = [
        PreferencePair(
            AnswerTokens(mine[1], (9,)), AnswerTokens(mine[1], (1, 2))
        ),  # the teacher's answer, and the second sample
        PreferencePair(AnswerTokens(mine[1], (1, 2, 3)), AnswerTokens(mine[0], (1, 2))),
    ]
    made = samples.group_record(
        mine, given, [0.5, float("nan")], Outcome(2, pairs), lambda row, tokens: f"said {list(tokens)}"
    )
    assert [pair["chosen"]["sample"] for pair in made["pairs"]] == [None, None]
    assert [pair["rejected"]["sample"] for pair in made["pairs"]] == [1, 0]
    assert made["pairs"][0]["chosen"]["text"] == "said [9]"
    assert [one["reward"] for one in made["samples"]] == [0.5, None]
    assert [one["cut"] for one in made["samples"]] == [False, True]
    assert len(made["samples"][1]["text"]) == samples.CHARACTERS
    many = samples.group_record(mine, given * 20, None, Outcome(0), lambda row, tokens: "")
    assert len(many["samples"]) == samples.SAMPLES and many["samples_left_out"] == 40 - samples.SAMPLES
    assert samples.bounded("a\udc80") == "a?"


def test_a_log_of_a_run_that_starts_anew_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = watch.StepLog(path, 0)
    first.write({"step": 0}, {"step": 1}, {"step": 2})
    first.close()
    watch.StepLog(path, 1).close()
    assert records(path) == [{"step": 0}, {"step": 1}]
    watch.StepLog(path, 0).close()
    assert records(path) == []


def test_the_end_of_a_run_outside_the_schedule_is_not_compared_with_its_best() -> None:
    from rba_bench.training.validation import Validator

    nobody: Any = SimpleNamespace()
    made = Validator(TrainingRecipe(eval_every=10), {}, nobody, None, Path("nowhere"))
    made.history = [(0, 1.0), (10, 3.0), (20, 2.0), (25, 1.5)]
    assert made.best == (20, 2.0)
    made.history = [(0, 1.0), (5, 3.0)]
    assert made.best == (5, 3.0)
