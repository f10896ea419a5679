"""The public tasks as shipped, on local copies: stock lm_eval and `rba-bench eval` read the same YAML."""

import csv
import json
import os
import subprocess
import sys

import pytest

from rba_bench.errors import MissingPrerequisite
from rba_bench.evaluation import task_registry
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.records import read_samples
from rba_bench.evaluation.runner import evaluate
from rba_bench.speechlm.reference_models import CONSTANT
from tests.evaluation.sources import test_spoken_alpaca as spoken_alpaca
from tests.evaluation.sources import test_topics as topics
from tests.evaluation.sources.speech import audio_cell, encoded, write_parquet

PROMPTS = ("Name a river in Europe.", "Why is the sky blue?", "Write a line about rain.")


@pytest.fixture
def data_dir(tmp_path):
    """Llama Questions of OpenAudioBench, and VoiceBench's smaller AlpacaEval, as downloaded."""
    root = tmp_path / "data"
    folder = root / "baichuan-inc" / "OpenAudioBench" / "eval_datas" / "llama_questions"
    (folder / "audios").mkdir(parents=True)
    with open(folder / "llama_questions.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("Questions", "Answer", "audio_filename"))
        for number, answer in enumerate((CONSTANT, "Denali", CONSTANT.split()[-1])):
            writer.writerow((PROMPTS[number], answer, f"llama_questions_{number}.mp3"))
            data = encoded(PROMPTS[number], "MP3")
            (folder / "audios" / f"llama_questions_{number}.mp3").write_bytes(data)
    rows = [{"audio": audio_cell(encoded(p), f"{n}.wav"), "prompt": p} for n, p in enumerate(PROMPTS)]
    write_parquet(root / "hlt-lab" / "voicebench" / "alpacaeval" / "test-00000-of-00001.parquet", rows)
    return root


def run(tmp_path, task, data_dir, **options):
    [record] = evaluate(
        EvalRequest(
            tasks=(task,),
            model="constant",
            track="full",
            out=tmp_path / "runs",
            data_dir=data_dir,
            judge="none",
            **options,
        )
    )
    return record, tmp_path / "runs" / "constant" / record.run_id


def stock(tmp_path, tasks, data_dir, **environment):
    """What `lm_eval --model rba-speechlm --tasks <paths>` leaves behind, run in a process of its own."""
    paths = [str(spec.path) for spec in task_registry.list_tasks() if spec.name in tasks]
    out = tmp_path / "stock"
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "rba-speechlm", "--model_args", "pretrained=constant"),
        *("--tasks", ",".join(paths), "--output_path", str(out), "--log_samples"),
    ]
    settings = {"RBA_DATA_DIR": str(data_dir), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [results] = out.rglob("results_*.json")
    return json.loads(results.read_text())["results"], out


@pytest.mark.slow
def test_stock_lm_eval_runs_the_same_files(tmp_path, data_dir):
    """Questions get the runner's scores; free answers are given, and left unjudged where no judge is named."""
    answers = [{"instruction": prompt, "output": "an answer"} for prompt in PROMPTS]
    (data_dir / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(answers))
    record, _ = run(tmp_path, "llama_questions", data_dir)
    tasks = ("llama_questions_openaudiobench", "alpacaeval_199")
    printed, out = stock(tmp_path, tasks, data_dir, RBA_JUDGE="none")
    for name, metric in record.metrics.items():
        assert printed[tasks[0]][f"{name},none"] == pytest.approx(metric.value)
        assert printed[tasks[0]][f"{name}_stderr,none"] == pytest.approx(metric.stderr)
    [log] = out.rglob("samples_alpacaeval_199_*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["doc"]["baseline"] for line in lines] == ["an answer"] * 3
    assert [line["resps"][0][0] for line in lines] == [CONSTANT] * 3


def test_spoken_questions_are_scored_three_ways(tmp_path, data_dir):
    record, folder = run(tmp_path, "llama_questions", data_dir)
    assert {name: (m.value, m.n) for name, m in record.metrics.items()} == {
        "asserted_match": (pytest.approx(1 / 3), 3),
        "exact_match": (pytest.approx(1 / 3), 3),
        "alias_match": (pytest.approx(2 / 3), 3),
    }
    assert record.data["repo"] == "baichuan-inc/OpenAudioBench" and record.data["revision"] == "local"
    assert record.statuses["ok"] == 3 and record.decoding["max_new_tokens"] == 128
    assert [s.instruction for s in read_samples(folder)] == list(PROMPTS)


def test_a_run_becomes_the_baseline_of_the_next(tmp_path, data_dir):
    record, folder = run(tmp_path, "alpacaeval_199", data_dir, baseline="none")
    assert record.metrics == {} and record.statuses["ok"] == 3
    assert record.data["baseline"] == {"name": "none"}
    second, against = run(tmp_path, "alpacaeval_199", data_dir, baseline=str(folder))
    assert second.run_id != record.run_id
    assert second.data["baseline"]["name"] == f"constant ({record.run_id})"
    assert second.data["baseline"]["unmatched"] == 0 and "/" not in second.data["baseline"]["name"]
    assert {s.baseline for s in read_samples(against)} == {CONSTANT}


def test_no_baseline_is_a_prerequisite_that_is_missing(tmp_path, data_dir):
    with pytest.raises(MissingPrerequisite, match="--baseline FILE"):
        run(tmp_path, "alpacaeval_199", data_dir)


def test_the_other_shipped_tasks_run_on_local_copies(tmp_path):
    """Each from its YAML to its record, by the names that the user types."""
    alignment = topics.write_set(tmp_path / "set", topics.rows())
    alpaca = spoken_alpaca.parquet(tmp_path / "alpaca", spoken_alpaca.ROWS)
    chat = {
        "rba_topics": (alignment, "none", 8),
        "rba_topics_vs_teacher": (alignment, None, 8),
        "spoken_alpaca": (alpaca, None, 12),
    }
    for task, (data, baseline, n) in chat.items():
        record, folder = run(tmp_path, task, data, baseline=baseline)
        assert (record.task, record.n, record.metrics) == (task, n, {})
        assert record.decoding["max_new_tokens"] == 512 and record.protocol == "greedy"
        assert all(bool(s.baseline) == (baseline is None) for s in read_samples(folder))
        assert {s.response for s in read_samples(folder)} == {CONSTANT}
