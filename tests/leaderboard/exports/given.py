"""Records for exports: published ones, and invented ones with texts that nobody should write."""

import json
from pathlib import Path
from typing import Any

from rba_bench.leaderboard.board_groups import BoardGroup, group_runs
from rba_bench.leaderboard.loaded_runs import load_checked_run
from tests.leaderboard import board_records as made
from tests.published import published_run

REPO = {"source": "x", "repo": "owner/spoken-questions", "revision": "c" * 40, "n_items": 12,
        "items_sha256": "11" * 32, "audio_set_sha256": "22" * 32}  # fmt: skip
HOSTILE = [
    "<img src=x onerror=alert(1)>", "../../etc/passwd", "a\nb: [1]\n---\n- x", "\\input{/etc/passwd}", "a/b/../c",
    "\x1b[2Ja\u202eb", "=HYPERLINK(1)", "CON", "}\\end{table}%", "*a: &b !!python/object:os.system", "x\u2028y\x85z",
    "ü-漢字",
]  # fmt: skip


def record_of(model: str, task: str) -> Path:
    """A published record."""
    return published_run(model, task)


def invented(folder: Path, name: str = "some model", **changes: Any) -> Path:
    """A run of twelve questions whose answers hold letters that break lines."""
    samples = made.qa_samples(0.5, n=12)
    odd = {
        "response": "a\u2028b\x85\x00\x1b<c>",
        "extracted": "a\u2028b",
        "scores": {"exact_match": 0.0, "alias_match": 0.0},
    }
    samples[0] = samples[0].model_copy(update=odd)
    empty = {"response": "", "extracted": "", "scores": {}, "status": "no_reply", "error": "HTTP 503"}
    samples[1] = samples[1].model_copy(update=empty)
    model = {
        "name": name,
        "spec": name,
        "weights_sha256": "33" * 32,
        "training": None,
        **changes.pop("model", {}),
    }
    return made.write_run(folder, "run", samples, model=model, **{"data": REPO, **changes})


def groups_of(*folders: Path) -> list[BoardGroup]:
    """Runs as they stand on a board, their scores not verified."""
    return group_runs([load_checked_run(folder) for folder in folders], "sft")


def edited(folder: Path, **changes: Any) -> Path:
    """A run whose record says something else."""
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder
