"""Scores again from the responses that a run kept: after a change of metric, normaliser, judge or task version.

No model is asked. What was asked stays (prompts, decoding, clips, raw responses); what is made of the responses is made
anew by the code and the task file of today: the answer in each response, its scores, the statuses, the metrics with
their intervals, and the protocol hash. If nothing else has changed, that is the hash of a run of today. A judge's
verdicts stay with the text they were given on, unless a judge is named.

Rescoring of run folders, in place or into another folder; a kill at any moment leaves a whole run.

In place two files change together. The new record is written first, beside the old one (`.run.json.rescored`), then the
samples are replaced, then the record. Whoever comes later finds the new record waiting only if it was interrupted in
between, and finishes or forgets it by whether it belongs to the samples that are there.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rba_bench import __version__, outputs
from rba_bench.errors import UserError
from rba_bench.evaluation import outcomes, records, scoring, task_registry
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.model_input import scored_part, settings
from rba_bench.evaluation.plan import SCORER, EvalRequest, protocol_hash, protocol_spec, relative
from rba_bench.evaluation.records import (
    RUN_FILE,
    SAMPLES_FILE,
    UNSCORED,
    MetricValue,
    Rescoring,
    RunRecord,
    Sample,
    Status,
    read_record,
    status_counts,
)
from rba_bench.evaluation.scorers import registry as finishers
from rba_bench.evaluation.scorers.registry import finish
from rba_bench.evaluation.scorers.scorer import Finisher
from rba_bench.evaluation.scoring import exploits
from rba_bench.files import cache_dir, folder_name, inside, sha256_bytes, write_atomic, write_json
from rba_bench.metrics.text import is_blank
from rba_bench.outputs import differences
from rba_bench.progress import say
from rba_bench.untrusted import plain

# Of a protocol, what decided the answers; all else decides what is made of them
ASKED = ("decoding", "prompts", "perturb", "baseline")
ASKED_YAML = (
    "output_type", "test_split", "process_docs", "description", "doc_to_text", "doc_to_audio", "gen_prefix",
    "num_fewshot", "repeats", "filter_list",
)  # fmt: skip
NEEDED = {"qa": "references", "s2tt": "references", "asr": "references", "ifeval": "extra"}
STALE = "the judge saw another text than the one scored now: name a judge with --judge"


@dataclass(frozen=True)
class RescoreOptions:
    """What the user says about rescoring.

    Attributes:
        judge: Model that judges anew; `none` drops judged metrics; None keeps the verdicts that are there.
        task: YAML of a task that is not shipped.
        votes: Folder in which `votes/` of judges are kept, None to choose it by the run.
        data_dir: Folder with local copies of data sets, for length control.
        device: Torch device of a local judge.
        batch_size: Rows per batch of a local judge.
    """

    judge: str | None = None
    task: Path | None = None
    votes: Path | None = None
    data_dir: Path | None = None
    device: str | None = None
    batch_size: int = 32

    def voting(self, votes: Path) -> "RescoreOptions":
        """The same with another folder of votes."""
        return replace(self, votes=votes)


@dataclass(frozen=True)
class _Step:
    """One entry of the task's `metadata.finish`: a finisher to run, or what the record keeps of one.

    Attributes:
        finisher: None where verdicts are kept.
        described: Its part of the protocol.
        metrics: What it adds.
    """

    finisher: Finisher | None
    described: dict[str, Any]
    metrics: tuple[Metric, ...]


def rescore(
    before: RunRecord, samples: Sequence[Sample], options: RescoreOptions
) -> tuple[RunRecord, list[Sample]]:
    """A finished run as it would be scored now.

    Args:
        before: Its record.
        samples: All its samples.
        options: Judge and task file.

    Returns:
        The new record, without the hash of the new samples, and these. Both equal the old ones if nothing changed.

    Raises:
        UserError: the task is unknown, a sample lacks what its scorer needs, or no item has a score.
        MissingPrerequisite: the judge is not to be had.
        RbaError: too little was answered for a score.
    """
    spec = _task(before, options.task)
    _check_samples(before, samples)
    steps = list(_steps(before, spec, options))
    kept = [step for step in steps if step.finisher is None]
    until = tuple(before.protocol_spec.get("decoding", {}).get("until") or ())
    fresh = [_rescored(sample, until, kept) for sample in samples]
    outcomes.check(before.task, [outcomes.of_item(s.status, s.extracted, s.error) for s in fresh])
    fresh, _, reports = finish(fresh, [step.finisher for step in steps if step.finisher is not None])
    outcomes.check_judged(before.task, fresh, reports)
    protocol = _protocol(before, spec, samples, [step.described for step in steps])
    names = {str(step.described.get("name")) for step in kept}
    after = before.model_copy(
        update={
            "task_version": spec.version,
            "metrics": scoring.summarise(fresh, [metric for step in steps for metric in step.metrics]),
            "statuses": status_counts(fresh),
            "protocol_spec": protocol,
            "protocol_hash": protocol_hash(protocol),
            "judge": protocol["judge"],
            "exploits": exploits(fresh),
            "finish": {**{name: said for name, said in before.finish.items() if name in names}, **reports},
        }
    )
    if fresh == list(samples) and _says_the_same(before, after):
        return before, fresh
    return after.model_copy(update={"rescored": [*before.rescored, _note(before, options)]}), fresh


def _says_the_same(before: RunRecord, after: RunRecord) -> bool:
    """Whether only the reports of finishers differ, which count what was asked and what was known."""
    ignored = {"finish", "statuses"}  # old records count a status that is no more
    return before.model_dump(exclude=ignored) == after.model_dump(exclude=ignored)


def _note(before: RunRecord, options: RescoreOptions) -> Rescoring:
    return Rescoring(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        rba_bench=__version__,
        judge=relative(options.judge or ""),
        from_version=before.task_version,
        from_protocol=before.protocol_hash,
        from_samples=before.samples_sha256,
    )


def _task(before: RunRecord, file: Path | None) -> task_registry.TaskSpec:
    if file is not None:
        spec = task_registry.read_spec(file)
        if spec.name != before.task:
            raise UserError(f"{file} is the task {spec.name!r}, but the run is of {before.task!r}")
    else:
        known = {spec.name: spec for spec in task_registry.list_tasks()}
        if before.task not in known and before.track in task_registry.TRACKS and "." not in before.task:
            known |= {spec.name: spec for spec in task_registry.made(before.task)}
        if before.task not in known:
            raise UserError(
                f"the task {before.task!r} is not among the shipped ones: name its file with --task"
            )
        spec = known[before.task]
    if spec.config.get("process_results") != SCORER:
        raise UserError(f"{spec.path} is not scored by {SCORER}")
    return spec


def _check_samples(before: RunRecord, samples: Sequence[Sample]) -> None:
    """Raises UserError if something is missing that the scorers need."""
    if not samples or len({sample.doc_id for sample in samples}) != len(samples) or len(samples) != before.n:
        raise UserError(f"{before.n} items recorded, {len(samples)} samples found, or some twice")
    for sample in samples:
        needed = NEEDED.get(sample.kind)
        if needed and not getattr(sample, needed):
            raise UserError(
                f"item {sample.id} of {before.task} has no {needed} in its sample: evaluate again"
            )


def _steps(before: RunRecord, spec: task_registry.TaskSpec, options: RescoreOptions) -> Iterator[_Step]:
    """What follows the answers, in the order of the task: as `finishers.of`, or kept."""
    request = EvalRequest(
        tasks=(spec.name,),
        model="",
        out=options.votes or cache_dir(),
        judge=options.judge or finishers.NO_JUDGE,
        data_dir=options.data_dir,
        device=options.device,
        batch_size=options.batch_size,
    )
    configs = (spec.config.get("metadata") or {}).get("finish") or []
    if options.judge and not any(config["name"] in finishers.JUDGES for config in configs):
        say(f"{spec.name}: no judge is asked in this task, so --judge changes nothing")
    made = iter(finishers.of(spec, request))
    known = [entry for entry in before.protocol_spec.get("finish") or [] if isinstance(entry, dict)]
    for config in configs:
        judged = config["name"] in finishers.JUDGES
        if judged and options.judge is None:
            yield from _kept_step(before, config, known)
        elif not judged or options.judge != finishers.NO_JUDGE:
            finisher = next(made)
            yield _Step(finisher, finisher.describe(), finisher.metrics)


def _kept_step(before: RunRecord, config: dict[str, Any], known: list[dict[str, Any]]) -> Iterator[_Step]:
    """What the record holds of a judge's verdicts; nothing if it was left out."""
    suffix = f"_vs_{config['against']}" if config.get("against") else ""
    described = next((entry for entry in known if entry.get("name") == f"{config['name']}{suffix}"), None)
    names = [f"{name}{suffix}" for name in finishers.METRICS[config["name"]]]
    metrics = tuple(_metric(name, before.metrics[name]) for name in names if name in before.metrics)
    if described is not None and metrics:
        yield _Step(None, described, metrics)


def _metric(name: str, value: MetricValue) -> Metric:
    return Metric(name, value.aggregation, value.scale, value.higher_is_better, value.macro, value.signature)


def _rescored(sample: Sample, until: Sequence[str], kept: Sequence[_Step]) -> Sample:
    """What is computed from the response, computed again; of verdicts those that were given on the same text."""
    if sample.status in UNSCORED:
        return sample.model_copy(update={"scores": {}, "judge": None})
    found = scored_part(sample.response, until)
    scored = scoring.score_item(sample.model_dump(), found.answer)
    names = [metric.name for step in kept for metric in step.metrics]
    verdicts = {name: sample.scores[name] for name in names if name in sample.scores}
    votes = {name: said for name, said in (sample.judge or {}).items() if name in _names(kept)}
    stale = bool(kept) and found.answer != sample.extracted
    failed = scored.judge_failed or (STALE if stale else "")
    if not failed and kept and sample.status == "judge_failed":
        failed = sample.error
    judge = {**(scored.judge or {}), **({} if stale else votes)}
    status = _status(sample, found.answer, found.complete, failed)
    return sample.model_copy(
        update={
            "extracted": found.answer,
            "scores": {**scored.scores, **({} if stale else verdicts)},
            "judge": judge or None,
            "status": status,
            "error": failed or ("" if sample.status == "judge_failed" else sample.error),
        }
    )


def _names(kept: Sequence[_Step]) -> set[str]:
    return {str(step.described["name"]) for step in kept}


def _status(sample: Sample, answer: str, complete: bool, failed: str) -> Status:
    if sample.status in ("error", "truncated"):
        return sample.status
    if not complete:
        return "truncated"
    if is_blank(answer):
        return "empty"
    return "judge_failed" if failed else "ok"


def _protocol(
    before: RunRecord,
    spec: task_registry.TaskSpec,
    samples: Sequence[Sample],
    described: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The protocol of today, but for what was asked."""
    was = before.protocol_spec
    docs = [{"kind": s.kind, "target_lang": s.target_lang, "prompt": s.prompt} for s in samples]
    asked = settings(spec.config.get("generation_kwargs") or {})
    now = json.loads(json.dumps(protocol_spec(spec, asked, docs, described)))
    yaml_was, yaml_now = was.get("yaml", {}), now["yaml"]
    then = {"decoding": was.get("decoding"), **{name: yaml_was.get(name) for name in ASKED_YAML}}
    today = {"decoding": now["decoding"], **{name: yaml_now.get(name) for name in ASKED_YAML}}
    if changes := list(differences(then, today)):
        say(
            f"{before.task}: asked otherwise than today, so no run of today shares its table: {'; '.join(changes)}"
        )
    yaml = {
        **{name: value for name, value in yaml_now.items() if name not in ASKED_YAML},
        **{name: value for name, value in yaml_was.items() if name in ASKED_YAML},
    }
    stays = {name: value for name, value in was.items() if name in ASKED or name not in (*now, "finish")}
    return {**{name: value for name, value in now.items() if name not in ASKED}, **stays, "yaml": yaml}


WAITING = f".{RUN_FILE}.rescored"


@dataclass(frozen=True)
class Rescored:
    """One run before and after.

    Attributes:
        folder: Where the result lies.
        before: The record that was there.
        after: The record that is there now; the same object if nothing changed.
    """

    folder: Path
    before: RunRecord
    after: RunRecord

    @property
    def changed(self) -> bool:
        """Whether anything is different."""
        return self.after is not self.before

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form: old and new score of every metric, None where a side has none."""
        names = dict.fromkeys([*self.before.metrics, *self.after.metrics])
        return {
            "folder": str(self.folder),
            "model": self.before.model["name"],
            "task": self.before.task,
            "run_id": self.before.run_id,
            "changed": self.changed,
            "metrics": {name: [_value(self.before, name), _value(self.after, name)] for name in names},
            "statuses": [self.before.statuses, self.after.statuses],
            "task_version": [self.before.task_version, self.after.task_version],
            "protocol_hash": [self.before.protocol_hash, self.after.protocol_hash],
        }

    def line(self) -> str:
        """What changed, in one line."""
        parts = [_change(name, *values) for name, values in self.to_dict()["metrics"].items()]
        versions = _change("version", self.before.task_version, self.after.task_version)
        old, new = self.before.protocol_hash[:12], self.after.protocol_hash[:12]
        head = f"{plain(self.before.model['name'])} {self.before.task}: "
        tail = f"{versions}, {_change('protocol', old, new)}" if self.changed else "nothing changed"
        return f"{head}{', '.join(parts)}; {tail} ({self.folder})"


def rescore_runs(
    paths: Sequence[Path], options: RescoreOptions | None = None, out: Path | None = None
) -> Iterable[Rescored]:
    """Rescore runs one after another.

    Args:
        paths: Run folders, their `run.json`, or folders of runs; also the records of a published board.
        options: Judge and task file. By default votes are kept where the run's own are, else in the cache.
        out: Folder for `<model>/<run id>/`; None to rescore in place.

    Raises:
        UserError: no run there, a damaged one, an unknown task, or samples that cannot be scored.
        MissingPrerequisite: the judge is not to be had.
    """
    for folder in run_folders(paths):
        yield rescore_folder(folder, options, out)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Folders with a record at or below `paths`, each once. Raises UserError where there is none."""
    found: dict[Path, None] = {}
    for path in paths:
        place = path.parent if path.name == RUN_FILE else path
        own = [place] if (place / RUN_FILE).is_file() or (place / WAITING).is_file() else []
        below = own or sorted(file.parent for file in place.rglob(RUN_FILE))
        if not below:
            raise UserError(f"no finished run ({RUN_FILE}) at or below {path}")
        found |= dict.fromkeys(below)
    return list(found)


def rescore_folder(folder: Path, options: RescoreOptions | None = None, out: Path | None = None) -> Rescored:
    """Rescore one run; see `rescore_runs`."""
    outputs.check_writable(folder if out is None else out)
    with outputs.locked(folder if out is None else out):
        _settle(folder)
        before, data = read_record(folder), records.sample_bytes(folder)
        if sha256_bytes(data) != before.samples_sha256:
            raise UserError(
                f"{folder}: the samples are not the ones that {RUN_FILE} was computed from (hash differs)"
            )
        chosen = options or RescoreOptions()
        if chosen.votes is None:
            chosen = chosen.voting(_votes(folder, out))
        try:
            found = sorted(records.parse(data, folder), key=lambda sample: sample.doc_id)
            after, samples = rescore(before, found, chosen)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        target = folder if out is None else run_folder(out, before)
        if out is not None or after is not before:
            after = _write(target, after, samples)
        return Rescored(target, before, after if after.rescored != before.rescored else before)


def _votes(folder: Path, out: Path | None) -> Path:
    """Folder that holds `votes/`: the output folder; in place that of the evaluation if it is there, else the cache."""
    if out is not None:
        return out
    own = folder.resolve().parent.parent
    return own if (own / "votes").is_dir() else cache_dir()


def run_folder(out: Path, record: RunRecord) -> Path:
    """Where the run of a record lies below `out`, whatever names the record holds."""
    return inside(out, f"{folder_name(record.model['name'])}/{record.run_id}")


def _write(target: Path, record: RunRecord, samples: Sequence[Sample]) -> RunRecord:
    """Both files; packed samples stay packed."""
    data = "".join(sample.line() for sample in samples).encode()
    whole = record.model_copy(update={"samples_sha256": sha256_bytes(data)})
    packed = (target / records.PACKED_FILE).is_file() and not (target / SAMPLES_FILE).is_file()
    write_json(target / WAITING, whole.model_dump(mode="json"))
    if packed:
        write_atomic(target / records.PACKED_FILE, records.pack(data))
    else:
        write_atomic(target / SAMPLES_FILE, data)
    os.replace(target / WAITING, target / RUN_FILE)
    return whole


def _settle(folder: Path) -> None:
    """Finish or forget what an interrupted rescoring has left."""
    waiting = folder / WAITING
    if not waiting.is_file():
        return
    if read_record(waiting).samples_sha256 == sha256_bytes(records.sample_bytes(folder)):
        os.replace(waiting, folder / RUN_FILE)
    else:
        waiting.unlink()


def _value(record: RunRecord, name: str) -> float | None:
    return record.metrics[name].value if name in record.metrics else None


def _change(name: str, old: float | str | None, new: float | str | None) -> str:
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value or "-") for value in (old, new)]
    return f"{name} {shown[0]}" if old == new else f"{name} {shown[0]} -> {shown[1]}"
