"""The files of a leaderboard as bytes, made from its runs, and compared with a folder that somebody published.

    index.html, site/, samples/, clips/   the pages for a browser, see `site.build`
    index.md           summary, one section per task and protocol, list of runs
    <task>.csv         every number of a section in full precision
    breakdown.csv      the same scores by topic or translation direction
    equal_length.csv   with --equal-length: win rates at equal length, estimated from the runs
    records.json       all of it for programs, with the list of files of this folder
    records/<model>/<run id>/{run.json, samples.jsonl.gz}   the runs themselves; beside some of them submission.json
                       and attestation.json, see `provenance`

The same records give the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RUN_FILE
from rba_bench.files import inside
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import breakdown_rows, flat_rows
from rba_bench.leaderboard.comparing import compare_runs_by_task
from rba_bench.leaderboard.equal_length import EqualLength, estimate_equal_length
from rba_bench.leaderboard.loaded_runs import LoadedRun, find_runs, load_checked_run, without_copies
from rba_bench.leaderboard.pages import PUBLISHED, index_page, published_folder, section_names
from rba_bench.leaderboard.paper import excerpts_from
from rba_bench.leaderboard.provenance import provenance_of
from rba_bench.leaderboard.publishing import published_files
from rba_bench.leaderboard.site.answer import answer_of
from rba_bench.leaderboard.site.build import site_files
from rba_bench.leaderboard.site.clips import clip_faults, clip_file, published_hashes
from rba_bench.leaderboard.site.facts import settings_of
from rba_bench.leaderboard.tables import csv_text, json_text, rounded
from rba_bench.leaderboard.worker_processes import Mapped
from rba_bench.untrusted import plain, read_untrusted_file, read_untrusted_json

INDEX = "index.md"
RECORDS = "records.json"
BREAKDOWN = "breakdown.csv"
EQUAL_LENGTH = "equal_length.csv"
UNFINISHED = "is unfinished and left out"  # of a folder that is not published
SCHEMA_VERSION = 1
CLOSE = 1e-9  # relative; a number on a page may also differ by one in its last place
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])")


def render_board(
    runs: Sequence[LoadedRun],
    groups: Sequence[BoardGroup],
    warnings: Sequence[str],
    options: Mapping[str, Any],
    estimates: Sequence[EqualLength | str] = (),
    clips: Mapping[str, str] | None = None,
    mapped: Mapped = map,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Every file of a board by its name, without its runs (see `publishing`) and clips, and what `records.json` holds.

    Args:
        runs: All runs.
        groups: The same, compared.
        warnings: For the page.
        options: How the board was asked for, so that it can be made again.
        estimates: Of win rates at equal length, or why there is none.
        clips: SHA-256 of the clips beside the pages, by their names.
        mapped: Maps a function to jobs, perhaps in several processes.

    Raises:
        UserError: two runs would get the same folder, or the options are none of a board.
    """
    equal_length = [each for each in estimates if isinstance(each, EqualLength)]
    names = section_names(groups, (BREAKDOWN, EQUAL_LENGTH))
    sections = dict(zip(names, groups, strict=True))
    tables = {f"{name}.csv": list(flat_rows(group)) for name, group in sections.items()}
    tables[BREAKDOWN] = [row for group in groups for row in breakdown_rows(group)]
    tables[EQUAL_LENGTH] = [row for estimate in equal_length for row in estimate.flat_rows()]
    contents = {name: csv_text(rows).encode() for name, rows in tables.items() if rows}
    clips = dict(clips or {})
    linked = sorted([*contents, INDEX, RECORDS])
    reported = excerpts_from(options.get("reported_tables"))
    page = options.get("reported_page") or ""
    contents |= site_files(sections, warnings, linked, page, clips, reported, mapped)
    published = published_files(runs)
    data = {
        "schema_version": SCHEMA_VERSION,
        "track": groups[0].record.track,
        "baseline": groups[0].baseline,
        "answer": asdict(answer_of(settings_of(sections))),
        "warnings": list(warnings),
        "sections": [
            {"name": name, "task": group.task, "protocol": group.record.protocol,
             "judges": {metric: judge.legend for metric, judge in group.judges.items()},
             "rows": rounded(tables[f"{name}.csv"])}
            for name, group in sections.items()
        ],
        "records": [
            {"path": f"{published_folder(run)}/{RUN_FILE}", "model": run.record.model, "task": run.record.task,
             "run_id": run.record.run_id, **provenance_of(run).fields()}
            for run in sorted(runs, key=published_folder)
        ],
        "clips": clips,
        "files": sorted([INDEX, RECORDS, *contents, *published, *map(clip_file, clips)]),
        "options": dict(options),
    }  # fmt: skip
    contents[INDEX] = index_page(sections, runs, warnings, equal_length).encode()
    contents[RECORDS] = json_text(data).encode()
    return contents, data


def board_warnings(
    groups: Sequence[BoardGroup], baseline: str, estimates: Sequence[EqualLength | str] = ()
) -> tuple[str, ...]:
    """What a reader of a board should know that follows from its records."""
    partial = (run for group in groups for run in group.all_runs if run.record.partial)
    warnings = [f"{run.name} on {run.record.task} is partial: {run.record.n} items" for run in partial]
    warnings += [
        f"{group.task}: no paired differences, as there is no row {baseline!r} (or several)"
        for group in groups
        if not any(row.versus or row.is_baseline for row in group.rows)
    ]
    for group in groups:
        if rows := ", ".join(group.without_ceiling):
            ceilings = ", ".join(group.labels[index] for index in group.ceilings)
            warnings.append(
                f"{group.task}: no modality gap for {rows}, as the ceiling could be any of {ceilings}; choose one with "
                "--ceiling NAME"
            )
    return (*warnings, *(reason for reason in estimates if isinstance(reason, str) and reason))


def board_differences(board: Path) -> Iterator[str]:
    """Files of a board that are not what `leaderboard build` makes of its records."""
    try:
        data = read_untrusted_json(board / RECORDS)
        options = data.get("options") or {}
        baseline, warnings = str(data["baseline"]), [str(each) for each in data["warnings"]]
        runs = without_copies([_checked(folder) for folder in find_runs([board / PUBLISHED])])
        groups = compare_runs_by_task(runs, baseline, options.get("ceiling"), map)
        runs = [run for group in groups for run in group.all_runs]
        estimates = [estimate_equal_length(group) for group in groups] if options.get("equal_length") else []
        expected_warnings = board_warnings(groups, baseline, estimates)
        clips = published_hashes(data.get("clips", {}))
        contents, _ = render_board(runs, groups, warnings, options, estimates, clips)
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"cannot be made again: {plain(error)}"
        return
    if sorted(expected_warnings) != sorted(each for each in warnings if not each.endswith(UNFINISHED)):
        yield f"{RECORDS} has other warnings than the records give"
    yield from clip_faults(board, clips)
    for name, content in sorted(contents.items()):
        try:
            published = read_untrusted_file(inside(board, name))
        except FileNotFoundError:
            fault = "is missing"
        except UserError as error:
            fault = f"cannot be read ({error})"
        else:
            if published == content or _equal_texts(published.decode(errors="replace"), content.decode()):
                continue
            fault = "is not what the records give"
        yield f"{name} {fault}: rba-bench leaderboard build {board} --out {board}"


def _checked(folder: Path) -> LoadedRun:
    run = load_checked_run(folder)
    run.release()
    return run


def _equal_texts(a: str, b: str) -> bool:
    """Equal, but for the last digits of numbers with a decimal point."""
    if _NUMBER.split(a) != _NUMBER.split(b):
        return False
    for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True):
        last_place = 0.0 if "e" in x else 10.0 ** -len(x.partition(".")[2])
        if abs(float(x) - float(y)) > max(1.01 * last_place, CLOSE * max(abs(float(x)), abs(float(y)))):
            return False
    return True
