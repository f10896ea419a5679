"""`rba-bench quickstart`: the whole way in one command, on real models or on those of the micro track.

    small   OUT/alignment-set  OUT/checkpoints/rba-single  OUT/eval/<model>/<run>  OUT/leaderboard  OUT/page
    micro   OUT/alignment-set  OUT/checkpoints/{sft,rba-single,rba-group}  OUT/eval/<model>/<run>  OUT/leaderboard

Every stage resumes itself, so the same call continues after an interruption, and of a finished folder it only reads.
The track small evaluates a slice of its tasks and aligns for a few steps. That decides nothing: it shows each stage on
models whose answers mean something.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.assets import ASSETS, MICRO, PREFIX, SMALL, find_asset
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.outputs import RUNS
from rba_bench.progress import say
from rba_bench.recipes import load_recipe, recipe_file, suggest
from rba_bench.stages import STANDARD_SET, SYNTHESIS, make_set

if TYPE_CHECKING:
    from rba_bench.leaderboard.board import BuildResult

OUT = {SMALL: RUNS / "quickstart-small", MICRO: STANDARD_SET.parent}

# small
LLM, ENCODER, VOICE = "smollm2-135m-instruct", "whisper-tiny.en", "piper-en_US-joe-medium"
BASE = "small-base"
ALIGNED = f"{SMALL}-aligned-"  # shipped aligned models begin with it
TASKS, ITEMS = ("small_qa", "small_instruct"), 20
METHOD = "rba-single"
# A set and a run of a few minutes each on two cores: answers of at most 80 tokens instead of 256
SET = (
    "n_instructions=12", "round_size=16", "batch_size=16", "max_words=20", "instruction_max_new_tokens=32",
    "response_max_new_tokens=80", "voices_per_instruction=2", "validation_fraction=0",
)  # fmt: skip
RUN = (
    "steps=6", "groups_per_step=3", "voices_per_group=2", "warmup_steps=0", "max_new_tokens=80", "max_answer_tokens=80",
    "refresh_every=1", "precision=float32", "eval_every=0", "select=last", "validate_ends=false", "save_every=2",
    "log_every=1", "samples_every=1",
)  # fmt: skip

# micro
METHODS = ("sft", "rba-single", "rba-group")  # each has a shipped recipe of its name
REFERENCES = ("text", "cascade", "constant")  # text ceiling, cascade baseline, lower bound


@dataclass(frozen=True)
class QuickstartResult:
    """Where everything is.

    Attributes:
        track: `small` or `micro`.
        checkpoints: Folder per method.
        records: Folders of the run records.
        board: The leaderboard as built.
        seconds: Wall time per stage of this call; of a resumed stage only the rest.
        page: Page with the clips and the answers, None on the micro track.
    """

    track: str
    out: Path
    alignment_set: Path
    checkpoints: dict[str, Path]
    records: tuple[Path, ...]
    board: "BuildResult"
    seconds: dict[str, float]
    page: Path | None = None

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
            *([("clips and answers", self.page)] if self.page else []),
        ]

    def summary(self) -> dict[str, Any]:
        """The same for programs, with the content of the board."""
        return {
            "track": self.track,
            "out": self.out,
            "alignment_set": self.alignment_set,
            "checkpoints": self.checkpoints,
            "records": self.records,
            "tables": self.tables,
            "leaderboard": {name: value for name, value in self.board.data.items() if name != "files"},
            "seconds": self.seconds,
            **({"page": self.page} if self.page else {}),
        }


class Stages:
    """Announces stages and measures their times.

    Args:
        count: Number of all stages.

    Attributes:
        seconds: Wall time by name.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Say that a stage begins, with the time so far; keep how long it took."""
        so_far = sum(self.seconds.values())
        say(
            f"[{len(self.seconds) + 1}/{self.count}] {name}" + (f" ({so_far:.0f} s so far)" if so_far else "")
        )
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)

    def finish(self) -> None:
        """Say how long it took in all."""
        say(f"done in {sum(self.seconds.values()):.0f} s")


def run_quickstart(out: Path | None = None, track: str | None = None) -> QuickstartResult:
    """Do whatever is not done yet of a track's quickstart.

    Args:
        out: Folder; by default one under `runs/` for each track.
        track: `small` or `micro`; None for `small`, and for `micro` where the weights of `small` cannot be fetched.

    Raises:
        UserError: An unknown track, or a sub-folder belongs to other recipes.
        MissingPrerequisite: Voices or weights are missing (`rba-bench doctor` says how to get them).
    """
    if track not in (*OUT, None):
        raise UserError(f"the quickstart has no track {track!r}{suggest(str(track), OUT)}")
    if track != MICRO:
        try:
            fetch_weights()
        except MissingPrerequisite as error:
            if track == SMALL:
                raise
            say(str(error))
            say("without these weights the quickstart runs the micro track, whose models ship with rba-bench")
        else:
            return run_small(out or OUT[SMALL])
    return run_micro(out or OUT[MICRO])


def fetch_weights() -> None:
    """Fetch what the quickstart needs and the cache lacks, 230 MB; a broken transfer is continued.

    Raises:
        MissingPrerequisite: No source can be reached, or Piper's voice cannot be used.
    """
    from rba_bench.assets.fetching import fetch, is_cached

    assets = [find_asset(name) for name in (LLM, ENCODER, VOICE)]
    missing = [asset for asset in assets if not is_cached(asset)]
    if missing:
        say(f"real weights, once: {sum(asset.size for asset in missing) / 1e6:.0f} MB")
    for asset in assets:
        fetch(asset)


def run_small(out: Path, model: str = PREFIX + BASE) -> QuickstartResult:
    """Do whatever is not done yet in `out`.

    Args:
        out: Folder.
        model: The speech model to align, as `--model` takes it.

    Raises:
        UserError: a sub-folder belongs to other recipes.
        MissingPrerequisite: voices or weights are missing (`rba-bench doctor` says how to get them).
    """
    from rba_bench.leaderboard.board import build_board
    from rba_bench.leaderboard.site.local_site import write_site
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import train

    shipped = [PREFIX + name for name in ASSETS if name.startswith(ALIGNED)]
    stage = Stages(8 + len(shipped))
    records: list[Path] = []
    references = (f"text:{PREFIX}{LLM}", f"cascade:{PREFIX}{ENCODER}+{PREFIX}{LLM}")
    for name in (*references, model, *shipped):
        with stage(f"eval {name}"):
            records += _evaluate(TASKS, name, SMALL, out, ITEMS)
    alignment_set, checkpoint = out / "alignment-set", out / "checkpoints" / METHOD
    with stage("synth"):
        make_set(f"{SMALL}/synth", SET, alignment_set)
    with stage(f"train {METHOD}"):
        overrides = (f"base={model}", f"alignment_set={alignment_set}", *RUN)
        train(load_recipe(TrainingRecipe, recipe_file(f"{SMALL}/{METHOD}"), overrides), checkpoint)
    with stage(f"eval {METHOD}"):
        records += _evaluate(TASKS, str(checkpoint), SMALL, out, ITEMS)
    with stage("leaderboard"):
        name = Path(model.removeprefix(PREFIX)).name
        board = build_board(records, out / "leaderboard", baseline_row=name, allow_partial=True)
    with stage("page"):
        page = write_site(records, out / "page").page
    stage.finish()
    checkpoints = {METHOD: checkpoint}
    return QuickstartResult(
        SMALL, out, alignment_set, checkpoints, tuple(records), board, stage.seconds, page
    )


def run_micro(out: Path) -> QuickstartResult:
    """Do whatever is not done yet in `out`.

    Raises:
        UserError: a sub-folder belongs to other recipes.
        MissingPrerequisite: voices or micro weights are missing (`rba-bench doctor` says how to get them).
    """
    from rba_bench.evaluation.task_registry import BENCHMARKS
    from rba_bench.leaderboard.board import build_board
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import train

    models = ("base", *METHODS, *REFERENCES)
    stage = Stages(2 + len(METHODS) + len(models))
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
            records += _evaluate(BENCHMARKS, model, MICRO, out)
    with stage("leaderboard"):
        board = build_board(records, out / "leaderboard", baseline_row=METHODS[0])
    stage.finish()
    return QuickstartResult(MICRO, out, alignment_set, checkpoints, tuple(records), board, stage.seconds)


def _evaluate(
    tasks: tuple[str, ...], model: str, track: str, out: Path, limit: int | None = None
) -> list[Path]:
    """Folders of the records of a model."""
    from rba_bench.evaluation.plan import EvalRequest
    from rba_bench.evaluation.runner import evaluate

    request = EvalRequest(tasks, model, track, out / "eval", limit)
    run_ids = [record.run_id for record in evaluate(request)]
    folders = {file.parent.name: file.parent for file in request.out.rglob("run.json")}
    return [folders[run_id] for run_id in run_ids]
