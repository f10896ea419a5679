"""Finished runs are gone on from with more steps, their weights are a start for others, and the record tells."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.cli.main import main
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json, write_json
from rba_bench.outputs import claim, release
from rba_bench.training import continuing
from rba_bench.training.callbacks.training_callback import TrainingCallback
from rba_bench.training.model.building import base_folder, checkpoint_sha256
from rba_bench.training.training_run import train
from tests.training.test_training_run import log, same, weights

REFRESHED: dict[str, Any] = {
    "validate_ends": False,
    "method": "dpo",
    "refresh_every": 2,
    "save_every": 1,
    "accumulate": 2,
}


@pytest.fixture(scope="module")
def kept(recipe_for: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of DPO with LoRA and state."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    train(recipe_for(**REFRESHED, lora={"r": 2}, steps=4, keep_state=True), folder)
    return folder


@pytest.fixture(scope="module")
def plain(recipe_for: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of SFT, no state kept."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(recipe_for(method="sft", steps=3, validate_ends=False), folder)
    return folder


class Dies(Exception):
    """As a kill, but in this process."""


def test_a_run_that_kept_its_state_goes_on_as_if_more_steps_had_been_asked_for(
    recipe_for: Callable[..., Any], kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the copying and the run itself are killed; adapters, samples that wait and the reference included."""
    more = recipe_for(**REFRESHED, lora={"r": 2}, steps=7)
    assert [path.name for path in (kept / "trainer").iterdir()] == ["checkpoint-4"]
    whole = train(more, tmp_path / "whole")

    def die(*args: Any, **kwargs: Any) -> None:
        raise Dies

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(continuing, "write_json", die)
        train(more, tmp_path / "more", kept)
    assert (tmp_path / "more" / "trainer" / "checkpoint-4").is_dir()

    class Stops(TrainingCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == 6:
                raise Dies

    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr("rba_bench.training.callbacks.training_callback.TrainingCallback", Stops)
        train(more, tmp_path / "more", kept)
    assert (tmp_path / "more" / "trainer" / "checkpoint-5").is_dir()
    result = train(more, tmp_path / "more", kept)
    same(tmp_path / "whole", tmp_path / "more")
    assert result.run["continued_from"]["state"] == "kept" and result.run["continued_from"]["step"] == 4
    assert result.run["answers_sampled"] == whole.run["answers_sampled"]
    assert result.wall_time_s > read_json(kept / "rba_run.json")["wall_time_s"]
    assert train(more, tmp_path / "more", kept).steps == 7  # finished already
    shutil.copytree(kept, tmp_path / "other")
    write_json(tmp_path / "other" / "rba_config.json", {"stage": "eval", "config": {}})
    with pytest.raises(UserError, match="holds no training run"):
        train(more, tmp_path / "x", tmp_path / "other")


def test_schedule_and_rate_of_a_continued_run_are_those_it_asks_for(
    recipe_for: Callable[..., Any], kept: Path, tmp_path: Path
) -> None:
    options = {"lora": {"r": 2}, "steps": 8, "schedule": "linear", "learning_rate": 1e-2, "warmup_steps": 0}
    result = train(recipe_for(**REFRESHED, **options), tmp_path, kept)
    rates = [record["learning_rate"] for record in log(result.path)]
    assert rates[:4] == [record["learning_rate"] for record in log(kept)]
    assert rates[4:] == pytest.approx([5e-3, 3.75e-3, 2.5e-3, 1.25e-3])


def test_a_run_without_state_goes_on_from_its_weights_with_another_warm_up(
    recipe_for: Callable[..., Any],
    plain: Path,
    tiny_composite_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not (plain / "trainer").exists()
    still = recipe_for(method="sft", steps=5, learning_rate=1e-9, validate_ends=False)
    result = train(still, tmp_path / "still", plain)
    assert "kept no optimiser state: the run continues from its weights" in capsys.readouterr().err
    before, after, base = weights(plain), weights(result.path), weights(tiny_composite_dir)
    assert any(not torch.equal(before[name], base[name]) for name in before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-7, rtol=0)
    records = log(result.path)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5]
    assert records[:3] == log(plain)
    assert [record["learning_rate"] for record in records[3:]] == pytest.approx([1e-9 / 3, 2e-9 / 3])
    assert result.run["continued_from"] == {"sha256": checkpoint_sha256(plain), "step": 3, "state": "fresh"}
    # what comes after the start is new data, not the same groups again
    straight = train(recipe_for(method="sft", steps=5, validate_ends=False), tmp_path / "straight")
    assert records[3]["loss"] == pytest.approx(log(straight.path)[3]["loss"], rel=1e-4)


def test_lineage_names_every_run_on_the_way(
    recipe_for: Callable[..., Any], kept: Path, plain: Path, tmp_path: Path
) -> None:
    """A run with folded adapters as base, gone on from, and that one as base again."""
    one = train(recipe_for(method="sft", steps=1, base=str(kept)), tmp_path / "one")
    assert one.run["base_sha256"] == checkpoint_sha256(kept)
    two = train(recipe_for(method="sft", steps=2, base=str(kept)), tmp_path / "two", tmp_path / "one")
    three = train(recipe_for(method="rba-single", steps=1, base=str(two.path)), tmp_path / "three")
    chain = three.run["lineage"]
    assert [entry["as"] for entry in chain] == ["base", "continued", "base"]
    assert [entry["method"] for entry in chain] == ["sft", "sft", "dpo"]
    assert [entry["sha256"] for entry in chain] == [
        checkpoint_sha256(path) for path in (two.path, one.path, kept)
    ]
    assert train(recipe_for(method="sft", steps=1), tmp_path / "none").run["lineage"] == []


def test_what_is_no_continuation_is_refused(
    recipe_for: Callable[..., Any], kept: Path, plain: Path, mixed_dir: Path, tmp_path: Path
) -> None:
    def refused(run: Path, match: str, **changes: Any) -> None:
        with pytest.raises(UserError, match=match):
            train(recipe_for(**{"method": "sft", "steps": 5, **changes}), tmp_path / "out", run)
        assert not (tmp_path / "out").exists()

    refused(plain, r"has taken 3 steps: --steps must be more than that", steps=3)
    refused(plain, r"groups_per_step: 2 -> 4.*--set base=", groups_per_step=4)
    refused(plain, r"method: \"sft\" -> \"rba-single\"", method="rba-single")
    refused(plain, "alignment_set_sha256", alignment_set=str(mixed_dir))
    refused(plain, "raise budget_s, or add --set budget_s=null", budget_s=1e-3)
    stateless = tmp_path / "stateless"
    shutil.copytree(kept, stateless, ignore=shutil.ignore_patterns("trainer"))
    refused(stateless, "adapters are folded into its weights", **REFRESHED, lora={"r": 2})
    with pytest.raises(MissingPrerequisite, match="no run in"):
        train(recipe_for(), tmp_path / "out", tmp_path / "absent")


def test_more_steps_by_the_same_command_name_the_way(
    recipe_for: Callable[..., Any], plain: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"run of 3 steps, not of 9: continue it with --continue-from .* --steps 9"
    ):
        train(recipe_for(method="sft", steps=9), plain)
    with pytest.raises(UserError, match="not of 2: choose another --out"):
        train(recipe_for(method="sft", steps=2), plain)
    shutil.copytree(plain, tmp_path / "cut", ignore=shutil.ignore_patterns("rba_run.json"))
    with pytest.raises(UserError, match="repeat its own command to finish it, or continue it"):
        train(recipe_for(method="sft", steps=9), tmp_path / "cut")
    with pytest.raises(UserError, match="has not saved a step yet"):
        train(recipe_for(method="sft", steps=9), tmp_path / "new", tmp_path / "cut")
    with pytest.raises(MissingPrerequisite, match="is a run that is not finished"):
        train(recipe_for(method="sft", steps=9, base=str(tmp_path / "cut")), tmp_path / "new")


def test_a_base_that_compose_has_made_is_no_unfinished_run(
    recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    claim(tmp_path, "compose", {})
    release(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    assert base_folder(recipe_for(base=str(tmp_path))) == tmp_path


def test_the_command_takes_the_recipe_of_the_run_it_goes_on_from(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--continue-from", str(plain), "--steps", "4", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0, capsys.readouterr().err
    run = read_json(tmp_path / "out" / "rba_run.json")
    assert (run["method"], run["steps"], run["recipe"]["groups_per_step"]) == ("sft", 4, 2)
    shutil.copytree(plain, tmp_path / "cut", ignore=shutil.ignore_patterns("rba_run.json"))
    (tmp_path / "cut" / "trainer" / "checkpoint-1").mkdir(parents=True)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["train", "--continue-from", str(tmp_path / "cut"), "--steps", "4"])
    assert end.value.code == 2 and "has not saved a step yet" in capsys.readouterr().err
