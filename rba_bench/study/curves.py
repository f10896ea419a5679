"""Training curves of a study's runs: the step log of each training, thinned to a few points that can be published.

A published study keeps them as `curves.csv`, which is an input of the report beside the scores: checkpoints are too
large to be kept. A curve belongs to a run by the identity that the run's scores have, so a curve of another training of
that name is left out.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_json, sha256_json
from rba_bench.outputs import RUN_RECORD
from rba_bench.study.folder import StudyFolder
from rba_bench.study.scores import SystemScores
from rba_bench.study.study_recipe import BUDGETS
from rba_bench.training.step_curve import FIGURES, POINTS, VALIDATIONS, Point, read_curve
from rba_bench.untrusted import plain, read_untrusted_file

CURVES = "curves.csv"
MAX_FILE = 16 * 2**20  # bytes
RUN_DIGITS = 12  # hex digits of a run's identity
COLUMNS = ("budget", "method", "seed", "run", "step", "seconds", *FIGURES, *VALIDATIONS)


@dataclass(frozen=True)
class Curve:
    """The curve of one training run.

    Attributes:
        part: The budget.
        method: The method.
        seed: Training seed.
        run: The first digits of the identity of the run (`SystemScores.weights`).
        points: Rising in `step`; keys are `step`, `seconds`, `FIGURES` and `VALIDATIONS`.
    """

    part: str
    method: str
    seed: int
    run: str
    points: tuple[Point, ...]


def match_curves(
    systems: Iterable[SystemScores], known: Iterable[Curve], folders: Iterable[StudyFolder] = ()
) -> tuple[Curve, ...]:
    """The curves of the trained systems: from their checkpoints where these are left, else as they are known.

    Args:
        systems: Scores; only their runs have curves.
        known: Curves of a published report.
        folders: Of the study, or of parts of it from several machines.

    Raises:
        UserError: the record or the log of a checkpoint is damaged.
    """
    points = {curve.run: curve.points for curve in known}
    for folder in folders:
        points |= dict(_trained(folder))
    return tuple(
        Curve(system.part, system.method, system.seed, run, points[run])
        for system in sorted(systems, key=lambda each: (each.part, each.method, each.seed))
        if system.part in BUDGETS and (run := system.weights[:RUN_DIGITS]) in points
    )


def _trained(folder: StudyFolder) -> Iterator[tuple[str, tuple[Point, ...]]]:
    """Identity and points of every finished training in a study's folder."""
    for record in sorted(file for budget in BUDGETS for file in folder.out.glob(f"{budget}/*/{RUN_RECORD}")):
        try:
            run = sha256_json(read_json(record))
            if points := read_curve(record.parent):
                yield run[:RUN_DIGITS], points
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"a file of the training in {record.parent} is damaged: {error}") from error


def flat_curves(curves: Iterable[Curve]) -> list[dict[str, Any]]:
    """Rows of `curves.csv`."""
    return [
        {
            **{"budget": curve.part, "method": curve.method, "seed": curve.seed, "run": curve.run},
            **{**point, "step": int(point["step"] or 0)},
        }
        for curve in curves
        for point in curve.points
    ]


def load_curves(file: Path) -> tuple[Curve, ...]:
    """The curves of a published report, () where it has none.

    Raises:
        UserError: the file is damaged.
    """
    if not file.is_file():
        return ()
    try:
        text = read_untrusted_file(file, MAX_FILE).decode()
        return tuple(_parse(text))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(
            f"{file} is damaged ({plain(error)}): remove it, and the report is made without curves"
        ) from error


def _parse(text: str) -> Iterator[Curve]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
    runs: dict[Curve, list[Point]] = {}
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has another number of columns")
        name = Curve(row["budget"], row["method"], int(row["seed"]), row["run"], ())
        point = {column: _cell(row[column]) for column in COLUMNS[4:]}
        points = runs.setdefault(name, [])
        if point["step"] is None or point["step"] <= (points[-1]["step"] or 0 if points else -1):
            raise ValueError(f"line {reader.line_num}: the steps of a run must rise")
        points.append(point)
        if len(points) > POINTS + 1:
            raise ValueError(f"line {reader.line_num}: a run has at most {POINTS + 1} points")
    for name, points in runs.items():
        yield replace(name, points=tuple(points))


def _cell(text: str) -> float | None:
    """A number, None for an empty cell."""
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value) or abs(value) > 1e12:
        raise ValueError(f"{text[:20]} is no number that can be drawn")
    return value
