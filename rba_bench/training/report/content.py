"""What a run's folder holds, finished, running or killed, and the curves of its report, of bounded length."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.outputs import RUN_RECORD, TRAIN_LOG, read_signature
from rba_bench.training.run_names import SAMPLES, START, VALIDATION

GROUPS = 10  # on the page
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
_NUMBER = (int, float)
_OPTIONAL = (int, float, type(None))
_TASK = {"group": str, "kind": str, "prompt": str, "instruction": str, "teacher": str}
_ANSWER = {
    **_TASK,
    **{"clip": str, "voice": str, "answer": str, "teacher_nats": _NUMBER, "tokens": int, "cut": bool},
    "reward": _OPTIONAL,
}
_GROUP = {**_TASK, "step": int, "voices": list, "samples": list, "samples_left_out": int, "pairs": list}
_SAMPLE = {"clip": str, "text": str, "tokens": int, "cut": bool, "read": bool, "reward": _OPTIONAL}
_VOICE = {"clip": str, "voice": str}
_SIDE = {"voice": str, "text": str, "sample": (int, type(None))}


@dataclass(frozen=True)
class RunContent:
    """A run as its files tell it.

    Attributes:
        folder: of the run.
        recipe: every key with its value; of a run of an earlier version that is not finished, those that decide it.
        start: `rba_start.json`, empty where there is none.
        run: `rba_run.json`, empty while the run is not finished.
        log: a record per step.
        validations: figures by step.
        before, after: answers to held-out items by the policy at the start and at the end; with the step.
        groups: some groups as they were trained on, in the order of their steps.
    """

    folder: Path
    recipe: dict[str, Any]
    start: dict[str, Any]
    run: dict[str, Any]
    log: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    before: tuple[int, list[dict[str, Any]]] | None
    after: tuple[int, list[dict[str, Any]]] | None
    groups: list[dict[str, Any]]

    @property
    def step(self) -> int:
        """The last step in the record or in the step log."""
        return int(self.run.get("steps") or (self.log[-1]["step"] if self.log else 0))

    @property
    def steps(self) -> int:
        """The step at which the run ends."""
        return int(self.recipe.get("steps") or self.step)

    @property
    def missing(self) -> list[str]:
        """What the page cannot show, and why; one line each."""
        lines = []
        if not self.log:
            lines.append(f"No curves: {TRAIN_LOG} holds no step yet.")
        if not self.groups:
            lines.append(
                f"No groups: {SAMPLES} is empty or not there. The run has `samples_every: 0`, has not come to its "
                "first step, or was made by a version that did not write samples."
            )
        if self.before is None:
            lines.append(
                "No answers before and after: the set has no validation rows, the run has `validate_ends: false`, or "
                "it was made by a version without these answers."
            )
        elif self.after is None:
            lines.append("No answers after training: the run has not come to its end.")
        if not self.start and not self.run:
            lines.append(f"The recipe lacks its paths: there is neither {START} nor {RUN_RECORD}.")
        return lines


def read_run(folder: Path) -> RunContent:
    """Read a run's folder.

    Raises:
        UserError: it is no training run, or one of its files is damaged.
    """
    signature = read_signature(folder) if folder.is_dir() else None
    if signature is None or signature.get("stage") != "train":
        raise UserError(
            f"{folder} is no training run: name the folder that `rba-bench train` wrote (its --out)"
        )
    try:
        return _read_content(folder, signature["config"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"a file of the run in {folder} is damaged: {error}") from error


def _read_content(folder: Path, config: dict[str, Any]) -> RunContent:
    start, run = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in (START, RUN_RECORD)
    )
    recipe = run.get("recipe") or start.get("recipe") or config
    log = _sort_by_step(read_jsonl(folder / TRAIN_LOG))
    records = list(read_jsonl(folder / VALIDATION))
    validations = _sort_by_step(record for record in records if "answers" not in record)
    if not validations:  # an earlier version has them in the step log alone
        validations = [record for record in log if any(name.startswith("validation_") for name in record)]
    answers = [
        (int(record["step"]), _checked_records(record["answers"], _ANSWER))
        for record in records
        if "answers" in record
    ]
    groups = _checked_records(read_jsonl(folder / SAMPLES), _GROUP)
    for group in groups:
        _checked_records(group["samples"], _SAMPLE)
        _checked_records(group["voices"], _VOICE)
        for pair in group["pairs"]:
            _checked_records((pair["chosen"], pair["rejected"]), _SIDE)
    return RunContent(
        folder,
        recipe,
        start,
        run,
        log,
        validations,
        before=answers[0] if answers else None,
        after=answers[-1] if len(answers) > 1 else None,
        groups=spread_groups(groups, GROUPS),
    )


def _checked_records(records: Iterable[Any], kinds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records, each of which must have these keys with values of these types. Raises ValueError."""
    checked = list(records)
    for record in checked:
        for key, kind in kinds.items():
            if not isinstance(record, dict) or not isinstance(record.get(key), kind):
                raise ValueError(f"a record has no proper {key!r}")
    return checked


def _sort_by_step(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last record of each step, in order of the steps."""
    return [record for _, record in sorted({int(record["step"]): record for record in records}.items())]


def spread_groups(groups: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """At most `count` groups, evenly over the run, the first and the last step among them."""
    if len(groups) <= count:
        return list(groups)
    return [groups[round(place * (len(groups) - 1) / (count - 1))] for place in range(count)]


def make_charts(content: RunContent) -> list[dict[str, Any]]:
    """Charts with a value, as JSON values: title, unit, summary in words, and curves with names, x and y."""
    charts = [_chart(title, unit, [(shown, _points(content.log, name)) for name, shown in curves])
             for title, unit, curves in CHARTS]  # fmt: skip
    # tokens per second of training time; one point for the steps whose samples are drawn together
    refresh = int(content.recipe.get("refresh_every") or 1)
    speed, tokens, before = [], 0.0, 0.0
    for record in content.log:
        if not all(_is_number(record.get(name)) for name in ("tokens", "elapsed_s")):
            continue
        elapsed = float(record["elapsed_s"])
        tokens += float(record["tokens"])
        if record["step"] % refresh == 0 and elapsed > before:
            speed.append((record["step"], tokens / (elapsed - before)))
            tokens, before = 0.0, elapsed
    charts.append(_chart("Speed", "tokens/s", [("tokens/s", speed)]))
    charts.append(_chart("Validation", "", _validation(content.validations), dots=True))
    return [chart for chart in charts if chart["curves"]]


def _chart(
    title: str, unit: str, curves: Sequence[tuple[str, list[tuple[float, float]]]], dots: bool = False
) -> dict[str, Any]:
    lines = [(name, thin_points(points)) for name, points in curves if points]
    summaries = []
    for name, points in lines:
        (first_x, first), (last_x, last) = points[0], points[-1]
        end = f", {last:.4g} at step {last_x:g}" if len(points) > 1 else ""
        summaries.append(f"{name}: {first:.4g} at step {first_x:g}{end}")
    return {
        "title": title,
        "unit": unit,
        "dots": dots,
        "summary": "; ".join(summaries),
        "curves": [
            {"name": name, "x": [x for x, _ in points], "y": [y for _, y in points]} for name, points in lines
        ],
    }


def _points(log: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(record["step"], float(record[name])) for record in log if _is_number(record.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")  # not NaN either


def _validation(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[float, float]]]]:
    figures = ("validation_loss", "validation_reward")
    names = sorted({name for record in records for name in record if name.startswith(figures)})
    if len(names) == 2:  # one kind, whose curve is that of the mean
        names = names[:1]
    short = {name: name.removeprefix("validation_").replace("_", " of ") for name in names}
    if len(names) > 1:
        short |= {name: f"{shown}, mean of kinds" for name, shown in short.items() if " of " not in shown}
    return [(short[name], _points(records, name)) for name in names]


def thin_points(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """At most `limit` points, each the mean of neighbours, at the x of the last of them."""
    size = -(-len(points) // limit)
    if size <= 1:
        return list(points)
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(block[-1][0], sum(y for _, y in block) / len(block)) for block in blocks]
