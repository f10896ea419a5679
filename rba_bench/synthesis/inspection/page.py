"""`rba-bench synth inspect`: counts and figures of a set, and a page on which some of its clips play.

    OUT/index.html       one file: it opens from a disk as from a server, and cannot reach the network
    OUT/figures/*.png    the distributions, for light and for dark pages
    OUT/clips/*          clips as the set stores them (other formats than FLAC and WAV as FLAC)

Texts of a set are somebody else's. They are JSON in an element that is not executed, and become text of the page,
never markup; the page's own policy allows its one script and its style by their hashes, and sound and images beside it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench import __version__
from rba_bench.assets import PREFIX, is_asset
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.set_clips import choose_clips, playable, read_clips
from rba_bench.audio.set_figures import SetFigure, can_draw, figure_files, set_figures
from rba_bench.audio.set_statistics import SetStatistics, read_statistics
from rba_bench.errors import UserError
from rba_bench.files import folder_name, sha256_bytes, write_atomic
from rba_bench.html_pages import page_part, render_template, script_json, source_hash
from rba_bench.installing import extra
from rba_bench.outputs import RUNS
from rba_bench.progress import bar
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.inspection.clip_records import clip_record, spoken_words
from rba_bench.synthesis.inspection.opening import open_set
from rba_bench.untrusted import printable

PAGE, CLIPS, FIGURES = "index.html", "clips", "figures"
N_CLIPS = 300
WORST = 0.1  # share of the clips that are those with the highest word error rates
MARK = '<meta name="generator" content="rba-bench synth inspect">'
_OWN_CLIP = re.compile(r"[0-9a-f]{20}\.(flac|wav)")


@dataclass(frozen=True)
class Inspection:
    """A set as it was looked at.

    Attributes:
        alignment_set: Its folder.
        page: The file to open.
        progress: How far the set is, "" where it is finished.
        statistics: Of the whole set.
        clips: Number of clips on the page.
        notes: What the page does not show, and why.
    """

    alignment_set: Path
    page: Path
    progress: str
    statistics: SetStatistics
    clips: int
    notes: tuple[str, ...]


def inspect_set(path: Path | str, out: Path | None = None, n: int = N_CLIPS) -> Inspection:
    """Count a set and write its page.

    Args:
        path: Folder of the set, finished or being made, or `asset:NAME`.
        out: Folder of the page; `runs/inspect/NAME` by default.
        n: Number of clips on the page, or fewer: a tenth those with the highest word error rates, the others drawn so
            that all voices occur equally often and of each voice all topics.

    Raises:
        UserError: no set there, a damaged one, or a folder that cannot be written.
    """
    alignment, progress = open_set(path)
    name = str(path).removeprefix(PREFIX) if is_asset(path) else alignment.path.resolve().name
    out = out or RUNS / "inspect" / folder_name(name)
    _check_out(out, alignment.path)
    with bar("reading", len(alignment.shards), unit="shards") as advance:
        statistics = read_statistics(alignment, advance)
    seed = stable_seed("inspect", alignment.sha256, n)
    numbers = choose_clips(statistics, n, seed, worst=max(1, round(WORST * n)))
    figures, drawn, notes = set_figures(statistics), can_draw(), []
    try:
        records, unread = _write_clips(alignment, statistics, [int(number) for number in numbers], out)
        if unread:
            notes.append(f"{len(unread)} clips cannot be played ({unread[0]})")
        for file, content in figure_files(figures, dark=True) if drawn else ():
            write_atomic(out / FIGURES / file, content)
        if not drawn:
            notes.append(f"no figures: matplotlib is not installed; install it with `{extra('synth')}`")
        write_atomic(
            out / PAGE, _render(name, alignment, progress, statistics, figures, drawn, records, notes)
        )
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    return Inspection(alignment.path, out / PAGE, progress, statistics, len(records), tuple(notes))


def _check_out(out: Path, folder: Path) -> None:
    """Raise UserError where a page would be written over something else."""
    if out.resolve() == folder.resolve():
        raise UserError(f"{out} is the set itself: name another folder with --out")
    page = out / PAGE
    if page.is_file() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"{page} was not written by `rba-bench synth inspect`: name another folder with --out"
        )


def _write_clips(
    alignment: AlignmentSet, statistics: SetStatistics, numbers: Sequence[int], out: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the clips, remove those of an earlier page, and return the records of all and why some cannot be read."""
    spoken, records, unread, written = spoken_words(alignment.manifest), [], [], set()
    with bar("clips", len(numbers)) as advance:
        for number, (row, data, problem) in zip(
            numbers, read_clips(alignment, statistics, numbers), strict=True
        ):
            record = clip_record(row, number, spoken)
            content, ending, problem = playable(data, problem)
            if problem:
                record["problem"] = printable(problem)
                unread.append(printable(problem))
            else:
                name = f"{sha256_bytes(content)[:20]}.{ending}"
                if name not in written:
                    write_atomic(out / CLIPS / name, content)
                written.add(name)
                record["clip"] = f"{CLIPS}/{name}"
            records.append(record)
            advance(1)
    for file in (out / CLIPS).glob("*"):
        if _OWN_CLIP.fullmatch(file.name) and file.name not in written:
            file.unlink()
    return records, unread


def _render(
    name: str,
    alignment: AlignmentSet,
    progress: str,
    statistics: SetStatistics,
    figures: Sequence[SetFigure],
    drawn: bool,
    records: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> str:
    style, code, template = (
        page_part("rba_bench.synthesis.inspection", file)
        for file in ("page.css", "page.js", "page.html.jinja")
    )
    return render_template(
        template,
        name=name,
        mark=MARK,
        progress=progress,
        facts=_facts(alignment, statistics),
        tiles=_tiles(statistics),
        figures=figures,
        drawn=drawn,
        folder=FIGURES,
        notes=notes,
        shown=len(records),
        total=statistics.clips,
        choices={column: _choices(records, column) for column in ("voice", "topic", "difficulty")},
        has_transcripts=any("transcript" in record for record in records),
        data=script_json(records),
        style=style,
        code=code,
        policy=_content_security_policy(style, code),
        made=f"rba-bench {__version__}",
    )


def _tiles(statistics: SetStatistics) -> list[tuple[str, str]]:
    """The numbers at the top: value and name."""
    summary = statistics.summary()
    tiles = [
        (f"{statistics.groups:,}", "instructions"),
        (f"{statistics.clips:,}", "clips"),
        (f"{statistics.hours:,.2f}", "hours of speech"),
        (f"{len(statistics.labels['voice']):,}", "voices"),
    ]
    if summary["seconds"]:
        tiles.append((f"{summary['seconds']['p50']:.1f} s", "median clip"))
    if summary["wer"]:
        tiles.append((f"{100 * summary['wer']['mean']:.1f} %", "mean word error rate"))
    return tiles


def _facts(alignment: AlignmentSet, statistics: SetStatistics) -> list[str]:
    """Who made the set, and what is in it by kind and split."""
    kinds = [f"{name or 'no kind'} {n:,}" for name, n in statistics.labels["kind"].items()]
    splits = [f"{name or 'no split'} {n:,}" for name, n in statistics.labels["split"].items()]
    origin = [
        f"{name} {value.partition(' {')[0]}"  # without the versions of several engines
        for name, value in alignment.origin.items()
        if not name.endswith("sha256")
    ]
    return [", ".join(kinds), ", ".join(splits), *origin, f"set {alignment.sha256[:12]}"]


def _choices(records: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Values that can be filtered by; none where all clips have one."""
    found = sorted({str(record[name]) for record in records})
    return found if len(found) > 1 else []


def _content_security_policy(style: str, code: str) -> str:
    """A policy that allows this style and script, and images and sound beside the page.

    `file:`, because from a disk not every browser takes files beside the page for 'self'.
    """
    return (
        f"default-src 'none'; script-src {source_hash(code)}; style-src {source_hash(style)}; "
        "img-src 'self' file: data:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
