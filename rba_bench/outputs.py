"""Whose folder is this? Each stage signs its output folder: a rerun resumes, a different run is refused.

While a process works in a folder it holds a lock on it, and a second one is refused: it would take what the first is
writing for what a killed run has left. The lock is the operating system's, so `kill -9` frees it.

The signature is `rba_config.json`: `{"schema_version": 1, "stage": "train", "config": {...}}`, where `config`
holds everything that decides the folder's content and nothing else (no dates, machine names, worker counts).
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
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
_held: dict[Path, FileLock] = {}


def run_folder(stage: str, name: str, resolved: dict[str, Any]) -> Path:
    """`runs/<stage>/<name>-<id>`, the id from all settings: equal settings resume, others get their own folder."""
    return RUNS / stage / f"{name}-{sha256_json(resolved)[:8]}"


def claim(out: Path | str, stage: str, config: dict[str, Any]) -> bool:
    """Sign the folder `out` for one stage and one configuration, or recognise it as ours, and lock it.

    The lock stays until `release(out)`, or until the process ends. What a killed process left half written is removed.

    Args:
        out: the output folder; made if absent.
        stage: "synth", "train", "eval" or "leaderboard".
        config: what decides the content, as JSON values.

    Returns:
        True when the folder carries this very signature, so that the stage resumes; False when it is new.

    Raises:
        UserError: the folder belongs to another stage or configuration (differences listed key by key), holds
            files of unknown origin, is not a folder, cannot be written, or another process works in it.
    """
    folder = Path(out)
    wanted = {"schema_version": SCHEMA_VERSION, "stage": stage, "config": json.loads(json.dumps(config))}
    try:
        found = read_signature(folder)
        if found is None:
            found = _signed_since(folder)
        if found is not None:
            _refuse_other(folder, found, wanted)
            lock(folder)
            return True
        lock(folder)
        write_json(folder / SIGNATURE, wanted)
    except OSError as error:
        release(folder)
        raise UserError(f"cannot use {folder} as output folder: {error.strerror or error}") from error
    return False


def check_writable(out: Path | str) -> None:
    """Make a folder and write in it, so that a place that cannot be written is found before the work and not after it.

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
    """Keep other processes out of a folder, made if absent, and clear away what killed ones left half written in it.

    Of the processes of one distributed run the first one holds the lock for all.

    Raises:
        UserError: another process holds it.
        OSError: the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    folder = Path(out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / LOCK, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise UserError(
            f"{out} is in use by another process: wait until it has ended, or choose another --out"
        ) from error
    _held[folder] = held
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    sweep(folder, 0.0 if alone else WRITTEN_BY_NOW_S)  # the other processes of the run may be writing
    _sweep_cache()


def release(out: Path | str) -> None:
    """Let other processes into a folder again; nothing happens if this one does not hold it."""
    folder = Path(out).resolve()
    held = _held.pop(folder, None)
    if held is not None:
        with suppress(OSError):  # Windows keeps a file that is open
            (folder / LOCK).unlink(missing_ok=True)
        held.release()


@contextmanager
def locked(out: Path | str) -> Iterator[None]:
    """`lock` and `release` around a piece of work."""
    lock(out)
    try:
        yield
    finally:
        release(out)


def _sweep_cache() -> None:
    """Once a day remove from the cache what killed processes have left there; others may be writing now."""
    cache = cache_dir()
    note = cache / ".swept"
    with suppress(OSError):
        if cache.is_dir() and not (note.exists() and time.time() - note.stat().st_mtime < DAY_S):
            note.touch()
            sweep(cache, older_than_s=DAY_S)


def read_signature(folder: Path) -> dict[str, Any] | None:
    """The signature of a folder, None where there is none.

    Raises:
        UserError: the file is there but is not a signature.
    """
    path = folder / SIGNATURE
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove {folder} or choose another --out") from error
    if not isinstance(found, dict) or not {"stage", "config"} <= found.keys():
        raise UserError(f"{path} is not a signature of rba-bench; choose another --out")
    return found


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Yield `key: old -> new` for every leaf in which two JSON values differ; `-` marks an absent side."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(
                old.get(name, _ABSENT), new.get(name, _ABSENT), f"{key}.{name}" if key else name
            )
    elif old != new or type(old) is not type(new):
        yield f"{key}: {_show(old)} -> {_show(new)}"


_ABSENT = object()


def _show(value: Any) -> str:
    text = "-" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _refuse_other(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if found["stage"] != wanted["stage"]:
        raise UserError(
            f"{folder} holds the output of `{found['stage']}`, not of `{wanted['stage']}`; "
            "choose another --out"
        )
    changed = list(differences(found.get("schema_version"), wanted["schema_version"], "schema_version"))
    changed += differences(found["config"], wanted["config"])
    if not changed:
        return
    shown = "; ".join(changed[:SHOWN])
    more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    raise UserError(
        f"{folder} belongs to another {wanted['stage']} run (there -> asked): {shown}{more}; "
        "repeat that run's settings to resume it, or choose another --out"
    )


def _signed_since(folder: Path) -> dict[str, Any] | None:
    """Of a folder that had no signature: the one that another process of the same run has written by now, or None."""
    try:
        _refuse_foreign(folder)
    except UserError:
        found = read_signature(folder)
        if found is None:
            raise
        return found
    return None


def _refuse_foreign(folder: Path) -> None:
    """Never write into somebody's folder by accident; hidden files (.gitkeep, torn writes) do not count."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --out must name a folder")
    strangers = (
        [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if folder.is_dir()
        else []
    )
    if strangers:
        raise UserError(
            f"{folder} is not empty ({min(strangers)}, ...) and has no {SIGNATURE}; "
            "choose an empty or new folder for --out"
        )
