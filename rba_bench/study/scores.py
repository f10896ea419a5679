"""Scores of an evaluated checkpoint, item by item, without its answers: what the statistics of a study need.

A few kilobytes for each task, so a published study can be computed again without its run records.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rba_bench.errors import UserError
from rba_bench.evaluation.records import Hash, Name
from rba_bench.files import sha256_json, write_atomic
from rba_bench.leaderboard.board_groups import data_hash
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.metrics.aggregate import resampling_rows, summable_rows
from rba_bench.metrics.bootstrap import Floats, ScoreFn
from rba_bench.study.folder import Cell, StudyFolder
from rba_bench.untrusted import parse_untrusted_json, plain, read_untrusted_file, unpack_gzip

SUFFIX = ".json.gz"
MAX_FILE = 64 * 2**20  # bytes, packed


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
    rows: list[float | list[int] | None]


class TaskScores(_Stored):
    """One run record in short.

    Attributes:
        items: Hash of the items in order; only runs with equal hashes can be paired.
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
        scores = self.metrics[metric]
        rows = summable_rows(scores.rows, scores.aggregation)
        return resampling_rows(rows, scores.aggregation, self.groups if scores.macro else None)


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
        file = folder / scores_path(self.part, self.method, self.seed)
        write_atomic(file, gzip.compress(text.encode(), compresslevel=9, mtime=0))


def scores_path(part: str, method: str, seed: int) -> Path:
    """Path of a system's scores below the folder of scores."""
    return Path(part) / f"{method}-seed{seed}{SUFFIX}"


def load_scores(file: Path) -> SystemScores | None:
    """Scores of one system, None where there are none.

    Raises:
        UserError: the file is damaged.
    """
    if not file.is_file():
        return None
    try:
        data = parse_untrusted_json(unpack_gzip(read_untrusted_file(file, MAX_FILE), file))
        system = SystemScores.model_validate(data, strict=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({plain(error)}): remove it to have it made again from the run records"
        ) from error
    path = scores_path(system.part, system.method, system.seed)
    if file.parts[-2:] != path.parts:
        raise UserError(f"{file} holds the scores of {path}: one of the two names is wrong")
    return system


def load_all_scores(folder: Path) -> list[SystemScores]:
    """All systems below a folder, sorted by part, method and seed."""
    systems = [system for file in folder.rglob(f"*{SUFFIX}") if (system := load_scores(file))]
    return sorted(systems, key=lambda system: (system.part, system.method, system.seed))


def training_facts(folder: StudyFolder, cell: Cell) -> dict[str, Any] | None:
    """What a finished training took (`rba_run.json`, else what its scores repeat of it), None if it is not finished.

    Checkpoints are large: they can be removed once a run is scored, and a published report continues without them.

    Raises:
        UserError: a file is damaged.
    """
    record = folder.run_record(cell)
    if record is not None:
        return record
    stored = load_scores(folder.scores / scores_path(cell.budget, cell.method, cell.seed))
    return None if stored is None or not stored.cost else stored.cost


def condense_run(folder: Path, metrics: Sequence[str]) -> TaskScores:
    """A run folder in short.

    Args:
        folder: The run; it is verified as for a leaderboard.
        metrics: Which metrics to keep.

    Raises:
        UserError: the run is damaged or does not have a metric.
    """
    run = load_checked_run(folder)
    record = run.record
    for name in metrics:
        if name not in record.metrics:
            known = ", ".join(record.metrics)
            raise UserError(f"{record.task} has no metric {name!r}; it has {known}: correct `tasks`")
    group_names = sorted({sample.group for sample in run.samples})
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
        groups=[group_names.index(sample.group) for sample in run.samples],
        group_names=group_names,
        statuses={status: count for status, count in record.statuses.items() if count},
        metrics={
            name: MetricScores(
                **record.metrics[name].model_dump(include=MetricScores.model_fields.keys() - {"rows"}),
                rows=[sample.scores.get(name) for sample in run.samples],
            )
            for name in metrics
        },
    )
