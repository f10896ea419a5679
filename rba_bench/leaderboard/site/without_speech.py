"""What scores owe to the speech: each beside the scores of the same model without it, and beside the constant answer.

A picture in the cells of a table, which holds the numbers as well. Controls are those of `eval --audio`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rba_bench.evaluation.records import MetricValue
from rba_bench.leaderboard.board_groups import BoardRow
from rba_bench.leaderboard.columns import label_text
from rba_bench.leaderboard.site import svg
from rba_bench.leaderboard.site.axes import Axis, linear_axis
from rba_bench.leaderboard.site.facts import Setting, retained_shares
from rba_bench.leaderboard.site.forest import shown_at_once
from rba_bench.leaderboard.tables import number_texts

MOST_SETTINGS, MOST_MODELS = (
    12,
    16,
)  # that are drawn, models of all settings together; the table of scores has all
CONSTANT = "constant"


@dataclass(frozen=True)
class SpeechRow:
    """A score: of which model under which control ("" for none), drawn, with its ends, and its share of the full."""

    label: str
    control: str
    mark: Markup
    score: str
    ends: str
    retained: str


@dataclass(frozen=True)
class SpeechBlock:
    """The rows of one setting, and how many more models there are."""

    title: str
    metric: str
    mirrored: bool
    rows: list[SpeechRow]
    left_out: int


@dataclass(frozen=True)
class WithoutSpeech:
    """Blocks on one axis, and how many more there are."""

    axis: Markup
    blocks: list[SpeechBlock]
    unlisted: int

    def parts(self) -> list[list[SpeechBlock]]:
        """The blocks that are shown at once, and the others, where there are any."""
        count = shown_at_once([len(block.rows) for block in self.blocks])
        return [part for part in (self.blocks[:count], self.blocks[count:]) if part]


@dataclass(frozen=True)
class _Score:
    label: str
    control: str
    kind: str
    ends: tuple[float, float, float]
    retained: str


def without_speech(settings: Sequence[Setting]) -> WithoutSpeech | None:
    """The settings with controls, each model's score above its scores without the speech; None where there are none."""
    found_in = [setting for setting in settings if setting.group.controls]
    if not found_in:
        return None
    controlled = found_in[:MOST_SETTINGS]
    most = max(1, MOST_MODELS // len(controlled))
    scores: list[list[_Score]] = []
    left_out = []
    for setting in controlled:
        rows = [row for row in setting.group.rows if row.controls]
        references = [row for row in setting.group.rows if row.kind == CONSTANT]
        scores.append(
            [score for row in rows[:most] for score in _scores(setting, row)]
            + [
                _Score(label_text(row.label, row.kind), "", CONSTANT, _ends(setting, row), "")
                for row in references
            ]
        )
        left_out.append(len(rows[most:]))
    drawn = [
        _drawn(setting, score.ends)
        for setting, found in zip(controlled, scores, strict=True)
        for score in found
    ]
    axis = linear_axis([0.0, *(end for value, _, high in drawn for end in (value, high))], count=3)
    blocks = [
        SpeechBlock(
            setting.title,
            setting.metric,
            not setting.higher_is_better,
            list(_rows(setting, found, axis)),
            more,
        )
        for setting, found, more in zip(controlled, scores, left_out, strict=True)
    ]
    return WithoutSpeech(svg.interval_axis(axis), blocks, len(found_in) - len(controlled))


def _scores(setting: Setting, row: BoardRow) -> Iterator[_Score]:
    """The score of a row, then its scores without the speech."""
    metric, label = setting.group.primary, label_text(row.label, row.kind)
    shares = retained_shares(row, metric)
    yield _Score(label, "", "model", _ends(setting, row), "")
    for name in setting.group.controls:
        control = row.controls.get(name)
        value = control.record.metrics.get(metric) if control else None
        if value is None:
            continue
        share = shares.get(name)
        text = "-" if share is None else "{} % [{}, {}]".format(*share)
        yield _Score(label, name, "open", _value_ends(setting, value), text)


def _rows(setting: Setting, scores: Sequence[_Score], axis: Axis) -> Iterator[SpeechRow]:
    constant = [_drawn(setting, score.ends)[0] for score in scores if score.kind == CONSTANT]
    level = max(constant) if constant else None
    for score in scores:
        mark = svg.score_mark(axis, _drawn(setting, score.ends), score.kind, level)
        texts = number_texts(score.ends, digits=setting.digits)
        value, low, high = (text.replace("-", "\u2212") for text in texts)
        yield SpeechRow(score.label, score.control, mark, value, f"[{low}, {high}]", score.retained)


def _ends(setting: Setting, row: BoardRow) -> tuple[float, float, float]:
    return _value_ends(setting, row.run.record.metrics[setting.group.primary])


def _value_ends(setting: Setting, value: MetricValue) -> tuple[float, float, float]:
    score, low, high = setting.points(value.value, value.low, value.high)
    return score, low, high


def _drawn(setting: Setting, ends: tuple[float, float, float]) -> tuple[float, float, float]:
    """Of an error rate, what is not wrong, as the share is computed: 100 minus the rate."""
    value, low, high = ends
    return ends if setting.higher_is_better else (100.0 - value, 100.0 - high, 100.0 - low)
