"""`.eval_results` files are read by huggingface_hub's own reader and hold interval, n and protocol."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from rba_bench.errors import UserError
from rba_bench.leaderboard.exports.eval_results import export_eval_results
from rba_bench.leaderboard.exports.origin import Origin
from tests.leaderboard.exports.given import HOSTILE, REPO, groups_of, invented, record_of


def test_a_score_is_an_entry_with_its_data_set_and_its_interval(tmp_path: Path) -> None:
    groups = groups_of(invented(tmp_path, "my-model"))
    made = export_eval_results(groups, Origin("Some lab", "other", "https://example.org/r"))
    [(path, content)] = made.files.items()
    assert path == "my-model/.eval_results/" + path.rpartition("/")[2] and path.endswith(".yaml")
    [entry] = parse_eval_result_entries(yaml.safe_load(content))
    value = groups[0].record.metrics["alias_match"]
    assert (entry.dataset_id, entry.dataset_revision) == ("owner/spoken-questions", "c" * 40)
    assert entry.task_id == "micro_triviaqa_greedy" and entry.value == round(100 * value.value, 1)
    assert entry.date == groups[0].record.created
    assert (entry.source_url, entry.source_name) == ("https://example.org/r", "Some lab")
    low, high = round(100 * value.low, 1), round(100 * value.high, 1)
    assert f"[{low}, {high}], n = 11; 1 items without a score" in entry.notes
    assert groups[0].protocol_hash in entry.notes and "miniature world" in entry.notes


def test_without_an_address_there_is_no_source(tmp_path: Path) -> None:
    made = export_eval_results(groups_of(invented(tmp_path)), Origin("Some lab"))
    [entry] = parse_eval_result_entries(yaml.safe_load(next(iter(made.files.values()))))
    assert entry.source_url is None and entry.source_name is None


def test_a_revision_that_is_no_commit_is_left_out(tmp_path: Path) -> None:
    made = export_eval_results(groups_of(invented(tmp_path, data={**REPO, "revision": "main"})), Origin())
    [entry] = parse_eval_result_entries(yaml.safe_load(next(iter(made.files.values()))))
    assert entry.dataset_revision is None


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leaves_its_folder_or_becomes_yaml(tmp_path: Path, name: str) -> None:
    made = export_eval_results(groups_of(invented(tmp_path, name)), Origin())
    [(path, content)] = made.files.items()
    assert ".." not in path.split("/") and len(path.split("/")) == 3
    [entry] = yaml.safe_load(content)
    assert set(entry) == {"dataset", "value", "date", "notes"}


@pytest.mark.parametrize("repo", ["../../x", "owner", "a/b/c", "own er/x", "", None, 7, "-a/b"])
def test_a_name_that_is_no_repository_is_not_exported(tmp_path: Path, repo: object) -> None:
    with pytest.raises(UserError, match="nothing to export as eval-results: some model on .*not on the Hub"):
        export_eval_results(groups_of(invented(tmp_path, data={**REPO, "repo": repo})), Origin())


def test_references_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    own = invented(tmp_path / "a", "my-model")
    ceiling = invented(tmp_path / "b", "text-llm", model={"spec": "text:llm"})
    made = export_eval_results(groups_of(own, ceiling), Origin())
    assert len(made.files) == 1 and made.left_out == (
        "text-llm on micro_triviaqa_greedy: a reference is no model on the Hub",
    )


def test_every_reason_is_named_where_nothing_is_left(tmp_path: Path) -> None:
    own = invented(tmp_path / "a", "my-model", data={**REPO, "repo": ""})
    ceiling = invented(tmp_path / "b", "a-text-llm", model={"spec": "text:llm"}, data={**REPO, "repo": ""})
    with pytest.raises(UserError, match=r"a-text-llm on .* a reference .*; my-model on .* is not on the Hub"):
        export_eval_results(groups_of(own, ceiling), Origin())


def test_one_score_a_task_and_none_of_changed_clips(tmp_path: Path) -> None:
    old, new = (
        invented(
            tmp_path / day,
            "my-model",
            created=f"2026-11-{day}T10:00:00+00:00",
            seeds={"generation": int(day)},
        )
        for day in ("20", "21")
    )
    noisy = {"task": "t", "perturb": {"text": "noise=0dB"}}
    changed = invented(tmp_path / "n", "my-model", protocol_spec=noisy, protocol_hash="cd" * 32)
    made = export_eval_results(groups_of(old, new, changed), Origin())
    [content] = made.files.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(content))
    assert entry.date.startswith("2026-11-21")
    assert sorted(line.partition(": ")[2] for line in made.left_out) == [
        "a newer run of this task is exported",
        "its clips were changed (noise=0dB), so it is not a score on this benchmark",
    ]


def test_the_micro_track_has_no_data_on_the_hub() -> None:
    with pytest.raises(UserError, match="its test set is not on the Hub"):
        export_eval_results(groups_of(record_of("base", "micro_triviaqa")), Origin())
