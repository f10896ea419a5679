"""However an optimiser step is split into batches and processes, loss, figures and gradient are the same."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.errors import RbaError
from rba_bench.files import write_json
from rba_bench.training.options.presets import METHODS
from rba_bench.training.training_recipe import TrainingRecipe
from tests.programs import Program
from tests.textlm.misbehaving_server import free_port
from tests.training import splits

TOLERANCE = 1e-5
LONG = {"max_new_tokens": 60, "temperature": 1.3}  # what never ends is never preferred
CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "rba-group": {"method": "rba-group", **LONG},
    "odpo": {"method": "odpo", **LONG},
    "kd-top-k": {"method": "kd", "teacher": {"top_k": 5, "divergence": "jsd"}},
    "gkd-half": {"method": "gkd", "student_fraction": 0.5, "sft_weight": 0.1, "samples_per_clip": 2},
    "diva-all": {"method": "diva", "hidden_positions": "all"},
    "rba-group-clips": {"method": "rba-group", "group_by": "clip", "samples_per_clip": 3, **LONG},
    "rba-single-sums": {"method": "rba-single", "preference_reduction": "sequence"},
    "rba-single-mask": {"method": "rba-single", **LONG, "truncated": "mask"},
    "sft-sums": {"method": "sft", "sft_reduction": "sequence"},
    "kd-answers": {"method": "kd", "distillation_reduction": "sequence", "teacher": {"end_weight": 0.5}},
    "grpo-tokens-mask": {"method": "grpo", "policy_reduction": "token", **LONG, "truncated": "mask"},
    "mrt-sums": {"method": "mrt", "policy_reduction": "sequence"},
    "grpo-modality": {"method": "grpo", "policy_gradient": {"baseline": "modality"}, "refresh_every": 2},
    "dapo-sft": {"method": "dapo", "sft_weight": 0.1},
    "tars": {"method": "tars", "tars": {"behavior_by": "chrf", "correct": 0.01}, "temperature": (0.7, 1.0)},
}


@pytest.fixture
def mixed(mixed_dir: Path, tiny_composite_dir: Path) -> Callable[..., TrainingRecipe]:
    """A recipe whose step takes six groups of four voices and of one, and two of them once more."""

    def build(**changes: Any) -> TrainingRecipe:
        teacher = {"model": "self", "answers": {"max_new_tokens": 400, "temperature": 1.0}}
        values: dict[str, Any] = {
            "base": str(tiny_composite_dir),
            "alignment_set": str(mixed_dir),
            "steps": 2,
            "groups_per_step": 8,
            "voices_per_group": 4,
            "max_new_tokens": 10,
            "truncated": "keep",  # a random model seldom ends
            "reward": {"instruct": "chrf", "qa": "chrf", "s2tt": "bleu"},
            **changes,
        }
        values["teacher"] = {**teacher, **changes.get("teacher", {})}
        return TrainingRecipe(**values)

    return build


@pytest.fixture
def unsure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Some samples get no reward."""
    monkeypatch.setattr("rba_bench.training.model.building.make_reward", splits.unsure())
    yield


@pytest.mark.parametrize("name", CASES)
def test_accumulation_changes_neither_loss_nor_gradient(
    mixed: Callable[..., TrainingRecipe], unsure: None, tmp_path: Path, name: str
) -> None:
    recipe = mixed(**CASES[name])
    run = splits.opened(recipe, tmp_path)
    whole = splits.first_step(run, 1)
    figures = whole[0]
    if recipe.compares_samples or recipe.uses_reward:
        assert 0 < figures["unjudged"] < 1
    if recipe.method == "tars":
        assert figures["representation"] > 0 and figures["behavior"] >= 0
    if recipe.method == "dapo":  # groups of one voice are equally good for certain
        assert figures["redrawn"] > 0 and figures["staleness"] == 0 and figures["overlong"] < 0
    if recipe.kind == "preference":
        assert 0 < figures["pairs"] <= figures["items"]
    assert any(float(grad.norm()) > 1e-4 for grad in whole[1].values())
    for accumulate in (2, 8):  # halves of the step, and group by group
        assert splits.apart(whole, splits.first_step(run, accumulate)) < TOLERANCE, accumulate


# Losses at the start, where the policy still is its own reference: all of them would be others without the reference
AT_THE_REFERENCE = {
    "dpo": math.log(2),
    "spin": math.log(2),
    "tdpo": math.log(2),
    "ipo": (1 / (2 * 0.1)) ** 2,
}


@pytest.mark.parametrize("name", AT_THE_REFERENCE)
def test_a_run_starts_at_its_reference(
    mixed: Callable[..., TrainingRecipe], tmp_path: Path, name: str
) -> None:
    figures, _ = splits.first_step(splits.opened(mixed(method=name, beta=0.1), tmp_path), 2)
    share = figures["pairs"] / figures["items"]
    assert figures["loss"] == pytest.approx(AT_THE_REFERENCE[name] * share, rel=1e-4)


def test_a_step_of_which_nothing_could_be_judged_is_refused_however_it_is_split(
    mixed: Callable[..., TrainingRecipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits.zlib, "crc32", lambda _: 0)
    monkeypatch.setattr("rba_bench.training.model.building.make_reward", splits.unsure())
    for accumulate in (1, 8):
        run = splits.opened(mixed(method="grpo"), tmp_path / str(accumulate))
        with pytest.raises(RbaError, match=r"none of 32 answers could be judged: check `reward`"):
            splits.first_step(run, accumulate)


def test_a_batch_with_nothing_to_learn_from_still_hears_a_clip(
    mixed: Callable[..., TrainingRecipe], unsure: None, tmp_path: Path
) -> None:
    run = splits.opened(mixed(method="mrt", sft_weight=0.0, accumulate=8), tmp_path)
    trainer = run.trainer()
    given, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 8, trainer.args.device)
    batches = [one["batch"] for one in given]
    assert [bool(batch.rated) for batch in batches].count(False) >= 1
    assert all(not as_text for batch in batches for _, as_text in batch.prompts) and all(
        batch.responses for batch in batches
    )


JOBS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "kd": {"method": "kd"},
    "rba-group": {**CASES["rba-group"], "refresh_every": 2},
    "dapo": {"method": "dapo", "sft_weight": 0.1},
    "mrt": {"method": "mrt"},
}

CHILD = """
import json, os, pathlib, sys
import torch
from rba_bench.training.model import building as build
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train
from rba_bench.training.trainer import AlignmentTrainer
from tests.programs import Program
from tests.textlm.misbehaving_server import free_port
from tests.training import splits

build.make_reward = splits.unsure()
jobs, out = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
clip = AlignmentTrainer._clip_grad_norm
seen = []


def noted(self, model):
    seen.append(splits.gradient(self.rollout_buffer.policy))
    return clip(self, model)


AlignmentTrainer._clip_grad_norm = noted
for name, values in jobs.items():
    train(TrainingRecipe(**values), out / name)
    if os.environ["RANK"] == "0":
        torch.save(seen[0], out / f"{name}.pt")
    seen.clear()
"""


@pytest.mark.parametrize(
    ("processes", "names"),
    [
        (2, ("sft", "rba-group", "dapo")),
        pytest.param(2, tuple(JOBS), marks=pytest.mark.slow),
        pytest.param(4, tuple(JOBS), marks=pytest.mark.slow),
    ],
    ids=["2", "2-all", "4-all"],
)
def test_more_processes_change_neither_loss_nor_gradient(
    mixed: Callable[..., TrainingRecipe], unsure: None, tmp_path: Path, processes: int, names: tuple[str, ...]
) -> None:
    """Real processes and the whole Trainer against one process; two batches each where there are two processes."""
    recipes = {name: mixed(steps=1, accumulate=4 // processes, **JOBS[name]) for name in names}
    write_json(tmp_path / "jobs.json", {name: recipe.resolved() for name, recipe in recipes.items()})
    (tmp_path / "child.py").write_text(CHILD)
    files = [str(tmp_path / name) for name in ("child.py", "jobs.json", "out")]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [Program(*files, RANK=str(n), LOCAL_RANK=str(n), **shared) for n in range(processes)]
    for rank in ranks:
        rank.output()
    for name, recipe in recipes.items():
        one = splits.first_step(splits.opened(recipe, tmp_path / "one" / name), 1)
        [record] = map(json.loads, (tmp_path / "out" / name / "train_log.jsonl").read_text().splitlines())
        figures = {key: record[key] for key in one[0]}
        theirs = figures | {"grad_norm": one[0]["grad_norm"]}  # ours was not clipped, so it was not measured
        assert splits.apart(one, (theirs, torch.load(tmp_path / "out" / f"{name}.pt"))) < TOLERANCE, name
