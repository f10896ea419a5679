"""Kept scores as if systems had been evaluated."""

from typing import Any

import numpy as np

from rba_bench.study.scores import MetricScores, SystemScores, TaskScores


def system(
    method: str, seed: int, right: np.ndarray, part: str = "steps", words: np.ndarray | None = None
) -> SystemScores:
    """Invented scores: `right` [n] for a mean metric, `words` [n, 10] for BLEU."""
    tasks = {"instruct": _task(MetricScores(**_mean(), rows=[float(value) for value in right]), "valid_rate")}
    if words is not None:
        bleu = {"aggregation": "bleu", "macro": True, "scale": 100.0, "higher_is_better": True}
        tasks["s2tt"] = _task(MetricScores(**bleu, rows=words.astype(int).tolist()), "bleu")
    cost = {
        "steps": 10,
        "wall_time_s": 5.0 + seed,
        "encoding_s": 1.0,
        "answers_sampled": 0,
        "created": "2026-11-22",
    }
    return SystemScores(
        part=part,
        method=method,
        seed=seed,
        cost=cost,
        eval_s=3.0,
        weights=f"{method}{seed}{part}",
        tasks=tasks,
    )


def _mean() -> dict[str, Any]:
    return {"aggregation": "mean", "macro": False, "scale": 1.0, "higher_is_better": True}


def _task(metric: MetricScores, name: str) -> TaskScores:
    n = len(metric.rows)
    return TaskScores(
        version="1",
        protocol="greedy",
        protocol_hash="ab" * 32,
        data_hash="cd" * 32,
        run_id="r",
        created="2026-11-22",
        items="ef" * 32,
        clusters=[index // 2 for index in range(n)],
        groups=[index % 2 for index in range(n)],
        group_names=["a", "b"],
        statuses={"ok": n},
        metrics={name: metric},
    )
