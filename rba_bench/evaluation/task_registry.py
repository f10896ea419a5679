"""Task names: which YAML files a name, group, benchmark or path stands for. Reads YAML only, so listing is instant.

    tasks/<benchmark>/<task>.yaml   metadata: {version, benchmark, track, judge?}; generation_kwargs: {protocol, ...}
    tasks/<benchmark>/<group>.yaml  group: NAME, task: [names]: several tasks at once, as in lm-eval
    tasks/<benchmark>/README.md     source, licence, one worked raw record, metric, caveats

A benchmark's short name (`covost2`) stands for its tasks on the wanted track, one per decoding protocol; tasks that say
`metadata: {variant: true}` only run under their own name.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import folder_name, is_name
from rba_bench.progress import say
from rba_bench.untrusted import plain

# Of the micro track, as the quickstart runs
BENCHMARKS = ("alpacaeval", "triviaqa", "webquestions", "covost2", "fleurs")
ORDER = (
    "alpacaeval", "spoken_alpaca", "triviaqa", "webquestions", "llama_questions", "covost2", "fleurs", "mustc",
    "rba_topics", "spoken_questions", "spoken_instructions", "speaker_consistency",
    "speech_ifeval", "dowis", "asr", "small", "micro_study",
)  # fmt: skip
TRACKS = ("micro", "small", "full")
DEFAULTS = {
    "micro": BENCHMARKS,
    "small": ("small",),
}  # by track, where no task is named; the full track has none
DECODINGS = ("greedy", "sampled")


@dataclass(frozen=True)
class TaskSpec:
    """One task YAML.

    Attributes:
        name: Name of the task, e.g. `micro_covost2_sampled`.
        benchmark: Its folder under `tasks/`, e.g. `covost2`.
        protocol: How answers are decoded: `greedy`, `sampled` or `custom`.
        config: The YAML with its includes merged; `!function`s are left as dotted names.
    """

    name: str
    benchmark: str
    track: str
    protocol: str
    version: str
    path: Path
    config: dict[str, Any] = field(repr=False, hash=False, compare=False)

    @property
    def metrics(self) -> list[str]:
        """Metrics without their error companions, in the order of the YAML."""
        names = [str(entry["metric"]) for entry in self.config.get("metric_list") or []]
        return [name for name in names if not name.endswith("_stderr")]

    @property
    def scorer_configs(self) -> list[dict[str, Any]]:
        """Entries of `metadata.finish`: the scorers that add scores after all answers exist."""
        return list((self.config.get("metadata") or {}).get("finish") or [])

    @property
    def variant(self) -> bool:
        """Whether the task only runs under its own name, not under its benchmark's."""
        return bool((self.config.get("metadata") or {}).get("variant"))


@dataclass(frozen=True)
class GroupSpec:
    """Several tasks under one name, such as `covost2_en_x`."""

    name: str
    benchmark: str
    tasks: tuple[str, ...]
    path: Path


def tasks_dir() -> Path:
    """Folder of the shipped tasks: inside an installed wheel, else beside the package in a checkout.

    Raises:
        MissingPrerequisite: neither exists (a broken installation).
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_tasks", package.parent / "tasks"):
        if folder.is_dir():
            return folder
    raise MissingPrerequisite("the task files are missing from this installation: install rba-bench again")


def list_tasks() -> list[TaskSpec]:
    """All shipped tasks, benchmarks in their usual order, greedy before sampled."""
    paths = [path for path in sorted(tasks_dir().glob("*/*.yaml")) if not path.name.startswith("_")]
    specs = [read_spec(path) for path in paths if not _is_group(path)]
    order = {name: position for position, name in enumerate(ORDER)}
    return sorted(specs, key=lambda spec: (order.get(spec.benchmark, len(order)), spec.track, spec.name))


def list_groups() -> list[GroupSpec]:
    """All shipped groups, by name."""
    paths = (path for path in sorted(tasks_dir().glob("*/*.yaml")) if _is_group(path))
    return sorted((read_group(path) for path in paths), key=lambda group: group.name)


def read_group(path: Path) -> GroupSpec:
    """The group in one YAML file; lm-eval's file of the same form runs the same tasks.

    Raises:
        UserError: the file does not define a group of tasks.
    """
    config = _read_yaml(path.resolve())
    members = config.get("task")
    if not isinstance(config.get("group"), str) or not isinstance(members, list) or not members:
        raise UserError(f"{path} does not define a group: it needs `group: NAME` and a list of tasks")
    names = []
    for member in members:  # a name, or a mapping that names its task or a file with it
        if isinstance(member, dict) and "task" not in member and "include" in member:
            names.append(read_spec(path.parent / str(member["include"])).name)
        else:
            names.append(str(member["task"] if isinstance(member, dict) else member))
    return GroupSpec(config["group"], path.resolve().parent.name, tuple(names), path.resolve())


def _is_group(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as handle:  # read_group complains
        return any(line.startswith("group:") for line in handle)


def read_spec(path: Path) -> TaskSpec:
    """The task in one YAML file.

    Raises:
        UserError: the file cannot be read or does not define a task.
    """
    config = _read_yaml(path.resolve())
    if not isinstance(config.get("task"), str):
        raise UserError(f"{path} does not define a task: it has no `task: NAME`")
    for key in ("metadata", "generation_kwargs"):
        if not isinstance(config.get(key) or {}, dict):
            raise UserError(f"{path}: {key} must be a mapping of names to values")
    metrics = config.get("metric_list") or []
    if not isinstance(metrics, list) or not all(isinstance(entry, dict) for entry in metrics):
        raise UserError(f"{path}: metric_list must be a list of mappings, such as `- metric: bleu`")
    metadata = config.get("metadata") or {}
    spec = TaskSpec(
        name=config["task"],
        benchmark=str(metadata.get("benchmark") or folder_name(path.resolve().parent.name)),
        track=str(metadata.get("track", "custom")),
        protocol=str((config.get("generation_kwargs") or {}).get("protocol", "custom")),
        version=str(metadata.get("version", "0")),
        path=path.resolve(),
        config=config,
    )
    names = {"task": spec.name, "benchmark": spec.benchmark, "track": spec.track, "version": spec.version}
    for key, value in names.items():
        if not is_name(value):
            raise UserError(
                f"{path}: {key} {plain(value)!r} becomes the name of files: use letters, digits and . _ + = -"
            )
    return spec


def describe_task(name: str) -> dict[str, Any]:
    """Everything known about a task or a benchmark: its specs and its README.

    Raises:
        UserError: unknown name, with the nearest ones.
    """
    specs = [spec for spec in list_tasks() if name in (spec.name, spec.benchmark)]
    if not specs:
        raise _unknown_task(name, list_tasks())
    readme = specs[0].path.parent / "README.md"
    return {
        "benchmark": specs[0].benchmark,
        "tasks": [
            {
                "name": spec.name,
                "track": spec.track,
                "protocol": spec.protocol,
                "version": spec.version,
                "metrics": spec.metrics,
                "config": spec.config,
            }
            for spec in specs
        ],
        "readme": readme.read_text(encoding="utf-8") if readme.is_file() else "",
    }


def resolve_tasks(
    names: Iterable[str], track: str = "micro", decodings: Sequence[str] = DECODINGS
) -> list[TaskSpec]:
    """The tasks that `names` stand for, without repeats, saying on stderr what a short name became.

    Args:
        names: Task names (that very task), groups, benchmark names (its tasks on `track`, one for each of
            `decodings`), or paths of YAMLs; each may hold several, separated by commas.
        track: `micro`, `small` or `full`.
        decodings: Wanted protocols of benchmarks given by short name.

    Raises:
        UserError: unknown name (with the nearest ones), track or decoding, or a task of another track.
        MissingPrerequisite: the benchmark has no tasks on that track.
    """
    if track not in TRACKS:
        raise UserError(f"unknown track {track!r}; known: {', '.join(TRACKS)}")
    unknown = [decoding for decoding in decodings if decoding not in DECODINGS]
    if unknown or not decodings:
        raise UserError(
            f"unknown decoding {', '.join(unknown) or '(none given)'}; known: {', '.join(DECODINGS)}"
        )
    parts = _split_names(names)
    if not parts:
        raise UserError(f"no task named; known: {', '.join(BENCHMARKS)}")
    shipped = list_tasks()
    specs: dict[str, TaskSpec] = {}
    for name in parts:
        for spec in _resolve_name(name, track, decodings, shipped):
            specs.setdefault(spec.name, spec)
    return list(specs.values())


def _split_names(names: Iterable[str]) -> list[str]:
    return [part.strip() for name in names for part in name.split(",") if part.strip()]


def common_track(names: Iterable[str]) -> str | None:
    """The one track on which all named tasks, groups and benchmarks exist, None where the names leave it open."""
    shipped, groups = list_tasks(), {group.name: group for group in list_groups()}
    possible = set(TRACKS)
    for name in _split_names(names):
        members = set(groups[name].tasks) if name in groups else {name}
        # An unknown name or a path leaves the track open; `resolve_tasks` checks it.
        possible &= {spec.track for spec in shipped if members & {spec.name, spec.benchmark}} or set(TRACKS)
    return possible.pop() if len(possible) == 1 else None


def _resolve_name(
    name: str, track: str, decodings: Sequence[str], shipped: Sequence[TaskSpec]
) -> list[TaskSpec]:
    path = Path(name)
    is_path = name.endswith((".yaml", ".yml"))
    if is_path:
        group = read_group(path) if path.is_file() and _is_group(path) else None
    else:
        group = next((group for group in list_groups() if group.name == name), None)
    if group is not None:
        return [spec for task in group.tasks for spec in _resolve_name(task, track, decodings, shipped)]
    if is_path:
        return [read_spec(path)]
    if exact := [spec for spec in shipped if spec.name == name] or generated_task(name):
        if exact[0].track != track:
            raise UserError(f"{name} belongs to the {exact[0].track} track: use --track {exact[0].track}")
        return exact
    if name not in {*BENCHMARKS, *(spec.benchmark for spec in shipped)}:
        raise _unknown_task(name, shipped)
    on_track = [s for s in shipped if s.benchmark == name and s.track == track and not s.variant]
    if not on_track:
        tracks = sorted({spec.track for spec in shipped if spec.benchmark == name})
        raise MissingPrerequisite(
            f"{name} has no {track}-track tasks in this version; it runs on: "
            + ", ".join(f"--track {other}" for other in tracks)
        )
    specs = [spec for spec in on_track if spec.protocol in decodings]
    say(f"{name} on the {track} track: {', '.join(spec.name for spec in specs)}")
    return specs


def generated_task(name: str) -> list[TaskSpec]:
    """The task of a FLEURS language or pair without a shipped file, [] for other names. Its file is in the cache."""
    from rba_bench.evaluation.sources import language_pairs
    from rba_bench.files import cache_dir

    path = language_pairs.task_file(name, tasks_dir(), cache_dir() / "tasks")
    if path is None:
        return []
    say(f"{name}: has no shipped file, wrote {path}")
    return [read_spec(path)]


def _unknown_task(name: str, shipped: Sequence[TaskSpec]) -> UserError:
    from rba_bench.evaluation.sources import language_pairs

    names = sorted({*BENCHMARKS, *(s.name for s in shipped), *(group.name for group in list_groups())})
    by_lower = {task.lower(): task for task in names}
    similar = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    near = list(dict.fromkeys([*language_pairs.tasks_meant(name), *(by_lower[key] for key in similar)]))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown task {name!r}; {hint} (`rba-bench tasks list` shows all)")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which `!function a.b` is the string "a.b": nothing is imported to read a task."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A task YAML with its includes merged the way lm-eval merges them: local keys win."""
    if path in seen:
        raise UserError(f"{path} includes itself")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UserError(f"cannot read task file {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8, or no such number or date, is a ValueError
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a task file: it holds no mapping")
    included = config.pop("include", [])
    names = [included] if isinstance(included, str) else included
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: include must be the name of a file, or a list of names")
    merged: dict[str, Any] = {}
    for name in names:
        merged.update(_read_yaml((path.parent / name).resolve(), (*seen, path)))
    return {**merged, **config}
