"""`rba_bench.leaderboard` and `rba_bench.compare`, with what they return; no library that runs models is needed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.api import tables
from rba_bench.api.calling import called
from rba_bench.api.evaluating import Run
from rba_bench.outputs import RUNS

if TYPE_CHECKING:
    import pandas as pd

    from rba_bench.leaderboard.build import BuildResult
    from rba_bench.leaderboard.compare_runs import ComparisonResult

RunLike = str | os.PathLike[str] | Run


class Leaderboard:
    """A board as it was built.

    Attributes:
        path: Its folder, with `index.md` and the tables as CSV.
        files: Everything written in it.
        warnings: What a reader should know: unfinished and partial runs, a baseline that is not there.
    """

    def __init__(self, built: "BuildResult") -> None:
        self._built = built
        self.path = built.out
        self.files = built.files
        self.warnings = built.warnings

    def to_pandas(self) -> "pd.DataFrame":
        """One line a task, model and metric, with interval, difference from the baseline, and band of ranks.

        Raises:
            MissingPrerequisite: pandas is not installed.
        """
        return tables.frame([row for section in self._built.data["sections"] for row in section["rows"]])

    def summary(self) -> str:
        """The tables of the first page as text."""
        return "\n\n".join(tables.text(each.title, each.headings, each.rows) for each in self._built.tables)

    def __repr__(self) -> str:
        return f"Leaderboard({str(self.path)!r}, tables={len(self._built.data['sections'])})"

    def _repr_html_(self) -> str:
        shown = [tables.html(each.title, each.headings, each.rows) for each in self._built.tables]
        return "".join(shown) + "".join(f"<p>Note: {tables.escaped(each)}</p>" for each in self.warnings)


class Comparison:
    """Two runs item by item.

    Attributes:
        left_out: What could not be compared, in sentences.
    """

    def __init__(self, result: "ComparisonResult") -> None:
        self._result = result
        self.left_out = result.left_out

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return self._result.to_dict()

    def to_pandas(self) -> "pd.DataFrame":
        """One line a task and metric: scores of A and B, A minus B with its paired interval, wins, ties and losses.

        Raises:
            MissingPrerequisite: pandas is not installed.
        """
        found = [(each, metric) for each in self.to_dict()["comparisons"] for metric in each["metrics"]]
        return tables.frame([_row(each, metric) for each, metric in found])

    def summary(self) -> str:
        """The differences as text."""
        shown = [(each.heading(), each.table()) for each in self._result.comparisons]
        return "\n\n".join(tables.text("\n".join(head), table.headings, table.rows) for head, table in shown)

    def __repr__(self) -> str:
        tasks = [each.first.record.task for each in self._result.comparisons]
        return f"Comparison(tasks={tasks})"

    def _repr_html_(self) -> str:
        shown = [
            (f"{each.first.record.task}: A = {each.first.name}, B = {each.second.name}", each.table())
            for each in self._result.comparisons
        ]
        return "".join(tables.html(title, table.headings, table.rows) for title, table in shown)


def leaderboard(
    runs: RunLike | Sequence[RunLike] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    baseline: str = "sft",
    ceiling: str | None = None,
    allow_partial: bool = False,
    equal_length: bool = False,
    progress: bool = True,
) -> Leaderboard:
    """Verify runs and build a board of them; the options are those of `rba-bench leaderboard build`.

    Args:
        runs: Runs, run folders or folders of them; None for `runs/eval`.
        out: Folder of the board; None for `runs/leaderboard`.
        baseline: Model, or training method, that the others are compared with.
        ceiling: Text LLM to measure modality gaps from, of several.
        allow_partial: Take in runs with `limit`, marked as partial.
        equal_length: Add win rates at equal length, estimated from 12 runs or more.
        progress: Say on stderr what happens.

    Raises:
        UserError: no finished runs, or one that is partial, damaged or does not follow from its responses.
        MissingPrerequisite: a package that a scorer needs is not installed.
    """
    with called(progress):
        from rba_bench.leaderboard.build import build_board

        records = [RUNS / "eval"] if runs is None else _folders(runs)
        folder = RUNS / "leaderboard" if out is None else Path(out)
        return Leaderboard(build_board(records, folder, baseline, allow_partial, ceiling, equal_length))


def compare(a: RunLike, b: RunLike, *, across: bool = False) -> Comparison:
    """Compare two runs item by item, as `rba-bench compare` does: A minus B, with paired intervals.

    Args:
        a: A run, its folder, or a folder of runs, of which every pair of equal task is compared.
        b: The other one.
        across: Compare two single runs of the same items though task or protocol differ.

    Raises:
        UserError: there is nothing that may be compared; the message says what differs.
    """
    with called(True):
        from rba_bench.leaderboard.compare_runs import compare_runs

        return Comparison(compare_runs(_folders(a), _folders(b), across))


def _folders(runs: RunLike | Sequence[RunLike]) -> list[Path]:
    several = [runs] if isinstance(runs, str | os.PathLike | Run) else runs
    return [path for run in several for path in (run.paths if isinstance(run, Run) else (Path(run),))]


def _row(comparison: dict[str, Any], metric: dict[str, Any]) -> dict[str, Any]:
    difference = metric["difference"]
    return {
        "task": comparison["task"],
        "protocol": comparison["protocol"],
        "model_a": comparison["a"]["model"],
        "model_b": comparison["b"]["model"],
        "metric": metric["metric"],
        **{name: metric[name] for name in ("a", "b")},
        "difference": difference["value"],
        "low": difference["low"],
        "high": difference["high"],
        **{
            name: metric[name]
            for name in ("significant", "n", "n_left_out", "wins", "ties", "losses", "scale")
        },
    }
