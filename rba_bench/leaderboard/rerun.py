"""`leaderboard verify --rerun N`: the model of a record answers some of its items again.

This is the only check on the responses themselves. The items are drawn at random, from a seed that is shown; each is
asked as the run asked it: same clip, prompt, perturbation, decoding, and seed. Only a model with the weights that the
record names is asked. Nothing that a record says makes this machine fetch a model or call a server: those the user
names.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import harness
from rba_bench.evaluation.model_input import Planned
from rba_bench.evaluation.plan import identifying
from rba_bench.evaluation.records import UNANSWERED, Sample
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.leaderboard.loaded_runs import Run
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.model_names import BUILT_IN, load_speech_model
from rba_bench.speechlm.speech_model import SpeechLM
from rba_bench.textlm.text_model import SAMPLER
from rba_bench.untrusted import plain

SEED = 0
RUNS = Path("runs")  # where checkpoints of this machine lie
_SHOWN = 3


@dataclass(frozen=True)
class Rerun:
    """What came of asking again.

    Attributes:
        asked: Number of items.
        equal: How many answers were the same, character by character.
        differing: Ids of the others.
        seed: Of the draw of items.
        hashed: Whether the weights are known to be the record's; a server does not show its own.
        same_sampler: Whether equal seeds draw equal tokens: records that were sampled by an older sampler hold others.
    """

    asked: int
    equal: int
    differing: tuple[str, ...]
    seed: int
    hashed: bool
    same_sampler: bool = True

    def line(self) -> str:
        """The result in words."""
        said = f"rerun of {self.asked} items (seed {self.seed}): {self.equal} answers are equal"
        if self.differing:
            said += f", not those of {plain(', '.join(self.differing[:_SHOWN]))}"
            said += f" and {len(self.differing) - _SHOWN} more" if len(self.differing) > _SHOWN else ""
        if not self.hashed:
            return f"{said}; a server's weights cannot be hashed, so this tells of the server asked now"
        if self.differing and not self.same_sampler:
            return f"{said}; they were sampled by another version of the sampler, so this tells nothing"
        if self.differing:
            return f"{said}: the responses were edited, or another processor rounds differently"
        return said

    @property
    def fault(self) -> bool:
        """Whether equal weights gave other answers."""
        return self.hashed and self.same_sampler and bool(self.differing)


class Models:
    """Loads the models of records, one at a time.

    Args:
        named: What the user says after `--model`, None to look for the record's model on this machine.
        options: For the loader: device, batch size.
    """

    def __init__(self, named: str | None, options: Mapping[str, Any]) -> None:
        self.named = named
        self.options = dict(options)
        self._kept: tuple[str, SpeechLM] | None = None

    def of(self, run: Run) -> tuple[SpeechLM, str, bool]:
        """The model of a record, what it was loaded by, and whether its weights are known to be the record's.

        Raises:
            MissingPrerequisite: it is not on this machine.
            UserError: the one that is named has other weights.
        """
        wanted = run.record.model
        for spec in [self.named] if self.named else _candidates(wanted):
            model = self._load(spec)
            found = model.identity()
            if not _has_weights(wanted) and not _has_weights(found):
                return model, spec, False
            if _same(wanted, found):
                return model, spec, True
            if self.named:
                theirs = plain(found.get("weights_sha256"))[:12]
                raise UserError(
                    f"{spec} is not the model of {run.folder}: its weights are {theirs}, "
                    f"the record's {plain(wanted.get('weights_sha256'))[:12]}"
                )
        raise MissingPrerequisite(
            f"the model of {run.folder} ({plain(wanted['spec'])}) is not on this machine: name it with --model"
        )

    def _load(self, spec: str) -> SpeechLM:
        if self._kept is None or self._kept[0] != spec:
            self._kept = None  # before the next one takes its memory
            self._kept = (spec, load_speech_model(spec, **self.options))
        return self._kept[1]


def rerun(
    run: Run, spec: TaskSpec | None, n: int, seed: int, models: Models, data_dir: Path | None = None
) -> Rerun:
    """Ask the model of a run `n` of its items again.

    Args:
        run: The run.
        spec: Its task.
        n: Number of items; all if there are fewer.
        seed: Of the draw.
        models: Where models come from.
        data_dir: Folder with local copies of data sets.

    Raises:
        MissingPrerequisite: model or test set are not here.
        UserError: the task is not known, or the model is another one.
    """
    if spec is None:
        raise UserError(
            f"{run.folder}: task {run.record.task} is not shipped here, so its items cannot be asked again"
        )
    model, name, hashed = models.of(run)
    perturb = str((run.record.protocol_spec.get("perturb") or {}).get("text", ""))
    lm = harness.RbaSpeechLM(
        name, models.options.get("batch_size"), models.options.get("device"), perturb=perturb, model=model
    )
    chosen = _drawn(run, n, seed)
    planned = _planned(run, spec, lm, data_dir)
    asked = [planned[sample.doc_id] for sample in chosen if sample.doc_id in planned]
    if len(asked) < len(chosen):
        raise UserError(f"{run.folder}: its items are not those of the test set on this machine")
    answers = {answer.index: answer for together in lm.stream(asked) for answer in together.answers}
    odd = tuple(s.id for s, one in zip(chosen, asked, strict=True) if not _equal(s, answers[one.index], one))
    return Rerun(len(chosen), len(chosen) - len(odd), odd, seed, hashed, _same_sampler(run))


def _same_sampler(run: Run) -> bool:
    greedy = not run.record.protocol_spec.get("decoding", {}).get("temperature")
    return greedy or run.record.versions.get("sampler") == SAMPLER


def _drawn(run: Run, n: int, seed: int) -> list[Sample]:
    answered = [sample for sample in run.samples if sample.status not in UNANSWERED]
    rng = random.Random(stable_seed("rerun", seed, run.record.run_id, run.record.samples_sha256))
    return sorted(rng.sample(answered, min(n, len(answered))), key=lambda sample: sample.doc_id)


def _planned(run: Run, spec: TaskSpec, lm: harness.RbaSpeechLM, data_dir: Path | None) -> dict[int, Planned]:
    """Requests by position in the test set, as the run's own code plans them."""
    told = {"data_dir": str(data_dir)} if data_dir else {}
    task = harness.load_task(spec.path, run.record.seeds.get("generation"), told)
    return {plan.doc_id: plan for plan in harness.build_requests(task, run.record.limit, lm)}


def _equal(sample: Sample, answer: Any, asked: Planned) -> bool:
    """Whether the same clip was asked with the same seed and gave the same response."""
    return sample.seed == asked.seed and sample.response == answer.generation.text


def _candidates(wanted: Mapping[str, Any]) -> Sequence[str]:
    """What on this machine may be the record's model, by its name; nothing that must be fetched."""
    spec = str(wanted["spec"])
    if spec in BUILT_IN:
        return [spec]
    if ":" in spec:
        return []
    own = [spec] if Path(spec, "config.json").is_file() else []
    last = Path(spec).name
    below = (
        sorted(str(file.parent) for file in RUNS.rglob("config.json") if file.parent.name == last)
        if RUNS.is_dir()
        else []
    )
    return list(dict.fromkeys([*own, *below]))


def _has_weights(identity: Mapping[str, Any]) -> bool:
    served = any(
        isinstance(part, Mapping) and part.get("kind") == "endpoint"
        for part in (identity, *identity.values())
    )
    return bool(identity.get("weights_sha256")) and identity.get("weights_known", True) and not served


def _same(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Equal in all that identifies a model; device and the like may differ."""
    mine, theirs = identifying(wanted), identifying(found)
    return mine.get("weights_sha256") == theirs.get("weights_sha256") and mine.get("kind") == theirs.get(
        "kind"
    )
