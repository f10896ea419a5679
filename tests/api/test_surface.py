"""The public interface is what it is on purpose, and importing it costs next to nothing."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rba_bench as rba
from rba_bench.api import boards

ROOT = Path(rba.__file__).parent.parent
PUBLIC = [
    "AlignmentSet",
    "AudioError",
    "Checkpoint",
    "Comparison",
    "JudgeTransfer",
    "Leaderboard",
    "MissingPrerequisite",
    "RbaError",
    "Run",
    "Samples",
    "Score",
    "UserError",
    "__version__",
    "align",
    "compare",
    "evaluate",
    "leaderboard",
    "load_alignment_set",
    "load_checkpoint",
    "load_run",
    "register",
    "synthesize",
    "transfer_judge",
]
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pandas", "numpy", "pyarrow", "pydantic", "rich")


def test_the_public_names_are_these() -> None:
    assert rba.__all__ == PUBLIC == dir(rba)


def test_importing_loads_nothing_and_every_name_resolves() -> None:
    code = (
        "import json, sys, rba_bench\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "from rba_bench import *\n"
        "absent = sorted(set(rba_bench.__all__) - set(dir()))\n"
        "print(json.dumps([loaded, callable(leaderboard), evaluate.__module__, absent]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], True, "rba_bench.api.evaluating", []]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        rba.evalute  # noqa: B018


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"__version__"}))
def test_everything_public_is_documented_and_typed(name: str) -> None:
    thing = boards.leaderboard if name == "leaderboard" else getattr(rba, name)
    assert inspect.getdoc(thing)
    members = [thing] if inspect.isfunction(thing) else []
    if inspect.isclass(thing) and thing.__module__.startswith("rba_bench.api"):
        members = [
            each for key, each in vars(thing).items() if not key.startswith("_") and inspect.isfunction(each)
        ]
    for member in members:
        assert inspect.getdoc(member), member
        assert inspect.signature(member).return_annotation is not inspect.Signature.empty, member


def test_the_board_function_is_the_package_too() -> None:
    """`rba_bench.leaderboard` is called by users, and holds the modules behind the command."""
    import rba_bench.leaderboard.loaded_runs

    assert isinstance(rba.leaderboard, ModuleType) and callable(
        rba_bench.leaderboard.loaded_runs.load_checked_run
    )
    assert inspect.signature(rba.leaderboard) == inspect.signature(boards.leaderboard)


# Options of a command that a call has no use for, or that stand behind another function or a method.
ONLY_ON_THE_COMMAND_LINE = {
    "eval": {"gap", "dry_run", "as_json", "task", "model"},
    "train": {"push_to_hub", "public", "context", "explain", "show_plan", "assume", "probe", "as_json"},
    "synth": {
        "push_to_hub",
        "public",
        "context",
        "seal",
        "sample",
        "as_json",
        "dry_run",
        "price",
        "probe_items",
    },
    "build": {"records", "reported", "as_json"},
    "transfer": {"dry_run", "as_json"},
}


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("eval", "evaluate"),
        ("train", "align"),
        ("synth", "synthesize"),
        ("build", "leaderboard"),
        ("transfer", "transfer_judge"),
    ],
)
def test_a_function_has_the_options_of_its_command(command: str, function: str) -> None:
    from rba_bench.cli import evaluate, judge, leaderboard, synth, train

    commands = {
        "eval": evaluate.eval_command,
        "train": train.train_command,
        "synth": synth.synth_command,
        "build": leaderboard.build_board_command,
        "transfer": judge.transfer_command,
    }
    offered = {name.rstrip("_") for name in inspect.signature(commands[command]).parameters}
    taken = inspect.signature(getattr(rba, function)).parameters
    assert offered - ONLY_ON_THE_COMMAND_LINE[command] - taken.keys() == set()
    for name in offered & taken.keys():
        on_command = inspect.signature(commands[command]).parameters.get(name)
        if on_command is not None:
            if name == "workers":  # several processes need a guard in a script, and none in a command
                continue
            assert taken[name].default == on_command.default, name
