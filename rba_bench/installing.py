"""How to install what is missing, for every message that says so.

A checkout is installed from its own folder (`pip install -e '.[tts]'`), a published package by its name
(`pip install 'rba-bench[tts]'`). The second would put another version of the code beside a checkout.
"""

import os
import shlex
from contextlib import suppress
from pathlib import Path

PROJECT = "rba-bench"


def extra(*names: str) -> str:
    """The command that installs extras of rba-bench, such as `tts`; not for records, as it may hold a path."""
    extras = f"[{','.join(names)}]"
    root = checkout()
    if root is None:
        return package(f"{PROJECT}{extras}")
    with suppress(FileNotFoundError):  # the current folder was removed meanwhile
        if Path(os.getcwd()).resolve() == root:
            return f"pip install -e '.{extras}'"
    return f"pip install -e '{root}{extras}'"


def package(requirement: str, upgrade: bool = False) -> str:
    """The command that installs a package from the package index."""
    return f"pip install {'-U ' if upgrade else ''}{shlex.quote(requirement)}"


def checkout() -> Path | None:
    """The folder of the checkout that this code runs from; None where it runs from an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else None
