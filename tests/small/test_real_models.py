"""The tasks of the track small with the real weights: stock lm_eval gives the same scores, a judge's votes are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.records import read_samples
from rba_bench.evaluation.runner import evaluate
from rba_bench.evaluation.task_registry import tasks_dir
from rba_bench.files import read_jsonl
from rba_bench.small.texts import load_items

pytestmark = [pytest.mark.assets, pytest.mark.slow]  # each loads SmolLM2 several times
pytest.importorskip("espeakng_loader")
ITEMS = 4
LLM = "asset:smollm2-135m-instruct"
JUDGED = """
  finish:
    - {name: pairwise, lc: none}
"""


@pytest.fixture(autouse=True)
def weights() -> None:
    if not is_cached(ASSETS["smollm2-135m-instruct"]):
        pytest.skip("fetch it with `rba-bench assets fetch smollm2-135m-instruct`")


def dev_task(folder: Path, name: str, options: str = "", metadata: str = "") -> Path:
    """A shipped task on the development split, which espeak-ng speaks in seconds."""
    file = folder / f"{name}_dev.yaml"
    of = "small_instruct" if "instruct" in name else name
    file.write_text(
        f"include: {tasks_dir() / 'small' / name}.yaml\ntask: {name}_dev\n"
        f"dataset_kwargs: {{source: small, set: {of}, split: dev{options}}}\n"
        f"metadata:\n  version: 1\n  benchmark: small\n  track: custom\n{metadata}"
    )
    return file


def test_stock_lm_eval_gives_the_scores_of_the_runner(tmp_path: Path) -> None:
    task = dev_task(tmp_path, "small_qa")
    command = [
        *(
            sys.executable,
            "-m",
            "lm_eval",
            "--model",
            "rba-speechlm",
            "--model_args",
            f"pretrained=text:{LLM}",
        ),
        *(
            "--tasks",
            str(task),
            "--limit",
            str(ITEMS),
            "--log_samples",
            "--output_path",
            str(tmp_path / "stock"),
        ),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    (record,) = evaluate(
        EvalRequest((str(task),), f"text:{LLM}", out=tmp_path / "out", limit=ITEMS, device="cpu")
    )
    (file,) = (tmp_path / "stock").glob("*/results_*.json")
    results = json.loads(file.read_text())["results"][record.task]
    assert set(record.metrics) == {"asserted_match", "alias_match", "exact_match"}
    for name, metric in record.metrics.items():
        assert results[f"{name},none"] == pytest.approx(metric.value, abs=1e-9)
        assert results[f"{name}_stderr,none"] == pytest.approx(metric.stderr, abs=1e-9)
    (log,) = (tmp_path / "stock").glob("*/samples_*.jsonl")
    theirs = {line["doc_id"]: line["resps"][0][0] for line in read_jsonl(log)}
    (run,) = (tmp_path / "out").glob(f"*/{record.run_id}")
    assert theirs == {sample.doc_id: sample.extracted for sample in read_samples(run)} and all(
        theirs.values()
    )


def test_a_judge_is_read_by_the_probabilities_of_both_orders(tmp_path: Path) -> None:
    task = dev_task(tmp_path, "small_instruct_open", ", judged: true", JUDGED)
    rows = [{"id": item.key, "output": "Bananas."} for item in load_items("small_instruct", "dev")]
    answers = tmp_path / "bananas.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = EvalRequest(
        (str(task),),
        f"text:{LLM}",
        out=tmp_path / "out",
        limit=ITEMS,
        device="cpu",
        judge=LLM,
        baseline=str(answers),
    )
    (record,) = evaluate(request)
    assert 0.0 < record.metrics["win_rate"].value < 1.0
    (run,) = (tmp_path / "out").glob(f"*/{record.run_id}")
    # so small a judge writes something else than a verdict now and then
    judged = [sample for sample in read_samples(run) if "win_rate" in sample.scores]
    assert len(judged) == record.metrics["win_rate"].n > 0
    for sample in judged:
        assert sample.judge["pairwise"]["weighted"] and len(sample.judge["pairwise"]["votes"]) == 2
