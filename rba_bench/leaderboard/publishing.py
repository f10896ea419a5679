"""The runs of a board, copied below its folder as they are: `records/<model>/<run id>/{run.json, samples.jsonl.gz}`.

The mark of a submission and an attestation (see `provenance`) go along, byte for byte. They also stay where the board
has the same record already: a submitted record does not become one's own when the board is built from another copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rba_bench.errors import UserError
from rba_bench.evaluation.records import BESIDE, PACKED_FILE, RUN_FILE, pack_samples, read_beside
from rba_bench.files import inside, replacing, sha256_bytes
from rba_bench.leaderboard.loaded_runs import LoadedRun, open_run
from rba_bench.leaderboard.pages import published_folder
from rba_bench.leaderboard.worker_processes import Mapped
from rba_bench.untrusted import MAX_TEXT, read_untrusted_file

TOGETHER = 64  # runs that a process copies before it tells


@dataclass(frozen=True)
class PublishJob:
    """Runs to copy.

    Attributes:
        out: Folder of the board.
        runs: Each with the hash of its packed samples.
    """

    out: Path
    runs: tuple[tuple[LoadedRun, str], ...]


def published_files(runs: Sequence[LoadedRun]) -> list[str]:
    """Names of the files of all runs.

    Raises:
        UserError: two runs would get the same folder.
    """
    folders: dict[str, LoadedRun] = {}
    names = []
    for run in runs:
        folder = published_folder(run)
        first = folders.setdefault(folder.casefold(), run)  # some file systems do not tell a from A
        if first is not run:
            raise UserError(
                f"{first.folder} and {run.folder} would be published into one folder; rename one model"
            )
        names += [f"{folder}/{name}" for name in (RUN_FILE, PACKED_FILE, *run.beside)]
    return names


def keep_beside(runs: Sequence[LoadedRun], out: Path) -> None:
    """Give runs what lies beside the same records in `out`, where a board is built again from other copies of them."""
    for run in runs:
        folder = inside(out, published_folder(run))
        beside = read_beside(folder) if (folder / RUN_FILE).is_file() else {}
        if beside and open_run(folder).record_sha256 == run.record_sha256:
            run.add_beside(beside)


def publish(
    runs: Sequence[LoadedRun],
    packed: Mapping[LoadedRun, str],
    out: Path,
    mapped: Mapped,
) -> None:
    """Copy runs to where they are published.

    Args:
        runs: All runs.
        packed: Hash of the packed samples of each.
        out: Folder of the board.
        mapped: Maps a function to jobs, perhaps in several processes.
    """
    for run in runs:
        folder = inside(out, published_folder(run))
        for file in (folder / name for name in (RUN_FILE, PACKED_FILE, *run.beside)):
            if file.is_symlink():
                inside(out, str(file.relative_to(out)))
    moved = [run for run in runs if _moves_within(run, out)]
    for run in moved:  # read before another run is written in its place
        run.record_bytes, run.sample_bytes  # noqa: B018
    others = [run for run in runs if run not in set(moved)]
    jobs = [others[start : start + TOGETHER] for start in range(0, len(others), TOGETHER)]
    for _ in mapped(copy_runs, [PublishJob(out, tuple((run, packed[run]) for run in job)) for job in jobs]):
        pass
    copy_runs(PublishJob(out, tuple((run, packed[run]) for run in moved)))


def copy_runs(job: PublishJob) -> None:
    """Copy some runs; a file that is there already stays."""
    for run, packed in job.runs:
        target = job.out / published_folder(run)
        _write(target / RUN_FILE, run.record_bytes)
        _write(target / PACKED_FILE, _packed_samples(run, packed, target / PACKED_FILE))
        for name in BESIDE:
            if name in run.beside:
                _write(target / name, run.beside[name])
            else:  # it was beside another record
                (target / name).unlink(missing_ok=True)
        run.release()


def _packed_samples(run: LoadedRun, packed: str, target: Path) -> bytes:
    """As `packed_as_published` gives them: where that was done before, the file is taken."""
    for file in (run.folder / PACKED_FILE, target):
        if file.is_file():
            data = read_untrusted_file(file, MAX_TEXT)
            if sha256_bytes(data) == packed:
                return data
    return pack_samples(run.sample_bytes)


def _write(target: Path, data: bytes) -> None:
    """Whole or not at all; whether it survives a power cut matters less than the time of thousands of `fsync`."""
    if target.is_file() and not target.is_symlink() and target.read_bytes() == data:
        return
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def _moves_within(run: LoadedRun, out: Path) -> bool:
    folder, root = run.folder.resolve(), out.resolve()
    return folder.is_relative_to(root) and folder != root / published_folder(run)
