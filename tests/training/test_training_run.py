"""Whole runs on the tiny model: what they write, how they stop, that resuming changes nothing."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.training import training_run
from rba_bench.training.callbacks.training_callback import Interrupt, TrainingCallback
from rba_bench.training.training_run import train
from tests.programs import Program

UNSTABLE = {"elapsed_s"}  # the only field of the log that two equal runs may differ in


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def log(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in record.items() if k not in UNSTABLE}
        for record in read_jsonl(folder / "train_log.jsonl")
    ]


def same(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert log(one) == log(other)


METHODS: list[dict[str, Any]] = [
    {"method": "sft"},
    {"method": "rba-single"},
    {"method": "rba-group", "voices_per_group": 3},
    {"method": "dpo"},
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: str(method["method"]))
def test_a_run_trains_and_writes_a_checkpoint(
    recipe_for: Callable[..., Any], tiny_composite_dir: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration

    recipe = recipe_for(**method, eval_every=3)
    result = train(recipe, tmp_path / "out")
    assert (result.method, result.steps) == (method["method"], 6)
    files = {file.name for file in result.path.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "rba_run.json", "train_log.jsonl"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))] and "trainer" not in files
    curve = result.run["curve"]  # what a board can draw without the checkpoint
    assert curve["step"] == [1, 2, 3, 4, 5, 6] and None not in curve["loss"]
    assert [value is not None for value in curve["validation_loss"]] == [False, False, True] * 2
    assert (
        result.run["recipe"]["method"] == method["method"]
        and result.run["versions"]["torch"] == torch.__version__
    )
    records = log(result.path)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[2]["validation_loss"] > 0 and "validation_loss" not in records[1]
    before, after = weights(tiny_composite_dir), weights(result.path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("projector" in name for name in changed) and any("language_model" in name for name in changed)
    assert not any("audio_tower" in name for name in changed)
    CompositeForConditionalGeneration.from_pretrained(result.path)


def test_the_log_holds_the_learning_rates_that_were_used(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[dict[str, float]] = []
    plain = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        used.append({group["part"]: group["lr"] for group in self.param_groups})
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    train(
        recipe_for(method="sft", steps=4, schedule="linear", learning_rates={"llm": 1e-3}, accumulate=2),
        tmp_path,
    )
    assert len(used) == 4
    for record, rates in zip(log(tmp_path), used, strict=True):
        assert record["learning_rate_llm"] == pytest.approx(rates["llm"])
        assert record["learning_rate_projector"] == pytest.approx(rates["projector"])
        assert record["learning_rate"] == record["learning_rate_projector"]


def test_sft_fits_the_teacher(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(method="sft", steps=30, groups_per_step=6, learning_rate=1e-2, save_every=100)
    records = log(train(recipe, tmp_path).path)
    assert records[-1]["sft"] < 0.3 * records[0]["sft"]


def test_rba_single_prefers_the_teacher(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(steps=12, groups_per_step=6, learning_rate=5e-3, save_every=100)
    records = log(train(recipe, tmp_path).path)
    assert records[-1]["margin"] > records[0]["margin"] + 2  # nats a token
    assert records[0]["items"] == 12


def test_rba_group_makes_one_pair_per_group_with_a_gap(
    recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = recipe_for(
        method="rba-group", voices_per_group=5, steps=3
    )  # three voices: two of them are asked twice
    for record in log(train(recipe, tmp_path).path):
        assert record["items"] == 2 and 0 <= record["pairs"] <= 2
        assert record["reward_worst"] <= record["reward"] <= record["reward_best"]


class Stop(TrainingCallback):
    """Asks for a stop after some step, as a signal would."""

    at = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        super().on_step_end(args, state, control, **kwargs)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    monkeypatch.setattr("rba_bench.training.callbacks.training_callback.TrainingCallback", Stop)
    yield lambda step: setattr(Stop, "at", step)
    Stop.at = 0


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "sft"},
        {"method": "rba-single", "refresh_every": 4},
        {"method": "rba-group", "voices_per_group": 3, "reference": True},
        {"method": "rba-single", "train_parts": ["projector", "llm", "encoder"], "accumulate": 2},
        {"method": "dpo", "lora": {"r": 2}, "schedule": "cosine"},
        {"method": "grpo", "refresh_every": 3},
        # rewards of 0 and 1, so that many groups are equally good and others come in their places
        {
            "method": "dapo",
            "refresh_every": 2,
            "reward": {"instruct": "exact", "qa": "exact", "s2tt": "exact"},
        },
        {"method": "spin", "opponent_every": 2},
        {"method": "kd", "teacher": {"top_k": 5}},
        {"method": "gkd", "student_fraction": 0.5, "precision": "bfloat16"},
        {"method": "mrt", "samples_per_clip": 2},
        {"eval_every": 1, "select": "best", "validation": {"patience": 5}},
    ],
    ids=[
        *("sft", "single-refresh", "group-reference", "encoder-accumulate", "dpo-lora"),
        *("grpo-refresh", "dapo-redrawn", "spin", "kd-top-k", "gkd-half", "mrt", "best-patience"),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    recipe_for: Callable[..., Any], tmp_path: Path, stop_at: Callable[[int], None], changes: dict[str, Any]
) -> None:
    recipe = recipe_for(steps=5, **changes)
    train(recipe, tmp_path / "whole")
    for step in (1, 3):
        stop_at(step)
        with pytest.raises(KeyboardInterrupt, match=f"stopped at step {step} of 5"):
            train(recipe, tmp_path / "parts")
    stop_at(0)
    result = train(recipe, tmp_path / "parts")
    assert result.steps == 5
    same(tmp_path / "whole", tmp_path / "parts")


def test_gradient_checkpointing_changes_nothing_but_rounding(
    recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    plain = weights(train(recipe_for(method="sft", steps=2), tmp_path / "plain").path)
    saving = weights(
        train(recipe_for(method="sft", steps=2, gradient_checkpointing=True), tmp_path / "saving").path
    )
    for name, tensor in plain.items():
        torch.testing.assert_close(saving[name], tensor, atol=2e-3, rtol=1e-3)


def test_two_threads_give_the_same_run_twice(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(groups_per_step=6)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(recipe, tmp_path / "one")
        train(recipe, tmp_path / "two")
    finally:
        torch.set_num_threads(threads)
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("damage", ["half", "unsealed"])
def test_a_checkpoint_cut_by_a_kill_is_skipped(
    recipe_for: Callable[..., Any], tmp_path: Path, stop_at: Callable[[int], None], damage: str
) -> None:
    recipe = recipe_for()
    train(recipe, tmp_path / "whole")
    stop_at(5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts")
    newest_checkpoint = tmp_path / "parts" / "trainer" / "checkpoint-5"
    if damage == "half":
        [shard] = newest_checkpoint.glob("shard-*.safetensors")
        shard.write_bytes(shard.read_bytes()[:100])
    else:
        (newest_checkpoint / "rba_state.json").unlink()
    stop_at(0)
    train(recipe, tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_is_not_repeated(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(steps=2)
    first = train(recipe, tmp_path)
    stamp = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert train(recipe, tmp_path) == first
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_kill_while_writing_the_result_is_repaired(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(steps=2)
    train(recipe, tmp_path / "whole")

    def die(self: Any, trainer: Any) -> Any:
        (self.out / "model.safetensors").write_bytes(b"half")
        raise SystemExit("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run._Run, "_finish", die)
        with pytest.raises(SystemExit):
            train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut")
    same(tmp_path / "whole", tmp_path / "cut")


def test_time_budget_ends_a_run_in_good_order(
    recipe_for: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(recipe_for(steps=500, budget_s=0.5), tmp_path)
    assert 1 <= result.steps < 500 and result.wall_time_s >= 0.5
    assert f"ended at step {result.steps} of 500: budget_s 0.5 is used up" in capsys.readouterr().err


def test_another_recipe_is_refused_and_a_moved_set_is_not(
    recipe_for: Callable[..., Any], tmp_path: Path, alignment_dir: Path
) -> None:
    import shutil

    train(recipe_for(steps=2), tmp_path / "out")
    with pytest.raises(UserError, match=r"beta: 2\.0 -> 0\.5"):
        train(recipe_for(steps=2, beta=0.5), tmp_path / "out")
    moved = shutil.copytree(alignment_dir, tmp_path / "moved")
    train(recipe_for(steps=2, alignment_set=str(moved)), tmp_path / "out")


def test_a_deaf_model_is_refused(
    recipe_for: Callable[..., Any], tiny_composite_dir: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    deaf = shutil.copytree(tiny_composite_dir, tmp_path / "deaf")
    tensors = load_file(deaf / "model.safetensors")
    tensors["model.multi_modal_projector.linear_2.weight"].zero_()
    save_file(tensors, deaf / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RbaError, match="does not use its audio"):
        train(recipe_for(base=str(deaf)), tmp_path / "out")


def test_a_loss_that_is_not_finite_stops_before_the_step(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rba_bench.training.methods.method import Method, Step

    calls = []
    plain = Method.supervision

    def spoilt(self: Method, step: Step) -> torch.Tensor:
        calls.append(1)
        return plain(self, step) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(Method, "supervision", spoilt)
    with pytest.raises(RbaError, match="the loss of step 3 is not finite"):
        train(recipe_for(method="sft"), tmp_path)
    checkpoints = list((tmp_path / "trainer").glob("checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-2"]
    assert [record["step"] for record in log(tmp_path)] == [1, 2]


def test_a_gradient_that_is_not_finite_stops_before_the_step(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rba_bench.training.methods.method import Method, Step
    from rba_bench.training.trainer import AlignmentTrainer

    calls: list[int] = []
    held: list[dict[str, torch.Tensor]] = []
    plain, clip = Method.supervision, AlignmentTrainer._clip_grad_norm

    def spoilt(self: Method, step: Step) -> torch.Tensor:
        calls.append(1)
        loss = plain(self, step)
        return loss + (loss * 0).sqrt() if len(calls) == 3 else loss  # the root's slope at 0 is infinite

    def noted(self: AlignmentTrainer, model: Any) -> Any:
        held.append({name: p.detach().clone() for name, p in self.rollout_buffer.policy.named_parameters()})
        held.append(dict(self.rollout_buffer.policy.named_parameters()))
        return clip(self, model)

    monkeypatch.setattr(Method, "supervision", spoilt)
    monkeypatch.setattr(AlignmentTrainer, "_clip_grad_norm", noted)
    with pytest.raises(RbaError, match="the gradient of step 3 is not finite"):
        train(recipe_for(method="sft"), tmp_path)
    assert [record["step"] for record in log(tmp_path)] == [1, 2]
    before, after = held[-2:]
    assert all(torch.equal(before[name], parameter) for name, parameter in after.items())


def test_bfloat16_keeps_what_trains_in_float32_and_halves_the_rest(
    recipe_for: Callable[..., Any], tiny_composite_dir: Path, tmp_path: Path
) -> None:
    from rba_bench.training.model import building as build

    recipe = recipe_for(method="sft", steps=12, lora={"r": 4}, learning_rate=1e-2, precision="bfloat16")
    family = build.load_base(tiny_composite_dir, recipe)
    policy = build.make_policy(family, recipe)
    assert {p.dtype for p in policy.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in policy.parameters() if not p.requires_grad} == {torch.bfloat16}
    records = log(train(recipe, tmp_path / "half").path)
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    full = log(train(recipe.model_copy(update={"precision": "float32"}), tmp_path / "full").path)
    assert records[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.02)
    before, after = weights(tiny_composite_dir), weights(tmp_path / "half")
    untouched = [name for name in before if "audio_tower" in name]
    assert untouched and all(torch.equal(before[name], after[name]) for name in untouched)  # not rounded
    assert any(not torch.equal(before[name], after[name]) for name in before if "q_proj" in name)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16], ids=str)
def test_a_bfloat16_run_saves_in_the_number_type_of_its_base(
    recipe_for: Callable[..., Any], tiny_composite_dir: Path, tmp_path: Path, stored: torch.dtype
) -> None:
    from rba_bench.speechlm.audiolm.loading import load_family

    base = load_family(tiny_composite_dir)
    base.model.to(stored)
    base.save(tmp_path / "base")
    recipe = recipe_for(method="sft", steps=1, precision="bfloat16", base=str(tmp_path / "base"))
    trained = weights(train(recipe, tmp_path / "out").path)
    assert {tensor.dtype for tensor in trained.values()} == {stored}
    before = weights(tmp_path / "base")
    assert any(not torch.equal(before[name], trained[name]) for name in before)


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Lets no file grow beyond some bytes from the end of a step on: what a full disk does, for one process."""
    import resource

    plain = resource.getrlimit(resource.RLIMIT_FSIZE)
    at = {"step": 0, "bytes": 0}

    class Filling(TrainingCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == at["step"]:
                if at["step"] % 2:  # what was begun before is on the disk
                    self.trainer.saver.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (at["bytes"], plain[1]))

    monkeypatch.setattr("rba_bench.training.callbacks.training_callback.TrainingCallback", Filling)

    def fill(step: int, size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, plain)
        at.update(step=step, bytes=size)

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, plain)


@pytest.mark.parametrize(("step", "kept"), [(3, 2), (4, 2), (5, 4)], ids=["weights", "optimiser", "result"])
def test_a_full_disk_leaves_the_last_checkpoint_and_the_same_command_goes_on(
    recipe_for: Callable[..., Any],
    tmp_path: Path,
    small_disk: Callable[[int, int], None],
    step: int,
    kept: int,
) -> None:
    recipe = recipe_for(method="sft", steps=5, save_every=2)
    train(recipe, tmp_path / "whole")
    checkpoint = tmp_path / "full" / "trainer" / f"checkpoint-{kept}"
    weights_size = (
        20_000 if step != 4 else 150_000
    )  # in between: weights fit, the optimiser's two moments do not
    small_disk(step, weights_size)
    with pytest.raises(RbaError, match=f"no room left to write in .*goes on from checkpoint-{kept}"):
        train(recipe, tmp_path / "full")
    small_disk(0, 0)
    assert (checkpoint / "rba_state.json").is_file() and not (tmp_path / "full" / "rba_run.json").exists()
    assert [path.name for path in (tmp_path / "full" / "trainer").glob("checkpoint-*")][-1:] == [
        checkpoint.name
    ]
    train(recipe, tmp_path / "full")
    same(tmp_path / "whole", tmp_path / "full")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_the_first_signal_asks_and_its_echo_is_ignored(number: signal.Signals) -> None:
    with Interrupt() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)  # from the launcher, right behind
        assert interrupt.requested
        interrupt._at -= 10
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_missing_things_are_named(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no base model"):
        train(recipe_for(base=str(tmp_path / "absent")), tmp_path / "a")
    with pytest.raises(MissingPrerequisite, match="no reward model"):
        options = {"instruct": "reward-model", "model": str(tmp_path / "absent")}
        train(recipe_for(method="rba-group", reward=options), tmp_path / "b")
    with pytest.raises(UserError, match="must be a multiple"):
        train(recipe_for(groups_per_step=3, accumulate=2), tmp_path / "c")
    with pytest.raises(UserError, match=r"lora\.targets nothing"):
        train(recipe_for(lora={"targets": ["nothing"]}), tmp_path / "d")


CHILD = (
    "import sys, json, pathlib; from rba_bench.training.training_recipe import TrainingRecipe; "
    "from rba_bench.training.training_run import train; "
    "train(TrainingRecipe(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))"
)


def test_kill_nine_and_resume(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(steps=40, save_every=5)
    train(recipe, tmp_path / "whole")
    child = Program("-c", CHILD, json.dumps(recipe.resolved()), str(tmp_path / "cut"))
    child.wait_for(lambda: list((tmp_path / "cut").glob("trainer/checkpoint-*/rba_state.json")))
    child.kill()
    assert not (tmp_path / "cut" / "rba_run.json").exists()
    train(recipe, tmp_path / "cut")
    same(tmp_path / "whole", tmp_path / "cut")
    assert read_json(tmp_path / "cut" / "rba_run.json")["steps"] == 40


def test_saturated_pairs_and_cut_samples_are_logged_and_told_once(
    recipe_for: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_for(beta=1e4, steps=3, max_new_tokens=2, save_every=100)
    records = log(train(recipe, tmp_path / "out").path)
    assert all(record["saturated"] > 0.9 and record["truncated"] > 0.5 for record in records)
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("of the pairs are saturated") == told.count("of the samples were cut off") == 1
