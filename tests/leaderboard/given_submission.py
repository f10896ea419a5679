"""A board with two models, a run of a third one to submit, and a git repository around them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from rba_bench.leaderboard.submission import check_submission, pack_submission
from tests import published
from tests.published import BOARDS

PUBLISHED = BOARDS / "micro" / "records"

TASK = "micro_webquestions"
BESIDE = shutil.ignore_patterns("submission.json", "attestation.json")  # a board may have got them since


def published_run(model: str, task: str = TASK) -> Path:
    return published.published_run(model, task)


def board(root: Path, *models: str) -> Path:
    """Folder of boards with published records of these models; not built."""
    boards = root / "leaderboards"
    for model in models:
        run = published_run(model)
        shutil.copytree(run, boards / "micro" / "records" / model / run.name, ignore=BESIDE)
    boards.mkdir(exist_ok=True, parents=True)
    return boards


def git(repository: Path, *words: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "core.symlinks=true")
    done = subprocess.run(
        ["git", "-C", str(repository), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def repository_with(root: Path, *models: str) -> Path:
    """A repository whose branch `main` has a board, checked out."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main")
    board(root, *models)
    (root / "code.py").write_text("print('base')\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    return root


def propose(repository: Path, change: Callable[[Path], None], branch: str = "proposal") -> str:
    """Commit a change on a branch of a contributor's clone, fetch it, and leave `main` checked out."""
    clone = repository.with_name(repository.name + "-fork")
    git(repository.parent, "clone", "-q", str(repository), str(clone))
    git(clone, "checkout", "-q", "-b", branch)
    change(clone)
    git(clone, "add", "-A", "-f")
    git(clone, "commit", "-qm", "a submission")
    git(repository, "fetch", "-q", str(clone), f"+{branch}:refs/remotes/pull/{branch}")
    return f"refs/remotes/pull/{branch}"


def submitted(model: str, task: str = TASK) -> Callable[[Path], None]:
    """A change that `leaderboard submit` makes."""

    def change(clone: Path) -> None:
        boards = clone / "leaderboards"
        pack_submission(check_submission([published_run(model, task)], boards), boards)

    return change
