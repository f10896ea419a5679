"""Equal wall time: how many steps every method can take in it.

A run that is cut off by the clock ends in the middle of its learning-rate schedule, which harms it for no merit of the
others. So the speed of every method is measured first, over its runs under the budget `steps` (all seeds; runs of one
seed follow each other, so that a slow hour of the machine falls on all methods), and the number of steps is set so that
the schedule ends when the time does. What a run then really took stands in the cost table. Wall time is
`TrainResult.wall_time_s`: rollouts, rewards, teachers and updates, without loading, saving, validating, and without
encoding clips, which all methods with a frozen ear need alike. Once measured, the numbers stay in `time.json`, so that
a study that goes on later goes on with the same ones.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.files import read_json, write_json
from rba_bench.study.folder import Cell, StudyFolder
from rba_bench.study.study_recipe import StudyRecipe


class TimePlan:
    """The budget `time` of a study, kept in its folder.

    Args:
        study: The recipe.
        folder: Its folder.
    """

    def __init__(self, study: StudyRecipe, folder: StudyFolder) -> None:
        self.study, self.folder = study, folder
        self._kept = self._read()

    @property
    def seconds(self) -> float | None:
        """Wall time of every run, None while it is not known."""
        found = self._kept.get("seconds")
        return None if found is None else float(found)

    @property
    def content(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        return dict(self._kept)

    def steps(self, method: str) -> int | None:
        """Steps of a method under the budget `time`, None while they are not known."""
        found = self._kept.get("methods", {}).get(method)
        return None if found is None else int(found["steps"])

    def settle(self, method: str, seeds: Sequence[int]) -> int:
        """Steps of a method, measured now if they are not known yet.

        Raises:
            RbaError: the runs that tell are not finished.
        """
        if (known := self.steps(method)) is not None:
            return known
        seconds = self._settle_seconds(seeds)
        runs = self._runs(method, seeds)
        rate = sum(run["wall_time_s"] for run in runs) / sum(run["steps"] for run in runs)
        steps = max(1, round(seconds / max(rate, 1e-9)))
        methods = {**self._kept.get("methods", {}), method: {"steps": steps, "seconds_per_step": rate}}
        self._write({**self._kept, "methods": methods})
        return steps

    def _settle_seconds(self, seeds: Sequence[int]) -> float:
        if self.seconds is not None:
            return self.seconds
        like = self.study.time.like
        if like is None:
            seconds = float(self.study.time.seconds or 0.0)
        else:
            seconds = fmean(run["wall_time_s"] for run in self._runs(like, seeds))
        self._write({**self._kept, "seconds": seconds, "like": like})
        return seconds

    def _runs(self, method: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        found = [self.folder.run(Cell("steps", method, seed)) for seed in seeds]
        done = [run for run in found if run is not None and run["steps"]]
        if not done:
            raise RbaError(
                f"equal time needs the speed of {method}, and no run of it at equal steps is finished"
            )
        return done

    def _read(self) -> dict[str, Any]:
        if not self.folder.time_file.is_file():
            return {}
        try:
            found: dict[str, Any] = read_json(self.folder.time_file)
        except ValueError as error:
            raise UserError(
                f"{self.folder.time_file} is damaged ({error}): remove it to measure again"
            ) from error
        return found

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self.folder.time_file, content)
        self._kept = content
