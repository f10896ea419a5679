"""The whole pipeline in one folder, on the micro track: alignment set, three checkpoints, run records, leaderboard.

    OUT/alignment-set  OUT/checkpoints/{sft,rba-single,rba-group}  OUT/eval/<model>/<run>  OUT/leaderboard

Every stage resumes itself, so the same call continues after an interruption, and of a finished folder it only reads.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.progress import say
from rba_bench.recipes import load_recipe, recipe_file
from rba_bench.stages import STANDARD_SET, SYNTHESIS, TRACK, make_set

if TYPE_CHECKING:
    from rba_bench.leaderboard.board import BuildResult

METHODS = ("sft", "rba-single", "rba-group")  # each has a shipped recipe of its name
REFERENCES = ("text", "cascade", "constant")  # text ceiling, cascade baseline, lower bound
OUT = STANDARD_SET.parent


@dataclass(frozen=True)
class QuickstartResult:
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

    @property
    def tables(self) -> list[Path]:
        """The files of the leaderboard for people."""
        return [file for file in self.board.files if file.suffix in (".md", ".csv")]

    def paths(self) -> list[tuple[str, Path]]:
        """Name and path of every artefact, for the last screen."""
        return [
            ("alignment set", self.alignment_set),
            *((f"checkpoint {method}", folder) for method, folder in self.checkpoints.items()),
            ("run records", self.out / "eval"),
            *(("table", file) for file in self.tables),
        ]

    def summary(self) -> dict[str, Any]:
        """The same for programs, with the content of the board."""
        return {
            "out": self.out,
            "alignment_set": self.alignment_set,
            "checkpoints": self.checkpoints,
            "records": self.records,
            "tables": self.tables,
            "leaderboard": {name: value for name, value in self.board.data.items() if name != "files"},
            "seconds": self.seconds,
        }


def run_quickstart(out: Path) -> QuickstartResult:
    """Do whatever is not done yet in `out`.

    Raises:
        UserError: a sub-folder belongs to other recipes.
        MissingPrerequisite: voices or micro weights are missing (`rba-bench doctor` says how to get them).
    """
    from rba_bench.evaluation.runner import EvalRequest, evaluate
    from rba_bench.evaluation.task_registry import BENCHMARKS
    from rba_bench.leaderboard.board import build_board
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import train

    models = ("base", *METHODS, *REFERENCES)
    n_stages = 2 + len(METHODS) + len(models)
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        """Announce a stage and measure its time."""
        say(f"[{len(seconds) + 1}/{n_stages}] {name}")
        started = time.monotonic()
        yield
        seconds[name] = round(time.monotonic() - started, 1)

    alignment_set = out / "alignment-set"
    checkpoints = {method: out / "checkpoints" / method for method in METHODS}
    with stage("synth"):
        make_set(SYNTHESIS, out=alignment_set)
    for method, folder in checkpoints.items():
        with stage(f"train {method}"):
            overrides = [f"alignment_set={alignment_set}"]
            train(load_recipe(TrainingRecipe, recipe_file(method), overrides), folder)
    records: list[Path] = []
    for name in models:
        with stage(f"eval {name}"):
            model = str(checkpoints.get(name, name))
            request = EvalRequest(tasks=BENCHMARKS, model=model, track=TRACK, out=out / "eval")
            run_ids = [record.run_id for record in evaluate(request)]
            folders = {file.parent.name: file.parent for file in (out / "eval").rglob("run.json")}
            records += [folders[run_id] for run_id in run_ids]
    with stage("leaderboard"):
        board = build_board(records, out / "leaderboard", baseline_row=METHODS[0])
    say(f"done in {sum(seconds.values()):.0f} s")
    return QuickstartResult(out, alignment_set, checkpoints, tuple(records), board, seconds)
