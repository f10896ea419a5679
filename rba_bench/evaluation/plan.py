"""One task of a request with everything that its run id is made from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import UserError
from rba_bench.evaluation import registry
from rba_bench.evaluation.checkpoints import training_note
from rba_bench.evaluation.decoding import Settings, settings
from rba_bench.evaluation.documents import fingerprint
from rba_bench.evaluation.finishers.base import Finisher
from rba_bench.evaluation.protocol import protocol_hash, protocol_spec
from rba_bench.evaluation.request import EvalRequest
from rba_bench.files import sha256_json
from rba_bench.names import folder_name

if TYPE_CHECKING:
    from rba_bench.evaluation.harness import RbaSpeechLM

# Of a model: what it is called and how it came about, not what it is
# (its hashes say that; a commit may change nothing but the model card)
UNIDENTIFYING = ("name", "spec", "run", "training", "verified", "revision")
SCORER = "rba_bench.evaluation.hooks.score"


@dataclass(frozen=True)
class Plan:
    """A task as it will be run.

    Attributes:
        task: lm-eval's task, documents included.
        protocol: See `protocol.protocol_spec`.
        data: Where the test set came from, and what is in it.
        model: Identity of the model, with its name.
        limit: Number of items if the test set is cut, else None.
        folder: Of the run.
    """

    spec: registry.TaskSpec
    task: Any
    settings: Settings
    finishers: tuple[Finisher, ...]
    protocol: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    limit: int | None
    run_id: str
    folder: Path

    @property
    def n(self) -> int:
        """Items to answer."""
        return int(self.limit or self.data["n_items"])


def load_task(spec: registry.TaskSpec, request: EvalRequest) -> Any:
    """lm-eval's task with its documents.

    Raises:
        UserError: the task is scored by other functions than ours.
        MissingPrerequisite: its data is absent.
    """
    from rba_bench.evaluation import harness  # brings lm-eval, which a board must not need

    if spec.config.get("process_results") != SCORER:
        raise UserError(
            f"{spec.path} is not scored by {SCORER}: run it with `lm_eval --model {harness.MODEL_NAME}`"
        )
    return harness.load_task(spec.path, request.seed, request.metadata())


def make_plan(
    spec: registry.TaskSpec,
    task: Any,
    request: EvalRequest,
    finishers: tuple[Finisher, ...],
    identity: dict[str, Any],
) -> Plan:
    """The plan of one task for one model."""
    docs = task.eval_docs
    chosen = settings(task.get_config("generation_kwargs"))
    perturb = _perturbation(request.perturb)
    origin = _origin(task, spec)
    said = origin.get("baseline") or {}
    baseline = {name: said[name] for name in ("name", "sha256") if name in said}
    described = [finisher.describe() for finisher in finishers]
    protocol = protocol_spec(spec, chosen, docs, described, perturb, baseline)
    data = {**origin, **fingerprint(docs)}
    limit = request.limit if request.limit is not None and request.limit < len(docs) else None
    key = {
        "protocol": protocol_hash(protocol),
        "model": identifying(identity),
        "data": [data["items_sha256"], data["audio_set_sha256"]],
        "limit": limit,
        "seed": None if chosen.decoding.temperature == 0 else chosen.seed,
    }
    run_id = f"{spec.name}-{sha256_json(key)[:12]}"
    folder = request.out / folder_name(str(identity["name"])) / run_id
    return Plan(spec, task, chosen, finishers, protocol, data, identity, limit, run_id, folder)


def model_identity(lm: "RbaSpeechLM", spec: str) -> dict[str, Any]:
    """Who answered: the model's own identity, what the user called it, and how it was trained. No absolute paths."""
    found = _without_paths(lm.model.identity())
    training = training_note(spec) if Path(spec).is_dir() else None
    return {**found, "name": lm.model.name, "spec": relative(spec), "training": training}


def identifying(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is, without what it is called."""
    return {name: value for name, value in identity.items() if name not in UNIDENTIFYING}


def relative(spec: str) -> str:
    """A path as seen from here, or its last part; anything else as it is. The parts of a cascade are treated alike."""
    for scheme in ("text:", "cascade:"):
        if spec.startswith(scheme):
            return scheme + "+".join(relative(part) for part in spec.removeprefix(scheme).split("+"))
    if not Path(spec).is_absolute():
        return spec
    inside = Path(spec).is_relative_to(Path.cwd())
    return Path(spec).relative_to(Path.cwd()).as_posix() if inside else Path(spec).name


def _perturbation(text: str) -> dict[str, Any]:
    if not text:
        return {}
    from rba_bench.audio import perturbations

    return perturbations.parse(text).identity()


def _origin(task: Any, spec: registry.TaskSpec) -> dict[str, Any]:
    """What the data loading said of itself; it travels in the description of the data set."""
    said = json.loads(task.dataset[task.config.test_split].info.description or "{}")
    name = str((spec.config.get("dataset_kwargs") or {}).get("testset") or "local")
    return {"source": name, **said}


def _without_paths(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_paths(value) if isinstance(value, Mapping) else value
        for key, value in identity.items()
        if key != "path"
    }
