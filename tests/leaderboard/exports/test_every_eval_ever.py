"""Logs and samples pass the validator of the package `every-eval-ever`, and say what the record says."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation.metric import METRICS
from rba_bench.evaluation.records import read_record
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.leaderboard.exports import every_eval_ever
from rba_bench.leaderboard.exports.origin import Origin
from rba_bench.leaderboard.loaded_runs import load_checked_run
from tests.leaderboard.exports.given import HOSTILE, groups_of, invented, record_of

validation = pytest.importorskip(
    "every_eval_ever.validator.validation_core", reason="installed by `make setup`"
)
schema = pytest.importorskip("every_eval_ever.schema")
LAB = Origin("Some lab", "first_party", "https://example.org/records")


def written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def check(folder: Path, paths: list[Path]) -> None:
    """The package's own validator: schema, paths, aggregate against samples; and the JSON schemas themselves."""
    available = {path.relative_to(folder).as_posix() for path in paths}
    assert len(available) >= 2
    for path in paths:
        report = validation.validate_file(
            path,
            repo_path=path.relative_to(folder).as_posix(),
            available_files=available,
            read_repo_file=lambda name: (folder / name).read_text(encoding="utf-8"),
            run_semantic_checks=True,
        )
        assert report.valid and not report.errors and not report.warnings, (report.errors, report.warnings)
        name = "eval.schema.json" if path.suffix == ".json" else "instance_level_eval.schema.json"
        rows = [path.read_text(encoding="utf-8")] if path.suffix == ".json" else path.read_text().splitlines()
        for row in rows:
            jsonschema.validate(json.loads(row), schema.schema_json(name))


def log_of(paths: list[Path]) -> dict[str, Any]:
    return json.loads(next(path for path in paths if path.suffix == ".json").read_text())


def rows_of(paths: list[Path]) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in next(p for p in paths if p.suffix == ".jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("task", ["micro_triviaqa", "micro_covost2_sampled"])
def test_a_published_record_is_valid_and_says_the_same(tmp_path, task, capsys):
    folder, out = record_of("base", task), tmp_path / "out"
    words = ["leaderboard", "export", str(folder), "--format", "every-eval-ever", "--out", str(out), "--json"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--organization", "Some lab", "--relationship", "first_party"])
    assert end.value.code == 0
    paths = [Path(name) for name in json.loads(capsys.readouterr().out)["files"]]
    check(out, paths)
    record, log, rows = read_record(folder), log_of(paths), rows_of(paths)
    assert {path.parent for path in paths} == {out / "data" / task / "local" / "base"}
    named = [result["metric_config"]["metric_name"] for result in log["evaluation_results"]]
    assert sorted(named) == sorted(record.metrics)
    for result in log["evaluation_results"]:
        value = record.metrics[result["metric_config"]["metric_name"]]
        details = result["score_details"]
        interval = details["uncertainty"]["confidence_interval"]
        assert details["score"] == pytest.approx(value.value, rel=1e-9)
        assert (interval["lower"], interval["upper"]) == pytest.approx((value.low, value.high), rel=1e-9)
        assert details["uncertainty"]["num_samples"] == value.n
        assert result["metric_config"]["lower_is_better"] is not value.higher_is_better
        joined = [row for row in rows if row["evaluation_result_id"] == result["evaluation_result_id"]]
        assert len(joined) == value.n
        if value.aggregation == "mean" and not value.macro:
            assert sum(row["evaluation"]["score"] for row in joined) / value.n == pytest.approx(value.value)
    assert log["source_metadata"]["source_organization_name"] == "Some lab"
    samples = load_checked_run(folder).samples
    assert [row["output"]["raw"] for row in rows[:: len(record.metrics)]] == [[s.response] for s in samples]
    before = {path: path.read_bytes() for path in paths}
    every_eval_ever_again = every_eval_ever.export_every_eval_ever(
        groups_of(folder), Origin("Some lab", "first_party")
    )
    assert {out / name: content for name, content in every_eval_ever_again.files.items()} == before


@pytest.mark.parametrize("name", [*HOSTILE, "data", "Unknown"])
def test_no_name_leaves_its_folder_or_breaks_a_line(tmp_path, name):
    folder = invented(tmp_path / "runs", name)
    made = every_eval_ever.export_every_eval_ever(groups_of(folder), LAB)
    paths = written(tmp_path / "out", made.files)
    check(tmp_path / "out", paths)
    assert all(path.resolve().is_relative_to((tmp_path / "out" / "data").resolve()) for path in paths)
    text = paths[0].read_text(encoding="utf-8")
    assert not [letter for letter in "\x1b\u202e\u2028\x85\x00" if letter in text]
    assert rows_of(paths)[0]["output"]["raw"] == ["a\u2028b\x85\x00\x1b<c>"]  # answers stay what they were


def test_an_item_without_a_score_belongs_to_no_result_and_gives_its_reason(tmp_path):
    made = every_eval_ever.export_every_eval_ever(groups_of(invented(tmp_path / "runs")), LAB)
    rows = rows_of(written(tmp_path / "out", made.files))
    assert len(rows) == 11 * 2 + 1
    [row] = [row for row in rows if row["sample_id"] == "item-1"]
    assert "evaluation_result_id" not in row and row["error"] == "no_reply: HTTP 503"


def test_a_model_of_the_hub_keeps_its_id_and_its_folder(tmp_path):
    model = {"spec": "Qwen/Qwen2-Audio-7B-Instruct", "revision": "a" * 40, "kind": "transformers"}
    made = every_eval_ever.export_every_eval_ever(groups_of(invented(tmp_path / "runs", model=model)), LAB)
    paths = written(tmp_path / "out", made.files)
    check(tmp_path / "out", paths)
    log = log_of(paths)
    assert log["model_info"]["id"] == "Qwen/Qwen2-Audio-7B-Instruct"
    assert paths[0].parent.parts[-2:] == ("Qwen", "Qwen2-Audio-7B-Instruct")
    assert log["model_info"]["additional_details"]["model_availability"] == "open_weights"
    source = log["evaluation_results"][0]["source_data"]
    assert (source["source_type"], source["hf_repo"]) == ("hf_dataset", "owner/spoken-questions")


def test_a_judge_is_named_with_its_prompt(tmp_path):
    samples_scored_by_a_judge = {"protocol_spec": {
        "task": "t",
        "finish": [{
            "name": "yesno", "judge": {"model": "gpt-x"}, "decoding": {"temperature": 0.0},
            "prompt": judge_prompts.prompt_fingerprint(judge_prompts.VERIFY),
        }],
    }}  # fmt: skip
    folder = invented(tmp_path / "runs", **samples_scored_by_a_judge)
    group = groups_of(folder)[0]
    config = every_eval_ever._llm_scoring(group.record, "judge_accuracy")["llm_scoring"]
    assert (
        config["judges"][0]["model_info"]["name"] == "gpt-x"
        and config["input_prompt"] == judge_prompts.VERIFY
    )
    assert every_eval_ever._llm_scoring(group.record, "alias_match") == {}
    group.record.protocol_spec["finish"][0]["prompt"] = {"version": 0}
    other = every_eval_ever._llm_scoring(group.record, "judge_accuracy")["llm_scoring"]["input_prompt"]
    assert other.startswith("not of this version")


def test_every_metric_has_bounds():
    assert {metric.unit for metric in METRICS} == every_eval_ever.BOUNDS.keys()


def test_who_evaluated_must_be_said(tmp_path):
    with pytest.raises(UserError, match="add --organization NAME"):
        every_eval_ever.export_every_eval_ever(groups_of(invented(tmp_path)), Origin())
