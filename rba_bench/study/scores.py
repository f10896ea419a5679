"""What the statistics need of an evaluated checkpoint: per item its scores and which text it is, no answers.

A few kilobytes for each task, so a published study can be computed again without its run records.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from rba_bench.errors import UserError
from rba_bench.evaluation.records import Hash, Name
from rba_bench.files import sha256_json, write_atomic
from rba_bench.leaderboard import loaded_runs
from rba_bench.leaderboard.board_groups import data_hash
from rba_bench.metrics.aggregate import WIDTHS, macro_rows, macro_score, score_function
from rba_bench.metrics.bootstrap import Floats, ScoreFn
from rba_bench.untrusted import parse_untrusted_json, plain, read_untrusted_file, unpack_gzip

SUFFIX = ".json.gz"
MAX_FILE = 64 * 2**20  # bytes, packed
Row = float | list[int] | None


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class MetricScores(_Stored):
    """One metric of one run, item by item.

    Attributes:
        rows: Per item a number, the sufficient statistics of a corpus metric, or None where the item has no score.
    """

    aggregation: str
    macro: bool
    scale: float
    higher_is_better: bool
    rows: list[Row]


class TaskScores(_Stored):
    """One run record in short.

    Attributes:
        items: Hash of what was asked, in order; only runs with equal hashes can be paired.
        clusters: Number of the text of each item; items of one text are drawn together.
        groups: Number of each item's group in `group_names`, for macro averages.
    """

    version: str
    protocol: Name
    protocol_hash: Hash
    data_hash: Hash
    run_id: Name
    created: str
    items: Hash
    clusters: list[int]
    groups: list[int]
    group_names: list[str]
    statuses: dict[str, int]
    metrics: dict[str, MetricScores]

    def rows(self, metric: str) -> tuple[Floats, ScoreFn]:
        """Summable rows `[n, k]` and the score of their sum; an item without a score is a row of zeros."""
        stored = self.metrics[metric]
        empty = [0.0] * WIDTHS[stored.aggregation]
        matrix = np.asarray([_summable(row, empty) for row in stored.rows], dtype=np.float64)
        score = score_function(stored.aggregation)
        if not stored.macro:
            return matrix, score
        return macro_rows(matrix, self.groups), macro_score(score, matrix.shape[1])


class SystemScores(_Stored):
    """One checkpoint, or one reference system, on the tasks of the study.

    Attributes:
        part: The budget, or `reference`.
        method: Method, or name of the reference system.
        seed: Training seed; 0 for references.
        cost: What the training took: see `rba_run.json`. Empty for references.
        eval_s: Seconds that its evaluation took.
        weights: Identity of the weights that answered.
    """

    part: Name
    method: Name
    seed: int
    cost: dict[str, Any]
    eval_s: float
    weights: str
    tasks: dict[str, TaskScores]

    def save(self, folder: Path) -> None:
        """Write it to its place below `folder`; equal content gives equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), separators=(",", ":"))
        write_atomic(folder / self.place, gzip.compress(text.encode(), compresslevel=9, mtime=0))

    @property
    def place(self) -> Path:
        """Path below the folder of scores."""
        return place(self.part, self.method, self.seed)


def place(part: str, method: str, seed: int) -> Path:
    """Path of a system's scores below the folder of scores."""
    return Path(part) / f"{method}-seed{seed}{SUFFIX}"


def read(file: Path) -> SystemScores | None:
    """Kept scores, None where there are none.

    Raises:
        UserError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        found = SystemScores.model_validate(
            parse_untrusted_json(unpack_gzip(read_untrusted_file(file, MAX_FILE), file)), strict=True
        )
    except (OSError, ValueError) as error:
        reason = plain(error)
        raise UserError(
            f"{file} is damaged ({reason}): remove it to have it made again from the run records"
        ) from error
    if file.parts[-2:] != found.place.parts:
        raise UserError(f"{file} holds the scores of {found.place}: one of the two names is wrong")
    return found


def read_all(folder: Path) -> list[SystemScores]:
    """Everything kept below a folder, sorted by part, method and seed."""
    found = [read(file) for file in folder.rglob(f"*{SUFFIX}")]
    return sorted((one for one in found if one), key=lambda one: (one.part, one.method, one.seed))


def condense(folder: Path, metrics: Sequence[str]) -> TaskScores:
    """A run folder in short.

    Args:
        folder: Of the run; it is verified as for a leaderboard.
        metrics: Which metrics to keep.

    Raises:
        UserError: the run is damaged or does not have a metric.
    """
    run = loaded_runs.load_run(folder)
    record = run.record
    if strangers := [name for name in metrics if name not in record.metrics]:
        raise UserError(
            f"{record.task} has no metric {strangers[0]!r}; it has {', '.join(record.metrics)}: correct `tasks`"
        )
    names = sorted({sample.group for sample in run.samples})
    numbers: dict[str, int] = {}
    return TaskScores(
        version=record.task_version,
        protocol=record.protocol,
        protocol_hash=record.protocol_hash,
        data_hash=data_hash(record),
        run_id=record.run_id,
        created=record.created,
        items=sha256_json(run.items),
        clusters=[numbers.setdefault(sample.cluster, len(numbers)) for sample in run.samples],
        groups=[names.index(sample.group) for sample in run.samples],
        group_names=names,
        statuses={status: count for status, count in record.statuses.items() if count},
        metrics={name: _metric(run, name) for name in metrics},
    )


def _metric(run: loaded_runs.LoadedRun, name: str) -> MetricScores:
    stated = run.record.metrics[name]
    return MetricScores(
        aggregation=stated.aggregation,
        macro=stated.macro,
        scale=stated.scale,
        higher_is_better=stated.higher_is_better,
        rows=[sample.scores.get(name) for sample in run.samples],
    )


def _summable(row: Row, empty: Sequence[float]) -> Sequence[float]:
    if row is None:
        return empty
    return row if isinstance(row, list) else [float(row), 1.0]
