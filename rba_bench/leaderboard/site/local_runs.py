"""The runs that `rba-bench view` shows: read from their folders, and again when their files change.

A run that is still being written has samples and no record. It stands beside the finished runs of its task on the same
clips, marked, and its new answers appear as they are written.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rba_bench.errors import UserError
from rba_bench.evaluation.answering import read_all_samples, sample_files
from rba_bench.evaluation.records import PACKED_FILE, RUN_FILE
from rba_bench.files import is_name
from rba_bench.leaderboard.board_groups import BoardGroup, group_runs
from rba_bench.leaderboard.loaded_runs import LoadedRun, find_runs, load_checked_run, without_copies
from rba_bench.leaderboard.pages import section_names
from rba_bench.leaderboard.site.sample_sections import (
    SampleSection,
    UnfinishedRun,
    board_section,
    unfinished_section,
)
from rba_bench.untrusted import plain

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class RunsNow:
    """What the folders hold at a moment.

    Attributes:
        sections: By name, in the order of boards.
        version: Other files, other version.
        notes: What could not be read, in sentences.
    """

    sections: dict[str, SampleSection]
    version: str
    notes: tuple[str, ...]


class LocalRuns:
    """Runs in or below some folders.

    Args:
        paths: `run.json` files, run folders, or folders searched for them.
        limit: Show only the first items of each task; None for all.
        out: Folder whose runs are passed over, unless a path names it.
    """

    def __init__(self, paths: Sequence[Path], limit: int | None = None, out: Path | None = None) -> None:
        self._paths, self._limit, self._out = list(paths), limit, out
        self._known: dict[Path, tuple[Signature, LoadedRun | UnfinishedRun]] = {}
        self._now: RunsNow | None = None

    def read(self) -> RunsNow:
        """The runs as their files are now; files that have not changed are not read again.

        Raises:
            UserError: a path does not exist, there is no run, or, when read for the first time, one is damaged.
        """
        folders = self._folders()
        signatures = {folder: _signature(folder) for folder in folders}
        version = hashlib.sha256(repr(sorted(signatures.items())).encode()).hexdigest()[:16]
        if self._now is None or self._now.version != version:
            self._now = self._read(signatures, version, first=self._now is None)
        return self._now

    def _folders(self) -> list[Path]:
        unfinished = {
            file.parent
            for path in self._paths
            if path.is_dir()
            for file in path.rglob("samples*.jsonl")
            if not (file.parent / RUN_FILE).is_file()
        }
        try:
            return sorted({*find_runs(self._paths, self._out), *unfinished})
        except UserError:
            if not unfinished or not all(path.exists() for path in self._paths):
                raise
            return sorted(unfinished)

    def _read(self, signatures: dict[Path, Signature], version: str, first: bool) -> RunsNow:
        notes = []
        for folder, signature in signatures.items():
            if folder in self._known and self._known[folder][0] == signature:
                continue
            try:
                self._known[folder] = signature, _read_run(folder)
            except (UserError, FileNotFoundError) as error:
                if first and isinstance(error, UserError):
                    raise
                notes.append(plain(error))  # caught between two writes: the next look reads it whole
                self._known.pop(folder, None)
        runs = [self._known[folder][1] for folder in signatures if folder in self._known]
        finished = without_copies([run for run in runs if isinstance(run, LoadedRun)])
        unfinished = [run for run in runs if isinstance(run, UnfinishedRun) and run.samples]
        tracks = dict.fromkeys(run.record.track for run in finished)
        groups = [
            group
            for track in tracks
            for group in group_runs(
                [run for run in finished if run.record.track == track], baseline="", controls_apart=True
            )
        ]
        sections = {section.name: section for section in _sections(groups, unfinished)}
        if self._limit is not None:
            notes += [note for section in sections.values() for note in _left_out(section, self._limit)]
            sections = {name: _limited(section, self._limit) for name, section in sections.items()}
        return RunsNow(sections, version, tuple(notes))


def _signature(folder: Path) -> Signature:
    facts = []
    for file in (folder / RUN_FILE, folder / PACKED_FILE, *sample_files(folder)):
        with suppress(FileNotFoundError):  # it has ended, or begins again
            stat = file.stat()
            facts.append((file.name, stat.st_size, stat.st_mtime_ns))
    return tuple(facts)


def _read_run(folder: Path) -> LoadedRun | UnfinishedRun:
    if (folder / RUN_FILE).is_file():
        return load_checked_run(folder)
    task = folder.name.rpartition("-")[0]
    task = task if is_name(task) else "unfinished"
    return UnfinishedRun(plain(folder.parent.name), task, tuple(read_all_samples(folder)))


def _sections(groups: Sequence[BoardGroup], unfinished: Sequence[UnfinishedRun]) -> Iterator[SampleSection]:
    waiting = list(unfinished)
    names = section_names(groups, ())
    for name, group in zip(names, groups, strict=True):
        mine = [run for run in waiting if run.task == group.task and _same_questions(run, group)]
        waiting = [run for run in waiting if run not in mine]
        yield board_section(name, group, mine, folder_of=lambda run: str(run.folder))
    for task in dict.fromkeys(run.task for run in waiting):
        name = task if task not in names else f"{task}.unfinished"
        yield unfinished_section(name, [run for run in waiting if run.task == task])


def _same_questions(run: UnfinishedRun, group: BoardGroup) -> bool:
    """Whether a run answers the items of a group, as far as it is, with what was played to the models there.

    A run without a record does not say how its clips were changed; the seeds of its items follow from that.
    """
    known: dict[int, set[tuple[str, int]]] = {}
    for finished in group.runs:
        for sample in finished.samples:
            known.setdefault(sample.doc_id, set()).add((sample.audio_sha256, sample.seed))
    return all(
        (sample.audio_sha256, sample.seed) in known.get(sample.doc_id, ((sample.audio_sha256, sample.seed),))
        for sample in run.samples
    )


def _limited(section: SampleSection, limit: int) -> SampleSection:
    kept = set(section.numbers[:limit])
    models = tuple(
        replace(model, samples={number: each for number, each in model.samples.items() if number in kept})
        for model in section.models
    )
    return replace(section, models=models)


def _left_out(section: SampleSection, limit: int) -> list[str]:
    left_out = len(section.numbers) - limit
    return [f"{section.name}: the first {limit} items; {left_out} more are left out"] if left_out > 0 else []
