"""What a user asks to be evaluated, and the plan of each task: protocol, data, model, run id and folder.

Two records may share a table only if their protocol hashes are equal. So the protocol holds everything that changes a
score without being the model or the data (task YAML, prompt, decoding, what counts as the answer, metric signatures,
judge), and nothing else: not the seed, which is a replicate, and no file paths. A run id hashes protocol, model, data,
limit and, where answers are sampled, the seed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.assets import find_asset, is_asset
from rba_bench.audio import perturbations
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.audio_control import requested_control
from rba_bench.evaluation.documents import set_fingerprint
from rba_bench.evaluation.model_input import DEFAULT_SEED, GenerationSettings, read_generation_settings
from rba_bench.evaluation.records import RunRecord
from rba_bench.evaluation.scorers.scorer import Scorer
from rba_bench.evaluation.scoring import signatures
from rba_bench.evaluation.task_registry import DECODINGS, DEFAULTS, TaskSpec, common_track
from rba_bench.files import folder_name, read_json, sha256_json
from rba_bench.outputs import RUN_RECORD, RUNS
from rba_bench.progress import say
from rba_bench.speechlm.model_names import BUILT_IN
from rba_bench.textlm import replies

if TYPE_CHECKING:
    from rba_bench.evaluation.harness import RbaSpeechLM


BATCH_SIZE = 32
OUT = RUNS / "eval"
SCORE_HOOK = "rba_bench.evaluation.hooks.score"
TASK_KEYS = (
    "output_type", "test_split", "process_docs", "description", "doc_to_text", "doc_to_audio", "doc_to_target",
    "gen_prefix", "num_fewshot", "repeats", "filter_list", "process_results", "metric_list",
)  # fmt: skip
# Of a model's identity: its names and its history. The hashes say what it is; a commit may change the model card alone.
UNIDENTIFYING = ("name", "spec", "run", "training", "verified", "revision")


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate.

    Attributes:
        tasks: Task names, group names, benchmark names or YAML paths; see `task_registry.resolve_tasks`.
        model: See `rba_bench.speechlm.model_names.load_speech_model`.
        track: `micro`, `small` or `full`.
        out: Folder of the run records, and of the cache of answers.
        limit: Only the first items of each task; marks the records as partial.
        decodings: Protocols to run for benchmarks given by short name.
        seed: Base seed of sampled decoding.
        batch_size: Most clips per batch.
        batch_seconds: Most audio per batch in seconds, None for a default by batch size.
        device: Torch device; by default a GPU if there is one.
        data_dir: Folder with local copies of data sets, None to ask the Hub.
        judge: Model that judges instead of the tasks' own; `none` leaves judged metrics out.
        baseline: File or run folder with answers to beat, instead of the tasks' own.
        perturb: What is done to every clip, such as `noise=10dB,telephone`.
        audio: Control that takes the speech away, such as `silence`; see `audio_control`.
        use_cache: Whether answers of other runs in `out` are used again.
        retry_errors: Ask again for items that an earlier attempt could not answer, or a judge could not judge.
        trust: Run Python code that task files of others name; `model_options` has `trust_remote_code` for models.
        model_options: Passed on to the model's loader.
    """

    tasks: tuple[str, ...]
    model: str
    track: str = "micro"
    out: Path = OUT
    limit: int | None = None
    decodings: tuple[str, ...] = DECODINGS
    seed: int = DEFAULT_SEED
    batch_size: int = BATCH_SIZE
    batch_seconds: float | None = None
    device: str | None = None
    data_dir: Path | None = None
    judge: str | None = None
    baseline: str | None = None
    perturb: str = ""
    audio: str = ""
    use_cache: bool = True
    retry_errors: bool = False
    trust: bool = False
    model_options: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What the tasks' data loading must know, as `lm_eval --metadata` would say it."""
        options = {"data_dir": self.data_dir, "baseline": self.baseline}
        return {name: str(value) for name, value in options.items() if value is not None}


def make_request(
    tasks: Sequence[str] | None,
    model: str | None,
    track: str | None = None,
    *,
    pad: bool = False,
    encoder_cache: Path | None = None,
    language: str | None = None,
    template: Mapping[str, Any] | None = None,
    trust: bool = False,
    **fields: Any,
) -> EvalRequest:
    """A request as a user makes it; what was left open is chosen, and the choice is said on stderr.

    Args:
        tasks: None for all benchmarks of the track.
        model: None for the newest checkpoint under `runs/`.
        track: None for the tasks' own, else the one that the model was trained on.
        pad: Pad clips to the encoder's full window.
        encoder_cache: Folder of encoder states that are kept.
        language: Of the speech, for Whisper in a cascade.
        template: Variables of the model's chat template.
        trust: Run Python code that comes with models and task files.
        fields: Other fields of `EvalRequest`.

    Raises:
        UserError: the track `full` without tasks.
        MissingPrerequisite: no model is named, and there is no checkpoint.
    """
    if model is None:
        model = str(latest_checkpoint(RUNS))
        say(f"model: {model} (the newest checkpoint under {RUNS}/)")
    track = track or (common_track(tasks) if tasks else None) or _track_of_model(model)
    if track == "full" and not tasks:
        raise UserError("--track full needs --task: `rba-bench tasks list` shows what there is")
    model_options = {
        "true_length": not pad,
        "encoder_cache": encoder_cache,
        "language": language,
        "trust_remote_code": trust,
        "template": dict(template or {}),
    }
    fields |= {"trust": trust, "model_options": model_options}
    return EvalRequest(tuple(tasks or DEFAULTS.get(track, ())), model, track, **fields)


def _track_of_model(model: str) -> str:
    if recorded := (training_note(model) or {}).get("track"):
        say(f"track: {recorded} (recorded in {model})")
        return str(recorded)
    if model in BUILT_IN:
        say(f"track: micro (as {model} belongs to the micro world; --track chooses)")
        return "micro"
    if is_asset(model) and (shipped := find_asset(model).shipped):
        say(f"track: {shipped[0]} (as {model} belongs to it; --track chooses)")
        return shipped[0]
    say(f"track: full (as {model} does not belong to the micro world; --track chooses)")
    return "full"


def latest_checkpoint(runs_dir: Path | str = "runs") -> Path:
    """The newest checkpoint anywhere under `runs_dir`, by its `created` date and then by file time.

    Raises:
        MissingPrerequisite: there is none.
    """
    notes = list(Path(runs_dir).glob(f"**/{RUN_RECORD}"))
    if not notes:
        raise MissingPrerequisite(
            f"no checkpoint under {runs_dir}/: make one with `rba-bench train`, "
            "or name a model with --model PATH|base|text|cascade"
        )
    dates = {note: str((training_note(note.parent) or {}).get("created", "")) for note in notes}
    return max(notes, key=lambda note: (dates[note], note.stat().st_mtime)).parent


def training_note(folder: Path | str) -> dict[str, Any] | None:
    """What `rba_run.json` of a checkpoint says about its training, None where there is none.

    Raises:
        UserError: the file is damaged.
    """
    note = Path(folder) / RUN_RECORD
    if not note.is_file():
        return None
    try:
        content = read_json(note)
    except ValueError as error:
        raise UserError(f"{note} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{note} is damaged: it holds no mapping")
    return content


def protocol_spec(
    spec: TaskSpec,
    settings: GenerationSettings,
    docs: Iterable[Mapping[str, Any]],
    finish: Sequence[Mapping[str, Any]] = (),
    perturb: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The protocol as JSON values.

    Args:
        spec: The task.
        settings: Its decoding, as resolved from `generation_kwargs`.
        docs: The whole test set; its kind, target languages and prompts matter here.
        finish: How each scorer describes itself (judge, prompts, decoding).
        perturb: What is done to every clip: the chain in canonical form, and the version of what its names mean.
        baseline: Name and hash of the answers to beat, where the task has any.
        audio: Control that takes the speech away: its canonical form, and the version of what its name means.
    """
    kinds, langs, prompts = set(), set(), set()
    for doc in docs:
        kinds.add(doc["kind"])
        langs.add(doc["target_lang"])
        prompts.add(doc["prompt"])
    wording = sha256_json(sorted(prompts)) if prompts != {""} else ""
    optional = {
        "prompts": wording, "finish": list(finish), "perturb": perturb, "baseline": baseline, "audio": audio,
    }  # fmt: skip
    return {
        "task": spec.name,
        "version": spec.version,
        "yaml": {key: spec.config[key] for key in TASK_KEYS if key in spec.config},
        "decoding": {"name": settings.protocol, **asdict(settings.decoding), "until": list(settings.until)},
        "answer": replies.RULE,
        "metrics": signatures(kinds.pop(), sorted(langs)),
        "judge": (spec.config.get("metadata") or {}).get("judge"),
        **{name: value for name, value in optional.items() if value},
    }


def protocol_hash(spec: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a protocol."""
    return sha256_json(spec)


@dataclass(frozen=True)
class RunPlan:
    """A task as it will be run.

    Attributes:
        task: lm-eval's task, documents included.
        protocol: See `protocol_spec`.
        data: Where the test set came from, and what is in it.
        model: Identity of the model, with its name.
        limit: Number of items if the test set is cut, else None.
        folder: Of the run.
    """

    spec: TaskSpec
    task: Any
    settings: GenerationSettings
    scorers: tuple[Scorer, ...]
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


def make_plan(
    spec: TaskSpec, task: Any, request: EvalRequest, scorers: tuple[Scorer, ...], identity: dict[str, Any]
) -> RunPlan:
    """The plan of one task for one model."""
    docs = task.eval_docs
    settings = read_generation_settings(task.get_config("generation_kwargs"))
    perturb = perturbations.parse_perturbation(request.perturb).identity() if request.perturb else {}
    control = requested_control(request.audio, request.perturb)
    audio = control.identity() if control else {}
    # What the data loading said of itself travels in the description of the data set.
    description = task.dataset[task.config.test_split].info.description
    testset = (spec.config.get("dataset_kwargs") or {}).get("testset")
    origin = {"source": str(testset or "local"), **json.loads(description or "{}")}
    facts = origin.get("baseline") or {}
    baseline = {name: facts[name] for name in ("name", "sha256") if name in facts}
    descriptions = [scorer.describe() for scorer in scorers]
    protocol = protocol_spec(spec, settings, docs, descriptions, perturb, baseline, audio)
    data = {**origin, **set_fingerprint(docs)}
    limit = request.limit if request.limit is not None and request.limit < len(docs) else None
    seed = None if settings.decoding.temperature == 0 else settings.seed
    name = run_id(spec.name, protocol_hash(protocol), identity, data, limit, seed)
    folder = request.out / folder_name(str(identity["name"])) / name
    return RunPlan(spec, task, settings, scorers, protocol, data, identity, limit, name, folder)


def run_id(
    task: str,
    protocol: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    limit: int | None,
    seed: int | None,
) -> str:
    """Name of a run, which follows from all that decides its answers.

    Args:
        task: Its name.
        protocol: Hash of the protocol.
        model: Identity of the model; what a server said of itself later does not count.
        data: Description of the test set.
        limit: Number of items if the test set is cut, else None.
        seed: Of sampled answers, None for greedy ones.
    """
    key = {
        "protocol": protocol,
        "model": {name: fact for name, fact in identifying_facts(model).items() if name != "observed"},
        "data": [data["items_sha256"], data["audio_set_sha256"]],
        "limit": limit,
        "seed": seed,
    }
    return f"{task}-{sha256_json(key)[:12]}"


def recorded_run_id(record: RunRecord, protocol: str) -> str:
    """Name of a run like a recorded one under the protocol of that hash."""
    seed = None if record.decoding.get("temperature") == 0 else record.seeds.get("generation")
    return run_id(record.task, protocol, record.model, record.data, record.limit, seed)


def model_identity(lm: "RbaSpeechLM", spec: str) -> dict[str, Any]:
    """Who answered: the model's own identity, what the user called it, and how it was trained. No absolute paths."""
    identity = _without_paths(lm.model.identity())
    training = training_note(spec) if Path(spec).is_dir() else None
    return {**identity, "name": lm.model.name, "spec": relative_spec(spec), "training": training}


def identifying_facts(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is, without what it is called."""
    return {name: value for name, value in identity.items() if name not in UNIDENTIFYING}


def relative_spec(spec: str) -> str:
    """A path as seen from here, or its last part; anything else as it is. The parts of a cascade are treated alike."""
    for scheme in ("text:", "cascade:"):
        if spec.startswith(scheme):
            return scheme + "+".join(relative_spec(part) for part in spec.removeprefix(scheme).split("+"))
    if not Path(spec).is_absolute():
        return spec
    inside = Path(spec).is_relative_to(Path.cwd())
    return Path(spec).relative_to(Path.cwd()).as_posix() if inside else Path(spec).name


def _without_paths(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_paths(value) if isinstance(value, Mapping) else value
        for key, value in identity.items()
        if key != "path"
    }
