"""The real commands in processes of their own, on a tiny random composite: stock lm_eval, and kill -9."""

import json
import socket
from pathlib import Path

import pytest

from rba_bench.evaluation.records import read_record, read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.files import read_jsonl
from tests.evaluation.conftest import write_task, write_test_set
from tests.programs import Program


def test_stock_lm_eval_gives_the_scores_of_the_runner(tmp_path, tiny_composite_dir):
    tasks = [write_task(tmp_path, "covost2"), write_task(tmp_path, "triviaqa", sampled=True)]
    stock = Program(
        *("-m", "lm_eval", "--model", "rba-speechlm", "--model_args", f"pretrained={tiny_composite_dir}"),
        *("--tasks", ",".join(map(str, tasks)), "--log_samples", "--output_path", str(tmp_path / "stock")),
    )
    records = evaluate(
        EvalRequest(tuple(map(str, tasks)), str(tiny_composite_dir), out=tmp_path / "out", device="cpu")
    )
    assert "±" in stock.output()
    [file] = (tmp_path / "stock").glob("*/results_*.json")
    results = json.loads(file.read_text())["results"]
    for record in records:
        for name, metric in record.metrics.items():
            assert results[record.task][f"{name},none"] == pytest.approx(metric.value, abs=1e-9)
            assert results[record.task][f"{name}_stderr,none"] == pytest.approx(metric.stderr, abs=1e-9)
        [log] = (tmp_path / "stock").glob(f"*/samples_{record.task}_*.jsonl")
        theirs = {line["doc_id"]: line["resps"][0][0] for line in read_jsonl(log)}
        ours = read_samples(tmp_path / "out" / tiny_composite_dir.name / record.run_id)
        assert theirs == {sample.doc_id: sample.extracted for sample in ours} and any(theirs.values())


@pytest.mark.slow
def test_two_ranks_share_the_items(tmp_path):
    """Under torchrun's environment each rank answers its share; one record comes out, here and from stock lm_eval."""
    task = str(write_task(tmp_path, "covost2"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = ("rba_bench", "eval", "--task", task, "--model", "constant", "--track", "micro")
    ours += ("--out", str(tmp_path / "two"))
    stock = ("lm_eval", "--model", "rba-speechlm", "--model_args", "pretrained=constant", "--tasks", task)
    stock += ("--output_path", str(tmp_path / "stock"))
    for offset, line in enumerate((ours, stock)):
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port + offset)}
        ranks = [Program("-m", *line, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in (0, 1)]
        said = [rank.output() for rank in ranks]
        if line is ours:
            assert "tiny_covost2" in said[0] and said[1] == "", "the first process speaks for all"
    [alone] = evaluate(EvalRequest((task,), "constant", out=tmp_path / "one", device="cpu"))
    [folder] = {file.parent for file in (tmp_path / "two").glob("*/*/run.json")}
    names = ["run.json", "samples.jsonl", "timing.rank-0.jsonl", "timing.rank-1.jsonl"]
    assert [file.name for file in sorted(folder.iterdir())] == names
    record = read_record(folder)
    [single] = (tmp_path / "one").glob("*/*/samples.jsonl")
    assert (folder / "samples.jsonl").read_bytes() == single.read_bytes()
    assert record.metrics == alone.metrics and record.run_id == alone.run_id and record.n == 10
    [file] = (tmp_path / "stock").glob("*/results_*.json")
    bleu = json.loads(file.read_text())["results"]["tiny_covost2"]["bleu,none"]
    assert bleu == pytest.approx(alone.metrics["bleu"].value)


def test_kill_9_then_the_same_command_loses_and_repeats_nothing(tmp_path, tiny_composite_dir):
    short = {"protocol": "sampled", "do_sample": True, "max_gen_toks": 8, "until": []}
    task = write_task(tmp_path, "covost2", sampled=True, generation_kwargs=short)
    write_test_set(tmp_path / "data" / "covost2", "covost2", voices=12)
    out = tmp_path / "out"
    line = ("-m", "rba_bench", "eval", "--task", str(task), "--model", str(tiny_composite_dir))
    line += ("--track", "micro", "--batch-size", "2", "--out", str(out))
    kept = _kill_in_the_middle(Program(*line), out)
    Program(*line).output()
    [folder] = {file.parent for file in out.glob("*/*/run.json")}
    lines = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    assert set(kept.splitlines(keepends=True)) <= set(lines) and len(lines) == 60
    whole = EvalRequest(
        (str(task),), str(tiny_composite_dir), out=tmp_path / "whole", batch_size=2, device="cpu"
    )
    [expected] = evaluate(whole)
    record = read_record(folder)
    without_time = {"timing", "samples_sha256", "created", "hardware"}
    assert record.model_dump(exclude=without_time) == expected.model_dump(exclude=without_time)
    answers = [sample.response for sample in read_samples(folder)]
    assert answers == [s.response for s in read_samples(tmp_path / "whole" / folder.relative_to(out))]


def _kill_in_the_middle(program: Program, out: Path) -> bytes:
    """Kill once some but not all answers are on disk; returns the whole lines that were there."""
    program.wait_for(lambda: any(file.stat().st_size for file in out.glob("*/*/samples.jsonl")))
    program.kill()
    [file] = out.glob("*/*/samples.jsonl")
    data = file.read_bytes()
    kept = data[: data.rfind(b"\n") + 1]
    assert 0 < kept.count(b"\n") < 60 and not file.with_name("run.json").exists()
    return kept
