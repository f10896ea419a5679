"""Runs of the published board as objects: scores, samples, tables."""

import json
import sys
from pathlib import Path

import pytest

import rba_bench as rba
from tests.published import BOARDS, published_run


@pytest.fixture(scope="module")
def run() -> rba.Run:
    return rba.load_run(published_run("base", "micro_covost2"))


def test_scores_are_those_of_the_record(run: rba.Run) -> None:
    record = json.loads((run.path / "run.json").read_text())
    score, stated = run.results["micro_covost2"]["bleu"], record["metrics"]["bleu"]
    assert (score.value, score.low, score.high, score.n) == tuple(
        stated[name] for name in ("value", "low", "high", "n")
    )
    assert float(score) == stated["value"] and str(score) == "73.14 [67.15, 78.39], n = 120"
    assert run.model == "base" and not run.partial
    assert run.record("micro_covost2")["protocol_hash"] == record["protocol_hash"]
    with pytest.raises(rba.UserError, match="no task 'covost2'; it has micro_covost2"):
        run.record("covost2")


def test_samples_can_be_counted_indexed_and_walked(run: rba.Run) -> None:
    samples = list(run.samples)
    assert len(samples) == len(run.samples) == 120
    assert run.samples[-1] == samples[-1]
    assert samples[0]["task"] == "micro_covost2" and samples[0]["response"] and samples[0]["status"] == "ok"


def test_a_table_of_samples_has_a_column_for_each_metric(run: rba.Run) -> None:
    table = run.samples.to_pandas()
    assert list(table.columns[:2]) == ["task", "doc_id"] and len(table) == 120
    assert {"score.bleu", "score.chrf++", "response", "references"} <= set(table.columns)
    assert not {"scores", "latency_s"} & set(table.columns)
    assert table["score.bleu"][0] == run.samples[0]["scores"]["bleu"]


def test_samples_that_were_changed_are_refused(tmp_path: Path, run: rba.Run) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (copy / "samples.jsonl.gz").unlink()
    lines = [json.dumps({key: value for key, value in s.items() if key != "task"}) for s in run.samples]
    (copy / "samples.jsonl").write_text("\n".join(lines))
    changed = rba.load_run(copy)
    with pytest.raises(rba.UserError, match="hash differs"):
        len(changed.samples)


def test_the_folder_of_a_model_is_one_run() -> None:
    run = rba.load_run(BOARDS / "micro" / "records" / "sft")
    assert len(run.results) == 10 == len(run.paths) and run.path == BOARDS / "micro" / "records" / "sft"
    table = run.to_pandas()
    assert set(table["model"]) == {"sft"} and set(table["task"]) == set(run.results)
    assert table.set_index(["task", "metric"]).loc[("micro_fleurs", "bleu"), "n"] == 120


def test_runs_that_are_no_one_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(rba.UserError, match=r"several models \(base, cascade, .*\): name the folder of one"):
        rba.load_run(BOARDS / "micro" / "records")
    with pytest.raises(rba.UserError, match="no finished run"):
        rba.load_run(tmp_path)


def test_two_runs_of_one_task_are_refused(tmp_path: Path, run: rba.Run) -> None:
    """As two seeds of sampled decoding leave them."""
    for name in ("first", "second"):
        record = run.record("micro_covost2") | {"run_id": name}
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    with pytest.raises(rba.UserError, match="several runs of micro_covost2: name one run folder"):
        rba.load_run(tmp_path)


def test_text_and_html_show_every_score(run: rba.Run) -> None:
    assert run.summary().splitlines()[2].split() == [
        *("micro_covost2", "bleu", "73.14", "67.15", "..", "78.39", "120", "0"),
    ]
    assert "<td>73.14</td>" in run._repr_html_() and "<td>83.78</td>" in run._repr_html_()


def test_html_of_names_is_text() -> None:
    from rba_bench.api import tables

    shown = tables.html_table("<script>", ("<b>",), [("<img src=x>",)])
    assert "<script>" not in shown and "<b></th>" not in shown and "&lt;img src=x&gt;" in shown


def test_without_pandas_the_line_names_it(run: rba.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(rba.MissingPrerequisite, match="tables need pandas: pip install pandas"):
        run.to_pandas()


def test_comparisons_are_those_of_the_command(run: rba.Run, capsys: pytest.CaptureFixture[str]) -> None:
    from rba_bench.cli.main import main

    other = published_run("sft", "micro_covost2")
    compared = rba.compare(run, other)
    with pytest.raises(SystemExit):
        main(["compare", str(run.path), str(other), "--json"])
    assert compared.to_dict() == json.loads(capsys.readouterr().out)
    table = compared.to_pandas().set_index("metric")
    assert table.loc["bleu", "difference"] == pytest.approx(table.loc["bleu", "a"] - table.loc["bleu", "b"])
    assert "65" not in repr(compared) and "micro_covost2 (greedy)" in compared.summary()
    assert "<td>bleu</td>" in compared._repr_html_()


def test_several_runs_are_compared_as_one(run: rba.Run) -> None:
    """A run of two tasks against the folder of another model; what has no partner is told."""
    other = rba.load_run(published_run("base", "micro_fleurs"))
    two = rba.Run([(each.path, record) for each in (run, other) for record in each._records.values()])
    compared = rba.compare(two, BOARDS / "micro" / "records" / "sft")
    assert set(compared.to_pandas()["task"]) == {"micro_covost2", "micro_fleurs"}
    assert any("micro_triviaqa" in reason for reason in compared.left_out)


def test_a_board_is_built_of_runs_and_folders(
    run: rba.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = rba.leaderboard([run, published_run("sft", "micro_covost2")], tmp_path / "board")
    assert capsys.readouterr().out == ""
    table = board.to_pandas().set_index(["model", "metric"])
    assert table.loc[("base", "bleu"), "value"] == pytest.approx(run.results["micro_covost2"]["bleu"].value)
    assert table.loc[("base", "bleu"), "versus_baseline"] < 0
    assert (board.path / "index.md") in board.files
    assert board.summary().startswith("Scores, greedy decoding") and "<td>sft</td>" in board._repr_html_()
