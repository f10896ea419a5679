"""What a command does when an option is left out. Every choice made here is said on stderr by its caller."""

from pathlib import Path
from typing import Any

from rba_bench.files import sha256_json

RUNS = Path("runs")


def run_folder(stage: str, name: str, resolved: dict[str, Any]) -> Path:
    """`runs/<stage>/<name>-<id>`, the id from all settings: equal settings resume, others get their own folder."""
    return RUNS / stage / f"{name}-{sha256_json(resolved)[:8]}"
