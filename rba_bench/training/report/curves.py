"""The curves of a report as data: what is drawn, from the step log, in a bounded number of points."""

from collections.abc import Sequence
from typing import Any

from rba_bench.training.report.content import Content

POINTS = 1_000  # of a curve; more steps are averaged

# title, unit, and the curves: name in the step log, name on the page
CHARTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Loss", "", (("loss", "loss"),)),
    (
        "Terms of the loss",
        "",
        (("preference", "preference"), ("sft", "SFT"), ("kl", "KL"), ("policy", "policy")),
    ),
    ("Reward", "", (("reward_best", "best"), ("reward", "mean"), ("reward_worst", "worst"))),
    ("Margin of the pairs", "nats", (("margin", "margin"),)),
    (
        "Shares",
        "share",
        (
            ("truncated", "cut"),
            ("saturated", "saturated"),
            ("accuracy", "pairs in order"),
            ("match", "teacher's"),
        ),
    ),
    ("Length of samples", "tokens", (("length", "length"),)),
    ("Learning rate", "", (("learning_rate", "learning rate"),)),
    ("Gradient", "norm", (("grad_norm", "gradient"),)),
)


def charts(content: Content) -> list[dict[str, Any]]:
    """Charts with a value, as JSON values: title, unit, summary in words, and curves with names, x and y."""
    found = [_chart(title, unit, [(shown, _points(content.log, name)) for name, shown in curves])
             for title, unit, curves in CHARTS]  # fmt: skip
    together = int(content.recipe.get("refresh_every") or 1)
    found.append(_chart("Speed", "tokens/s", [("tokens/s", _speed(content.log, together))]))
    found.append(_chart("Validation", "", _validation(content.validations), dots=True))
    return [chart for chart in found if chart["curves"]]


def _chart(
    title: str, unit: str, curves: Sequence[tuple[str, list[tuple[float, float]]]], dots: bool = False
) -> dict[str, Any]:
    drawn = [(name, thinned(points)) for name, points in curves if points]
    words = "; ".join(f"{name}: {_told(points)}" for name, points in drawn)
    return {
        "title": title,
        "unit": unit,
        "dots": dots,
        "summary": words,
        "curves": [
            {"name": name, "x": [x for x, _ in points], "y": [y for _, y in points]} for name, points in drawn
        ],
    }


def _told(points: Sequence[tuple[float, float]]) -> str:
    (first_x, first), (last_x, last) = points[0], points[-1]
    return f"{first:.4g} at step {first_x:g}" + (
        f", {last:.4g} at step {last_x:g}" if len(points) > 1 else ""
    )


def _points(log: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(record["step"], float(record[name])) for record in log if _is_number(record.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")  # not NaN either


def _speed(log: Sequence[dict[str, Any]], together: int) -> list[tuple[float, float]]:
    """Tokens per second of training time; of steps that were sampled for together, `together` of them, as one."""
    found = []
    tokens, before = 0.0, 0.0
    for record in log:
        if not all(_is_number(record.get(name)) for name in ("tokens", "elapsed_s")):
            continue
        elapsed = float(record["elapsed_s"])
        tokens += float(record["tokens"])
        if record["step"] % together == 0 and elapsed > before:
            found.append((record["step"], tokens / (elapsed - before)))
            tokens, before = 0.0, elapsed
    return found


def _validation(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[float, float]]]]:
    names = sorted(
        {
            name
            for record in records
            for name in record
            if name.startswith(("validation_loss", "validation_reward"))
        }
    )
    if len(names) == 2:  # one kind, whose curve is that of the mean
        names = names[:1]
    short = {name: name.removeprefix("validation_").replace("_", " of ") for name in names}
    if len(names) > 1:
        short |= {name: f"{shown}, mean of kinds" for name, shown in short.items() if " of " not in shown}
    return [(short[name], _points(records, name)) for name in names]


def thinned(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """At most `limit` points, each the mean of neighbours; the last one stands at the last x."""
    size = -(-len(points) // limit)
    if size <= 1:
        return list(points)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(block[-1][0], sum(y for _, y in block) / len(block)) for block in blocks]
