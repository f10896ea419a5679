"""`rba-bench view`: the pages of samples of local runs, served on this machine or written as a folder.

A served page is made when it is asked for, from the files as they are then. A clip is decoded when it is played.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.files import inside, write_atomic
from rba_bench.leaderboard.columns import label_text
from rba_bench.leaderboard.site import samples as pages
from rba_bench.leaderboard.site.again import WRITTEN
from rba_bench.leaderboard.site.clips import CLIPS, ClipMaker, clip_file
from rba_bench.leaderboard.site.local_runs import LocalRuns, RunsNow
from rba_bench.leaderboard.site.sample_sections import SampleSection, clip_name
from rba_bench.leaderboard.site.shell import SHELL_FILES, call_script, render_page, site_assets
from rba_bench.leaderboard.test_sets import shipped_task
from rba_bench.untrusted import visible_text

INDEX, RUNS = "index.html", "runs.js"
LIVE, NOW = (
    "live.js",
    "now.js",
)  # the version of the runs, which open pages look at, and what the first page shows
LIMIT = 200  # items of a task in a written folder: their clips are all in it
_PAGE = re.compile(rf"{pages.FOLDER}/([^/]+)/(index\.html|summary\.js|items-(\d{{4,}})\.js)")
_CLIP = re.compile(rf"{CLIPS}/([0-9a-f]{{20}})\.flac")


class LocalSite:
    """The files of the site by their addresses, made when they are asked for. May be asked by several threads.

    Args:
        runs: What it shows.
        data_dir: Folder with local copies of public data sets, where their clips are.
    """

    def __init__(self, runs: LocalRuns, data_dir: Path | None = None) -> None:
        self._runs, self._maker = runs, ClipMaker(data_dir)
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._files: dict[str, bytes] = {}
        self._now: RunsNow | None = None
        self._looked = 0.0  # when the last look at the folders began
        self._clips: dict[str, tuple[SampleSection, int]] = {}

    def file(self, address: str) -> bytes | None:
        """Content of a file of the site, None where there is none.

        Raises:
            UserError: the runs are gone.
        """
        if clip := _CLIP.fullmatch(address):
            return self._clip(clip[1])
        came = time.monotonic()
        with self._lock:
            now = self._look(came)
            if address not in self._files:
                made = self._make(address, now)
                if made is None:
                    return None
                self._files[address] = made
            return self._files[address]

    def _look(self, came: float) -> RunsNow:
        """The runs as they are now; requests that came before a look began share what it found."""
        if self._now is None or came > self._looked:
            before, self._looked = self._now, time.monotonic()
            self._now = self._runs.read()
            if before is not self._now:
                self._files, self._clips = {}, _clips_by_name(self._now)
        return self._now

    def _make(self, address: str, now: RunsNow) -> bytes | None:
        assets = site_assets(*SHELL_FILES, *pages.ASSETS, RUNS)
        if address in assets:
            return assets[address]
        if address in ("", INDEX):
            return runs_page(now, served=True)
        if address == LIVE:
            return call_script("rbaLive", now.version, list(now.sections))
        if address == NOW:
            return call_script("rbaRuns", _runs_texts(now))
        found = _PAGE.fullmatch(address)
        section = now.sections.get(found[1]) if found else None
        if found is None or section is None:
            return None
        if found[2] == pages.PAGE:
            return pages.sample_page(section, live=True, note="Clips are read when they are played.")
        if found[2] == pages.SUMMARY:
            return pages.summary_script(section, self._clips, now.version, now.notes)
        place = int(found[3])
        return (
            pages.items_script(section, place, self._clips, now.version)
            if place * pages.PIECE < len(section.numbers)
            else None
        )

    def _clip(self, name: str) -> bytes | None:
        with self._lock:
            section, number = self._clips.get(name, (None, 0))
        if section is None:
            return None
        with self._making:  # one test set is spoken or opened once
            try:
                return self._maker.make(
                    section.task, section.first_samples[number], section.perturbation, section.control
                )
            except RbaError:
                return None  # the page shows the clip's hash instead


def runs_page(now: RunsNow, served: bool = False) -> bytes:
    """The page that lists the tasks; `served` where it is no file. A file does not name the folders of this machine."""
    unread = f"Runs that cannot be read and are left out: {len(now.faults)}."
    notes = now.notes if served else (*([unread] if now.faults else []), *now.left_out)
    page = render_page(
        "runs.html.jinja",
        title="Runs",
        root="",
        styles=["site/samples.css"],
        scripts=["site/parts.js", f"site/{RUNS}"] if served else [],
        served=served,
        sections=list(now.sections.values()),
        label_text=label_text,
        notes=notes,
        version=now.version if served else "",
    )
    return page.encode()


def _runs_texts(now: RunsNow) -> dict[str, Any]:
    """What the first page shows, for a page that is open while the runs change."""
    sections = [
        {
            "name": section.name,
            "facts": visible_text(pages.FACT_SIGN.join(section.facts)),
            "items": str(len(section.numbers)),
            "models": [
                {
                    "name": visible_text(label_text(model.label, model.kind)),
                    "state": visible_text(model.state),
                }
                for model in section.models
            ],
        }
        for section in now.sections.values()
    ]
    return {"version": now.version, "notes": list(now.notes), "sections": sections}


def _clips_by_name(now: RunsNow) -> dict[str, tuple[SampleSection, int]]:
    """Clips that this machine may have, by their names."""
    return {
        clip_name(section, number): (section, number)
        for section in now.sections.values()
        if shipped_task(section.task)
        for number in section.numbers
    }


@dataclass(frozen=True)
class WrittenSite:
    """A site in a folder.

    Attributes:
        page: The file to open.
        items: Number of items, over all tasks.
        clips: Number of different clips beside them.
        notes: What it does not show, and why.
    """

    page: Path
    items: int
    clips: int
    notes: tuple[str, ...]


def write_site(
    records: Sequence[Path], out: Path, limit: int | None = LIMIT, data_dir: Path | None = None
) -> WrittenSite:
    """Write the pages of some runs into a folder, with their clips. Runs of one task and protocol stand side by side.

    Args:
        records: `run.json` files, run folders, or folders searched for them.
        out: Folder to write.
        limit: Show only the first items of each task; None for all.
        data_dir: Folder with local copies of public data sets, where their clips are.

    Raises:
        UserError: no runs, a damaged one, or a folder that cannot be written.
    """
    now = LocalRuns(records, limit, out, WRITTEN).read()
    notes = list(now.notes)
    try:
        written = _write_clips(now, out, ClipMaker(data_dir), notes.append)
        files = site_assets(*SHELL_FILES, *pages.ASSETS) | {INDEX: runs_page(now)}
        for section in now.sections.values():
            files |= pages.section_files(section, written)
        for name, content in files.items():
            write_atomic(inside(out, name), content)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    items = sum(len(section.numbers) for section in now.sections.values())
    return WrittenSite(out / INDEX, items, len(written), tuple(notes))


def _write_clips(now: RunsNow, out: Path, maker: ClipMaker, note: Callable[[str], None]) -> set[str]:
    """Write every clip once, note what could not be read, and return the names."""
    written: set[str] = set()
    for section in now.sections.values():
        documents, problem = maker.documents(section.task)
        if not documents:
            note(f"{section.name}: no clips, as {problem}")
            continue
        unread = []
        for number in section.numbers:
            name = clip_name(section, number)
            if name in written:
                continue
            try:
                data = maker.make(
                    section.task, section.first_samples[number], section.perturbation, section.control
                )
            except RbaError as error:
                unread.append(str(error))
                continue
            write_atomic(out / clip_file(name), data)
            written.add(name)
        if unread:
            note(f"{section.name}: {len(unread)} clips cannot be read ({unread[-1]})")
    return written
