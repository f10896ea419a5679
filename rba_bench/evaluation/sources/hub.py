"""Files of a data set: from a local copy, or from the Hub at a revision that is remembered.

A local copy has the layout that `hf download --repo-type dataset --local-dir DIR` makes. From the Hub a branch name is
resolved to a commit on first use and remembered (`rba_bench.revisions`): later runs read that very commit, and every
record names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench import revisions
from rba_bench.errors import MissingPrerequisite
from rba_bench.evaluation.sources.source import DATA_DIR_VARIABLE, Place
from rba_bench.revisions import HubUnreachable, ask_hub

__all__ = ["HubFiles", "HubUnreachable", "find_files", "pinned_commit"]
LOCAL = "local"
_FIX = f"copy it here and name the folder with --data-dir (or {DATA_DIR_VARIABLE})"


@dataclass(frozen=True)
class HubFiles:
    """Files found.

    Attributes:
        paths: In name order, never empty.
        root: Folder that the patterns are relative to.
        repo: `owner/name`.
        revision: Commit on the Hub, or `local`.
    """

    paths: tuple[Path, ...]
    root: Path
    repo: str
    revision: str

    def origin(self, **more: Any) -> dict[str, Any]:
        """Facts for the record."""
        return {"repo": self.repo, "revision": self.revision, **more}


def find_files(repo: str, patterns: Sequence[str], place: Place, revision: str = "main") -> HubFiles:
    """Files of a data set that match any of `patterns` (globs relative to its root).

    Args:
        repo: `owner/name` on the Hub.
        patterns: Such as `en_de/test-*.parquet`.
        place: A local copy is looked for in `DIR/<owner>/<name>`, `DIR/<name>` and `DIR`, in this order.
        revision: Branch or commit on the Hub; a local copy stands for itself.

    Raises:
        MissingPrerequisite: not in the local copy, or the Hub does not deliver it.
        HubUnreachable: the Hub does not answer.
    """
    if place.data_dir is not None:
        return _local(repo, patterns, place.data_dir, revision)
    from huggingface_hub import snapshot_download

    commit = pinned_commit(repo, revision, place.offline)
    wanted: dict[str, Any] = {"repo_type": "dataset", "revision": commit, "allow_patterns": list(patterns)}
    wanted |= {"local_files_only": True} if place.offline else {}
    root = Path(ask_hub(repo, lambda: snapshot_download(repo, **wanted), _FIX))
    paths = _matching(root, patterns)
    if not paths:
        raise MissingPrerequisite(f"{repo} at {commit[:12]} holds no {' or '.join(patterns)}")
    return HubFiles(paths, root, repo, commit)


def pinned_commit(repo: str, revision: str, offline: bool = False) -> str:
    """See `rba_bench.revisions.pinned_commit`."""
    fix = "copy it here and name its folder with --data-dir" if offline else _FIX
    return revisions.pinned_commit(repo, revision, fix, offline)


def _local(repo: str, patterns: Sequence[str], data_dir: Path, revision: str) -> HubFiles:
    if not data_dir.is_dir():
        raise MissingPrerequisite(f"--data-dir {data_dir} is not a folder")
    owner, _, name = repo.partition("/")
    for root in (data_dir / owner / name, data_dir / name, data_dir):
        if paths := _matching(root, patterns):
            return HubFiles(paths, root, repo, LOCAL)
    includes = " ".join(f"--include '{pattern}'" for pattern in patterns)
    branch = "" if revision == "main" else f" --revision {revision}"
    raise MissingPrerequisite(
        f"no {' or '.join(patterns)} of {repo} under {data_dir}: "
        f"hf download {repo} --repo-type dataset{branch} {includes} --local-dir {data_dir / repo}"
    )


def _matching(root: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    if not root.is_dir():
        return ()
    return tuple(sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()}))
