"""Scoring again from the responses that a run kept: after a change of metric, normaliser, judge or task version.

No model is asked. The prompts, decoding, clips and raw responses stay; everything made from the responses is made again
by the code and the task file of today: the answer in each response, its scores, the statuses, the metrics with their
intervals, and the protocol hash. If nothing else has changed, that is the hash of a run of today. A judge's votes stay
with the text they were given on, unless a judge is named.

A run folder is rescored in place or into another folder; the mark of a submission goes along, an attestation does not.
In place two files change together, and an interruption at any moment leaves a whole run: the new record is written
first, beside the old one (`.run.json.rescored`), then the samples are replaced, then the record. If the new record is
still waiting later, the rescoring was interrupted: it is completed where the new record belongs to the samples that
are there, and forgotten otherwise.
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
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.metric import Metric, metrics_of
from rba_bench.evaluation.model_input import read_generation_settings, scored_part
from rba_bench.evaluation.plan import SCORE_HOOK, EvalRequest, protocol_hash, protocol_spec, relative_spec
from rba_bench.evaluation.records import RUN_FILE, SAMPLES_FILE, RunRecord, Sample, read_record
from rba_bench.evaluation.scorers.registry import JUDGES, NO_JUDGE, add_scores, make_scorers
from rba_bench.evaluation.scorers.scorer import Scorer
from rba_bench.files import cache_dir, folder_name, inside, sha256_bytes, write_atomic, write_json
from rba_bench.metrics.text import is_blank
from rba_bench.outputs import differences
from rba_bench.progress import say
from rba_bench.untrusted import plain

# Parts of a protocol that decide the answers; all else decides how they are scored
ANSWERING = ("decoding", "prompts", "perturb", "baseline", "audio")
ANSWERING_YAML = (
    "output_type", "test_split", "process_docs", "description", "doc_to_text", "doc_to_audio", "gen_prefix",
    "num_fewshot", "repeats", "filter_list",
)  # fmt: skip
REQUIRED = {"qa": "references", "s2tt": "references", "asr": "references", "ifeval": "extra"}
STALE = "the judge saw another text than the one scored now: name a judge with --judge"
WAITING = f".{RUN_FILE}.rescored"


@dataclass(frozen=True)
class RescoreOptions:
    """What the user says about rescoring.

    Attributes:
        judge: Model that judges again; `none` drops judged metrics; None keeps the votes that are there.
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
        pair = (self.before, self.after)
        names = dict.fromkeys(name for record in pair for name in record.metrics)
        return {
            "folder": str(self.folder),
            "model": self.before.model["name"],
            "task": self.before.task,
            "run_id": self.before.run_id,
            "changed": self.changed,
            "metrics": {
                name: [record.metrics[name].value if name in record.metrics else None for record in pair]
                for name in names
            },
            "statuses": [record.statuses for record in pair],
            "task_version": [record.task_version for record in pair],
            "protocol_hash": [record.protocol_hash for record in pair],
        }

    def line(self) -> str:
        """What changed, in one line."""
        before, after = self.before, self.after
        parts = [_change(name, *values) for name, values in self.to_dict()["metrics"].items()]
        tail = "nothing changed"
        if self.changed:
            version = _change("version", before.task_version, after.task_version)
            protocol = _change("protocol", before.protocol_hash[:12], after.protocol_hash[:12])
            tail = f"{version}, {protocol}"
        return f"{plain(before.model['name'])} {before.task}: {', '.join(parts)}; {tail} ({self.folder})"


def _change(name: str, old: float | str | None, new: float | str | None) -> str:
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value or "-") for value in (old, new)]
    return f"{name} {texts[0]}" if old == new else f"{name} {texts[0]} -> {texts[1]}"


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
        MissingPrerequisite: the judge cannot be found.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        folder = path.parent if path.name == RUN_FILE else path
        is_run = (folder / RUN_FILE).is_file() or (folder / WAITING).is_file()
        runs = [folder] if is_run else sorted(file.parent for file in folder.rglob(RUN_FILE))
        if not runs:
            raise UserError(f"no finished run ({RUN_FILE}) at or below {path}")
        folders |= dict.fromkeys(runs)
    for folder in folders:
        yield rescore_folder(folder, options, out)


def rescore_folder(folder: Path, options: RescoreOptions | None = None, out: Path | None = None) -> Rescored:
    """Rescore one run; see `rescore_runs`."""
    outputs.check_writable(folder if out is None else out)
    with outputs.locked(folder if out is None else out):
        waiting = folder / WAITING
        if waiting.is_file():  # an interrupted rescoring has left it
            if read_record(waiting).samples_sha256 == sha256_bytes(records.sample_bytes(folder)):
                os.replace(waiting, folder / RUN_FILE)
            else:
                waiting.unlink()
        before, data = read_record(folder), records.sample_bytes(folder)
        if sha256_bytes(data) != before.samples_sha256:
            raise UserError(
                f"{folder}: the samples are not the ones that {RUN_FILE} was computed from (hash differs)"
            )
        options = options or RescoreOptions()
        if options.votes is None:
            evaluation = folder.resolve().parent.parent
            votes = out or (evaluation if (evaluation / "votes").is_dir() else cache_dir())
            options = replace(options, votes=votes)
        try:
            samples = sorted(records.parse_samples(data, folder), key=lambda sample: sample.doc_id)
            after, samples = rescore(before, samples, options)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        target, mark = folder, records.read_beside(folder).get(records.MARK_FILE)
        if out is not None:  # whatever names the record holds, the folder lies below `out`
            target = inside(out, f"{folder_name(before.model['name'])}/{before.run_id}")
        if out is not None or after is not before:
            data = "".join(sample.line() for sample in samples).encode()
            after = after.model_copy(update={"samples_sha256": sha256_bytes(data)})
            packed = (target / records.PACKED_FILE).is_file() and not (target / SAMPLES_FILE).is_file()
            (target / records.ATTESTATION_FILE).unlink(missing_ok=True)  # it is of the record as it was
            if mark is not None:
                write_atomic(target / records.MARK_FILE, mark)
            write_json(target / WAITING, after.model_dump(mode="json"))
            if packed:  # and stays so
                write_atomic(target / records.PACKED_FILE, records.pack_samples(data))
            else:
                write_atomic(target / SAMPLES_FILE, data)
            os.replace(target / WAITING, target / RUN_FILE)
        return Rescored(target, before, after if after.rescored != before.rescored else before)


@dataclass(frozen=True)
class _Step:
    """One entry of the task's `metadata.finish`: a scorer to run, or what the record keeps of one.

    Attributes:
        scorer: None where the votes of the record are kept.
        description: Its part of the protocol.
        metrics: What it adds.
    """

    scorer: Scorer | None
    description: dict[str, Any]
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
        MissingPrerequisite: the judge cannot be found.
        RbaError: too little was answered for a score.
    """
    spec = _task_of(before, options.task)
    _check_samples(before, samples)
    steps = list(_steps(before, spec, options))
    kept = [step for step in steps if step.scorer is None]
    until = tuple(before.protocol_spec.get("decoding", {}).get("until") or ())
    fresh = [_rescored(sample, until, kept) for sample in samples]
    answered = [outcomes.item_outcome(s.status, s.extracted, s.error) for s in fresh]
    outcomes.check_answers(before.task, answered)
    fresh, _, reports = add_scores(fresh, [step.scorer for step in steps if step.scorer is not None])
    outcomes.check_judged(before.task, fresh, reports)
    protocol = _protocol(before, spec, samples, [step.description for step in steps])
    names = {str(step.description.get("name")) for step in kept}
    metrics = [metric for step in steps for metric in step.metrics]
    after = before.model_copy(
        update={
            "task_version": spec.version,
            "metrics": scoring.summarise_metrics(fresh, metrics),
            "statuses": records.status_counts(fresh),
            "protocol_spec": protocol,
            "protocol_hash": protocol_hash(protocol),
            "judge": protocol["judge"],
            "exploits": scoring.exploit_table(fresh),
            "finish": {**{k: report for k, report in before.finish.items() if k in names}, **reports},
        }
    )
    # Reports count what was asked and what was cached; old records count a status that no longer exists.
    ignored = {"finish", "statuses"}
    if fresh == list(samples) and before.model_dump(exclude=ignored) == after.model_dump(exclude=ignored):
        return before, fresh
    note = records.Rescoring(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        rba_bench=__version__,
        judge=relative_spec(options.judge or ""),
        from_version=before.task_version,
        from_protocol=before.protocol_hash,
        from_samples=before.samples_sha256,
    )
    return after.model_copy(update={"rescored": [*before.rescored, note]}), fresh


def _task_of(before: RunRecord, file: Path | None) -> task_registry.TaskSpec:
    """The task of a record as it is today: in a file of the user's, or shipped."""
    if file is not None:
        spec = task_registry.read_spec(file)
        if spec.name != before.task:
            raise UserError(f"{file} is the task {spec.name!r}, but the run is of {before.task!r}")
    else:
        shipped = {spec.name: spec for spec in task_registry.list_tasks()}
        if before.task not in shipped and before.track in task_registry.TRACKS and "." not in before.task:
            shipped |= {spec.name: spec for spec in task_registry.generated_task(before.task)}
        if before.task not in shipped:
            raise UserError(
                f"the task {before.task!r} is not among the shipped ones: name its file with --task"
            )
        spec = shipped[before.task]
    if spec.config.get("process_results") != SCORE_HOOK:
        raise UserError(f"{spec.path} is not scored by {SCORE_HOOK}")
    return spec


def _check_samples(before: RunRecord, samples: Sequence[Sample]) -> None:
    """Raises UserError if something is missing that the scorers need."""
    if not samples or len({sample.doc_id for sample in samples}) != len(samples) or len(samples) != before.n:
        raise UserError(f"{before.n} items recorded, {len(samples)} samples found, or some twice")
    for sample in samples:
        required = REQUIRED.get(sample.kind)
        if required and not getattr(sample, required):
            raise UserError(
                f"item {sample.id} of {before.task} has no {required} in its sample: evaluate again"
            )


def _steps(before: RunRecord, spec: task_registry.TaskSpec, options: RescoreOptions) -> Iterator[_Step]:
    """The scorers of the task in order: to run again, or with their votes kept."""
    request = EvalRequest(
        tasks=(spec.name,),
        model="",
        out=options.votes or cache_dir(),
        judge=options.judge or NO_JUDGE,
        data_dir=options.data_dir,
        device=options.device,
        batch_size=options.batch_size,
    )
    if options.judge and not any(config["name"] in JUDGES for config in spec.scorer_configs):
        say(f"{spec.name}: no judge is asked in this task, so --judge changes nothing")
    scorers = iter(make_scorers(spec, request))
    entries = [entry for entry in before.protocol_spec.get("finish") or [] if isinstance(entry, dict)]
    for config in spec.scorer_configs:
        if config["name"] not in JUDGES or options.judge not in (None, NO_JUDGE):
            scorer = next(scorers)
            yield _Step(scorer, scorer.describe(), scorer.metrics)
        elif options.judge is None:
            suffix = f"{VERSUS}{config['against']}" if config.get("against") else ""
            entry = next((e for e in entries if e.get("name") == f"{config['name']}{suffix}"), None)
            names = [f"{metric.name}{suffix}" for metric in metrics_of(config["name"])]
            metrics = tuple(
                Metric(name, m.aggregation, m.scale, m.higher_is_better, m.macro, m.signature)
                for name in names
                if (m := before.metrics.get(name)) is not None
            )
            if entry is not None and metrics:  # a judge that was left out then is left out now
                yield _Step(None, entry, metrics)


def _rescored(sample: Sample, until: Sequence[str], kept: Sequence[_Step]) -> Sample:
    """A sample scored again from its response; of the judges in `kept` the votes on the same text stay."""
    if sample.status in records.UNSCORED:
        return sample.model_copy(update={"scores": {}, "judge": None})
    part = scored_part(sample.response, until)
    score = scoring.score_item(sample.model_dump(), part.answer)
    scores, judge = {**score.scores}, {**(score.judge or {})}
    stale = bool(kept) and part.answer != sample.extracted
    failure = score.failure or (STALE if stale else "")
    if not failure and kept and sample.status == "judge_failed":
        failure = sample.error
    if not stale:
        for step in kept:
            name = str(step.description["name"])
            scores |= {m.name: sample.scores[m.name] for m in step.metrics if m.name in sample.scores}
            judge |= {name: sample.judge[name]} if name in (sample.judge or {}) else {}  # type: ignore[index]
    status: records.Status = "judge_failed" if failure else "ok"
    if sample.status in ("error", "truncated"):
        status = sample.status
    elif not part.complete:
        status = "truncated"
    elif is_blank(part.answer):
        status = "empty"
    return sample.model_copy(
        update={
            "extracted": part.answer,
            "scores": scores,
            "judge": judge or None,
            "status": status,
            "error": failure or ("" if sample.status == "judge_failed" else sample.error),
        }
    )


def _protocol(
    before: RunRecord,
    spec: task_registry.TaskSpec,
    samples: Sequence[Sample],
    descriptions: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The protocol of today, but for the parts that decided the answers."""
    then = before.protocol_spec
    docs = [{"kind": s.kind, "target_lang": s.target_lang, "prompt": s.prompt} for s in samples]
    settings = read_generation_settings(spec.config.get("generation_kwargs") or {})
    now = json.loads(json.dumps(protocol_spec(spec, settings, docs, descriptions)))
    yaml_then, yaml_now = then.get("yaml", {}), now["yaml"]
    asked = {"decoding": then.get("decoding"), **{name: yaml_then.get(name) for name in ANSWERING_YAML}}
    asks = {"decoding": now["decoding"], **{name: yaml_now.get(name) for name in ANSWERING_YAML}}
    if changes := list(differences(asked, asks)):
        say(
            f"{before.task}: the model was asked in another way than today, so no run of today shares its table: "
            f"{'; '.join(changes)}"
        )
    yaml = {
        **{name: value for name, value in yaml_now.items() if name not in ANSWERING_YAML},
        **{name: value for name, value in yaml_then.items() if name in ANSWERING_YAML},
    }
    stays = {name: value for name, value in then.items() if name in ANSWERING or name not in (*now, "finish")}
    return {**{name: value for name, value in now.items() if name not in ANSWERING}, **stays, "yaml": yaml}
