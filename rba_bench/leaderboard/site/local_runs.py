"""The runs that `rba-bench view` shows: read from their folders, and again when their files change.

A run that is still being written has samples and no record. It stands beside the finished runs of its task on the same
clips, marked, and its new answers appear as they are written.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rba_bench.errors import UserError
from rba_bench.evaluation.answering import sample_files
from rba_bench.evaluation.records import PACKED_FILE, RUN_FILE, Sample, parse_samples
from rba_bench.files import is_name, sha256_json
from rba_bench.leaderboard.board_groups import BoardGroup, group_runs
from rba_bench.leaderboard.loaded_runs import LoadedRun, find_runs, load_checked_run, without_copies
from rba_bench.leaderboard.pages import section_names
from rba_bench.leaderboard.site.again import SERVED, Commands
from rba_bench.leaderboard.site.sample_sections import (
    SampleSection,
    UnfinishedRun,
    board_section,
    unfinished_section,
)
from rba_bench.untrusted import MAX_TEXT, plain, read_untrusted_file

Signature = tuple[tuple[str, int, int], ...]
FAULT = 1000  # letters of a sentence that names folders


@dataclass(frozen=True)
class RunsNow:
    """What the folders hold at a moment.

    Attributes:
        sections: By name, in the order of boards.
        version: Other files, other version.
        faults: What could not be read, in sentences that name its folder.
        left_out: What is not shown, in sentences.
    """

    sections: dict[str, SampleSection]
    version: str
    faults: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All that the reader of this machine should know."""
        return (*self.faults, *self.left_out)


class LocalRuns:
    """Runs in or below some folders.

    Args:
        paths: `run.json` files, run folders, or folders searched for them.
        limit: Show only the first items of each task; None for all.
        out: Folder whose runs are passed over, unless a path names it.
        commands: That let models answer an item again.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        limit: int | None = None,
        out: Path | None = None,
        commands: Commands = SERVED,
    ) -> None:
        self._paths, self._limit, self._out, self._commands = list(paths), limit, out, commands
        self._known: dict[Path, tuple[Signature, LoadedRun | UnfinishedRun]] = {}
        self._growing: dict[Path, tuple[bytes, list[Sample]]] = {}
        self._names: dict[tuple[str, ...], str] = {}
        self._now: RunsNow | None = None

    def read(self) -> RunsNow:
        """The runs as their files are now; files that have not changed are not read again.

        A run that cannot be read is a note beside the others.

        Raises:
            UserError: when read for the first time: a path does not exist, there is no run, or none can be read.
        """
        folders, missing = self._folders()
        signatures = {folder: _signature(folder) for folder in folders}
        version = sha256_json(
            [sorted((str(folder), *facts) for folder, facts in signatures.items()), missing]
        )[:16]
        if self._now is None or self._now.version != version:
            self._now = self._read(signatures, version, missing)
        return self._now

    def _folders(self) -> tuple[list[Path], list[str]]:
        """Run folders, and what is missing; that is an error only as long as nothing was shown."""
        paths = self._paths if self._now is None else [path for path in self._paths if path.exists()]
        missing = [f"{plain(path, FAULT)} is no longer there" for path in self._paths if path not in paths]
        unfinished = {
            file.parent
            for path in paths
            if path.is_dir()
            for file in _below(path, "samples*.jsonl")
            if not (file.parent / RUN_FILE).is_file()
        }
        try:
            return sorted({*find_runs(paths, self._out), *unfinished}), missing
        except (UserError, FileNotFoundError) as error:
            if unfinished and all(path.exists() for path in paths):
                return sorted(unfinished), missing
            if self._now is None:
                raise
            return [], missing or [plain(error, FAULT)]

    def _read(self, signatures: dict[Path, Signature], version: str, missing: Sequence[str]) -> RunsNow:
        errors: list[UserError | FileNotFoundError] = []
        self._known = {folder: known for folder, known in self._known.items() if folder in signatures}
        for folder, signature in signatures.items():
            if folder in self._known and self._known[folder][0] == signature:
                continue
            self._known.pop(folder, None)
            try:
                self._known[folder] = signature, self._read_run(folder)
            except (UserError, FileNotFoundError) as error:  # damaged, or caught between two writes
                errors.append(error)
        if self._now is None and not self._known and errors:
            raise errors[0]
        faults = [*missing, *(plain(error, FAULT) for error in errors)]
        try:
            sections = {section.name: section for section in self._sections()}
        except UserError as error:
            if self._now is None:
                raise
            faults.append(plain(error, FAULT))
            sections = self._now.sections
        left_out: list[str] = []
        if self._limit is not None:
            left_out = [note for section in sections.values() for note in _left_out(section, self._limit)]
            sections = {name: _limited(section, self._limit) for name, section in sections.items()}
        return RunsNow(sections, version, tuple(faults), tuple(left_out))

    def _read_run(self, folder: Path) -> LoadedRun | UnfinishedRun:
        if (folder / RUN_FILE).is_file():
            return load_checked_run(folder)
        task = folder.name.rpartition("-")[0]
        task = task if is_name(task) else "unfinished"
        answered = {each.doc_id: each for file in sample_files(folder) for each in self._samples_so_far(file)}
        samples = tuple(answered[number] for number in sorted(answered))
        return UnfinishedRun(plain(folder.parent.name), task, samples)

    def _samples_so_far(self, file: Path) -> list[Sample]:
        """The whole lines of a file that grows; those that were there before are not parsed again."""
        data = read_untrusted_file(file, MAX_TEXT)
        data = data[: data.rfind(b"\n") + 1]
        before, samples = self._growing.get(file, (b"", []))
        if not data.startswith(before):
            before, samples = b"", []
        samples = [*samples, *parse_samples(data[len(before) :], file.parent)]
        self._growing[file] = data, samples
        return samples

    def _sections(self) -> Iterator[SampleSection]:
        runs = [run for _, run in self._known.values()]
        finished = without_copies([run for run in runs if isinstance(run, LoadedRun)])
        waiting = [run for run in runs if isinstance(run, UnfinishedRun) and run.samples]
        groups = [
            group
            for track in dict.fromkeys(run.record.track for run in finished)
            for group in group_runs(
                [run for run in finished if run.record.track == track], baseline="", controls_apart=True
            )
        ]
        names = self._stable_names(groups)
        for name, group in zip(names, groups, strict=True):
            mine = [run for run in waiting if run.task == group.task and _same_questions(run, group)]
            waiting = [run for run in waiting if run not in mine]
            yield board_section(name, group, mine, self._commands)
        for task in dict.fromkeys(run.task for run in waiting):
            name = task if task not in names else f"{task}.unfinished"
            yield unfinished_section(name, [run for run in waiting if run.task == task])

    def _stable_names(self, groups: Sequence[BoardGroup]) -> list[str]:
        """Names of sections; a page that is open keeps its name when another protocol of its task comes."""
        keys = [_key(group) for group in groups]
        names = zip(keys, section_names(groups, ()), strict=True)
        self._names = {key: self._names.get(key, name) for key, name in names}
        return [self._names[key] for key in keys]


def _key(group: BoardGroup) -> tuple[str, ...]:
    judges = sha256_json({metric: judge.sha256 for metric, judge in group.judges.items()})
    return group.task, group.protocol_hash, group.data_hash, judges


def _below(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder; none of what goes while it is searched."""
    with suppress(FileNotFoundError):
        return list(folder.rglob(pattern))
    return []


def _signature(folder: Path) -> Signature:
    facts = []
    for file in (folder / RUN_FILE, folder / PACKED_FILE, *sample_files(folder)):
        with suppress(FileNotFoundError):  # it has ended, or begins again
            stat = file.stat()
            facts.append((file.name, stat.st_size, stat.st_mtime_ns))
    return tuple(facts)


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
