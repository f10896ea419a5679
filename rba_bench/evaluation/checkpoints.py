"""Finding what training left behind: checkpoints are folders with `rba_run.json`."""

from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json

RUN_NOTE = "rba_run.json"


def latest_checkpoint(runs_dir: Path | str = "runs") -> Path:
    """The newest checkpoint anywhere under `runs_dir`, by its `created` date and then by file time.

    Raises:
        MissingPrerequisite: there is none.
    """
    notes = list(Path(runs_dir).glob(f"**/{RUN_NOTE}"))
    if not notes:
        raise MissingPrerequisite(
            f"no checkpoint under {runs_dir}/: make one with `rba-bench train`, "
            "or name a model with --model PATH|base|text|cascade"
        )
    newest = max(notes, key=lambda note: (str(_read(note).get("created", "")), note.stat().st_mtime))
    return newest.parent


def training_note(folder: Path | str) -> dict[str, Any] | None:
    """What `rba_run.json` of a checkpoint says about its training, None where there is none.

    Raises:
        UserError: the file is damaged.
    """
    note = Path(folder) / RUN_NOTE
    return _read(note) if note.is_file() else None


def checkpoint_track(folder: Path | str) -> str:
    """The track a checkpoint was trained on, `micro` where it does not say."""
    return str((training_note(folder) or {}).get("track", "micro"))


def _read(note: Path) -> dict[str, Any]:
    try:
        content = read_json(note)
    except ValueError as error:
        raise UserError(f"{note} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{note} is damaged: it holds no mapping")
    return content
