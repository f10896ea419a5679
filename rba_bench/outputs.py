"""Whose folder is this? Each stage signs its output folder: a rerun resumes, a different run is refused.

The signature is `rba_config.json`: `{"schema_version": 1, "stage": "train", "config": {...}}`, where `config`
holds everything that decides the folder's content and nothing else (no dates, machine names, worker counts).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_json, write_json

SIGNATURE = "rba_config.json"
SCHEMA_VERSION = 1
SHOWN = 12  # differences listed before "and N more"


def claim(out: Path | str, stage: str, config: dict[str, Any]) -> bool:
    """Sign the folder `out` for one stage and one configuration, or recognise it as ours.

    Args:
        out: the output folder; made if absent.
        stage: "synth", "train", "eval" or "leaderboard".
        config: what decides the content, as JSON values.

    Returns:
        True when the folder carries this very signature, so that the stage resumes; False when it is new.

    Raises:
        UserError: the folder belongs to another stage or configuration (differences listed key by key), holds
            files of unknown origin, is not a folder, or cannot be written.
    """
    folder = Path(out)
    wanted = {"schema_version": SCHEMA_VERSION, "stage": stage, "config": json.loads(json.dumps(config))}
    try:
        found = read_signature(folder)
        if found is not None:
            _refuse_other(folder, found, wanted)
            return True
        _refuse_foreign(folder)
        write_json(folder / SIGNATURE, wanted)
    except OSError as error:
        raise UserError(f"cannot use {folder} as output folder: {error.strerror or error}") from error
    return False


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
