"""The whole way in one folder: alignment set, three checkpoints, run records, leaderboard. All of it micro track.

    OUT/alignment-set  OUT/checkpoints/{sft,rba-single,rba-group}  OUT/eval/<model>/<run>  OUT/leaderboard

Every stage resumes itself, so a rerun after an interruption goes on, and a rerun of a finished one only reads.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.progress import say
from rba_bench.recipes import recipe_file
from rba_bench.stages import STANDARD_SET, SYNTHESIS, TRACK, make_set

if TYPE_CHECKING:
    from rba_bench.leaderboard.build import BuildResult

METHODS = ("sft", "rba-single", "rba-group")  # each has a shipped recipe of its name
REFERENCES = ("text", "cascade", "constant")  # ceiling, what the encoder alone gives, floor
OUT = STANDARD_SET.parent


@dataclass(frozen=True)
class Result:
    """Where everything is.

    Attributes:
        checkpoints: Folder per method.
        records: Folders of the run records.
        board: The leaderboard as built.
        seconds: Wall time per stage of this call; of a resumed stage only the rest.
    """

    out: Path
    alignment_set: Path
    checkpoints: dict[str, Path]
    records: tuple[Path, ...]
    board: "BuildResult"
    seconds: dict[str, float]

    def paths(self) -> list[tuple[str, Path]]:
        """Name and path of every artefact, for the last screen."""
        tables = [file for file in self.board.files if file.suffix in (".md", ".csv")]
        return [
            ("alignment set", self.alignment_set),
            *((f"checkpoint {method}", folder) for method, folder in self.checkpoints.items()),
            ("run records", self.out / "eval"),
            *(("table", file) for file in tables),
        ]

    def summary(self) -> dict[str, Any]:
        """The same for programs, with the content of the board."""
        return {
            "out": self.out,
            "alignment_set": self.alignment_set,
            "checkpoints": self.checkpoints,
            "records": self.records,
            "tables": [file for file in self.board.files if file.suffix in (".md", ".csv")],
            "leaderboard": {name: value for name, value in self.board.data.items() if name != "files"},
            "seconds": self.seconds,
        }


@dataclass
class _Clock:
    """Announces the stages and keeps their times."""

    total: int
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        say(f"[{len(self.seconds) + 1}/{self.total}] {name}")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def run(out: Path) -> Result:
    """Do whatever is not done yet in `out`.

    Raises:
        UserError: a sub-folder belongs to other recipes.
        MissingPrerequisite: voices or micro weights are missing (`rba-bench doctor` says how to get them).
    """
    models = ("base", *METHODS, *REFERENCES)
    clock = _Clock(total=2 + len(METHODS) + len(models))
    alignment_set = out / "alignment-set"
    checkpoints = {method: out / "checkpoints" / method for method in METHODS}
    with clock.stage("synth"):
        _synthesize(alignment_set)
    for method, folder in checkpoints.items():
        with clock.stage(f"train {method}"):
            _train(method, alignment_set, folder)
    records: list[Path] = []
    for model in models:
        with clock.stage(f"eval {model}"):
            records += _evaluate(str(checkpoints.get(model, model)), out / "eval")
    with clock.stage("leaderboard"):
        board = _build(records, out / "leaderboard")
    say(f"done in {sum(clock.seconds.values()):.0f} s")
    return Result(out, alignment_set, checkpoints, tuple(records), board, clock.seconds)


def _synthesize(out: Path) -> None:
    make_set(SYNTHESIS, out=out)


def _train(method: str, alignment_set: Path, out: Path) -> None:
    from rba_bench.recipes import load_recipe
    from rba_bench.training.run import train
    from rba_bench.training.training_recipe import TrainingRecipe

    overrides = [f"alignment_set={alignment_set}"]
    train(load_recipe(TrainingRecipe, recipe_file(method), overrides), out)


def _evaluate(model: str, out: Path) -> list[Path]:
    from rba_bench.evaluation.runner import EvalRequest, evaluate
    from rba_bench.evaluation.task_registry import BENCHMARKS

    done = evaluate(EvalRequest(tasks=BENCHMARKS, model=model, track=TRACK, out=out))
    found = {file.parent.name: file.parent for file in out.rglob("run.json")}
    return [found[record.run_id] for record in done]


def _build(records: list[Path], out: Path) -> "BuildResult":
    from rba_bench.leaderboard.build import build_board

    return build_board(records, out, baseline_row=METHODS[0])
