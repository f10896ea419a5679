"""`rba_bench.leaderboard` and `rba_bench.compare`, and what they return; they need no library that runs models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.api import tables
from rba_bench.api.calling import call_context
from rba_bench.api.evaluating import Run
from rba_bench.outputs import RUNS

if TYPE_CHECKING:
    import pandas as pd

    from rba_bench.leaderboard.board import BuildResult
    from rba_bench.leaderboard.compare_runs import ComparisonResult

RunLike = str | os.PathLike[str] | Run


class Leaderboard:
    """A leaderboard on disk.

    Attributes:
        path: The folder, with `index.md` and the tables as CSV.
        files: All files that were written.
        warnings: What a reader should know: unfinished and partial runs, a baseline that does not exist.
    """

    def __init__(self, built: "BuildResult") -> None:
        self._built = built
        self.path = built.out
        self.files = built.files
        self.warnings = built.warnings

    def to_pandas(self) -> "pd.DataFrame":
        """One line for each task, model and metric, with interval, difference from the baseline, and rank band.

        Raises:
            MissingPrerequisite: pandas is not installed.
        """
        return tables.data_frame([row for section in self._built.data["sections"] for row in section["rows"]])

    def summary(self) -> str:
        """The tables of the first page as text."""
        texts = [tables.text_table(table.title, table.headings, table.rows) for table in self._built.tables]
        return "\n\n".join(texts)

    def __repr__(self) -> str:
        return f"Leaderboard({str(self.path)!r}, tables={len(self._built.data['sections'])})"

    def _repr_html_(self) -> str:
        pieces = [tables.html_table(table.title, table.headings, table.rows) for table in self._built.tables]
        return "".join(pieces + [f"<p>Note: {tables.html_text(warning)}</p>" for warning in self.warnings])


class Comparison:
    """Two runs compared item by item.

    Attributes:
        left_out: What could not be compared and why, in sentences.
    """

    def __init__(self, result: "ComparisonResult") -> None:
        self._result = result
        self.left_out = result.left_out

    def to_dict(self) -> dict[str, Any]:
        """The whole comparison as JSON values."""
        return self._result.to_dict()

    def to_pandas(self) -> "pd.DataFrame":
        """One line for each task and metric: scores of A and B, A minus B with paired interval, wins, ties, losses.

        Where A is a control of B (`evaluate(audio=...)`), `retained` is its score as a share of that of B.

        Raises:
            MissingPrerequisite: pandas is not installed.
        """
        counts = ("significant", "n", "n_left_out", "wins", "ties", "losses", "scale")
        return tables.data_frame(
            [
                {
                    "task": pair["task"],
                    "protocol": pair["protocol"],
                    "model_a": pair["a"]["model"],
                    "model_b": pair["b"]["model"],
                    **{name: metric[name] for name in ("metric", "a", "b")},
                    "difference": metric["difference"]["value"],
                    "low": metric["difference"]["low"],
                    "high": metric["difference"]["high"],
                    **{name: metric[name] for name in counts},
                    "retained": (metric["retained"] or {}).get("value"),
                    "retained_low": (metric["retained"] or {}).get("low"),
                    "retained_high": (metric["retained"] or {}).get("high"),
                }
                for pair in self.to_dict()["comparisons"]
                for metric in pair["metrics"]
            ]
        )

    def summary(self) -> str:
        """The differences as text."""
        pieces = [("\n".join(pair.heading()), pair.table()) for pair in self._result.comparisons]
        return "\n\n".join(tables.text_table(title, table.headings, table.rows) for title, table in pieces)

    def __repr__(self) -> str:
        return f"Comparison(tasks={[pair.first.record.task for pair in self._result.comparisons]})"

    def _repr_html_(self) -> str:
        pieces = [
            (f"{pair.first.record.task}: A = {pair.first.name}, B = {pair.second.name}", pair.table())
            for pair in self._result.comparisons
        ]
        return "".join(tables.html_table(title, table.headings, table.rows) for title, table in pieces)


def leaderboard(
    runs: RunLike | Sequence[RunLike] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    baseline: str | None = None,
    ceiling: str | None = None,
    allow_partial: bool = False,
    equal_length: bool = False,
    workers: int | None = 1,
    verify_again: bool = False,
    reported_page: str | None = None,
    clips: int | None = None,
    progress: bool = True,
) -> Leaderboard:
    """Verify runs and build a board of them; the options are those of `rba-bench leaderboard build`.

    Args:
        runs: Runs, run folders or folders of them; None for `runs/eval`.
        out: Folder of the board; None for `runs/leaderboard`.
        baseline: Model, or training method, that the others are compared with. None: that of the board in `out` if
            it is among the runs, else `sft`; so also for the other options of a board.
        ceiling: Text LLM that modality gaps are measured from, where there are several.
        allow_partial: Include runs that were made with `limit`, marked as partial.
        equal_length: Add win rates at equal length, estimated from 12 runs or more.
        workers: Processes; None for one a core where the records are many. A script that asks for several needs
            `if __name__ == "__main__":`, as for all of multiprocessing.
        verify_again: Verify every record, including those that an earlier build verified.
        reported_page: Address of a page of reported numbers that the front page links to.
        clips: Clips of each test set beside the pages, where its licence allows that; 0 for none, None for 20.
        progress: Show progress on stderr.

    Raises:
        UserError: there is no finished run; a run is partial or damaged; scores do not follow from the responses.
        MissingPrerequisite: a package that a scorer needs is not installed.
    """
    with call_context(progress):
        from rba_bench.leaderboard.board import build_board

        records = [RUNS / "eval"] if runs is None else run_folders(runs)
        folder = RUNS / "leaderboard" if out is None else Path(out)
        built = build_board(
            records,
            folder,
            baseline,
            allow_partial,
            ceiling,
            equal_length,
            workers,
            verify_again,
            reported_page=reported_page,
            clips=clips,
        )
        return Leaderboard(built)


def compare(a: RunLike, b: RunLike, *, across: bool = False) -> Comparison:
    """Compare two runs item by item, as `rba-bench compare` does: A minus B, with paired intervals.

    Args:
        a: A run, its folder, or a folder of runs; each is compared with the run of `b` on the same task.
        b: As `a`.
        across: Compare two single runs on the same items although task or protocol differ.

    Raises:
        UserError: no two runs can be compared; the message says what differs.
    """
    with call_context(progress=True):
        from rba_bench.leaderboard.compare_runs import compare_runs

        return Comparison(compare_runs(run_folders(a), run_folders(b), across))


def run_folders(runs: RunLike | Sequence[RunLike]) -> list[Path]:
    """Paths of runs, however they are given."""
    listed = [runs] if isinstance(runs, str | os.PathLike | Run) else runs
    return [path for run in listed for path in (run.paths if isinstance(run, Run) else (Path(run),))]
