"""Runs of the published boards."""

import json
from pathlib import Path

BOARDS = Path(__file__).parents[1] / "leaderboards"


def published_run(model: str, task: str, track: str = "micro") -> Path:
    """Folder of the run of a model on a task with the items' own clips; controls (`eval --audio`) lie beside it."""
    (found,) = (
        folder
        for folder in (BOARDS / track / "records" / model).glob(f"{task}-????????????")
        if "audio" not in json.loads((folder / "run.json").read_text(encoding="utf-8"))["protocol_spec"]
    )
    return found
