"""The functions that the task YAMLs name (`!function rba_bench.evaluation.hooks.<name>`), and nothing else.

Importing this module makes lm-eval know the model `rba-speechlm`: a task given to stock `lm_eval` as a YAML *path*
resolves its functions before the model is looked up, so no plug-in mechanism is needed.

Of every metric of `rba_bench.evaluation.metric` there are two aggregations: `<metric>` (`chrf` for chrF++) gives the
score, and `<metric>_stderr` its standard error, which lm-eval cannot compute for custom aggregations and prints as a
companion metric of that name. `mean` and `mean_stderr` are those of plain means. The value of an item is
`{"row", "group", "cluster"}` where the item alone decides its score, and the whole answer where a scorer of
`metadata.finish` does: the aggregation then runs the scorer over all answers at once. Under stock `lm_eval` the judge
is the model that the environment variable RBA_JUDGE names; without it, or with `none`, judged metrics are left out.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import answering, documents, harness, scoring
from rba_bench.evaluation.metric import METRICS, metric_named
from rba_bench.evaluation.scorers.registry import JUDGES, NO_JUDGE, make_scorer, scorer_class
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.evaluation.sources import source as sources
from rba_bench.files import cache_dir
from rba_bench.textlm.replies import answer_of

harness.register()

# What lm-eval hands over beside `dataset_kwargs`: the task's metadata and the model's arguments
METADATA_KEYS = (
    "version", "benchmark", "track", "variant", "judge", "model", "pretrained", "batch_size", "max_batch_size",
    "device", "config_source", "batch_seconds", "perturb", "audio_control", "true_length", "encoder_cache",
    "trust_remote_code", "language", "template",
)  # fmt: skip
JUDGE_VARIABLE = "RBA_JUDGE"
ROWS_AT_ONCE = 1000

Items = Sequence[Mapping[str, Any]]


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
        testset: Name of a micro test set, see `documents.load_documents`.
        data: Parquet file of the same columns.
        source: Key of `rba_bench.evaluation.sources.source.SOURCES`; the other `dataset_kwargs` are its options.
        data_dir: Folder with local copies of data sets (`lm_eval --metadata '{"data_dir": ...}'`).
        baseline: File or run folder with answers to beat.
        finish: Entries of the task's scorers; every document carries them to its aggregation.
        options: Of the source.
    """
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo

    if source is None:
        docs, origin = documents.load_documents(testset, data), {"source": testset or "local"}
    else:
        own_options = {name: value for name, value in options.items() if name not in METADATA_KEYS}
        loaded = sources.load_source(source, own_options, sources.Place.of(data_dir, baseline=baseline))
        docs, origin = loaded.documents, {"source": source, **loaded.origin}
    configs = [dict(config) for config in finish]
    if _judge() != NO_JUDGE:  # the files that scorers need are looked for once, not for every document
        chosen = ScorerOptions(cache_dir() / "votes", data_dir=Path(data_dir) if data_dir else None)
        configs = [scorer_class(config).resolve_config(config, chosen) for config in configs]
    pieces, finish_text = [], json.dumps(configs)
    while docs:  # taken out of `docs` piece by piece: documents and table are never both held whole
        pieces.append(pa.Table.from_pylist([{**doc, "finish": finish_text} for doc in docs[:ROWS_AT_ONCE]]))
        del docs[:ROWS_AT_ONCE]
    about = DatasetInfo(description=json.dumps(origin, ensure_ascii=False))
    table = pa.concat_tables(pieces, promote_options="permissive")
    return {documents.SPLIT: Dataset(table, info=about)}


def _judge() -> str:
    return os.environ.get(JUDGE_VARIABLE, NO_JUDGE)


def audio(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """lm-eval's `doc_to_audio`: the clip by reference."""
    return [dict(doc["audio"])]


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval's `process_results` for every kind of item; see `scoring`."""
    values: dict[str, Any] = {}
    response = answer_of(results[0])  # our own model has cut it already
    for name, value in scoring.score_item(doc, response).scores.items():
        item = {"row": value, "group": doc["group"], "cluster": doc["cluster"]}
        values[name] = item if metric_named(name).is_corpus else value
        values[f"{name}_stderr"] = item
    answer = {"doc": dict(doc), "response": response}
    for config in json.loads(doc.get("finish") or "[]"):
        if _judge() != NO_JUDGE or config["name"] not in JUDGES:
            for name in _added_metrics(config):
                values[name] = values[f"{name}_stderr"] = answer
    return values


def _added_metrics(config: Mapping[str, Any]) -> tuple[str, ...]:
    return scorer_class(config).metric_names(config, ScorerOptions(cache=Path()))


def _columns(name: str, items: Items) -> tuple[list[Any], list[str], list[str]]:
    """Scores, groups and clusters of the items that have a score; every vote is cached, so asking twice costs once."""
    if "row" in items[0]:
        return [i["row"] for i in items], [i["group"] for i in items], [i["cluster"] for i in items]
    samples = [
        answering.unscored_sample(index, item["doc"], item["response"], item["doc"]["prompt"])
        for index, item in enumerate(items)
    ]
    configs = json.loads(items[0]["doc"]["finish"])
    config = next(config for config in configs if name in _added_metrics(config))
    options = ScorerOptions(cache=cache_dir() / "votes", judge=os.environ.get(JUDGE_VARIABLE))
    item_scores = make_scorer(config, options).score(samples)
    rows = [
        (item.scores[name], sample.group, sample.cluster)
        for sample, item in zip(samples, item_scores, strict=True)
        if name in item.scores
    ]
    if not rows:
        raise UserError(f"the judge gave no {name} at all: {item_scores[0].failure}")
    scores, groups, clusters = zip(*rows, strict=True)
    return list(scores), list(groups), list(clusters)


def _value_of(name: str) -> Callable[[Items], float]:
    def aggregate(items: Items) -> float:
        scores, groups, _ = _columns(name, items)
        return scoring.metric_value(metric_named(name), scores, groups)

    return aggregate


def _stderr_of(name: str) -> Callable[[Items], float]:
    def aggregate(items: Items) -> float:
        return scoring.metric_interval(metric_named(name), *_columns(name, items))[1]

    return aggregate


def mean(values: Sequence[float]) -> float:
    """Mean of per-item scores."""
    return sum(values) / len(values)


mean_stderr = _stderr_of("mean")
for _name in dict.fromkeys(metric.name for metric in METRICS):
    globals()[_name.rstrip("+")] = _value_of(_name)
    globals()[f"{_name.rstrip('+')}_stderr"] = _stderr_of(_name)
