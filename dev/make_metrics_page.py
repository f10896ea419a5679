"""Write `docs/metrics.md` from the table of metrics: `python dev/make_metrics_page.py`.

`tests/evaluation/test_metric.py` compares.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FILE = ROOT / "docs" / "metrics.md"
GIVEN_BY = {
    "instruct": "items of kind `instruct`",
    "qa": "items of kind `qa`",
    "s2tt": "items of kind `s2tt`",
    "asr": "items of kind `asr`",
    "ifeval": "items of kind `ifeval`",
}
TEXT = """# Metrics

This page is written from the table in `rba_bench/evaluation/metric.py`. A metric is computed from each answer alone, by
the kind of the item, or added by a scorer that a task names in `metadata.finish`, after all answers exist. Lower is
better for `wer` and `cer`, higher for all others. A task is ranked by the metric of lowest rank that it has.

| metric | given by | range | rank | meaning |
|---|---|---|--:|---|
{rows}

## Add a metric

1. Write the function in `rba_bench/metrics/`, with tests against hand-computed values.
2. Add a row to `METRICS` in `rba_bench/evaluation/metric.py`: name, item kind, function, one sentence, signature.
3. Name it in the `metric_list` of a task, with `rba_bench.evaluation.hooks.<metric>` as its aggregation
   (`rba_bench.evaluation.hooks.mean` for a plain mean of per-item scores).

Aggregations, rankings, tables and this page follow (`python dev/make_metrics_page.py`). A changed definition needs a
new signature and a new `version` of the tasks that use it.
"""


def page() -> str:
    """The page as it should be."""
    from rba_bench.evaluation.metric import METRICS

    rows = [
        f"| `{metric.name}` | {GIVEN_BY.get(metric.scorer, f'scorer `{metric.scorer}`')} | {metric.unit} | "
        f"{metric.rank or ''} | {metric.description} |"
        for metric in METRICS
    ]
    return TEXT.format(rows="\n".join(rows))


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
