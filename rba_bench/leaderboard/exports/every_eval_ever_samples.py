"""Samples of a run as instance-level rows of Every Eval Ever 0.3: one row for each item and score that it has."""

from collections.abc import Iterator
from typing import Any

from rba_bench.evaluation.records import MetricValue, Sample
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.exports.origin import task_title
from rba_bench.leaderboard.loaded_runs import LoadedRun, summable_rows
from rba_bench.metrics.aggregate import score_function

Json = dict[str, Any]
BEST = 1e-9  # share of the scale by which a score may miss the best possible one


def sample_rows(run: LoadedRun, group: BoardGroup, keys: Json) -> list[Json]:
    """Rows in the order of the test set.

    The schema asks for one row per aggregate result that a sample contributes to. An item without any score (clip not
    decoded, no reply, judge failed) has one row that belongs to no result and gives the reason as its error.

    Args:
        run: The run.
        group: Its group.
        keys: What all rows have: schema version and the ids of evaluation and model.
    """
    return [{**keys, **row} for sample in run.samples for row in _rows_of(run, sample, task_title(group))]


def _rows_of(run: LoadedRun, sample: Sample, title: str) -> Iterator[Json]:
    item = _item(sample)
    scored = [(name, value) for name, value in run.record.metrics.items() if name in sample.scores]
    for name, value in scored:
        score = _item_score(sample, name, value)
        best = value.scale if value.higher_is_better else 0.0
        is_best = score >= best - BEST * value.scale if value.higher_is_better else score <= best
        yield {
            "evaluation_name": title,
            "evaluation_result_id": f"{run.record.task}.{name}",
            **item,
            "evaluation": {"score": score, "is_correct": is_best},
        }
    if not scored:
        unscored = {"evaluation": {"score": 0.0, "is_correct": False}}
        yield {"evaluation_name": title, **item, **unscored, "error": _error(sample) or "it has no score"}


def _item(sample: Sample) -> Json:
    text = "\n\n".join(part for part in (sample.prompt, sample.instruction) if part)
    reasoning = {"reasoning_trace": [sample.reasoning]} if sample.reasoning else {}
    error = {"error": _error(sample)} if sample.status != "ok" else {}
    return {
        "sample_id": sample.id,
        "sample_hash": sha256_bytes((text + "".join(sample.references)).encode()),
        "interaction_type": "single_turn",
        "input": {"raw": text, "reference": sample.references},
        "output": {"raw": [sample.response], **reasoning},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": sample.extracted,
                "extraction_method": "custom",
                "is_terminal": True,
            }
        ],
        **error,
        "metadata": {
            "audio_sha256": sample.audio_sha256,
            "duration_s": str(sample.duration),
            "spoken": sample.instruction,
            "prompt": sample.prompt,
            "group": sample.group,
            "cluster": sample.cluster,
            "status": sample.status,
            "output_tokens": str(sample.n_tokens),
        },
    }


def _error(sample: Sample) -> str:
    return f"{sample.status}: {sample.error}" if sample.error else sample.status


def _item_score(sample: Sample, name: str, value: MetricValue) -> float:
    """The score of one item alone: of a corpus metric, what its own statistics give."""
    [row] = summable_rows([sample.scores[name]], value.aggregation)
    return float(score_function(value.aggregation)(row.tolist()))
