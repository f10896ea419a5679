"""Scores and answers in the format of Every Eval Ever 0.3: one log a run, with all its samples beside it.

The schema: https://github.com/evaleval/every_eval_ever and the package `every-eval-ever` on PyPI. Paths are those of
its datastore: `data/<task>/<owner of the model>/<model>/<uuid>.json`, and `<uuid>_samples.jsonl`. The uuid follows from
the record, so that the same record always gets the same name.
"""

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.metric import METRICS, metrics_of
from rba_bench.evaluation.records import MetricValue, RunRecord
from rba_bench.evaluation.scorers.registry import JUDGES, SCORERS
from rba_bench.files import canonical_json, folder_name, sha256_bytes
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.exports.every_eval_ever_samples import sample_rows
from rba_bench.leaderboard.exports.origin import ExportedFiles, Origin, hub_id, runs_by_model, task_title
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.provenance import provenance_of
from rba_bench.leaderboard.tables import LONGEST, json_text, rounded
from rba_bench.metrics.bootstrap import RESAMPLES
from rba_bench.metrics.interval import LEVEL
from rba_bench.untrusted import json_safe, plain

SCHEMA_VERSION = "0.3.0"
RESERVED = ("data", "unknown")  # no names of models in the datastore
LOCAL = "local"  # owner of a model that is not on the Hub, as its record names none
# Lowest and highest score of a metric, by its unit in the table of metrics; the schema writes infinity as a text
BOUNDS: dict[str, tuple[float, float | str]] = {
    "0 to 1": (0.0, 1.0), "0 to 100": (0.0, 100.0), "0 or more": (0.0, "Infinity"), "1 to 5": (1.0, 5.0),
    "-1 to 1": (-1.0, 1.0),
}  # fmt: skip

Json = dict[str, Any]


def export_every_eval_ever(groups: Sequence[BoardGroup], origin: Origin) -> ExportedFiles:
    """An aggregate log and its samples for each run.

    Args:
        groups: The runs.
        origin: The format asks who evaluated.

    Raises:
        UserError: no organization is named.
    """
    if not origin.organization:
        raise UserError("every-eval-ever says who evaluated: add --organization NAME")
    files: dict[str, bytes] = {}
    for members in runs_by_model(groups).values():
        for group, run in members:
            model_id, owner = _identity(run)
            folder = f"data/{folder_name(run.record.task)}/{owner}/{model_id.rpartition('/')[2]}"
            name = _uuid(run)
            log = _log(group, run, origin)
            rows = sample_rows(run, group, {
                "schema_version": SCHEMA_VERSION,
                "evaluation_id": log["evaluation_id"],
                "model_id": model_id,
            })  # fmt: skip
            lines = "".join(json_safe(json.dumps(rounded(row), ensure_ascii=False)) + "\n" for row in rows)
            samples = lines.encode()
            path = f"{folder}/{name}_samples.jsonl"
            log["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": path,
                "hash_algorithm": "sha256",
                "checksum": sha256_bytes(samples),
                "total_rows": len(rows),
            }
            files[path] = samples
            files[f"{folder}/{name}.json"] = json_text(rounded(log)).encode()
    return ExportedFiles(files)


def _uuid(run: LoadedRun) -> str:
    """A version 4 UUID whose bits are those of a hash of the record."""
    return str(uuid.UUID(sha256_bytes(run.record_bytes)[:32], version=4))


def _identity(run: LoadedRun) -> tuple[str, str]:
    """Id of the model, and the owner that its path has: the Hub's, or a flat id and `local`."""
    model = run.record.model
    spec = hub_id(model["spec"]) if model.get("revision") else ""
    if spec:
        owner, _, name = spec.partition("/")
        return f"{owner}/{name}", owner
    name = folder_name(str(model["name"]))
    return f"{name}-model" if name.lower() in RESERVED else name, LOCAL


def _log(group: BoardGroup, run: LoadedRun, origin: Origin) -> Json:
    record = run.record
    model_id, owner = _identity(run)
    moment = str(int(datetime.fromisoformat(record.created).timestamp()))
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{record.task}/{model_id}/{moment}-{record.run_id}",
        "evaluation_timestamp": moment,
        "retrieved_timestamp": moment,
        "source_metadata": {
            "source_name": "rba-bench run record",
            "source_type": "evaluation_run",
            "source_organization_name": plain(origin.organization),
            **({"source_organization_url": origin.url} if origin.url else {}),
            "evaluator_relationship": origin.relationship,
            "additional_details": {
                "run_id": record.run_id,
                "samples_sha256": record.samples_sha256,
                **({"provenance": provenance} if (provenance := provenance_of(run).summary) else {}),
                **({"micro_track": MICRO.replace("**", "")} if record.track == "micro" else {}),
            },
        },
        "eval_library": {
            "name": "rba-bench",
            "version": plain(record.versions.get("rba-bench", "unknown")),
            "additional_details": {
                plain(k): plain(v) for k, v in record.versions.items() if k != "rba-bench"
            },
        },
        "model_info": {
            "name": run.name,
            "id": model_id,
            **({} if "/" in model_id else {"developer": owner}),
            "additional_details": _model_details(record),
        },
        "evaluation_results": [_result(group, run, name) for name in record.metrics],
    }


def _model_details(record: RunRecord) -> Json:
    model = record.model
    facts = ("kind", "spec", "weights_sha256", "setup_sha256", "revision", "n_parameters", "dtype")
    served = model.get("kind") == "endpoint"
    return {
        "deployment_type": "externally_managed" if served else "self_deployed",
        "model_availability": "open_weights" if model.get("revision") else "unknown",
        **{name: plain(model[name]) for name in facts if model.get(name) is not None},
    }


def _result(group: BoardGroup, run: LoadedRun, name: str) -> Json:
    record = run.record
    value = record.metrics[name]
    statuses = {f"n_{status}": str(count) for status, count in record.statuses.items()}
    return {
        "evaluation_result_id": f"{record.task}.{name}",
        "evaluation_name": task_title(group),
        "evaluation_timestamp": str(int(datetime.fromisoformat(record.created).timestamp())),
        "source_data": _source_data(record),
        "metric_config": _metric_config(record, name, value),
        "score_details": {
            "score": value.value,
            "details": {"n_missing": str(value.n_missing), **statuses},
            "uncertainty": {
                "standard_error": {"value": value.stderr, "method": plain(value.method, LONGEST)},
                "confidence_interval": {
                    "lower": value.low,
                    "upper": value.high,
                    "confidence_level": LEVEL,
                    "method": plain(value.method, LONGEST),
                },
                "num_samples": value.n,
                **({"num_bootstrap_samples": RESAMPLES} if "resamples" in value.method else {}),
            },
        },
        "generation_config": _generation_config(record),
    }


def _source_data(record: RunRecord) -> Json:
    data = record.data
    details = {plain(key): plain(value, LONGEST) for key, value in data.items() if value is not None}
    repo = hub_id(data.get("repo"))
    if not repo:
        return {"dataset_name": record.task, "source_type": "other", "additional_details": details}
    return {
        "dataset_name": record.task,
        "source_type": "hf_dataset",
        "hf_repo": repo,
        "samples_number": data["n_items"],
        "additional_details": details,
    }


def _metric_config(record: RunRecord, name: str, value: MetricValue) -> Json:
    metric = next((each for each in METRICS if (each.name, each.scale) == (name, value.scale)), None)
    bounds = BOUNDS.get(metric.unit) if metric else None
    config: Json = {
        "evaluation_description": metric.description if metric else name,
        "metric_id": f"rba-bench.{name}",
        "metric_name": name,
        "metric_unit": "proportion" if value.scale == 1 else "points",
        "lower_is_better": not value.higher_is_better,
        "additional_details": {
            "signature": plain(value.signature, LONGEST),
            "aggregation": plain(value.aggregation),
            "macro": str(value.macro).lower(),
            "protocol_sha256": record.protocol_hash,
        },
    }
    if bounds:
        config |= {"score_type": "continuous", "min_score": bounds[0], "max_score": bounds[1]}
    return config | _llm_scoring(record, name)


def _llm_scoring(record: RunRecord, metric: str) -> Json:
    """The judge behind a metric, with its prompt where it is the one of this version; {} for other metrics."""
    for entry in record.protocol_spec.get("finish") or []:
        scorer, _, against = str(entry.get("name")).partition(VERSUS)
        name, _, opponent = metric.partition(VERSUS)
        if (
            scorer not in JUDGES
            or against != opponent
            or name not in {each.name for each in metrics_of(scorer)}
        ):
            continue
        judge, decoding = entry.get("judge") or {}, entry.get("decoding") or {}
        judge_name = plain(
            judge.get("name") or judge.get("model") or judge.get("weights_sha256") or "unknown"
        )
        temperature = decoding.get("temperature")
        is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        return {
            "llm_scoring": {
                "judges": [{
                    "model_info": {
                        "name": judge_name,
                        "id": judge_name,
                        "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"},
                    },
                    **({"temperature": temperature} if is_number else {}),
                }],
                "input_prompt": _judge_prompt(scorer, entry.get("prompt")),
            }
        }  # fmt: skip
    return {}


def _judge_prompt(scorer: str, fingerprint: Any) -> str:
    from rba_bench.evaluation.scorers.judge_prompts import prompt_fingerprint

    templates = getattr(SCORERS[scorer], "templates", ())
    if fingerprint == prompt_fingerprint(*templates):
        return "\n\n".join(templates)
    return f"not of this version of rba-bench: {plain(canonical_json(fingerprint).decode())}"


def _generation_config(record: RunRecord) -> Json:
    decoding = record.decoding
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}
    numbers = {key: value for key, value in decoding.items() if isinstance(value, int | float)}
    return {
        "generation_args": {ours: numbers[key] for key, ours in names.items() if key in numbers},
        "additional_details": {
            "protocol": record.protocol,
            "decoding": plain(canonical_json(decoding).decode(), LONGEST),
            "seed": str(record.seeds.get("generation")),
        },
    }
