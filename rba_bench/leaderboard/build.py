"""`rba-bench leaderboard build`: run records in, a folder out that can be published and built again from itself.

index.md           summary, one section per task and protocol, list of runs
    <task>.csv         every number of a section in full precision
    breakdown.csv      the same scores by topic or translation direction
    equal_length.csv   with --equal-length: win rates at equal length, estimated from the runs
    records.json       all of it for programs, with the list of files of this folder
    records/<model>/<run id>/{run.json, samples.jsonl.gz}   the runs themselves

The same records give the same bytes.

Pages and tables of a published board, compared with what its own records give.

The board on a terminal.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from rba_bench.errors import UserError
from rba_bench.evaluation.records import PACKED_FILE, RUN_FILE, pack
from rba_bench.files import folder_name, inside, write_atomic
from rba_bench.leaderboard import pages
from rba_bench.leaderboard.board_groups import Group, group_runs
from rba_bench.leaderboard.equal_length import EqualLength, estimate
from rba_bench.leaderboard.loaded_runs import MODEL, Run, distinct, find, read, unfinished
from rba_bench.leaderboard.pages import SHORT, reference_notes
from rba_bench.leaderboard.tables import LONGEST, Markdown, TextTable, csv_text, rounded
from rba_bench.leaderboard.verify import refuse_faulty, task_of
from rba_bench.metrics.bootstrap import RESAMPLES
from rba_bench.metrics.interval import FEWEST
from rba_bench.untrusted import json_safe, plain, printable, read_untrusted_file, read_untrusted_json

INDEX = "index.md"
RECORDS = "records.json"
BREAKDOWN = "breakdown.csv"
EQUAL_LENGTH = "equal_length.csv"
PUBLISHED = "records"
UNKNOWN = "This task does not come with rba-bench: its protocol and test set were compared with nothing."
UNFINISHED = "is unfinished and left out"  # of a folder that is not published
SCHEMA_VERSION = 1
MICRO = (
    "**The micro track is a miniature world that runs offline.** Its scores say nothing about real models and never "
    "stand beside theirs; they show whether the harness and the trainer work."
)
LEGEND = """A score stands with its 95 % interval: mid-p for independent right-or-wrong items, else from {resamples}
bootstrap resamples (items with equal text drawn together) with Student's t; the CSV files name the method of each.
*vs {baseline}* and *modality gap* (the score of the text LLM reading the transcript, minus the row's) are paired
differences on the same items; `*` marks an interval that leaves out zero, never with fewer than {fewest} independent
items. Each `*` is for its own pair alone: of the {tests} differences of models from {baseline} on this page up to
{expected} would be marked by chance if nothing differed. *rank* is a band: the ranks left open among the models when
all their pairs are tested together, so that of boards of equal models at most 5 % put any pair in order (Holm's
step-down with Shaffer's refinement); a pair with `*` may therefore share its ranks. References are not ranked.
*not ok* counts items without a good answer: *empty* and *truncated* answers, and *error*, where the model failed, are
in the score; *not_heard* (the clip holds no usable sound), *no_reply* (the server failed) and *judge_failed* are no
failures of the model{unscored}{lengths}
Intervals cover the choice of items, not the choice of training seed. Only runs with the same protocol hash and the same
test set share a table.
"""
LENGTHS = """
*mean length*, beside a win rate, is in characters: of the scored answers, and of the answers to beat. Judges like long
ones. Ranks go by the raw rate, or by the length-controlled one of the form `lc:difficulty`, never of another."""
ALL_SCORED = "; there are none here, so all items are in every score."
UNSCORED = """ and have no score: an n
of `97 (-3)` says that three items have no score, not even 0; differences run over the items scored on both sides."""


# What a board may hold; a list in somebody's records.json must not delete anything else.
_OURS = re.compile(
    rf"index\.md|[\w.=+-]+\.csv|{PUBLISHED}/[\w.=+-]+/[\w.=+-]+/(run\.json|samples\.jsonl\.gz)"
)


@dataclass(frozen=True)
class BuildResult:
    """What was built.

    Attributes:
        out: The folder.
        files: Everything written in it.
        groups: The compared runs, one group per section.
        warnings: What a reader should know: unfinished runs, partial runs, a missing baseline.
        data: Content of `records.json`.
    """

    out: Path
    files: tuple[Path, ...]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...]
    data: dict[str, Any]

    @property
    def tables(self) -> list[TextTable]:
        """The summary tables."""
        return pages.overview(self.groups)


def build(
    records: Sequence[Path],
    out: Path,
    baseline_row: str = "sft",
    allow_partial: bool = False,
    ceiling: str | None = None,
    equal_length: bool = False,
) -> BuildResult:
    """Verify run records, compare them, and write the board.

    Every record is computed again from its responses first (see `verify`): one that does not follow from them, or was
    made by another version of its task, is refused.

    Args:
        records: `run.json` files, run folders, or folders searched for them.
        out: Folder to write; files of an earlier build that no longer belong to it are removed.
        baseline_row: Model (or training method) that the others are compared with.
        allow_partial: Take in runs with `--limit`, marked as partial, instead of refusing.
        ceiling: Name of the text LLM that modality gaps are measured from, where several were run.
        equal_length: Estimate win rates at equal length from the runs of each table, where these are enough.

    Raises:
        UserError: no finished runs, a partial, damaged or contradictory one, runs of two tracks, or an unknown ceiling.
    """
    runs = distinct([read(folder) for folder in find(records, out)])
    refuse_faulty(runs)
    partial = [run for run in runs if run.record.partial]
    if partial and not allow_partial:
        raise UserError(
            f"{partial[0].folder} is partial (--limit {partial[0].record.limit}) and would mislead on a board: "
            "evaluate it without --limit, or pass --allow-partial to have it marked"
        )
    groups = tuple(group_runs(runs, baseline_row, ceiling))
    estimates = [estimate(group) for group in groups] if equal_length else []
    left_out = tuple(f"{folder} {UNFINISHED}" for folder in unfinished(records))
    warnings = left_out + warnings_of(groups, baseline_row, estimates)
    options = {"ceiling": ceiling, "allow_partial": allow_partial, "equal_length": equal_length}
    contents, data = render(runs, groups, warnings, options, estimates)
    targets = {name: inside(out, name) for name in contents}
    _remove_stale(out, set(contents))
    for name, content in contents.items():
        write_atomic(targets[name], content)
    return BuildResult(out, tuple(out / name for name in sorted(contents)), groups, warnings, data)


def render(
    runs: Sequence[Run],
    groups: Sequence[Group],
    warnings: Sequence[str],
    options: Mapping[str, Any],
    estimates: Sequence[EqualLength | str] = (),
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Every file of a board by its name, and what `records.json` holds.

    Args:
        runs: All runs.
        groups: The same, compared.
        warnings: For the page.
        options: How the board was asked for, so that it can be made again.
        estimates: Of win rates at equal length, or why there is none.
    """
    at_equal_length = [each for each in estimates if isinstance(each, EqualLength)]
    names = _section_names(groups)
    contents = _tables(groups, names, at_equal_length) | _published(runs)
    data = _data(groups, names, runs, warnings, [INDEX, RECORDS, *contents]) | {"options": dict(options)}
    contents[INDEX] = _index(groups, names, runs, warnings, at_equal_length).encode()
    contents[RECORDS] = (json_safe(json.dumps(data, indent=1, ensure_ascii=False)) + "\n").encode()
    return contents, data


def warnings_of(
    groups: Sequence[Group], baseline: str, estimates: Sequence[EqualLength | str] = ()
) -> tuple[str, ...]:
    """What a reader of a board should know that follows from its records."""
    partial = (run for group in groups for run in group.runs if run.record.partial)
    found = [f"{run.name} on {run.record.task} is partial: {run.record.n} items" for run in partial]
    found += [
        f"{group.task}: no paired differences, as there is no row {baseline!r} (or several)"
        for group in groups
        if not any(row.versus or row.is_baseline for row in group.rows)
    ]
    found += [warning for group in groups if (warning := _ceiling_warning(group))]
    return (*found, *(reason for reason in estimates if isinstance(reason, str) and reason))


def _ceiling_warning(group: Group) -> str:
    if not group.without_ceiling:
        return ""
    rows = ", ".join(group.without_ceiling)
    known = ", ".join(group.labels[index] for index in group.ceilings)
    return f"{group.task}: no modality gap for {rows}, as no one of {known} stands out; choose with --ceiling NAME"


def _section_names(groups: Sequence[Group]) -> list[str]:
    """Task names; with hashes where one task was run under several protocols or on several test sets."""
    tasks = Counter(group.task.casefold() for group in groups)
    return [
        group.task
        if tasks[group.task.casefold()] == 1
        and f"{group.task}.csv".casefold() not in (BREAKDOWN, EQUAL_LENGTH)
        else f"{group.task}.{group.protocol_hash[: pages.SHORT]}.{group.data_hash[: pages.SHORT]}"
        for group in groups
    ]


def _tables(
    groups: Sequence[Group], names: Sequence[str], estimates: Sequence[EqualLength]
) -> dict[str, bytes]:
    tables = {
        f"{name}.csv": csv_text(pages.flat_rows(group)) for name, group in zip(names, groups, strict=True)
    }
    parts = [row for group in groups for row in pages.breakdown_rows(group)]
    if parts:
        tables[BREAKDOWN] = csv_text(parts)
    if estimates:
        tables[EQUAL_LENGTH] = csv_text([row for each in estimates for row in each.flat_rows()])
    return {name: text.encode() for name, text in tables.items()}


def _published(runs: Sequence[Run]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    taken: dict[str, Run] = {}
    for run in runs:
        folder = _place(run)
        other = taken.setdefault(folder.casefold(), run)  # some file systems do not tell a from A
        if other is not run:
            raise UserError(
                f"{other.folder} and {run.folder} would be published into one folder; rename one model"
            )
        files[f"{folder}/{RUN_FILE}"] = run.record_bytes
        files[f"{folder}/{PACKED_FILE}"] = pack(run.sample_bytes)
    return files


def _place(run: Run) -> str:
    return f"{PUBLISHED}/{folder_name(str(run.record.model['name']))}/{run.record.run_id}"


def _data(
    groups: Sequence[Group],
    names: Sequence[str],
    runs: Sequence[Run],
    warnings: Sequence[str],
    files: Sequence[str],
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "track": groups[0].record.track,
        "baseline": groups[0].baseline,
        "warnings": list(warnings),
        "sections": [
            {
                "name": name,
                "task": group.task,
                "protocol": group.record.protocol,
                "rows": rounded(pages.flat_rows(group)),
            }
            for name, group in zip(names, groups, strict=True)
        ],
        "records": [
            {
                "path": f"{_place(run)}/{RUN_FILE}",
                "model": run.record.model,
                "task": run.record.task,
                "run_id": run.record.run_id,
            }
            for run in sorted(runs, key=_place)
        ],
        "files": sorted(files),
    }


def _index(
    groups: Sequence[Group],
    names: Sequence[str],
    runs: Sequence[Run],
    warnings: Sequence[str],
    estimates: Sequence[EqualLength],
) -> str:
    track = groups[0].record.track
    blocks = [f"# Leaderboard, {track} track"]
    blocks += [MICRO] if track == "micro" else []
    blocks += ["\n".join(f"- Note: {plain(warning, LONGEST)}." for warning in warnings)] if warnings else []
    blocks += [_legend(groups)]
    notes = pages.reference_notes(groups)
    blocks += ["\n".join(f"- {note}." for note in notes)] if notes else []
    blocks += ["## Summary"]
    for table in pages.overview(groups):
        blocks += [f"### {plain(table.title)}", table.markdown()]
    blocks += [_protocols(groups)]
    for name, group in zip(names, groups, strict=True):
        blocks += _section(name, group)
        blocks += [text for each in estimates if each.group is group for text in each.blocks()]
    blocks += ["## Runs", _run_table(runs).markdown()]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _legend(groups: Sequence[Group]) -> str:
    tests = sum(len(row.versus) for group in groups for row in group.rows if row.kind == MODEL)
    expected = round(tests * 0.05, 1)
    missing = any(
        row.run.record.metrics[name].n_missing
        for group in groups
        for row in group.rows
        for name in group.metrics
    )
    return LEGEND.format(
        resamples=f"{RESAMPLES:,}",
        fewest=FEWEST,
        baseline=plain(groups[0].baseline),
        tests=tests,
        expected=expected,
        unscored=UNSCORED if missing else ALL_SCORED,
        lengths=LENGTHS if any(group.has_lengths(name) for group in groups for name in group.metrics) else "",
    )


def _protocols(groups: Sequence[Group]) -> str:
    """What stands behind every column of the summary."""
    rows = []
    for group in groups:
        dates = sorted({run.record.created[:10] for run in group.runs})
        counts = sorted({run.record.metrics[group.primary].n for run in group.runs})
        rows.append(
            [
                group.task,
                group.record.protocol,
                group.primary,
                "/".join(map(str, counts)),
                Markdown(f"`{group.protocol_hash[: pages.SHORT]}`"),
                Markdown(f"`{group.data_hash[: pages.SHORT]}`"),
                " to ".join(dict.fromkeys((dates[0], dates[-1]))),
            ]
        )
    headings = ["task", "decoding", "metric", "n", "protocol", "test set", "run"]
    return "### What stands behind the columns\n\n" + TextTable(headings, rows, numeric_from=9).markdown()


def _section(name: str, group: Group) -> list[str]:
    facts = pages.facts(group) + f" Data: `{name}.csv`."
    facts += "" if task_of(group.task) else f" {UNKNOWN}"
    blocks = [f"## {name}", facts, pages.main_table(group).markdown()]
    other = pages.other_table(group)
    blocks += [other.markdown()] if other else []
    exploits = pages.exploit_table(group)
    blocks += [exploits.markdown()] if exploits else []
    return blocks + [line for line in (pages.ceilings_line(group), pages.judges_line(group)) if line]


def _run_table(runs: Sequence[Run]) -> TextTable:
    rows = []
    for run in sorted(runs, key=_place):
        record = run.record
        weights = plain(record.model.get("weights_sha256") or "-")[: pages.SHORT]
        speed = f"{record.timing.rtfx:.0f}"
        link = Markdown(f"[{_bare(run.name)}]({quote(_place(run))}/{RUN_FILE})")
        rows.append([link, record.task, weights, speed, record.created])
    return TextTable(["model", "task", "weights", "RTFx", "created"], rows, numeric_from=9)


def _bare(name: str) -> str:
    """A name as the text of a link."""
    return name.replace("[", "(").replace("]", ")")


def _remove_stale(out: Path, kept: set[str]) -> None:
    """Delete what an earlier build listed as its own and this one does not write; nothing that no build makes."""
    if not (out / RECORDS).is_file():
        return
    try:
        listed = read_untrusted_json(out / RECORDS)["files"]
        stale = [name for name in listed if name not in kept and _OURS.fullmatch(name)]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out / RECORDS} is not of a leaderboard: choose another --out") from error
    for name in stale:
        file = out / name
        if file.is_file() and file.resolve().is_relative_to(out.resolve()):
            file.unlink()


_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])")
CLOSE = 1e-9  # relative; a shown number may also differ by one in its last place


def differences(board: Path) -> Iterator[str]:
    """Files of a board that are not what `leaderboard build` makes of its records."""
    try:
        stated = read_untrusted_json(board / RECORDS)
        options = stated.get("options") or {}
        baseline, warnings = str(stated["baseline"]), [str(each) for each in stated["warnings"]]
        runs = distinct([read(folder) for folder in find([board / PUBLISHED])])
        groups = group_runs(runs, baseline, options.get("ceiling"))
        estimates = [estimate(group) for group in groups] if options.get("equal_length") else []
        wanted = warnings_of(groups, baseline, estimates)
        contents, _ = render(runs, groups, warnings, options, estimates)
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"cannot be made again: {plain(error)}"
        return
    if sorted(wanted) != sorted(each for each in warnings if not each.endswith(UNFINISHED)):
        yield f"{RECORDS} has other warnings than the records give"
    for name, content in sorted(contents.items()):
        if not name.startswith(f"{PUBLISHED}/") and (fault := _compared(board, name, content)):
            yield f"{name} {fault}: rba-bench leaderboard build {board} --out {board}"


def _compared(board: Path, name: str, content: bytes) -> str:
    try:
        found = read_untrusted_file(inside(board, name))
    except FileNotFoundError:
        return "is missing"
    except UserError as error:
        return f"cannot be read ({error})"
    same = found == content or _same(found.decode(errors="replace"), content.decode())
    return "" if same else "is not what the records give"


def _same(own: str, new: str) -> bool:
    """Equal texts, but for the last digits of numbers with a decimal point."""
    if _NUMBER.split(own) != _NUMBER.split(new):
        return False
    return all(map(_close, _NUMBER.findall(own), _NUMBER.findall(new)))


def _close(own: str, new: str) -> bool:
    digits = len(own.partition(".")[2].partition("e")[0])
    last_place = 10.0**-digits if "e" not in own else 0.0
    a, b = float(own), float(new)
    return abs(a - b) <= max(1.01 * last_place, CLOSE * max(abs(a), abs(b)))


WIDE = 140  # columns where stdout is a file or a pipe and has no width of its own


def render_terminal(result: BuildResult, console: Console | None = None) -> None:
    """Print the summary tables, the warnings and the path of the full board; by default on stdout."""
    out = console or Console(highlight=False)
    if console is None and not out.is_terminal:
        out = Console(highlight=False, width=WIDE)
    for table in result.tables:
        out.print(table.rich())
    for line in (*reference_notes(result.groups), *result.warnings):
        out.print(Text(printable(line)))
    out.print(Text("95 % intervals; * leaves out zero. Task, n, protocol hash, date:"))
    for group in result.groups:
        record = group.record
        behind = f"{group.task}, n = {record.n}, {group.protocol_hash[:SHORT]}, {record.created[:10]}"
        out.print(Text(f"  {behind}"))
    out.print(Text(f"Board: {printable(result.out / INDEX)}"))
