"""Rescoring of run folders, in place or into another folder; a kill at any moment leaves a whole run.

In place two files change together. The new record is written first, beside the old one (`.run.json.rescored`), then the
samples are replaced, then the record. Whoever comes later finds the new record waiting only if it was interrupted in
between, and finishes or forgets it by whether it belongs to the samples that are there.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench import outputs
from rba_bench.errors import UserError
from rba_bench.evaluation import sample_files
from rba_bench.evaluation.records import RUN_FILE, SAMPLES_FILE, RunRecord, Sample, read_record
from rba_bench.evaluation.rescoring import RescoreOptions, rescore
from rba_bench.files import cache_dir, sha256_bytes, write_atomic, write_json
from rba_bench.names import folder_name, inside
from rba_bench.plain import plain

WAITING = f".{RUN_FILE}.rescored"


@dataclass(frozen=True)
class Rescored:
    """One run before and after.

    Attributes:
        folder: Where the result lies.
        before: The record that was there.
        after: The record that is there now; the same object if nothing changed.
    """

    folder: Path
    before: RunRecord
    after: RunRecord

    @property
    def changed(self) -> bool:
        """Whether anything is different."""
        return self.after is not self.before

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form: old and new score of every metric, None where a side has none."""
        names = dict.fromkeys([*self.before.metrics, *self.after.metrics])
        return {
            "folder": str(self.folder),
            "model": self.before.model["name"],
            "task": self.before.task,
            "run_id": self.before.run_id,
            "changed": self.changed,
            "metrics": {name: [_value(self.before, name), _value(self.after, name)] for name in names},
            "statuses": [self.before.statuses, self.after.statuses],
            "task_version": [self.before.task_version, self.after.task_version],
            "protocol_hash": [self.before.protocol_hash, self.after.protocol_hash],
        }

    def line(self) -> str:
        """What changed, in one line."""
        parts = [_change(name, *values) for name, values in self.to_dict()["metrics"].items()]
        versions = _change("version", self.before.task_version, self.after.task_version)
        old, new = self.before.protocol_hash[:12], self.after.protocol_hash[:12]
        head = f"{plain(self.before.model['name'])} {self.before.task}: "
        tail = f"{versions}, {_change('protocol', old, new)}" if self.changed else "nothing changed"
        return f"{head}{', '.join(parts)}; {tail} ({self.folder})"


def rescore_runs(
    paths: Sequence[Path], options: RescoreOptions | None = None, out: Path | None = None
) -> Iterable[Rescored]:
    """Rescore runs one after another.

    Args:
        paths: Run folders, their `run.json`, or folders of runs; also the records of a published board.
        options: Judge and task file. By default votes are kept where the run's own are, else in the cache.
        out: Folder for `<model>/<run id>/`; None to rescore in place.

    Raises:
        UserError: no run there, a damaged one, an unknown task, or samples that cannot be scored.
        MissingPrerequisite: the judge is not to be had.
    """
    for folder in run_folders(paths):
        yield rescore_folder(folder, options, out)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders with a record at or below `paths`, each once. Raises UserError where there is none."""
    found: dict[Path, None] = {}
    for path in paths:
        place = path.parent if path.name == RUN_FILE else path
        own = [place] if (place / RUN_FILE).is_file() or (place / WAITING).is_file() else []
        below = own or sorted(file.parent for file in place.rglob(RUN_FILE))
        if not below:
            raise UserError(f"no finished run ({RUN_FILE}) at or below {path}")
        found |= dict.fromkeys(below)
    return list(found)


def rescore_folder(folder: Path, options: RescoreOptions | None = None, out: Path | None = None) -> Rescored:
    """Rescore one run; see `rescore_runs`."""
    outputs.check_writable(folder if out is None else out)
    with outputs.locked(folder if out is None else out):
        _settle(folder)
        before, data = read_record(folder), sample_files.sample_bytes(folder)
        if sha256_bytes(data) != before.samples_sha256:
            raise UserError(
                f"{folder}: the samples are not the ones that {RUN_FILE} was computed from (hash differs)"
            )
        chosen = options or RescoreOptions()
        if chosen.votes is None:
            chosen = chosen.voting(_votes(folder, out))
        try:
            found = sorted(sample_files.parse(data, folder), key=lambda sample: sample.doc_id)
            after, samples = rescore(before, found, chosen)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        target = folder if out is None else run_folder(out, before)
        if out is not None or after is not before:
            after = _write(target, after, samples)
        return Rescored(target, before, after if after.rescored != before.rescored else before)


def _votes(folder: Path, out: Path | None) -> Path:
    """Folder that holds `votes/`: the output folder; in place that of the evaluation if it is there, else the cache."""
    if out is not None:
        return out
    own = folder.resolve().parent.parent
    return own if (own / "votes").is_dir() else cache_dir()


def run_folder(out: Path, record: RunRecord) -> Path:
    """Where the run of a record lies below `out`, whatever names the record holds."""
    return inside(out, f"{folder_name(record.model['name'])}/{record.run_id}")


def _write(target: Path, record: RunRecord, samples: Sequence[Sample]) -> RunRecord:
    """Both files; packed samples stay packed."""
    data = "".join(sample.line() for sample in samples).encode()
    whole = record.model_copy(update={"samples_sha256": sha256_bytes(data)})
    packed = (target / sample_files.PACKED_FILE).is_file() and not (target / SAMPLES_FILE).is_file()
    write_json(target / WAITING, whole.model_dump(mode="json"))
    if packed:
        write_atomic(target / sample_files.PACKED_FILE, sample_files.pack(data))
    else:
        write_atomic(target / SAMPLES_FILE, data)
    os.replace(target / WAITING, target / RUN_FILE)
    return whole


def _settle(folder: Path) -> None:
    """Finish or forget what an interrupted rescoring has left."""
    waiting = folder / WAITING
    if not waiting.is_file():
        return
    if read_record(waiting).samples_sha256 == sha256_bytes(sample_files.sample_bytes(folder)):
        os.replace(waiting, folder / RUN_FILE)
    else:
        waiting.unlink()


def _value(record: RunRecord, name: str) -> float | None:
    return record.metrics[name].value if name in record.metrics else None


def _change(name: str, old: float | str | None, new: float | str | None) -> str:
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value or "-") for value in (old, new)]
    return f"{name} {shown[0]}" if old == new else f"{name} {shown[0]} -> {shown[1]}"
