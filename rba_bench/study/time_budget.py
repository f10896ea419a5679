"""Equal wall time: how many steps every method can take in it.

A run that is cut off by the clock ends in the middle of its learning-rate schedule, which puts it at a disadvantage. So
the speed of every method is measured first, over its runs under the budget `steps` (all seeds; runs of one seed follow
each other, so that a slow hour of the machine affects all methods), and the number of steps is set so that the schedule
ends when the time does. The cost table has the time that each run really took. Wall time is `TrainResult.wall_time_s`:
rollouts, rewards, teachers and updates, without loading, saving, validating, and without encoding clips, which all
methods with a frozen audio encoder need alike. Once measured, the numbers stay in `time.json`, so that a study that is
continued later uses the same ones.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.files import read_json, write_json
from rba_bench.study.folder import Cell, StudyFolder
from rba_bench.study.scores import training_facts
from rba_bench.study.study_recipe import StudyRecipe


class TimePlan:
    """The budget `time` of a study, stored in its folder.

    Args:
        study: The recipe.
        folder: Its folder.

    Attributes:
        content: What is known, as JSON values.
    """

    def __init__(self, study: StudyRecipe, folder: StudyFolder) -> None:
        self.study, self.folder = study, folder
        self.content: dict[str, Any] = {}
        if folder.time_file.is_file():
            try:
                self.content = read_json(folder.time_file)
            except ValueError as error:
                raise UserError(
                    f"{folder.time_file} is damaged ({error}): remove it to measure again"
                ) from error

    @property
    def seconds(self) -> float | None:
        """Wall time of every run, None while it is not known."""
        seconds = self.content.get("seconds")
        return None if seconds is None else float(seconds)

    def steps(self, method: str) -> int | None:
        """Steps of a method under the budget `time`, None while they are not known."""
        plan = self.content.get("methods", {}).get(method)
        return None if plan is None else int(plan["steps"])

    def determine_steps(self, method: str, seeds: Sequence[int]) -> int:
        """Steps of a method, measured now if they are not known yet.

        Raises:
            RbaError: the runs to measure are not finished.
        """
        if (known := self.steps(method)) is not None:
            return known
        seconds, like = self.seconds, self.study.time.like
        if seconds is None:
            if like is None:
                seconds = float(self.study.time.seconds or 0.0)
            else:
                seconds = fmean(run["wall_time_s"] for run in self._finished_runs(like, seeds))
            self._save({"seconds": seconds, "like": like})
        runs = self._finished_runs(method, seeds)
        rate = sum(run["wall_time_s"] for run in runs) / sum(run["steps"] for run in runs)
        steps = max(1, round(seconds / max(rate, 1e-9)))
        plan = {"steps": steps, "seconds_per_step": rate}
        self._save({"methods": {**self.content.get("methods", {}), method: plan}})
        return steps

    def _finished_runs(self, method: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        records = [training_facts(self.folder, Cell("steps", method, seed)) for seed in seeds]
        finished = [record for record in records if record is not None and record["steps"]]
        if not finished:
            raise RbaError(
                f"equal time needs the speed of {method}, and no run of it at equal steps is finished"
            )
        return finished

    def _save(self, changes: dict[str, Any]) -> None:
        content = {**self.content, **changes}
        write_json(self.folder.time_file, content)
        self.content = content
