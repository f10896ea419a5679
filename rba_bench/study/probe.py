"""A probe of a study: how long a step of each method and the evaluation take on this machine, measured on a few.

    OUT/probe/train/<method>/    two steps, as the study would make them
    OUT/probe/eval/              the base on the first items of each task
    OUT/probe/probe.json         what was measured

The first step of a run is slower than the others (kernels are chosen, caches are empty), so estimates err on the safe
side. Methods that are measured are not measured again.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json, write_json
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.study.folder import STAGE, StudyFolder
from rba_bench.study.study_recipe import BASE, cell_recipe

if TYPE_CHECKING:
    from rba_bench.study.stages import Study

STEPS, ITEMS, SEED = 2, 64, 1
FILE = "probe.json"


@dataclass
class Probe:
    """What was measured.

    Attributes:
        seconds_per_step: By method, with the encoding of clips.
        seconds_per_item: Of evaluation, by task, without loading the model.
        items: Items of each task.
        texts: Of these, different texts.
    """

    seconds_per_step: dict[str, float] = field(default_factory=dict)
    seconds_per_item: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)

    def evaluation_s(self, tasks: Iterable[str]) -> float | None:
        """Seconds in which one system answers some tasks, None where one of them was not measured."""
        counts = {task: self.items.get(task) for task in tasks}
        if None in counts.values():
            return None
        return sum(self.seconds_per_item[task] * (count or 0) for task, count in counts.items())


def read_probe(folder: StudyFolder) -> Probe:
    """What a study's folder holds of a probe.

    Raises:
        UserError: the file is damaged.
    """
    file = folder.out / "probe" / FILE
    if not file.is_file():
        return Probe()
    try:
        return Probe(**read_json(file))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it to measure again") from error


def probe_study(study: "Study") -> Probe:
    """Measure what is not measured yet. Errors as of `Study.run`; a method that fails for good has no estimate."""
    study.check()
    claim(study.folder.out, STAGE, study.study.identity())
    try:
        study.prepare()
        return _measure(study, read_probe(study.folder))
    finally:
        release(study.folder.out)


def _measure(study: "Study", probe: Probe) -> Probe:
    from rba_bench.training.training_run import train

    out = study.folder.out / "probe"
    for method in study.selection.methods:
        if method in probe.seconds_per_step:
            continue
        say(f"probe {method}: {STEPS} steps")
        recipe = cell_recipe(study.study, method, SEED, STEPS, study.base, study.alignment_set)
        try:
            result = train(recipe.model_copy(update={"warmup_steps": 0}), out / "train" / method)
        except (UserError, MissingPrerequisite):
            raise
        except RbaError as error:
            say(f"{method} failed: {error}")
            continue
        probe.seconds_per_step[method] = (result.wall_time_s + float(result.run["encoding_s"])) / STEPS
        write_json(out / FILE, asdict(probe))
    for task in study.study.tasks:
        if task not in probe.items:
            _probe_task(study, task, probe)
            write_json(out / FILE, asdict(probe))
    return probe


def _probe_task(study: "Study", task: str, probe: Probe) -> None:
    from rba_bench.evaluation import harness
    from rba_bench.evaluation.model_input import DEFAULT_SEED
    from rba_bench.evaluation.runner import EvalRequest, evaluate
    from rba_bench.study.stages import task_spec

    spec = task_spec(task, study.study.track)
    documents = list(harness.load_task(spec.path, DEFAULT_SEED, {}).eval_docs)
    items = len(documents)
    out = study.folder.out / "probe" / "eval"
    base = study.model(BASE)
    say(f"probe {task}: {min(ITEMS, items)} of {items} items")
    request = EvalRequest(tasks=(task,), model=base, track=study.study.track, out=out, limit=ITEMS)
    (record,) = evaluate(request)
    probe.seconds_per_item[task] = 1 / max(record.timing.samples_per_s, 1e-3)
    probe.items[task] = items
    probe.texts[task] = len({document["cluster"] for document in documents})
