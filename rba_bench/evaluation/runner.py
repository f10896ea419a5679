"""`rba-bench eval`: answer every item once, keep each answer the moment it exists, score from the kept answers.

A run lives in `<out>/<model>/<run id>/`. The run id hashes task, protocol, model weights, data, seed and limit, so the
same command finds its unfinished run and resumes it, and a change of anything starts another run beside it. `--dry-run`
estimates what judges would cost before anything is answered.
"""

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rba_bench import outputs
from rba_bench.errors import UserError
from rba_bench.evaluation import (
    answering,
    environment,
    foreign_code,
    harness,
    outcomes,
    records,
    scoring,
    task_registry,
)
from rba_bench.evaluation.audio_control import exchange_clips, facts_of, refuse_reader, requested_control
from rba_bench.evaluation.model_input import read_generation_settings
from rba_bench.evaluation.plan import (
    SCORE_HOOK,
    EvalRequest,
    RunPlan,
    make_plan,
    model_identity,
    protocol_hash,
)
from rba_bench.evaluation.records import RUN_FILE, RunRecord, read_record
from rba_bench.evaluation.scorers.registry import add_scores, make_scorers
from rba_bench.evaluation.scorers.scorer import Cost, Scorer
from rba_bench.files import sha256_file, write_json
from rba_bench.metrics.bootstrap import SEED as BOOTSTRAP_SEED
from rba_bench.progress import say

WORD = "word "  # stands for a token of an answer that is not written yet


def evaluate(request: EvalRequest) -> list[RunRecord]:
    """Run every task of a request, resuming what is half done and returning what is finished.

    A run without a record asks again for what was not answered; one with a record does where the request says so.

    Raises:
        RbaError: too little was answered for a record; see `outcomes.check_answers`.
        UserError: unknown task, bad limit, a damaged file.
        MissingPrerequisite: model, data or the key of a judge absent.
    """
    specs = requested_tasks(request)
    outputs.check_writable(request.out)  # before the model is loaded, too
    # Before the model is loaded: a judge without a key is found in a second, not after hours of answers.
    scorers = {spec.name: make_scorers(spec, request) for spec in specs}
    lm = harness.RbaSpeechLM(
        request.model,
        request.batch_size,
        request.device,
        batch_seconds=request.batch_seconds,
        perturb=request.perturb,
        audio_control=request.audio,
        **request.model_options,
    )
    identity = model_identity(lm, request.model)
    return [_evaluate_task(spec, request, lm, scorers[spec.name], identity) for spec in specs]


def requested_tasks(request: EvalRequest) -> list[task_registry.TaskSpec]:
    """The tasks of a request. Raises UserError for values that cannot be meant."""
    if request.limit is not None and request.limit <= 0:
        raise UserError(f"--limit must be at least 1, not {request.limit}")
    control = requested_control(request.audio, request.perturb)
    if request.model.partition(":")[0] == "text":  # before it is loaded
        refuse_reader(control, request.model)
    specs = task_registry.resolve_tasks(request.tasks, request.track, request.decodings)
    if not request.trust:
        for spec in specs:
            foreign_code.refuse_foreign_code(spec.path)
    return specs


def _evaluate_task(
    spec: task_registry.TaskSpec,
    request: EvalRequest,
    lm: harness.RbaSpeechLM,
    scorers: tuple[Scorer, ...],
    identity: dict[str, object],
) -> RunRecord:
    plan = make_plan(spec, _load_task(spec, request), request, scorers, identity)
    if (plan.folder / RUN_FILE).is_file():
        statuses = read_record(plan.folder).statuses
        failed = any(statuses.get(status, 0) for status in (*records.UNANSWERED, "judge_failed"))
        if not (request.retry_errors and failed):
            say(f"{spec.name}: already done, {plan.folder}")
            return read_record(plan.folder)
    with outputs.locked(plan.folder):
        answering.answer_all(plan, request, lm)
        if lm.rank == 0:
            _write_record(plan, lm)
        lm.barrier()
    return read_record(plan.folder)


def _load_task(spec: task_registry.TaskSpec, request: EvalRequest) -> Any:
    """lm-eval's task with its documents. Raises UserError where other functions than ours score it."""
    if spec.config.get("process_results") != SCORE_HOOK:
        raise UserError(
            f"{spec.path} is not scored by {SCORE_HOOK}: run it with `lm_eval --model {harness.MODEL_NAME}`"
        )
    return harness.load_task(spec.path, request.seed, request.metadata())


def _write_record(plan: RunPlan, lm: harness.RbaSpeechLM) -> None:
    """Scores and the record, from the samples alone."""
    answered = answering.read_all_samples(plan.folder)
    if len(answered) != plan.n:
        raise UserError(
            f"{plan.folder} holds {len(answered)} samples, expected {plan.n}: remove it and run again"
        )
    ends = [outcomes.item_outcome(s.status, s.extracted, s.error) for s in answered]
    outcomes.check_answers(plan.spec.name, ends)
    started = time.perf_counter()
    samples, added, reports = add_scores(answered, plan.scorers)
    outcomes.check_judged(plan.spec.name, samples, reports)
    judge_s = time.perf_counter() - started if plan.scorers else 0.0
    metrics = scoring.summarise_metrics(samples, added)
    answering.write_samples(plan.folder, samples)
    observed = answering.observed_facts(plan.folder)
    record = RunRecord(
        run_id=plan.run_id,
        task=plan.spec.name,
        task_version=plan.spec.version,
        benchmark=plan.spec.benchmark,
        track=plan.spec.track,
        protocol=plan.settings.protocol,
        protocol_hash=protocol_hash(plan.protocol),
        protocol_spec=plan.protocol,
        decoding=asdict(plan.settings.decoding),
        judge=plan.protocol["judge"],
        data=plan.data,
        model={**plan.model, **({"observed": observed} if observed else {})},
        seeds={"generation": plan.settings.seed, "bootstrap": BOOTSTRAP_SEED},
        n=len(samples),
        limit=plan.limit,
        partial=plan.limit is not None,
        metrics=metrics,
        statuses=records.status_counts(samples),
        timing=answering.summarise_timing(plan.folder, judge_s),
        hardware=environment.hardware(lm.device_name),
        versions=environment.versions(),
        finish=reports,
        exploits=scoring.exploit_table(samples),
        samples_sha256=sha256_file(plan.folder / records.SAMPLES_FILE),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(plan.folder / RUN_FILE, record.model_dump(mode="json"))


@dataclass(frozen=True)
class CostEstimate:
    """One judge (or other scorer) of one task; `judge` is "none" for a task without.

    Attributes:
        items: Items to answer.
        cost: Upper bound: every answer as long as the task allows, no vote in the cache.
    """

    task: str
    items: int
    judge: str
    cost: Cost

    def row(self) -> tuple[Any, ...]:
        """The estimate as cells of a table; an unknown price is "?"."""
        calls, prompt, completion = self.cost.calls, self.cost.prompt_tokens, self.cost.completion_tokens
        dollars = "?" if self.cost.dollars is None else f"{self.cost.dollars:.2f}"
        return self.task, self.items, self.judge, calls, prompt, completion, dollars


def estimate_costs(request: EvalRequest) -> list[CostEstimate]:
    """What each judge of each task would be asked. Loads documents, no model.

    Raises:
        UserError: as `evaluate`.
        MissingPrerequisite: the data is absent.
    """
    estimates = []
    control = requested_control(request.audio, request.perturb)
    for spec in requested_tasks(request):
        task = _load_task(spec, request)
        longest = read_generation_settings(task.get_config("generation_kwargs")).decoding.max_new_tokens
        if control is not None and control.exchanges:  # whether it can be
            exchange_clips(facts_of(task.eval_docs), spec.name)
        docs = list(task.eval_docs)[: request.limit]
        samples = [
            answering.unscored_sample(index, doc, WORD * longest, doc["prompt"])
            for index, doc in enumerate(docs)
        ]
        estimates += [
            CostEstimate(spec.name, len(docs), scorer.name, scorer.cost(samples))
            for scorer in make_scorers(spec, request, needs_key=False)
        ] or [CostEstimate(spec.name, len(docs), "none", Cost(0, 0, dollars=0.0))]
    return estimates
