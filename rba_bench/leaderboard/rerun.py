"""`leaderboard verify --rerun N`: the model of a record answers some of its items again.

This is the only check on the responses themselves. The items are chosen at random, by a seed that is drawn now and
shown: whoever could foresee them could let the model answer these alone. Each is answered as in the run: same clip,
prompt, perturbation, control, decoding, and seed. Only a model with the weights that the record names answers. Nothing
in a record makes this machine fetch a model or call a server: those the user names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import harness
from rba_bench.evaluation.plan import identifying_facts
from rba_bench.evaluation.records import UNANSWERED, Sample
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.leaderboard.attestation import drawn_items
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.recompute import SHOWN
from rba_bench.outputs import RUNS
from rba_bench.speechlm.model_names import BUILT_IN, load_speech_model
from rba_bench.speechlm.speech_model import SpeechLM
from rba_bench.textlm.text_model import SAMPLER
from rba_bench.untrusted import plain


@dataclass(frozen=True)
class RerunResult:
    """How many answers were the same.

    Attributes:
        items: Ids of the items, in the order of the test set.
        differing: Ids of those with another answer than the record's; answers are compared character by character.
        seed: Random seed of the choice of items.
        weights_known: Whether the weights are known to be the record's; a server does not show its own.
        same_sampler: Whether equal seeds give equal tokens; an older sampler gave others.
        item: The one item that was asked for; None where items were drawn.
        answer: What the model answers to that item now.
    """

    items: tuple[str, ...]
    differing: tuple[str, ...]
    seed: int
    weights_known: bool
    same_sampler: bool = True
    item: str | None = None
    answer: str = ""

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def proves_nothing(self) -> str:
        """Why no attestation can be made of it, "" if one can: equal answers of the very weights."""
        if not self.items:
            return "no item was answered"
        if self.differing:
            return f"{len(self.differing)} of {self.n} answers differ"
        return "" if self.weights_known else "the weights that answered are not known"

    def line(self) -> str:
        """The result in words."""
        text = f"rerun of {self.n} items (seed {self.seed}): {self.n - len(self.differing)} answers are equal"
        if self.item is not None:
            now = f"another, {plain(self.answer)!r}" if self.differing else "equal"
            text = f"rerun of item {plain(self.item)}: the answer is {now}"
        elif self.differing:
            text += f", not those of {plain(', '.join(self.differing[:SHOWN]))}"
            text += f" and {len(self.differing) - SHOWN} more" if len(self.differing) > SHOWN else ""
        if not self.weights_known:
            return f"{text}; the weights of a server are not known, so this describes the server that answered now"
        if self.differing and not self.same_sampler:
            return f"{text}; they were sampled by another version of the sampler, so this proves nothing"
        if self.differing:
            return f"{text}: the responses were edited, or another processor rounds differently"
        return text

    @property
    def is_fault(self) -> bool:
        """Whether equal weights gave other answers."""
        return self.weights_known and self.same_sampler and bool(self.differing)


class ModelLoader:
    """Loads the models of records, one at a time.

    Args:
        spec: What the user wrote after `--model`, None to look for the record's model on this machine.
        options: For the loader: device, batch size.
    """

    def __init__(self, spec: str | None, options: Mapping[str, Any]) -> None:
        self.spec, self.options = spec, dict(options)
        self._loaded: tuple[str, SpeechLM] | None = None

    def load_model_of(self, run: LoadedRun) -> tuple[SpeechLM, str, bool]:
        """The model of a record, what it was loaded by, and whether its weights are known to be the record's.

        Raises:
            MissingPrerequisite: it is not on this machine.
            UserError: the one that is named has other weights.
        """
        recorded = run.record.model
        for spec in [self.spec] if self.spec else _local_specs(str(recorded["spec"])):
            if self._loaded is None or self._loaded[0] != spec:
                self._loaded = None  # before the next one takes its memory
                self._loaded = (spec, load_speech_model(spec, **self.options))
            model = self._loaded[1]
            identity = model.identity()
            if not _has_weights(recorded) and not _has_weights(identity):
                return model, spec, False
            mine, theirs = identifying_facts(recorded), identifying_facts(identity)
            if all(mine.get(key) == theirs.get(key) for key in ("weights_sha256", "kind")):
                return model, spec, True
            if self.spec:
                raise UserError(
                    f"{spec} is not the model of {run.folder}: its weights are "
                    f"{plain(identity.get('weights_sha256'))[:12]}, the record's "
                    f"{plain(recorded.get('weights_sha256'))[:12]}"
                )
        raise MissingPrerequisite(
            f"the model of {run.folder} ({plain(recorded['spec'])}) is not on this machine: name it with --model"
        )


def rerun_items(
    run: LoadedRun,
    spec: TaskSpec | None,
    n: int,
    seed: int,
    loader: ModelLoader,
    data_dir: Path | None = None,
    item: str | None = None,
) -> RerunResult:
    """Let the model of a run answer `n` of its items again.

    Args:
        run: The run.
        spec: Its task.
        n: Number of items; all if there are fewer.
        seed: Random seed of the choice of items.
        loader: Loads the model.
        data_dir: Folder with local copies of data sets.
        item: Id or number of the one item to answer, instead of `n` at random.

    Raises:
        MissingPrerequisite: model or test set are not here.
        UserError: the task or the item is not known, or the model is another one.
    """
    record = run.record
    if spec is None:
        raise UserError(
            f"{run.folder}: task {record.task} is not shipped here, so its items cannot be answered again"
        )
    samples = drawn_items(run, n, seed) if item is None else [_named_item(run, item)]
    model, name, weights_known = loader.load_model_of(run)
    perturb, control = (
        str((record.protocol_spec.get(key) or {}).get("text", "")) for key in ("perturb", "audio")
    )
    batch_size, device = loader.options.get("batch_size"), loader.options.get("device")
    lm = harness.RbaSpeechLM(name, batch_size, device, perturb=perturb, audio_control=control, model=model)
    options = {"data_dir": str(data_dir)} if data_dir else {}
    task = harness.load_task(spec.path, record.seeds.get("generation"), options)
    planned = {plan.doc_id: plan for plan in harness.build_requests(task, record.limit, lm)}
    requests = [planned[sample.doc_id] for sample in samples if sample.doc_id in planned]
    if len(requests) < len(samples):
        raise UserError(f"{run.folder}: its items are not those of the test set on this machine")
    responses = {a.index: a.generation.text for batch in lm.stream(requests) for a in batch.answers}
    differing = tuple(
        sample.id
        for sample, request in zip(samples, requests, strict=True)
        if sample.seed != request.seed or sample.response != responses[request.index]
    )
    greedy = not record.protocol_spec.get("decoding", {}).get("temperature")
    same_sampler = greedy or record.versions.get("sampler") == SAMPLER
    answer = responses[requests[0].index] if item is not None else ""
    items = tuple(sample.id for sample in samples)
    return RerunResult(items, differing, seed, weights_known, same_sampler, item, answer)


def _named_item(run: LoadedRun, item: str) -> Sample:
    """The item of this id or number."""
    answered = [sample for sample in run.samples if sample.status not in UNANSWERED]
    named = [s for s in answered if s.id == item] or [s for s in answered if str(s.doc_id) == item]
    if not named:
        raise UserError(
            f"{run.folder} has no answer to an item {item!r}: name an item by its id or its number"
        )
    return named[0]


def _local_specs(spec: str) -> Sequence[str]:
    """What on this machine may be the record's model, by its name; nothing that must be fetched."""
    if spec in BUILT_IN:
        return [spec]
    if ":" in spec:
        return []
    paths = [spec] if Path(spec, "config.json").is_file() else []
    if RUNS.is_dir():
        folders = (file.parent for file in RUNS.rglob("config.json"))
        paths += sorted(str(folder) for folder in folders if folder.name == Path(spec).name)
    return list(dict.fromkeys(paths))


def _has_weights(identity: Mapping[str, Any]) -> bool:
    parts = (identity, *identity.values())
    served = any(isinstance(part, Mapping) and part.get("kind") == "endpoint" for part in parts)
    return bool(identity.get("weights_sha256")) and identity.get("weights_known", True) and not served
