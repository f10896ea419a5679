"""The `pip install` commands that messages show.

A checkout is installed from its own folder (`pip install -e '.[tts]'`), a published package by its name
(`pip install 'rba-bench[tts]'`), as the name would install a second version of the code beside a checkout.
"""

import os
import shlex
from contextlib import suppress
from pathlib import Path

PROJECT = "rba-bench"


def extra(*names: str) -> str:
    """The command that installs extras of rba-bench, such as `tts`. Not for records: it may hold a local path."""
    extras = f"[{','.join(names)}]"
    root = checkout()
    if root is None:
        return package(f"{PROJECT}{extras}")
    with suppress(FileNotFoundError):  # the current folder was removed
        if Path(os.getcwd()).resolve() == root:
            return f"pip install -e '.{extras}'"
    return f"pip install -e '{root}{extras}'"


def package(requirement: str, upgrade: bool = False) -> str:
    """The command that installs a package from the package index."""
    return f"pip install {'-U ' if upgrade else ''}{shlex.quote(requirement)}"


def checkout() -> Path | None:
    """The folder of the checkout that this code runs from; None if it runs from an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else None
