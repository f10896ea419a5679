"""Where everything of a study lies, and how far each training run is.

OUT/rba_config.json                        signature: the recipe that the folder belongs to
OUT/alignment-set/                         training data of all methods
OUT/warmup/, OUT/warmup-set/               the study's base, if the study makes one, and its training data
OUT/probe/                                 seconds per step and per item, measured on a few (`probe.py`)
OUT/time.json                              the budget `time` in seconds and in each method's steps, once measured
OUT/<budget>/<method>-seed<N>/             one training run: a checkpoint
OUT/eval/<budget>/<method>-seed<N>/        its run records
OUT/report/scores/<budget>/<...>.json.gz   scores per item, from which the report is computed; no texts
OUT/report/                                tables; can be published and rendered again from itself
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD, TRAIN_LOG
from rba_bench.study.study_recipe import Budget

STAGE = "study"  # what signs the folder
REFERENCE = "reference"
REPORT = "report"
SCORES = "scores"


@dataclass(frozen=True)
class Cell:
    """One training run of the study."""

    budget: Budget
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method}, seed {self.seed}, equal {self.budget}"


class StudyFolder:
    """The folder of a study.

    Args:
        out: Its path.

    Attributes:
        alignment_set: The common training data, unless a set made elsewhere is used.
        warmup: The base that the study made.
        warmup_set: Training data of that base, if it has a set of its own.
        time_file: The budget `time`, as measured.
        report: Tables, and the scores that they are computed from.
        scores: These scores.
        eval: Run records, by budget.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.alignment_set = out / "alignment-set"
        self.warmup = out / "warmup"
        self.warmup_set = out / "warmup-set"
        self.time_file = out / "time.json"
        self.report = out / REPORT
        self.scores = self.report / SCORES
        self.eval = out / "eval"

    def checkpoint(self, cell: Cell) -> Path:
        """Folder of one training run."""
        return self.out / cell.budget / f"{cell.method}-seed{cell.seed}"

    def failure_file(self, cell: Cell) -> Path:
        """Written where a training run stopped for good."""
        return self.out / "failures" / cell.budget / f"{cell.method}-seed{cell.seed}.json"

    def run_record(self, cell: Cell) -> dict[str, Any] | None:
        """`rba_run.json` of a finished training, None if it is not finished.

        Raises:
            UserError: the file is damaged.
        """
        file = self.checkpoint(cell) / RUN_RECORD
        if not file.is_file():
            return None
        try:
            record: dict[str, Any] = read_json(file)
        except ValueError as error:
            fix = f"remove {file.parent} to train this run again"
            raise UserError(f"{file} is damaged ({error}): {fix}") from error
        return record

    def is_started(self, cell: Cell) -> bool:
        """Whether a training left anything to resume."""
        return (self.checkpoint(cell) / TRAIN_LOG).is_file()

    def failure(self, cell: Cell) -> str:
        """Why the run stopped for good, "" if it did not."""
        file = self.failure_file(cell)
        return str(read_json(file)["error"]) if file.is_file() else ""
