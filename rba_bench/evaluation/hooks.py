"""The functions that the task YAMLs name (`!function rba_bench.evaluation.hooks.<name>`), and nothing else.

Importing this module makes lm-eval know the model `rba-speechlm`: a task given to stock `lm_eval` as a YAML *path*
resolves its functions before the model is looked up, so no plug-in mechanism is needed.

A corpus metric's value for one item is `{"row", "group", "cluster"}`; lm-eval hands the list of them to the
aggregation. Each metric `m` has a companion `m_stderr`, whose aggregation is a bootstrap: lm-eval has no error for a
custom aggregation, and prints this one in its place.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rba_bench.evaluation import documents, harness, scoring
from rba_bench.evaluation.sources import base as sources

harness.register()


METADATA_KEYS = (
    "version",
    "benchmark",
    "track",
    "judge",
    "finish",
    "model",
    "pretrained",
    "batch_size",
    "device",
)


def load_dataset(
    testset: str | None = None,
    data: str | None = None,
    source: str | None = None,
    data_dir: str | None = None,
    baseline: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """lm-eval's `custom_dataset`: documents without audio; task metadata comes along unused.

    Args:
        testset: Name of a micro test set, see `documents.load`.
        data: Parquet file of the same columns.
        source: Module in `rba_bench.evaluation.sources`; the other `dataset_kwargs` are its options.
        data_dir: Folder with local copies of data sets (`lm_eval --metadata '{"data_dir": ...}'`).
        baseline: File or run folder with answers to beat.
        options: Of the source.
    """
    from datasets import Dataset, DatasetInfo

    chosen = {name: value for name, value in options.items() if name not in METADATA_KEYS}
    if source is None:
        docs, origin = documents.load(testset, data), {"source": testset or "local"}
    else:
        loaded = sources.load(source, chosen, sources.Place.of(data_dir, baseline=baseline))
        docs, origin = loaded.documents, {"source": source, **loaded.origin}
    about = DatasetInfo(description=json.dumps(origin, ensure_ascii=False))
    return {documents.SPLIT: Dataset.from_list(docs, info=about)}


def audio(doc: Mapping[str, Any]) -> list[dict[str, Any]]:
    """lm-eval's `doc_to_audio`: the clip by reference."""
    return [dict(doc["audio"])]


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """lm-eval's `process_results` for every kind of item; see `scoring`."""
    values: dict[str, Any] = {}
    for metric, value in scoring.score_item(doc, results[0]).scores.items():
        item = {"row": value, "group": doc["group"], "cluster": doc["cluster"]}
        values[metric] = item if metric in scoring.CORPUS else value
        values[f"{metric}_stderr"] = item
    return values


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
