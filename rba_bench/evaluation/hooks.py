"""The functions that the task YAMLs name (`!function rba_bench.evaluation.hooks.<name>`), and nothing else.

Importing this module makes lm-eval know the model `rba-speechlm`: a task given to stock `lm_eval` as a YAML *path*
resolves its functions before the model is looked up, so no plug-in mechanism is needed.

A corpus metric's value for one item is `{"row", "group", "cluster"}`; lm-eval hands the list of them to the
aggregation. Each metric `m` has a companion `m_stderr`, whose aggregation is a bootstrap: lm-eval has no error for a
custom aggregation, and prints this one in its place.

Judged metrics carry whole answers to their aggregation, where the judge is asked about all of them at once. Under stock
`lm_eval` the judge is the one that the environment variable RBA_JUDGE names; without it, or with `none`, judged metrics
are left out.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import answering, documents, harness, scoring
from rba_bench.evaluation.scorers import registry as finishers
from rba_bench.evaluation.scorers.scorer import FinishOptions
from rba_bench.evaluation.sources import source as sources
from rba_bench.files import cache_dir
from rba_bench.textlm.replies import answer_of

harness.register()

# What lm-eval hands over beside `dataset_kwargs`: the task's metadata and the model's arguments
METADATA_KEYS = (
    "version", "benchmark", "track", "variant", "judge", "model", "pretrained", "batch_size", "max_batch_size",
    "device", "config_source", "batch_seconds", "perturb", "true_length", "encoder_cache", "trust_remote_code",
    "language", "template",
)  # fmt: skip
JUDGE_VARIABLE = "RBA_JUDGE"
ROWS_AT_ONCE = 1000


def load_dataset(
    testset: str | None = None,
    data: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    baseline: str | None = None,
    finish: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> dict[str, Any]:
    """lm-eval's `custom_dataset`: documents without audio; task metadata comes along unused.

    Args:
        testset: Name of a micro test set, see `documents.load`.
        data: Parquet file of the same columns.
        source: Module in `rba_bench.evaluation.sources`; the other `dataset_kwargs` are its options.
        data_dir: Folder with local copies of data sets (`lm_eval --metadata '{"data_dir": ...}'`).
        baseline: File or run folder with answers to beat.
        finish: The task's finishers; every document carries them to its aggregation.
        options: Of the source.
    """
    from datasets import Dataset, DatasetInfo

    chosen = {name: value for name, value in options.items() if name not in METADATA_KEYS}
    if source is None:
        docs, origin = documents.load(testset, data), {"source": testset or "local"}
    else:
        loaded = sources.load(source, chosen, sources.Place.of(data_dir, baseline=baseline))
        docs, origin = loaded.documents, {"source": source, **loaded.origin}
    finish = _settled(finish, data_dir)
    about = DatasetInfo(description=json.dumps(origin, ensure_ascii=False))
    return {documents.SPLIT: Dataset(_table(docs, json.dumps(list(finish))), info=about)}


def _settled(finish: Sequence[Mapping[str, Any]], data_dir: str | None) -> list[dict[str, Any]]:
    """The finishers with their tables found, once for all documents; as they are where no judge will be asked."""
    if not _judging():
        return [dict(config) for config in finish]
    options = FinishOptions(cache=cache_dir() / "votes", data_dir=Path(data_dir) if data_dir else None)
    return [finishers.settled(config, options) for config in finish]


def _judging() -> bool:
    return os.environ.get(JUDGE_VARIABLE, finishers.NO_JUDGE) != finishers.NO_JUDGE


def _table(docs: list[dict[str, Any]], finish: str) -> Any:
    """The documents as an arrow table, made in pieces and taken out of `docs`: both are never held whole."""
    import pyarrow as pa

    pieces = []
    while docs:
        rows = [{**doc, "finish": finish} for doc in docs[:ROWS_AT_ONCE]]
        del docs[:ROWS_AT_ONCE]
        pieces.append(pa.Table.from_pylist(rows))
    return pa.concat_tables(pieces, promote_options="permissive")


def audio(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """lm-eval's `doc_to_audio`: the clip by reference."""
    return [dict(doc["audio"])]


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval's `process_results` for every kind of item; see `scoring`."""
    values: dict[str, Any] = {}
    response = answer_of(results[0])  # of our own model it is the answer already
    for metric, value in scoring.score_item(doc, response).scores.items():
        item = {"row": value, "group": doc["group"], "cluster": doc["cluster"]}
        values[metric] = item if metric in scoring.CORPUS else value
        values[f"{metric}_stderr"] = item
    answer = {"doc": dict(doc), "response": response}
    for metric in _judged_metrics(json.loads(doc.get("finish") or "[]")):
        values[metric] = values[f"{metric}_stderr"] = answer
    return values


def _judged_metrics(finish: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics that finishers will add, without those of judges if no judge is named."""
    judging = _judging()
    wanted = [config for config in finish if judging or config["name"] not in finishers.JUDGES]
    return [metric for config in wanted for metric in finishers.metrics_of(config)]


def mean(values: Sequence[float]) -> float:
    """Mean of per-item scores."""
    return sum(values) / len(values)


def _corpus(metric: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    def aggregate(items: Sequence[Mapping[str, Any]]) -> float:
        rows, groups, _ = _columns(items)
        return scoring.point(scoring.by_name(metric), rows, groups)

    return aggregate


def _error(metric: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    def aggregate(items: Sequence[Mapping[str, Any]]) -> float:
        return scoring.standard_error(scoring.by_name(metric), *_columns(items))

    return aggregate


def _finished(metric: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    def aggregate(items: Sequence[Mapping[str, Any]]) -> float:
        return scoring.point(scoring.by_name(metric), *_finish(metric, items)[:2])

    return aggregate


def _finished_error(metric: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    def aggregate(items: Sequence[Mapping[str, Any]]) -> float:
        return scoring.standard_error(scoring.by_name(metric), *_finish(metric, items))

    return aggregate


def _finish(metric: str, items: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[str], list[str]]:
    """Scores, groups and clusters of the answers that got a score; every vote is kept, so asking twice costs once."""
    samples = [
        answering.unscored(index, item["doc"], item["response"], item["doc"]["prompt"])
        for index, item in enumerate(items)
    ]
    options = FinishOptions(cache=cache_dir() / "votes", judge=os.environ.get(JUDGE_VARIABLE))
    configs = json.loads(items[0]["doc"]["finish"])
    config = next(c for c in configs if metric in finishers.metrics_of(c))
    additions = finishers.make(config, options).finish(samples)
    found = [
        (addition.scores[metric], sample.group, sample.cluster)
        for sample, addition in zip(samples, additions, strict=True)
        if metric in addition.scores
    ]
    if not found:
        raise UserError(f"the judge gave no {metric} at all: {additions[0].failed}")
    scores, groups, clusters = zip(*found, strict=True)
    return list(scores), list(groups), list(clusters)


def _columns(items: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[str], list[str]]:
    return [i["row"] for i in items], [i["group"] for i in items], [i["cluster"] for i in items]


bleu = _corpus("bleu")
chrf = _corpus("chrf++")
bleu_stderr = _error("bleu")
chrf_stderr = _error("chrf++")
mean_stderr = _error("mean")
wer = _corpus("wer")
cer = _corpus("cer")
wer_stderr = _error("wer")
cer_stderr = _error("cer")
win_rate = _finished("win_rate")
lc_win_rate = _finished("lc_win_rate")
rating = _finished("rating")
judge_accuracy = _finished("judge_accuracy")
win_rate_stderr = _finished_error("win_rate")
lc_win_rate_stderr = _finished_error("lc_win_rate")
rating_stderr = _finished_error("rating")
judge_accuracy_stderr = _finished_error("judge_accuracy")
answer_agreement = _finished("answer_agreement")
answer_overlap = _finished("answer_overlap")
answer_cosine = _finished("answer_cosine")
answer_agreement_stderr = _finished_error("answer_agreement")
answer_overlap_stderr = _finished_error("answer_overlap")
answer_cosine_stderr = _finished_error("answer_cosine")
if_rate = _corpus("if_rate")
if_rate_stderr = _error("if_rate")
if_rate_with_cot = _finished("if_rate_with_cot")
if_rate_with_cot_stderr = _finished_error("if_rate_with_cot")
