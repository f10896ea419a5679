"""Two processes on the CPU, by `accelerate launch` and the shipped configurations: the same steps as one process.

Starting processes takes longer than training the tiny model, so one launch serves all jobs. Half of them are `slow`.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.files import read_json, read_jsonl, write_json
from rba_bench.recipes import recipes_dir
from rba_bench.training.callbacks.training_callback import TrainingCallback
from rba_bench.training.model.sharding import CollectiveSync, hide_modules, layer_names
from rba_bench.training.training_run import train
from tests.programs import Program

# one validation item: the second process has none, and keeps the first one company
GROUP = {"method": "rba-group", "voices_per_group": 3, "refresh_every": 2, "steps": 3, "groups_per_step": 4,
         "eval_every": 2, "validation": {"metric": "reward"}}  # fmt: skip
GRPO = {
    "method": "grpo",
    "accumulate": 2,
    "eval_every": 2,
    "select": "best",
    "steps": 3,
    "groups_per_step": 4,
}
# one group of four is sampled here and there, so that processes sample and ask the teacher unequally often
GKD = {"method": "gkd", "student_fraction": 0.5, "steps": 2, "groups_per_step": 4, "lora": {"r": 2}}
SPIN = {"method": "spin", "opponent_every": 1, "steps": 3, "save_every": 1}
# a rank of 1 leaves the second process with empty shards
SHORT = {"method": "dpo", "lora": {"r": 1}, "steps": 3, "refresh_every": 2}
JOBS = {
    "ddp-group": GROUP,
    "ddp-grpo": GRPO,
    "ddp-gkd": GKD,
    "fsdp-sft": {"method": "sft", "train_parts": ["projector", "llm", "encoder"], "steps": 2},
    "fsdp-group": GROUP,
    "fsdp-grpo": GRPO,
    "fsdp-gkd": GKD,
    "fsdp-spin": SPIN,
    "fsdp-self-judge": {
        **GROUP,
        "steps": 2,
        "reward": {"instruct": "self-judge", "qa": "chrf", "s2tt": "bleu"},
    },
    "fsdp-kd": {"method": "kd", "steps": 2},  # the teacher is a copy of its own
    "fsdp-diva": {"method": "diva", "steps": 2},
    "fsdp-whole": SHORT,
    "fsdp-stopped": SHORT,
    "fsdp-two-to-one": SHORT,
    "fsdp-one-to-two": SHORT,
    "ddp-two-to-one": SHORT,
    "fsdp-half": {"method": "dpo", "lora": {"r": 2}, "precision": "bfloat16", "steps": 2},
}
QUICK = (
    *("ddp-group", "ddp-gkd", "fsdp-sft", "fsdp-grpo", "fsdp-gkd"),
    *("fsdp-whole", "fsdp-stopped", "fsdp-one-to-two"),
)
# where a job is stopped, and whether the two processes go on with it
STOPS = {
    "fsdp-spin": (2, True),
    "fsdp-stopped": (1, True),
    "fsdp-two-to-one": (1, False),
    "ddp-two-to-one": (1, False),
}

CHILD = """
import json, os, pathlib, signal, sys
from accelerate.utils import gather_object
from rba_bench.files import sha256_json, write_json
from rba_bench.training import training_run as run
from rba_bench.training.model import building as build
from rba_bench.training.callbacks import training_callback as callback
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.model.sharding import full_tensor, reshard

given = json.loads(pathlib.Path(sys.argv[1]).read_text())
rank = int(os.environ["RANK"])


class Stop(callback.TrainingCallback):
    at = 0

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at and rank == 1:  # one of the two is asked to stop
            os.kill(os.getpid(), signal.SIGUSR1)
        super().on_step_end(args, state, control, **kwargs)


def finish(self, trainer, plain=run._Run._finish):
    reshard(self.policy)
    mine = sha256_json({n: full_tensor(p).tolist() for n, p in self.policy.named_parameters() if p.requires_grad})
    for one in trainer.copies:
        reshard(one)
    held = {
        name: sorted({type(p).__name__ for one in models for p in one.parameters()})
        for name, models in (("policy", [self.policy]), ("copies", trainer.copies))
    }
    both = gather_object([mine])
    result = plain(self, trainer)
    if rank == 0:
        seen = {"weights": both, "types": held, "sharing": trainer.sharing, "read": list(read)}
        write_json(self.out / "seen.json", seen)
    return result


def load(folder, recipe, stored=False, device="cpu", plain=build.load_base):
    family = plain(folder, recipe, stored, device)
    if not stored:
        read[:] = gather_object([sorted({p.device.type for p in family.model.parameters()})])
    return family


read = []
build.load_base = load

callback.TrainingCallback, run._Run._finish = Stop, finish
for name, values in given["jobs"].items():
    shared = name.startswith("fsdp")
    os.environ.update(given["fsdp"] if shared else {"ACCELERATE_USE_FSDP": "false"})
    recipe, out = TrainingRecipe(**values), pathlib.Path(sys.argv[2]) / name
    Stop.at, goes_on = given["stops"].get(name, (0, True))
    try:
        run.train(recipe, out)
    except KeyboardInterrupt as stopped:
        write_json(out / f"stopped-{rank}.json", str(stopped))
        Stop.at = 0
        if goes_on:
            run.train(recipe, out)
"""


def stopping(plain: Callable[..., None]) -> Callable[..., None]:
    """A `TrainingCallback.on_step_end` that asks for a stop after the first step, as a signal does."""

    def on_step_end(self: TrainingCallback, *args: Any, **kwargs: Any) -> None:
        self.interrupt.requested = True
        plain(self, *args, **kwargs)

    return on_step_end


def environment_of(config: str) -> dict[str, str]:
    """What `accelerate launch` would tell its processes about sharing weights out."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    words = ["--config_file", str(recipes_dir() / "accelerate" / config), "script.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    found = prepare_multi_gpu_env(args)
    return {name: value for name, value in found.items() if "FSDP" in name}


def jobs(*, but: str) -> list[Any]:
    """Names of the jobs that do not end so, the longer part marked."""
    names = [name for name in JOBS if not name.endswith(but)]
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def launched(
    recipe_for: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], tuple[Path, Path]]:
    """Folders of a job by one process and by two."""
    folder = tmp_path_factory.mktemp("launch")
    slow = any(item.get_closest_marker("slow") for item in request.session.items)
    recipes = {name: recipe_for(**changes) for name, changes in JOBS.items() if slow or name in QUICK}
    given = {name: recipe.resolved() for name, recipe in recipes.items()}
    write_json(folder / "jobs.json", {"jobs": given, "stops": STOPS, "fsdp": environment_of("fsdp2.yaml")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingCallback, "on_step_end", stopping(TrainingCallback.on_step_end))
        with pytest.raises(KeyboardInterrupt):
            train(recipes["fsdp-one-to-two"], folder / "two" / "fsdp-one-to-two")
    (folder / "child.py").write_text(CHILD)
    config = ["--config_file", str(recipes_dir() / "accelerate" / "ddp-cpu.yaml"), "--main_process_port", "0"]
    files = [str(folder / name) for name in ("child.py", "jobs.json", "two")]
    launch = ("-m", "accelerate.commands.accelerate_cli", "launch", *config, *files)
    Program(*launch, PYTHONPATH=os.pathsep.join(sys.path)).output()

    for name, (_, goes_on) in STOPS.items():
        if not goes_on and name in recipes:
            train(recipes[name], folder / "two" / name)

    def one(name: str) -> tuple[Path, Path]:
        alone = "fsdp-whole" if JOBS[name] is SHORT else name
        if not (folder / "one" / alone).exists():
            train(recipes[alone], folder / "one" / alone)
        return folder / "one" / alone, folder / "two" / name

    return one


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if key != "elapsed_s"}
        for record in read_jsonl(folder / "train_log.jsonl")
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", jobs(but="-half"))
def test_two_processes_take_the_same_steps_as_one(
    launched: Callable[[str], tuple[Path, Path]], name: str
) -> None:
    """Also where the number of processes changes between two steps."""
    one, two = launched(name)
    assert read_json(two / "rba_run.json")["hardware"]["processes"] == (1 if name.endswith("-to-one") else 2)
    same(one, two)


def test_two_processes_that_stop_and_go_on_end_bit_for_bit_where_they_would_have(
    launched: Callable[[str], tuple[Path, Path]],
) -> None:
    (_, whole), (_, stopped) = launched("fsdp-whole"), launched("fsdp-stopped")
    assert read_json(stopped / "stopped-1.json") == "stopped at step 1 of 3; saved"
    assert records(stopped) == records(whole)
    ours, others = weights(stopped), weights(whole)
    assert [name for name in ours if not torch.equal(ours[name], others[name])] == []


def test_shared_out_weights_take_the_same_steps_where_processes_call_them_unequally_often(
    launched: Callable[[str], tuple[Path, Path]],
) -> None:
    same(launched("ddp-gkd")[1], launched("fsdp-gkd")[1])


def same(one: Path, two: Path) -> None:
    for mine, theirs in zip(records(one), records(two), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-3, abs=1e-4)
    ours, others = weights(one), weights(two)
    assert ours.keys() == others.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(others[key], tensor, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", jobs(but="-to-one"))
def test_both_processes_end_with_equal_weights_held_as_configured(
    launched: Callable[[str], tuple[Path, Path]], name: str
) -> None:
    seen = read_json(launched(name)[1] / "seen.json")
    assert seen["weights"][0] == seen["weights"][1]
    shared = name.startswith("fsdp")
    assert seen["sharing"] == ("fsdp" if shared else "none")
    held = ["DTensor" if shared else "Parameter"]  # a frozen encoder is not among them
    assert seen["types"]["policy"] == held and seen["types"]["copies"] in (held, [])
    assert seen["read"] == [["cpu"], ["meta" if shared else "cpu"]]  # the first process alone reads, for all


@pytest.mark.slow
def test_both_processes_stop_at_the_step_in_which_one_is_asked_to(
    launched: Callable[[str], tuple[Path, Path]],
) -> None:
    _, two = launched("fsdp-spin")
    for rank in (0, 1):
        assert read_json(two / f"stopped-{rank}.json") == "stopped at step 2 of 3; saved"


@pytest.mark.slow
def test_shared_out_weights_in_bfloat16_take_nearly_the_same_steps(
    launched: Callable[[str], tuple[Path, Path]],
) -> None:
    one, two = launched("fsdp-half")
    for mine, theirs in zip(records(one), records(two), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=0.05)
    assert {tensor.dtype for tensor in weights(two).values()} == {torch.float32}  # as the base is stored


def test_lockstep_evens_out_calls_of_unequal_processes() -> None:
    """Two processes as two generators, one vote after the other."""
    import threading

    wishes: list[bool] = [False, False]
    barrier = threading.Barrier(2)
    made: list[list[str]] = [[], []]

    def run(me: int, calls: int) -> None:
        def vote(wish: bool) -> bool:
            wishes[me] = wish
            barrier.wait()
            any_wants = any(wishes)
            barrier.wait()
            return any_wants

        sync = CollectiveSync(vote)

        def call(kind: str) -> None:
            sync.enter()
            made[me].append(kind)

        for _ in range(calls):
            call("own")
        sync.leave(lambda: call("company"))

    threads = [threading.Thread(target=run, args=pair) for pair in ((0, 3), (1, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert made == [["own"] * 3, ["own", "company", "company"]]


def test_without_shared_weights_lockstep_asks_nobody() -> None:
    sync = CollectiveSync()
    sync.enter()
    sync.leave(lambda: pytest.fail("no company is needed"))
    assert sync.all_done(True) and not sync.all_done(False)


def test_hidden_modules_are_no_part_of_the_model_and_can_be_called(family: Any) -> None:
    from rba_bench.training.model.policy import SpeechPolicy

    policy = SpeechPolicy(family)
    hide_modules(policy, policy.unsharded_modules())
    assert not [name for name, _ in policy.named_parameters() if "audio_tower" in name]
    states, lengths = family.encode_audio(family.features([np.zeros(8000, np.float32)]))
    assert states.shape[1] == int(lengths[0])


def test_layers_of_the_longest_stack_are_wrapped_one_by_one(family: Any) -> None:
    assert layer_names([family.decoder]) == ["LlamaDecoderLayer"]
    assert len(layer_names([family.decoder, family.encoder])) == 2


@pytest.mark.parametrize("path", sorted((recipes_dir() / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_understood_by_accelerate(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no" and config.num_processes == 2  # the recipe's `precision` decides
    assert json.loads(json.dumps(config.to_dict()))
