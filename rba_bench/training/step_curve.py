"""The curve of a training: its step log thinned to a few points, which fit into a record and a published report.

A point stands for some steps: its figures are their means, its step and its seconds those of the last of them. What a
validation found stands at the point that its step belongs to.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rba_bench.files import read_jsonl
from rba_bench.outputs import TRAIN_LOG
from rba_bench.training.run_names import VALIDATION

POINTS = 32  # of a run; the last one is its last step
DIGITS = 5  # significant
# Names in the step log. What a method does not have stays empty.
FIGURES = (
    "loss", "sft", "preference", "divergence", "kl", "accuracy", "margin", "reward", "length", "truncated", "tokens",
    "grad_norm", "learning_rate",
)  # fmt: skip
VALIDATIONS = ("validation_loss", "validation_reward")
Point = dict[str, float | None]


def read_curve(folder: Path) -> tuple[Point, ...]:
    """The curve of the training in a folder, () where it has logged nothing.

    Raises:
        ValueError, KeyError, TypeError: a log is damaged.
    """
    return thin_log(read_jsonl(folder / TRAIN_LOG), read_jsonl(folder / VALIDATION))


def thin_log(
    log: Iterable[Mapping[str, Any]], validations: Iterable[Mapping[str, Any]] = (), points: int = POINTS
) -> tuple[Point, ...]:
    """At most `points` points of a step log, and one before it where something was validated before the first step.

    Args:
        log: Records of `train_log.jsonl`.
        validations: Records of `validation.jsonl`; those of answers are passed over.
        points: The largest number of points.
    """
    steps = sorted(log, key=lambda record: record["step"])
    ends = [round(place * len(steps) / points) for place in range(1, points + 1)]
    if len(steps) < points:
        ends = list(range(1, len(steps) + 1))
    validated = sorted(
        (record for record in validations if any(_number(record, name) is not None for name in VALIDATIONS)),
        key=lambda record: record["step"],
    )
    curve = []
    if validated and validated[0]["step"] == 0:
        curve.append(_point(0, 0.0, (), validated[:1]))
    for start, end in zip([0, *ends], ends, strict=False):
        window, last = steps[start:end], steps[end - 1]
        after = steps[start - 1]["step"] if start else 0
        found = [record for record in validated if after < record["step"] <= last["step"]]
        curve.append(_point(last["step"], _number(last, "elapsed_s"), window, found[-1:]))
    return tuple(curve)


def _point(
    step: int, seconds: float | None, window: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> Point:
    point: Point = {"step": float(step), "seconds": None if seconds is None else round(seconds, 1)}
    for names, records in ((FIGURES, window), (VALIDATIONS, found)):
        for name in names:
            values = [value for record in records if (value := _number(record, name)) is not None]
            point[name] = float(f"{fmean(values):.{DIGITS}g}") + 0.0 if values else None
    return point


def _number(record: Mapping[str, Any], name: str) -> float | None:
    """A finite number of a record, None for anything else."""
    value = record.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and value is not None else None


def curve_columns(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """The points by figure, without the figures that no point has: the `curve` of `rba_run.json`."""
    names = [
        name
        for name in ("step", "seconds", *FIGURES, *VALIDATIONS)
        if any(p[name] is not None for p in points)
    ]
    columns = {name: [point[name] for point in points] for name in names}
    return {**columns, **({"step": [int(point["step"] or 0) for point in points]} if points else {})}
