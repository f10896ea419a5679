"""Output folders: signed by the stage that writes them, locked while it works, resumed only by an equal run.

The signature is `rba_config.json`: `{"schema_version": 1, "stage": "train", "config": {...}}`, where `config`
holds everything that decides the folder's content and nothing else (no dates, machine names, worker counts). A stage
whose folder may be resumed under another rule than "equal config" gives `claim` a rule of its own; no other file has to
change.

While a process works in a folder it holds a lock on it, and a second process is refused: it would take the files that
the first is writing for the remains of a killed run. The lock belongs to the operating system, so `kill -9` frees it.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rba_bench.errors import UserError
from rba_bench.files import cache_dir, read_json, sha256_json, sweep, write_json

RUNS = Path("runs")  # where stages write unless they are told
SIGNATURE = "rba_config.json"
RUN_RECORD = "rba_run.json"  # what a finished training run writes last into its folder
TRAIN_LOG = "train_log.jsonl"  # of a training run, one record per optimiser step
SCHEMA_VERSION = 1
SHOWN = 12  # differences listed before "and N more"
LOCK = ".rba.lock"
DAY_S = 86_400.0
WRITTEN_BY_NOW_S = 600.0
_ROOM = 2**16  # bytes that must fit, more than a data base of answers takes in the beginning
_locks: dict[Path, FileLock] = {}  # those that this process holds, by folder
_ABSENT = object()

ResumeRule = Callable[[Any, Any], Iterable[str]]
"""From the config that a folder is signed with and the one of this run: why the folder may not be resumed, in parts."""


def run_folder(stage: str, name: str, resolved: dict[str, Any]) -> Path:
    """`runs/<stage>/<name>-<id>`, the id from all settings: equal settings resume, others get their own folder."""
    return RUNS / stage / f"{name}-{sha256_json(resolved)[:8]}"


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield `key: old -> new` for every leaf in which two JSON values differ; `-` marks an absent side."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            below = f"{key}.{name}" if key else name
            yield from differences(old.get(name, _ABSENT), new.get(name, _ABSENT), below)
    elif old != new or type(old) is not type(new):
        texts = ["-" if side is _ABSENT else json.dumps(side, ensure_ascii=False) for side in (old, new)]
        before, after = (text if len(text) <= 80 else text[:77] + "..." for text in texts)
        yield f"{key}: {before} -> {after}"


def claim(out: Path | str, stage: str, config: dict[str, Any], resume_rule: ResumeRule = differences) -> bool:
    """Sign the folder `out` for one stage and one configuration, or recognise it as ours, and lock it.

    The lock stays until `release(out)`, or until the process ends. Half-written files of a killed process are removed.

    Args:
        out: the output folder; made if absent.
        stage: "synth", "train", "eval" or "leaderboard".
        config: what decides the content, as JSON values.
        resume_rule: which signed config may be resumed with this one; by default an equal one.

    Returns:
        True when the folder carries a signature that this run may resume; False when it is new.

    Raises:
        UserError: the folder belongs to another stage or configuration (differences listed key by key), holds
            files of unknown origin, is not a folder, cannot be written, or another process works in it.
    """
    folder = Path(out)
    ours = {"schema_version": SCHEMA_VERSION, "stage": stage, "config": json.loads(json.dumps(config))}
    try:
        signature = _existing_signature(folder)
        if signature is not None:
            _refuse_other_run(folder, signature, ours, resume_rule)
        lock(folder)
        if signature is None:
            write_json(folder / SIGNATURE, ours)
    except OSError as error:
        release(folder)
        raise UserError(f"cannot use {folder} as output folder: {error.strerror or error}") from error
    return signature is not None


def read_signature(folder: Path) -> dict[str, Any] | None:
    """The signature of a folder, None where there is none.

    Raises:
        UserError: the file is there but is not a signature.
    """
    path = folder / SIGNATURE
    if not path.is_file():
        return None
    try:
        signature = read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove {folder} or choose another --out") from error
    if not isinstance(signature, dict) or not {"stage", "config"} <= signature.keys():
        raise UserError(f"{path} is not a signature of rba-bench; choose another --out")
    return signature


def _existing_signature(folder: Path) -> dict[str, Any] | None:
    """The signature of a folder, None for a new or empty one; hidden files (.gitkeep, torn writes) do not count.

    Raises:
        UserError: it is a file, or holds files of unknown origin, among which nothing is written.
    """
    signature = read_signature(folder)
    if signature is not None:
        return signature
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --out must name a folder")
    foreign = [e.name for e in folder.iterdir() if not e.name.startswith(".")] if folder.is_dir() else []
    if not foreign:
        return None
    signature = read_signature(folder)  # another process of the same run may have written it meanwhile
    if signature is None:
        raise UserError(
            f"{folder} is not empty ({min(foreign)}, ...) and has no {SIGNATURE}; "
            "choose an empty or new folder for --out"
        )
    return signature


def _refuse_other_run(
    folder: Path, signature: dict[str, Any], ours: dict[str, Any], resume_rule: ResumeRule
) -> None:
    theirs, stage = signature["stage"], ours["stage"]
    if theirs != stage:
        raise UserError(f"{folder} holds the output of `{theirs}`, not of `{stage}`; choose another --out")
    reasons = list(differences(signature.get("schema_version"), ours["schema_version"], "schema_version"))
    reasons += resume_rule(signature["config"], ours["config"])
    if reasons:
        more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        raise UserError(
            f"{folder} belongs to another {stage} run (there -> asked): {'; '.join(reasons[:SHOWN])}{more}; "
            "repeat that run's settings to resume it, or choose another --out"
        )


def check_writable(out: Path | str) -> None:
    """Make a folder and write in it, so that a folder that cannot be written is found before the work, not after it.

    Raises:
        UserError: it is a file, or cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as handle:
            handle.write(bytes(_ROOM))  # a full disk takes names, but no content
            handle.flush()
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or str(error)
        raise UserError(f"cannot write in {folder} ({reason}): choose another --out") from error


def lock(out: Path | str) -> None:
    """Keep other processes out of a folder, made if absent, and remove the half-written files of killed ones.

    Of the processes of one distributed run the first one holds the lock for all.

    Raises:
        UserError: another process holds it.
        OSError: the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(folder / LOCK, timeout=0)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{out} is in use by another process: wait until it has ended, or choose another --out"
        ) from error
    _locks[folder] = file_lock
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    sweep(folder, 0.0 if alone else WRITTEN_BY_NOW_S)  # the other processes of the run may be writing
    cache = cache_dir()
    marker = cache / ".swept"
    with suppress(OSError):  # once a day the cache too, in which others may be writing now
        if cache.is_dir() and not (marker.exists() and time.time() - marker.stat().st_mtime < DAY_S):
            marker.touch()
            sweep(cache, older_than_s=DAY_S)


def release(out: Path | str) -> None:
    """Let other processes into a folder again; nothing happens if this one does not hold it."""
    folder = Path(out).resolve()
    file_lock = _locks.pop(folder, None)
    if file_lock is not None:
        with suppress(OSError):  # Windows keeps a file that is open
            (folder / LOCK).unlink(missing_ok=True)
        file_lock.release()


def unclaim(out: Path | str, remove: bool) -> None:
    """Take back `claim` where nothing was made since, so that a run of another configuration may use the folder.

    Args:
        out: The folder, which this process holds.
        remove: Remove it, too.
    """
    folder = Path(out)
    with suppress(OSError):
        if {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} <= {SIGNATURE}:
            (folder / SIGNATURE).unlink(missing_ok=True)
            release(folder)
            if remove:
                folder.rmdir()


@contextmanager
def locked(out: Path | str) -> Iterator[None]:
    """`lock` and `release` around a piece of work."""
    lock(out)
    try:
        yield
    finally:
        release(out)
