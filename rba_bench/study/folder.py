"""Where everything of a study lies, and how far it is.

OUT/rba_config.json                        whose folder this is
OUT/alignment-set/                         what all methods learn from
OUT/warmup/, OUT/warmup-set/               the study's base, if the study makes one, and the set it learnt from
OUT/time.json                              the budget `time` in seconds and in each method's steps, once measured
OUT/<budget>/<method>-seed<N>/             one training run: a checkpoint
OUT/eval/<budget>/<method>-seed<N>/        its run records
OUT/report/scores/<budget>/<...>.json.gz   what the statistics need of them: per item, no texts
OUT/report/                                tables; can be published and rendered again from itself
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD, TRAIN_LOG
from rba_bench.study.study_recipe import Budget

REFERENCE = "reference"
REPORT = "report"


@dataclass(frozen=True)
class Cell:
    """One training run of the study."""

    budget: Budget
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.method}-seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.method}, seed {self.seed}, equal {self.budget}"


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study."""

    out: Path

    @property
    def alignment_set(self) -> Path:
        """The common set, unless one made elsewhere is used."""
        return self.out / "alignment-set"

    @property
    def warmup(self) -> Path:
        """The base that the study made."""
        return self.out / "warmup"

    @property
    def warmup_set(self) -> Path:
        """What that base learnt from, if it is a set of its own."""
        return self.out / "warmup-set"

    @property
    def time_file(self) -> Path:
        """The budget `time`, as measured."""
        return self.out / "time.json"

    @property
    def report(self) -> Path:
        """Tables and what they are made from."""
        return self.out / REPORT

    def checkpoint(self, cell: Cell) -> Path:
        """Of one training run."""
        return self.out / cell.budget / cell.name

    def records(self, part: str) -> Path:
        """Run records of a budget, or of the reference systems."""
        return self.out / "eval" / part

    def failure_file(self, cell: Cell) -> Path:
        """Why a run stopped for good, where it did."""
        return self.out / "failures" / cell.budget / f"{cell.name}.json"

    def run(self, cell: Cell) -> dict[str, Any] | None:
        """`rba_run.json` of a finished training, None if it is not finished.

        Raises:
            UserError: the file is damaged.
        """
        file = self.checkpoint(cell) / RUN_RECORD
        if not file.is_file():
            return None
        try:
            found: dict[str, Any] = read_json(file)
        except ValueError as error:
            raise UserError(
                f"{file} is damaged ({error}): remove {file.parent} to train this run again"
            ) from error
        return found

    def started(self, cell: Cell) -> bool:
        """Whether a training left anything to resume."""
        return (self.checkpoint(cell) / TRAIN_LOG).is_file()

    def failure(self, cell: Cell) -> str:
        """Why the run stopped for good, "" if it did not."""
        file = self.failure_file(cell)
        return str(read_json(file)["error"]) if file.is_file() else ""
