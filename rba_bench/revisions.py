"""Data sets of the Hub at a commit that is remembered, so that what is read twice is the same twice.

A branch name is resolved to a commit on first use and kept in `revisions.json` (under `$RBA_CACHE`, or the file that
`RBA_REVISIONS` names, which may be shared and committed).
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.faults import is_full
from rba_bench.files import cache_dir, read_json, write_json

COMMIT = re.compile(r"[0-9a-f]{40}")
T = TypeVar("T")


class HubUnreachable(MissingPrerequisite):
    """The Hub did not answer, so that asking for another data set is a waste of time."""


def pinned_commit(repo: str, revision: str, fix: str, offline: bool = False) -> str:
    """The commit that `revision` of `repo` stands for on this machine.

    Args:
        repo: `owner/name` on the Hub.
        revision: Branch or commit.
        fix: What the user can do without the Hub.
        offline: Do not ask the Hub.

    Raises:
        MissingPrerequisite: the Hub cannot be asked and nothing is remembered.
    """
    if COMMIT.fullmatch(revision):
        return revision
    book = Path(os.environ.get("RBA_REVISIONS") or cache_dir() / "revisions.json")
    try:
        commits: dict[str, str] = read_json(book) if book.is_file() else {}
    except ValueError as error:
        raise UserError(f"{book} is damaged ({error}): restore or remove it") from error
    if not isinstance(commits, dict):
        raise UserError(f"{book} is damaged: it holds no mapping; restore or remove it")
    key = f"{repo}@{revision}"
    if key not in commits and offline:
        raise MissingPrerequisite(f"{repo} is not in the cache of the Hub: {fix}")
    if key not in commits:
        from huggingface_hub import HfApi

        commits[key] = str(ask_hub(repo, lambda: HfApi().dataset_info(repo, revision=revision).sha, fix))
        write_json(book, dict(sorted(commits.items())))
    return commits[key]


def ask_hub(repo: str, request: Callable[[], T], fix: str) -> T:
    """The answer to a request to the Hub; arguments as above.

    Raises:
        MissingPrerequisite: the Hub refuses.
        HubUnreachable: the Hub does not answer.
    """
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return request()
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        if is_full(error):  # the disk of the cache
            raise
        answered = isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError)
        unreachable = (
            isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | HTTPError) and not answered
        )
        raise (HubUnreachable if unreachable else MissingPrerequisite)(
            f"cannot get {repo} from the Hub ({first_line(error)}): {fix}"
        ) from error
