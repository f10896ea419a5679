"""Where the shipped weights of the micro world live."""

import os
from pathlib import Path

from rba_bench.errors import MissingPrerequisite

PARTS = ("teacher", "base", "reward", "asr")


def weights_dir() -> Path:
    """Folder with `teacher/ base/ reward/ asr/` and `provenance.json`; `RBA_MICRO_WEIGHTS` names another one."""
    override = os.environ.get("RBA_MICRO_WEIGHTS")
    return Path(override) if override else Path(__file__).parent / "weights"


def part(name: str) -> Path:
    """Folder of one part of the micro world.

    Raises:
        MissingPrerequisite: it has not been built.
    """
    folder = weights_dir() / name
    if not folder.is_dir():
        raise MissingPrerequisite(
            f"the micro world has no {name!r} under {weights_dir()}: run `rba-bench micro build`"
        )
    return folder
