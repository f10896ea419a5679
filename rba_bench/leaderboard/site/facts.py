"""What the front page says about the settings and models of a board, in rounded numbers, ready for JSON.

A *setting* is one group of the board: a task with its decoding, test set and, where there is one, its perturbation.
Scores and differences are on a scale of 100 with the digits that are shown, so that every processor writes the same
page.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from rba_bench.evaluation.audio_control import SHUFFLE, SILENCE
from rba_bench.evaluation.metric import shown_decimals
from rba_bench.evaluation.records import ATTESTATION_FILE, RUN_FILE, STATUSES, RunRecord
from rba_bench.files import folder_name
from rba_bench.leaderboard.board_groups import BoardGroup, BoardRow
from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.loaded_runs import CEILING, KINDS, MODEL, LoadedRun
from rba_bench.leaderboard.pages import PUBLISHED, published_folder
from rba_bench.leaderboard.provenance import PROVENANCES, provenance_of
from rba_bench.leaderboard.tables import NOTHING, SHORT, rounded
from rba_bench.metrics.interval import Interval
from rba_bench.untrusted import plain

ALL_PAIRS = 12  # rows up to which a page holds the difference of every pair; `compare` has the others
SPEECHLESS = (SILENCE, SHUFFLE)  # controls that leave nothing of the speech; the first seconds are speech
MOST_PARAMETERS = 10**15
TYPES = {
    MODEL: "end-to-end",
    CEILING: "text ceiling",
    "cascade": "cascade",
    "constant": "constant answer",
}


@dataclass(frozen=True)
class Setting:
    """One group of a board with its names on the page.

    Attributes:
        section: Name of its files.
        title: What tells it apart from the other settings of the page.
        group: The runs.
    """

    section: str
    title: str
    group: BoardGroup

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric that the setting is ranked by."""
        return self.group.record.metrics[self.group.primary].higher_is_better

    @property
    def metric(self) -> str:
        """The metric with its unit; its direction is said apart."""
        value = self.group.record.metrics[self.group.primary]
        return metric_heading(self.group.primary, value.scale, True, value.signature)

    @cached_property
    def digits(self) -> int:
        """Digits behind the point."""
        value = self.group.record.metrics[self.group.primary]
        return shown_decimals(self.group.primary, value.scale)

    def points(self, *numbers: float) -> list[float]:
        """Numbers in units of the metric as points on a scale of 100, as they are shown."""
        factor = 100.0 / self.group.record.metrics[self.group.primary].scale
        return [round(rounded(number * factor), self.digits) + 0.0 for number in numbers]

    def score(self, row: BoardRow) -> list[float]:
        """Score with the ends of its interval."""
        value = row.run.record.metrics[self.group.primary]
        return self.points(value.value, value.low, value.high)

    def difference(self, interval: Interval | None) -> list[float] | None:
        """A difference with the ends of its interval, and 1 where it is for the better, -1 for the worse, else 0."""
        if interval is None:
            return None
        mark = 0
        if interval.excludes(0.0):
            mark = 1 if (interval.value > 0) == self.higher_is_better else -1
        return [*self.points(interval.value, interval.low, interval.high), mark]


def settings_of(sections: Mapping[str, BoardGroup]) -> list[Setting]:
    """The groups with titles that differ: task and perturbation, or the section where these are not enough."""
    titles = [
        group.task + (f", {group.perturbation}" if group.perturbation else "") for group in sections.values()
    ]
    settings = []
    for (section, group), title in zip(sections.items(), titles, strict=True):
        shown = title if titles.count(title) == 1 else section + title.removeprefix(group.task)
        settings.append(Setting(section, shown, group))
    return settings


def in_order(settings: Sequence[Setting]) -> list[Setting]:
    """Tasks as they are; of one task, the clips as they are before changed ones, from mild to strong."""
    first = {setting.group.task: place for place, setting in reversed(list(enumerate(settings)))}

    def place(setting: Setting) -> tuple[int, bool, str, float]:
        changed = setting.group.perturbation
        return first[setting.group.task], bool(changed), *level_of(changed)

    return sorted(settings, key=place)


def level_of(perturbation: str) -> tuple[str, float]:
    """Kind of a perturbation, and its place among those of its kind, from mild to strong."""
    number = re.search(r"-?\d+(\.\d+)?", perturbation)
    kind = re.sub(r"-?\d+(\.\d+)?", "", perturbation)
    amount = float(number[0]) if number else 0.0
    falls = kind.startswith(("noise", "clip"))  # decibels of speech above noise: less is stronger
    return kind, -amount if falls else amount


def baseline_name(settings: Sequence[Setting]) -> str:
    """Label of the baseline row, or what was asked for where it has several labels or none."""
    labels = {row.label for setting in settings for row in setting.group.rows if row.is_baseline}
    return labels.pop() if len(labels) == 1 else plain(settings[0].group.baseline)


@dataclass(frozen=True)
class Model:
    """One row of the main table.

    Attributes:
        label: As on the board.
        kind: See `BoardRow.kind`.
        folder: Of its records, below the folder of the board.
    """

    label: str
    kind: str
    folder: str

    def to_dict(self) -> dict[str, str]:
        """JSON form."""
        return {"label": self.label, "type": TYPES[self.kind], "folder": self.folder}


def models_of(settings: Sequence[Setting]) -> list[Model]:
    """The rows of all settings by label: models first, then the references."""
    models: dict[str, Model] = {}
    for row in (row for setting in settings for row in setting.group.rows):
        folder = f"{PUBLISHED}/{folder_name(str(row.run.record.model['name']))}"
        models.setdefault(row.label, Model(row.label, row.kind, folder))
    return sorted(models.values(), key=lambda model: (KINDS.index(model.kind), model.label))


def front_data(settings: Sequence[Setting], models: Sequence[Model], linked: set[str]) -> dict[str, Any]:
    """What the script of the front page needs at once: settings, models, scores, rank bands and where they come from.

    Args:
        settings: In the order of the page.
        models: In the order of the page.
        linked: Sections that have a page of samples.
    """
    index = {model.label: place for place, model in enumerate(models)}
    origins: dict[tuple[str, str], int] = {}  # label and facts by the place at which they are listed

    def origin(row: BoardRow) -> int:
        found = provenance_of(row.run)
        return origins.setdefault((found.label, found.facts), len(origins))

    provenance = [[origin(row) for row in setting.group.rows] for setting in settings]
    return {
        "baseline": baseline_name(settings),
        "provenances": [list(each) for each in origins],
        "trust": list(PROVENANCES),
        "models": [model.to_dict() for model in models],
        "settings": [
            {
                "section": setting.section,
                "title": setting.title,
                "track": setting.group.record.track,
                "decoding": setting.group.record.protocol,
                "metric": setting.metric,
                "lower": not setting.higher_is_better,
                "digits": setting.digits,
                "judge": judge_of(setting.group),
                "samples": setting.section in linked,
                "controls": setting.group.controls,
                "speechless": {
                    index[row.label]: score
                    for row in setting.group.rows
                    if (score := _speechless(setting, row)) is not None
                },
                "partial": [index[row.label] for row in setting.group.rows if row.run.record.partial],
                "scores": [
                    [index[row.label], *setting.score(row), *_band(row, setting.group.primary)]
                    for row in setting.group.rows
                ],
                "provenance": each,
            }
            for setting, each in zip(settings, provenance, strict=True)
        ],
    }


def _speechless(setting: Setting, row: BoardRow) -> float | None:
    """The best score of a row without any of its speech; None where it was not tried."""
    metric = setting.group.primary
    found = [
        control.record.metrics.get(metric) for name, control in row.controls.items() if name in SPEECHLESS
    ]
    scores = [setting.points(value.value)[0] for value in found if value is not None]
    return (max if setting.higher_is_better else min)(scores) if scores else None


def _band(row: BoardRow, metric: str) -> list[int]:
    band = row.bands.get(metric)
    return [band.best, band.worst] if band else []


def setting_data(setting: Setting, models: Sequence[Model]) -> dict[str, Any]:
    """What the front page shows of one setting beside the scores; loaded when it is asked for."""
    index = {model.label: place for place, model in enumerate(models)}
    group, metric = setting.group, setting.group.primary
    rows = []
    for row in group.rows:
        record = row.run.record
        rows.append(
            {
                "model": index[row.label],
                "baseline": row.is_baseline,
                "versus": setting.difference(row.versus.get(metric)),
                "gap": setting.difference(row.gap.get(metric)),
                "ceiling": row.ceiling,
                "retained": retained_shares(row, metric),
                "n": record.metrics[metric].n,
                "missing": record.metrics[metric].n_missing,
                "items": record.n,
                "failures": failures_of(record),
                "rtfx": speed_of(record),
                "size": size_of(record),
                "parts": parts_of(record),
                "date": record.created[:10],
                "weights": weights_of(row.run),
                "run": f"{published_folder(row.run)}/{RUN_FILE}",
                "attestation": attestation_file(row.run),
            }
        )
    return {"rows": rows, "pairs": list(_pairs(setting, index))}


def retained_shares(row: BoardRow, metric: str) -> dict[str, list[float]]:
    """What remains of a score without the speech, in percent with the ends of its interval, by the control."""
    shares = {name: by_metric.get(metric) for name, by_metric in row.retained.items()}
    return {
        name: [round(rounded(100.0 * end), 1) + 0.0 for end in (share.value, share.low, share.high)]
        for name, share in shares.items()
        if share is not None
    }


def _pairs(setting: Setting, index: Mapping[str, int]) -> Iterator[list[float]]:
    """First model, second model, first minus second; nothing where there are too many rows, see `ALL_PAIRS`."""
    group = setting.group
    if len(group.runs) > ALL_PAIRS:
        return
    for a, b in combinations(range(len(group.runs)), 2):
        gap = setting.difference(group.difference(a, b, group.primary))
        if gap is not None:
            yield [index[group.labels[a]], index[group.labels[b]], *gap]


def failures_of(record: RunRecord) -> dict[str, int]:
    """Number of items that are not `ok`, by status."""
    return {
        status: record.statuses[status]
        for status in STATUSES
        if status != "ok" and record.statuses.get(status)
    }


def speed_of(record: RunRecord) -> float | None:
    """Seconds of audio answered per second, to three digits; None where everything came from the cache."""
    rtfx = record.timing.rtfx
    return float(f"{rtfx:.3g}") if rtfx > 0 else None


def size_of(record: RunRecord) -> int | None:
    """Number of parameters; None where the record does not say, or there are none."""
    return _amount(record.model.get("n_parameters"))


def parts_of(record: RunRecord) -> list[tuple[str, int]]:
    """Parameters by part, where the record tells them: those of a cascade's recogniser and of its LLM."""
    total, text = size_of(record), record.model.get("text")
    llm = _amount(text.get("n_parameters")) if isinstance(text, Mapping) else None
    if record.model.get("kind") != "cascade" or total is None or llm is None or total <= llm:
        return []
    return [("recogniser", total - llm), ("LLM", llm)]


def _amount(value: Any) -> int | None:
    """A record is somebody else's: a number that counts something, or None."""
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_PARAMETERS
    return value if counts else None


def weights_of(run: LoadedRun) -> str:
    """The first digits of the hash of the weights."""
    return plain(run.record.model.get("weights_sha256") or NOTHING)[:SHORT]


def attestation_file(run: LoadedRun) -> str:
    """Where the attestation of a run lies, below the folder of the board; "" where there is none."""
    has_one = provenance_of(run).attestation is not None
    return f"{published_folder(run)}/{ATTESTATION_FILE}" if has_one else ""


def judge_of(group: BoardGroup) -> str:
    """The judge of the metric that a setting is ranked by; "" where nothing is judged."""
    judge = group.judges.get(group.primary)
    return judge.label if judge is not None else ""
