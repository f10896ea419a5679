"""The page of a leaderboard, `index.md`: legend, summary, a section per task and protocol, list of runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rba_bench.evaluation.records import describe_failures
from rba_bench.files import folder_name, sha256_json
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import (
    MEAN_LENGTH,
    MODEL_COLUMN,
    SCORE,
    VERSUS,
    Column,
    gap_cell,
    label_text,
    retained_column,
    score_texts,
    section_columns,
    versus_cell,
)
from rba_bench.leaderboard.equal_length import EqualLength
from rba_bench.leaderboard.loaded_runs import CEILING, KINDS, MODEL, LoadedRun
from rba_bench.leaderboard.run_list import run_list
from rba_bench.leaderboard.tables import (
    ALL_TEXT,
    LONGEST,
    NOTHING,
    SHORT,
    Markdown,
    TextTable,
    interval_text,
    matrix_table,
)
from rba_bench.leaderboard.test_sets import shipped_task
from rba_bench.metrics.bootstrap import RESAMPLES
from rba_bench.metrics.interval import FEWEST
from rba_bench.untrusted import plain

PUBLISHED = "records"
JUDGE_WORDS = ("agreement", "bias", "unanimous", "judge stderr")
REFERENCE_NAMES = {
    CEILING: "the text LLM reads the transcript (ceiling)",
    "cascade": "a speech recogniser, then the text LLM",
    "constant": "one constant answer",
}
UNKNOWN_TASK = (
    "This task does not come with rba-bench, so its protocol and test set were not compared with the task."
)
MICRO = (
    "**The micro track is a miniature world that runs offline.** Its scores say nothing about real models and never "
    "stand beside theirs; they show whether the harness and the trainer work."
)
LEGEND = """Each score has its 95 % interval: mid-p for independent right-or-wrong items, otherwise Student's t on
{resamples} bootstrap resamples (items with equal text are drawn together); the CSV files name the method of each.
*vs {baseline}* and *modality gap* (the score of the text LLM that reads the transcript, minus the score of the row)
are paired differences on the same items. `*` marks an interval that excludes zero; with fewer than {fewest} independent
items nothing is marked. Each `*` is for its own pair alone: of the {tests} differences of models from {baseline} on
this page, up to {expected} would be marked by chance if all models were equal. *rank* is a band: the ranks that a
model can have when all pairs of models are tested together, so that among boards of equal models at most 5 % put any
pair in order (Holm's step-down procedure with Shaffer's refinement). Two models with `*` between them may therefore
share their ranks. References are not ranked. *not ok* counts items without a good answer. The score includes *empty*
and *truncated* answers and *error*, where the model failed. *not_heard* (the clip has no usable audio), *no_reply* (the
server failed) and *judge_failed* are not failures of the model{unscored}{lengths}{controls}
Intervals cover the choice of items, not the choice of the training seed. Only runs with the same protocol hash, the
same test set and the same judge share a table; a heading names the judge of its column.
"""
LENGTHS = """
*mean length*, beside a win rate, counts characters of the scored answers and of the baseline's answers, because judges
prefer long answers. Models are ranked by the raw win rate, or by the length-controlled one of the form
`lc:difficulty`."""
CONTROLS = """
*retained* is the score of the same model on the same items without the speech, as a share of its score, with its
paired 95 % interval: under *silence* of equal length, under *shuffle* with the clip of another item, under *first=1s*
with the first second alone. Of an error rate it is the share of what is not wrong (100 minus the rate). A score that
needs the speech keeps no more than what an answer without knowledge gets: compare the scores under *Without the speech*
with those of the constant answer."""
ALL_SCORED = ";\nthis page has no such items, so all items are in every score."
UNSCORED = """, and such items have no score: an n
of `97 (-3)` says that three items have no score, not even 0. Differences use the items that are scored on both
sides."""


def index_page(
    sections: Mapping[str, BoardGroup],
    runs: Sequence[LoadedRun],
    warnings: Sequence[str],
    equal_length: Sequence[EqualLength],
) -> str:
    """The whole page.

    Args:
        sections: Groups by the name of their section.
        runs: All runs.
        warnings: Sentences that a reader should know.
        equal_length: Estimates of win rates at equal length.
    """
    groups = list(sections.values())
    track = groups[0].record.track
    blocks = [f"# Leaderboard, {track} track", *([MICRO] if track == "micro" else [])]
    blocks += ["\n".join(f"- Note: {plain(warning, LONGEST)}." for warning in warnings)] if warnings else []
    blocks += [_legend(groups)]
    notes = reference_notes(groups)
    blocks += ["\n".join(f"- {note}." for note in notes)] if notes else []
    blocks += ["## Summary"]
    for table in summary_tables(groups):
        blocks += [f"### {plain(table.title)}", table.markdown()]
    blocks += [_protocols(groups)]
    for name, group in sections.items():
        blocks += _section(name, group)
        blocks += [text for each in equal_length if each.group is group for text in each.blocks()]
    blocks += run_list({published_folder(run): run for run in runs})
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def summary_tables(groups: Sequence[BoardGroup]) -> list[TextTable]:
    """Per protocol: primary metric of every task, then the differences from the baseline row, then the modality gap."""
    tables = []
    for protocol in sorted({group.record.protocol for group in groups}):
        part = [group for group in groups if group.record.protocol == protocol]
        tables.append(_summary_table(part, f"Scores, {protocol} decoding", SCORE, MEAN_LENGTH))
        if any(row.versus for group in part for row in group.rows):
            title = f"Difference from {part[0].baseline}, {protocol} decoding, same items"
            tables.append(_summary_table(part, title, Column(SCORE.heading, versus_cell)))
        if any(row.gap for group in part for row in group.rows):
            title = f"Modality gap, text minus speech, {protocol} decoding, same items"
            tables.append(_summary_table(part, title, Column(SCORE.heading, gap_cell)))
        for name in dict.fromkeys(name for group in part for name in group.controls):
            title = f"Retained without the speech ({name}), {protocol} decoding, % of the score"
            with_it = [group for group in part if name in group.controls]
            column = Column(SCORE.heading, retained_column(name).cell)
            tables.append(_summary_table(with_it, title, column, beside=part))
    return tables


def _summary_table(
    groups: Sequence[BoardGroup], title: str, *columns: Column, beside: Sequence[BoardGroup] = ()
) -> TextTable:
    """A table of all models; tasks are called as in a table of the groups `beside`."""
    kinds = {row.label: row.kind for group in groups for row in group.rows}
    labels = sorted(kinds, key=lambda label: (KINDS.index(kinds[label]), label))
    headings: dict[tuple[int, int], str] = {}
    cells: dict[tuple[str, tuple[int, int]], str] = {}
    for i, group in enumerate(groups):
        metric = group.primary
        same = [each for each in beside or groups if each.record.benchmark == group.record.benchmark]
        name = group.record.benchmark if len(same) == 1 else group.task
        name += f" ({group.perturbation})" if group.perturbation else ""
        same = [each for each in same if (each.task, each.perturbation) == (group.task, group.perturbation)]
        name += f" {group.protocol_hash[:SHORT]}.{group.data_hash[:SHORT]}" if len(same) > 1 else ""
        for j, column in enumerate(columns):
            if column.win_rates_only and not group.has_lengths(metric):
                continue
            headings[i, j] = f"{name} {column.title(group, metric)}"
            cells |= {(row.label, (i, j)): column.cell(group, row, metric) for row in group.rows}
    rows = {label: label_text(label, kinds[label]) for label in labels}
    return matrix_table(title, "model", rows, headings, cells)


def _legend(groups: Sequence[BoardGroup]) -> str:
    rows = [(group, row) for group in groups for row in group.rows]
    tests = sum(len(row.versus) for _, row in rows if row.kind == MODEL)
    missing = any(row.run.record.metrics[name].n_missing for group, row in rows for name in group.metrics)
    lengths = any(group.has_lengths(name) for group in groups for name in group.metrics)
    return LEGEND.format(
        resamples=f"{RESAMPLES:,}",
        fewest=FEWEST,
        baseline=plain(groups[0].baseline),
        tests=tests,
        expected=round(tests * 0.05, 1),
        unscored=UNSCORED if missing else ALL_SCORED,
        lengths=LENGTHS if lengths else "",
        controls=CONTROLS if any(group.controls for group in groups) else "",
    )


def reference_notes(groups: Sequence[BoardGroup]) -> list[str]:
    """A sentence about each kind of reference row that the groups have."""
    labels: dict[str, dict[str, None]] = {}  # ordered sets
    for row in (row for group in groups for row in group.rows):
        labels.setdefault(row.kind, {})[row.label] = None
    return [
        f"{', '.join(f'`{label}`' for label in labels[kind])} "
        f"{'is a reference' if len(labels[kind]) == 1 else 'are references'}: {text}"
        for kind, text in REFERENCE_NAMES.items()
        if kind in labels
    ]


def protocol_table(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> str:
    """The protocols and test sets of a page."""
    return "### Protocols and test sets\n\n" + TextTable(headings, rows, numeric_from=ALL_TEXT).markdown()


def hash_cell(value: str) -> Markdown:
    """The first digits of a hash."""
    return Markdown(f"`{value[:SHORT]}`")


def _protocols(groups: Sequence[BoardGroup]) -> str:
    rows = []
    for group in groups:
        dates = first_and_last_day(run.record.created for run in group.runs)
        counts = sorted({run.record.metrics[group.primary].n for run in group.runs})
        hashes = hash_cell(group.protocol_hash), hash_cell(group.data_hash)
        n = "/".join(map(str, counts))
        rows.append([group.task, group.record.protocol, group.primary, n, *hashes, dates])
    return protocol_table(rows, ["task", "decoding", "metric", "n", "protocol", "test set", "run"])


def first_and_last_day(moments: Iterable[str]) -> str:
    """`2026-11-01 to 2026-11-28` of moments in ISO form; one day where they are equal."""
    days = sorted({moment[:10] for moment in moments})
    return " to ".join(dict.fromkeys((days[0], days[-1])))


def _section(name: str, group: BoardGroup) -> list[str]:
    """Blocks of text and tables about one group."""
    record = group.record
    decoding = plain(", ".join(f"{key} {value}" for key, value in sorted(record.decoding.items())))
    perturbed = f", clips changed by {group.perturbation}" if group.perturbation else ""
    signature = plain(record.metrics[group.primary].signature, LONGEST).replace("|", " ")
    days = first_and_last_day(run.record.created for run in group.runs)
    facts = (
        f"Protocol `{group.protocol_hash[:SHORT]}` ({record.protocol}: {decoding}); "
        f"test set `{group.data_hash[:SHORT]}`, {record.data['n_items']} items{perturbed}; "
        f"{group.primary}: {signature}; run {days}. Data: `{name}.csv`."
    )
    facts += "" if shipped_task(group.task) else f" {UNKNOWN_TASK}"
    tables = [section_table(group), _other_metrics_table(group), _control_table(group), _exploit_table(group)]
    blocks = [
        f"## {name}",
        facts,
        *_judge_legend(group),
        *(table.markdown() for table in tables if table is not None),
    ]
    gaps = [f"`{row.label}` from `{row.ceiling}`" for row in group.rows if row.ceiling]
    blocks += [f"Modality gap: {'; '.join(gaps)}."] if len(group.ceilings) > 1 and gaps else []
    reports = {row.label: list(_judge_numbers(row.run.record.finish)) for row in group.rows}
    judges = [f"`{label}` {', '.join(numbers)}" for label, numbers in reports.items() if numbers]
    return blocks + ([f"Judges: {'; '.join(judges)}."] if judges else [])


def section_table(group: BoardGroup) -> TextTable:
    """The table of a group's primary metric."""
    columns = section_columns(group, group.primary)
    rows = [[column.cell(group, row, group.primary) for column in columns] for row in group.rows]
    headings = [column.title(group, group.primary) for column in columns]
    return TextTable(headings, rows, group.task, numeric_from=2)


def _judge_legend(group: BoardGroup) -> list[str]:
    """A sentence about each judge of a group with the metrics that it gave; [] where nothing is judged."""
    by_judge: dict[str, list[str]] = {}
    for metric, judge in group.judges.items():
        by_judge.setdefault(judge.legend, []).append(f"`{plain(metric)}`")
    listed = [f"{', '.join(metrics)} by {legend}" for legend, metrics in by_judge.items()]
    return [f"Judged: {'; '.join(listed)}."] if listed else []


def _judge_numbers(report: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Numbers called agreement or bias anywhere in the reports of judges, named by their path."""
    for key, value in report.items():
        parts = (*path, plain(key).replace("_", " "))
        name = " ".join(parts)
        is_shown = any(word in name for word in JUDGE_WORDS)
        if isinstance(value, Mapping):
            ends = value.get("value"), value.get("low"), value.get("high")
            if is_shown and None not in ends:
                yield f"{name} {interval_text(tuple(map(float, ends)), digits=3, signed=True)}"  # type: ignore[arg-type]
            else:
                yield from _judge_numbers(value, parts)
        elif is_shown and isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{name} {value:.3g}"


def _other_metrics_table(group: BoardGroup) -> TextTable | None:
    """The other metrics with their differences from the baseline, None if there are none."""
    columns = [(MODEL_COLUMN, group.primary)]
    for metric in (name for name in group.metrics if name != group.primary):
        columns += [(SCORE, metric), (VERSUS, metric)]
        if any(row.lengths.get(metric) not in (None, row.lengths.get(group.primary)) for row in group.rows):
            columns.append((MEAN_LENGTH, metric))  # of another baseline or other items than the primary's
    if len(columns) == 1:
        return None
    rows = [[column.cell(group, row, metric) for column, metric in columns] for row in group.rows]
    return TextTable([column.title(group, metric) for column, metric in columns], rows, group.task)


def _control_table(group: BoardGroup) -> TextTable | None:
    """Scores without the speech, which their share leaves out; None where there are none."""
    if not group.controls:
        return None
    rows = []
    for row in group.rows:
        for name, run in row.controls.items():
            scores = {metric: run.record.metrics.get(metric) for metric in group.metrics}
            texts = [
                "{} [{}, {}]".format(*score_texts(metric, value)) if value else NOTHING
                for metric, value in scores.items()
            ]
            label, failures = label_text(row.label, row.kind), describe_failures(run.record.statuses)
            rows.append([label, name, *texts, failures, run.record.created[:10]])
    headings = ["Without the speech", "control", *(SCORE.title(group, name) for name in group.metrics)]
    return TextTable([*headings, "not ok", "date"], rows, group.task, numeric_from=2)


def _exploit_table(group: BoardGroup) -> TextTable | None:
    """Scores of uninformed answers (denials, echoes, lists of candidates); None where no record has them."""
    table = next((run.record.exploits for run in group.runs if run.record.exploits), None)
    if table is None:
        return None
    metrics = [name for name in group.metrics if any(name in scores for scores in table.scores.values())]
    rows = [
        [strategy, *(f"{100 * scores[name]:.1f}" if name in scores else NOTHING for name in metrics)]
        for strategy, scores in table.scores.items()
    ]
    title = f"Uninformed answers ({table.n} of the questions)"
    return TextTable([title, *(SCORE.title(group, name) for name in metrics)], rows, group.task)


def published_folder(run: LoadedRun) -> str:
    """Where a run lies below the folder of a board."""
    return f"{PUBLISHED}/{folder_name(str(run.record.model['name']))}/{run.record.run_id}"


def section_names(groups: Sequence[BoardGroup], reserved: Sequence[str]) -> list[str]:
    """Task names; with hashes where one task has several protocols, test sets or judges.

    Args:
        groups: The groups.
        reserved: File names that no section may have.
    """
    tasks = [group.task.casefold() for group in groups]
    names = [
        group.task
        if tasks.count(task) == 1 and f"{task}.csv" not in reserved
        else f"{group.task}.{group.protocol_hash[:SHORT]}.{group.data_hash[:SHORT]}"
        for group, task in zip(groups, tasks, strict=True)
    ]
    names = [
        name if names.count(name) == 1 else f"{name}.{_judges_sha256(group)[:SHORT]}"
        for group, name in zip(groups, names, strict=True)
    ]
    # Somebody can look for a protocol whose hash begins like another's: a hash of the whole hashes tells them apart.
    return [
        name
        if names.count(name) == 1
        else f"{name}.{sha256_json([group.protocol_hash, group.data_hash, _judges_sha256(group)])}"
        for group, name in zip(groups, names, strict=True)
    ]


def _judges_sha256(group: BoardGroup) -> str:
    """Hash of who gave the scores of a group: tells groups apart whose judges only share a name."""
    return sha256_json({metric: judge.sha256 for metric, judge in group.judges.items()})
