"""`rba_bench.transfer_judge` and what it returns."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rba_bench.api import tables
from rba_bench.api.boards import RunLike, run_folders
from rba_bench.api.calling import call_context, optional_path
from rba_bench.outputs import RUNS

if TYPE_CHECKING:
    import pandas as pd

    from rba_bench.leaderboard.judge_transfer.transfer import TransferResult


class JudgeTransfer:
    """Two judges compared on the same answers.

    Attributes:
        path: The folder, with `report.md`, `transfer.json`, the answers by hash and all verdicts.
        verdicts: What it means for the board, in sentences, by table.
        left_out: What was not compared and why, and warnings, in sentences.
    """

    def __init__(self, result: "TransferResult") -> None:
        self._result = result
        self.path = result.out
        self.verdicts = result.verdicts
        self.left_out: list[str] = result.data["left_out"]

    def to_dict(self) -> dict[str, Any]:
        """Content of `transfer.json`."""
        return self._result.data

    def to_pandas(self) -> "pd.DataFrame":
        """One line for each table and model: scores under both judges, B minus A with paired interval, and places.

        Raises:
            MissingPrerequisite: pandas is not installed.
        """
        return tables.data_frame(
            [
                {
                    "task": section["task"],
                    "metric": section["metric"],
                    "model": row["model"],
                    "a": row["a"]["value"],
                    "b": row["b"]["value"],
                    "difference": row["difference"]["value"],
                    "low": row["difference"]["low"],
                    "high": row["difference"]["high"],
                    "rank_a": row["rank_a"],
                    "rank_b": row["rank_b"],
                    "n": row["n"],
                }
                for section in self._result.data["sections"]
                for row in section["effects"]["scores"]
            ]
        )

    def summary(self) -> str:
        """The sentences as text."""
        return "\n\n".join(
            "\n".join([name, *(f"- {sentence}" for sentence in sentences)])
            for name, sentences in self.verdicts.items()
        )

    def __repr__(self) -> str:
        return f"JudgeTransfer({str(self.path)!r}, tables={list(self.verdicts)})"

    def _repr_html_(self) -> str:
        return "".join(
            tables.html_table(name, ["what changes from A to B"], [[sentence] for sentence in sentences])
            for name, sentences in self.verdicts.items()
        )


def transfer_judge(
    old: str,
    new: str,
    records: RunLike | Sequence[RunLike] | None = None,
    *,
    pairs: int = 400,
    seed: int = 0,
    ask_a: bool = False,
    reanchor: bool = False,
    task: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> JudgeTransfer:
    """Compare judge `old` (A) with judge `new` (B) on the same answers, as `rba-bench judge transfer` does.

    Args:
        old: A: its name or hash in the records, `rules`, or a model as in `evaluate(judge=...)`.
        new: B: `openai:URL#NAME`, folder, GGUF file, Hub id, or `asset:NAME`.
        records: Runs, run folders or folders of them; None for `runs/eval`.
        pairs: Maximum number of answers of each table.
        seed: Random seed of the choice of items.
        ask_a: Ask A where the records hold no verdict of it.
        reanchor: Also let B judge all other answers, and write records and a board under B.
        task: YAML file of a task that does not come with rba-bench, for `reanchor`.
        out: Folder; None to choose it by what decides its content, below `runs/judge`.
        data_dir: Folder with local copies of data sets, for length control in `reanchor`.
        device: Torch device of local judges.
        progress: Show progress on stderr.

    Raises:
        UserError: there is no finished run, one is damaged, none was judged by A, or `out` holds another transfer.
        MissingPrerequisite: a judge is not there, or needs a key.
        RbaError: a judge gives hardly any usable vote.
    """
    with call_context(progress):
        from rba_bench.leaderboard.judge_transfer import transfer
        from rba_bench.leaderboard.judge_transfer.preparing import TransferRequest

        request = TransferRequest(
            [RUNS / "eval"] if records is None else run_folders(records),
            old,
            new,
            pairs,
            seed,
            ask_a,
            reanchor,
            optional_path(out),
            optional_path(task),
            optional_path(data_dir),
            device,
        )
        return JudgeTransfer(transfer.transfer_judge(request))
