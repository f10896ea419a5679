"""`rba-bench leaderboard review BASE HEAD`: what a pull request adds to the boards, read from git as data.

Nothing of HEAD is checked out, imported or executed. Its files are looked up as objects of the repository, each with
the mode and the size that git has for it, and only records of runs are read: ordinary files where `submit` writes them,
with the mark that it writes. An attestation is refused: whoever proposes a record does not say that it was reproduced.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.evaluation.records import ATTESTATION_FILE, BESIDE, MARK_FILE, PACKED_FILE, RUN_FILE
from rba_bench.leaderboard.pages import PUBLISHED
from rba_bench.leaderboard.submission import BOARDS, RERUN, Submission, check_submission, published_path
from rba_bench.leaderboard.tables import print_tables
from rba_bench.leaderboard.verify import CANNOT_KNOW
from rba_bench.untrusted import MAX_JSON, plain

MOST_RUNS = 200  # in one pull request
LARGEST = {RUN_FILE: MAX_JSON, PACKED_FILE: 32 * 2**20, MARK_FILE: BESIDE[MARK_FILE]}  # bytes; each is needed
# Bytes: GitHub takes 65,536 letters in a comment, and Linux 131,072 bytes in a variable, by which the report gets there
LONGEST_REPORT = 60_000
NEXT = (
    "`rba-bench leaderboard submit RUN` says the same before a pull request is opened, and packs what passes. This "
    "check runs again with the next push."
)
WIDTH = 160
ORDINARY, ADDED = "100644", "A"  # mode of a file without rights to run; git's letter for a new file
_NAME = r"[\w=+][\w.=+-]*"
_RECORD = re.compile(
    rf"{BOARDS}/(?P<track>{_NAME})/{PUBLISHED}/(?P<model>{_NAME})/(?P<run>{_NAME})/"
    rf"(?P<file>{'|'.join(map(re.escape, LARGEST))})"
)


class _Change(NamedTuple):
    """One changed file, as `git diff --raw` has it."""

    mode: str
    blob: str
    status: str
    path: str


@dataclass(frozen=True)
class Review:
    """What a pull request would do to the boards.

    Attributes:
        submission: The runs it adds; None if it touches no record.
        faults: Why it is no plain submission, one line each.
    """

    submission: Submission | None
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is at fault; a pull request without records is none of this command's business."""
        return not self.faults and (self.submission is None or self.submission.ok)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        found = self.submission and self.submission.to_dict()
        for run in found["runs"] if found else ():
            del run["folder"]  # it was a temporary one
        return {"ok": self.ok, "faults": list(self.faults), "submission": found}

    def markdown(self) -> str:
        """A report for a summary or a comment: texts of records stand in a code block, where nothing is markup."""
        if self.submission is None and not self.faults:
            return "This pull request adds no record of a run.\n"
        runs = self.submission.runs if self.submission else ()
        refused = [*self.faults, *(self.submission.refused if self.submission else ())]
        count = f"{len(runs)} pass" if runs or not refused else "none passes"
        blocks = [f"### Records of runs: {count}{', others are refused' if runs and refused else ''}"]
        if refused:
            blocks += ["Refused:", _fenced(refused), NEXT]
        if self.submission and runs:
            blocks += ["The rows as they would stand on the board:", _fenced(_table_lines(self.submission))]
            blocks += ["Notes:", _fenced(self.submission.notes)] if self.submission.notes else []
        unknown = "\n".join(f"- {each}" for each in CANNOT_KNOW)
        folders = [f"{BOARDS}/{published_path(run)}" for run in runs[:1]]
        rerun = [
            f"To let the model answer again: {RERUN.format(folder=folder)} --attest" for folder in folders
        ]
        if self.submission:
            blocks += [
                f"All numbers were computed again from the responses. Not known from a record:\n\n{unknown}"
            ]
        blocks += [_fenced(rerun)] if rerun else []
        return "\n\n".join(blocks) + "\n"


def review_changes(repository: Path, base: str, head: str, data_dir: Path | None = None) -> Review:
    """Check what `head` adds to the boards since it left `base`.

    Args:
        repository: A checkout whose boards are those of `base`; `head` must have been fetched.
        base: Commit or branch.
        head: Commit or branch.
        data_dir: Folder with local copies of public data sets.

    Raises:
        UserError: no git repository, or no such commits.
        MissingPrerequisite: git is not installed.
    """
    changes = list(_changes(repository, base, head))
    records = [change for change in changes if _RECORD.fullmatch(change.path)]
    if not any(_touches_records(change.path) for change in changes):
        return Review(None, ())
    faults = list(_faults(changes))
    if faults:
        return Review(None, tuple(faults))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for change in records:
            limit = LARGEST[change.path.rpartition("/")[2]]
            size = int(_git(repository, "cat-file", "-s", change.blob))
            if size > limit:
                faults.append(
                    f"{plain(change.path)} has {size} bytes, more than the {limit} that are allowed"
                )
                continue
            file = root / change.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_git(repository, "cat-file", "blob", change.blob))
        if faults:
            return Review(None, tuple(faults))
        submission = _without_prefix(
            check_submission([root / BOARDS], repository / BOARDS, data_dir), f"{root}/"
        )
        for run in submission.runs:
            place = run.folder.relative_to(root).as_posix()
            if place != f"{BOARDS}/{published_path(run)}":
                faults.append(f"{plain(place)} is not the folder of this run, {BOARDS}/{published_path(run)}")
        return Review(None, (*faults, *submission.refused)) if faults else Review(submission, ())


def _touches_records(path: str) -> bool:
    parts = path.casefold().split("/")  # some file systems do not tell Records from records
    return parts[0] == str(BOARDS) and PUBLISHED in parts[1:]


def _faults(changes: Sequence[_Change]) -> Iterator[str]:
    """In what a pull request is more, or other, than added records."""
    others = [change.path for change in changes if not _RECORD.fullmatch(change.path)]
    for path in others:
        if path.casefold().endswith(f"/{ATTESTATION_FILE}"):
            yield f"{plain(path)}: attestations are made by the maintainers, who let the model answer again"
    if others:
        what = "another file" if len(others) == 1 else f"{len(others)} other files"
        yield f"it also changes {what} ({plain(others[0])}): add records in a pull request of their own"
    runs: dict[str, set[str]] = {}
    for change in changes:
        if not (found := _RECORD.fullmatch(change.path)):
            continue
        if change.status != ADDED:
            yield f"{plain(change.path)} is on the board already, and records are only added"
        elif change.mode != ORDINARY:
            yield f"{plain(change.path)} is not an ordinary file (mode {change.mode})"
        if change.status == ADDED:
            runs.setdefault(change.path.rpartition("/")[0], set()).add(found["file"])
    for folder, files in runs.items():
        if missing := LARGEST.keys() - files:
            yield f"{plain(folder)} lacks {', '.join(sorted(missing))}: pack it with rba-bench leaderboard submit"
    if len(runs) > MOST_RUNS:
        yield f"it adds {len(runs)} runs; at most {MOST_RUNS} are checked at once"


def _changes(repository: Path, base: str, head: str) -> Iterator[_Change]:
    """Changed files since the merge base; a renamed file is one removed and one added."""
    commits = [_commit(repository, name) for name in (base, head)]
    options = ("--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv")
    fields = iter(
        _git(repository, "diff", *options, "...".join(commits)).decode(errors="replace").split("\0")
    )
    for facts in fields:
        if facts:
            _, mode, _, blob, status = facts.removeprefix(":").split(" ")
            yield _Change(mode, blob, status, next(fields))


def _commit(repository: Path, name: str) -> str:
    try:
        found = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except UserError as error:
        raise UserError(f"{name!r} is no commit of {repository}: fetch it first") from error
    return found.decode().strip()


def _git(repository: Path, *words: str) -> bytes:
    command = ["git", "-C", str(repository), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise MissingPrerequisite("git is not installed: install it to review a pull request") from error
    except subprocess.CalledProcessError as error:
        complaint = error.stderr.decode(errors="replace").strip()
        raise UserError(
            f"git {words[0]} failed in {repository}: {first_line(Exception(complaint))}"
        ) from error
    return done.stdout


def _without_prefix(submission: Submission, prefix: str) -> Submission:
    """The same, with paths as the pull request has them."""
    refused, notes = (
        [text.replace(prefix, "") for text in texts] for texts in (submission.refused, submission.notes)
    )
    return Submission(submission.runs, tuple(refused), tuple(notes), submission.tables)


def _table_lines(submission: Submission) -> list[str]:
    from rich.console import Console

    text = StringIO()
    console = Console(file=text, width=WIDTH, highlight=False, color_system=None)
    print_tables(submission.tables, [], console=console)
    return text.getvalue().splitlines()


def _fenced(lines: Sequence[str]) -> str:
    """Lines in a code block that none of them can end, cut where a comment would be too long."""
    kept: list[str] = []
    length = 0
    for line in lines:
        length += len(line.encode()) + 1
        if length > LONGEST_REPORT // 3:
            kept.append(
                f"... and {len(lines) - len(kept)} more lines: rba-bench leaderboard review shows them"
            )
            break
        kept.append(line.rstrip().replace("`", "'"))
    return "\n".join(["```text", *kept, "```"])
