"""Workflows for submissions: a fork's code never runs with a right to write, and their scripts do what they say."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.leaderboard.given_submission import git, propose, published_run, repository_with, submitted
from tests.workflow_runner import Runner

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"
SUBMISSION, COMMENT = (
    yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    for name in ("submission.yml", "submission-comment.yml")
)
TRIGGERS = True  # YAML 1.1 reads the key `on` as a boolean


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def script(workflow: dict[str, Any], name: str) -> str:
    [step] = [step for step in steps(workflow) if step.get("name") == name]
    return step["run"]


@pytest.mark.parametrize("workflow", [SUBMISSION, COMMENT], ids=["submission", "comment"])
def test_scripts_hold_no_text_of_an_event_and_actions_are_pinned(workflow: dict[str, Any]) -> None:
    assert not [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")]
    uses = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert uses and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in uses)
    checkouts = [step for step in steps(workflow) if "checkout" in step.get("uses", "")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert all("head" not in str(step["with"].get("ref", "")) for step in checkouts)


def test_the_pull_request_itself_may_only_read() -> None:
    assert set(SUBMISSION[TRIGGERS]) == {"pull_request"} and SUBMISSION["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in SUBMISSION["jobs"].values())
    assert "secrets" not in (FOLDER / "submission.yml").read_text()


def test_the_job_that_may_write_runs_no_code_of_anybody() -> None:
    assert set(COMMENT[TRIGGERS]) == {"workflow_run"} and COMMENT["permissions"] == {}
    assert COMMENT[TRIGGERS]["workflow_run"]["workflows"] == [SUBMISSION["name"]]
    rights = {name: job["permissions"] for name, job in COMMENT["jobs"].items()}
    assert rights == {
        "review": {"contents": "read", "pull-requests": "read"},
        "comment": {"pull-requests": "write"},
    }
    [step] = COMMENT["jobs"]["comment"]["steps"]
    assert "uses" not in step and "gh pr comment" in step["run"] and "rba-bench" not in step["run"]
    assert "artifact" not in (FOLDER / "submission-comment.yml").read_text()


def test_the_same_packages_are_installed_before_the_pull_request_is_read() -> None:
    names = [step.get("name") for step in steps(SUBMISSION)]
    assert (
        names.index("Install the base")
        < names.index("Fetch the pull request as data")
        < names.index("Review")
    )
    assert script(SUBMISSION, "Install the base") == script(COMMENT, "Install the default branch")


@pytest.fixture
def rehearse(tmp_path: Path) -> Callable[[Callable[[Path], object]], Runner]:
    """Both workflows, run on a pull request of a fork that a change makes."""
    if shutil.which("git") is None or shutil.which("bash") is None:
        pytest.skip("needs git and bash")

    def rehearsed(
        change: Callable[[Path], object], *, meanwhile: Callable[[Path], object] | None = None
    ) -> Runner:
        project = repository_with(tmp_path / "project", "base", "sft")
        head = git(project, "rev-parse", propose(project, change))
        server = tmp_path / "server.git"
        git(tmp_path, "clone", "-q", "--bare", str(project), str(server))
        git(server, "fetch", "-q", str(project), f"{head}:refs/pull/7/head")
        runner = Runner(tmp_path / "runner", server, 7)
        if meanwhile is not None:
            meanwhile(server)
        runner.run(SUBMISSION)
        assert not runner.comment.exists(), "the workflow that may read alone comments nothing"
        runner.reviewed = runner.codes["Review"]
        runner.run(COMMENT)
        return runner

    return rehearsed


def record(clone: Path, model: str = "rba-group") -> Path:
    """Adds a record as `submit` does."""
    submitted(model)(clone)
    return clone / "leaderboards" / "micro" / "records" / model / published_run(model).name


def tampered(clone: Path) -> None:
    file = record(clone) / "run.json"
    values = json.loads(file.read_text())
    values["metrics"]["asserted_match"]["value"] = 0.99
    file.write_text(json.dumps(values))


def with_code_and_tests(clone: Path) -> None:
    record(clone)
    (clone / "code.py").write_text("raise SystemExit('owned')\n")
    (clone / "tests").mkdir()
    (clone / "tests" / "conftest.py").write_text("raise SystemExit('owned')\n")
    folder = clone / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "submission.yml").write_text("on: push\n")
    for file in (clone / "leaderboards" / "micro" / "records" / "sft").rglob("run.json"):
        file.write_text(file.read_text() + " ")


NAMES = (
    "a b", "a\nb", "$(touch owned)", "`touch owned`", "'; touch owned; '", "--output=owned", "ü 漢字", "a\tb", '"x"',
    "::set-output name=number::1", "EOF",
)  # fmt: skip


def strange_names(clone: Path) -> None:
    records = record(clone).parent.parent
    for name in NAMES:
        folder = records / name / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    (records / os.fsdecode(b"\xff\xfe")).mkdir()
    (records / os.fsdecode(b"\xff\xfe") / "run.json").write_text("{}")


def check_comment(runner: Runner) -> str:
    """What is posted is what the summary of the first workflow says; nothing of the pull request was run."""
    text = runner.comment.read_text(encoding="utf-8")
    report, last = runner.summary.read_text(encoding="utf-8"), f"This is about commit {runner.head}."
    assert text.split() == [*report.split(), *last.split()] and text.endswith(f"\n\n{last}\n")
    assert "owner/project" in (runner.folder / "gh.log").read_text() and not list(
        runner.folder.rglob("owned")
    )
    assert not list(runner.folder.rglob("records/rba-group")), "the pull request is never checked out"
    return text


def test_a_good_record_passes_and_its_row_is_the_comment(rehearse: Any) -> None:
    runner = rehearse(record)
    assert runner.reviewed == 0, runner.logs
    text = check_comment(runner)
    assert text.startswith("### Records of runs: 1 pass") and "rba-group" in text
    calls = [json.loads(line) for line in (runner.folder / "gh.log").read_text().splitlines()]
    assert "head=contributor:my $(branch)" in calls[0]
    assert calls[1][:5] == ["pr", "comment", "7", "--repo", "owner/project"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            tampered,
            ["Records of runs: none passes", "asserted_match is recorded as 0.99, its samples give 0.427"],
        ),
        (with_code_and_tests, ["it also changes 3 other files", "records are only added", "the next push"]),
        (strange_names, [f"it also changes {len(NAMES)} other files", "EOF/EOF lacks samples.jsonl.gz"]),
    ],
)
def test_what_is_no_plain_submission_fails_and_the_comment_says_why(
    rehearse: Any, change: Callable[[Path], None], said: list[str]
) -> None:
    runner = rehearse(change)
    assert runner.reviewed == 1, runner.logs
    text = check_comment(runner)
    assert not [part for part in said if part not in text], text
    assert (
        text.count("```") % 2 == 0
        and "\x1b" not in text
        and "/sft/" + published_run("sft").name + " lacks" not in text
    )


def test_a_pull_request_that_moved_on_is_not_commented(rehearse: Any) -> None:
    def pushed(server: Path) -> None:
        git(server, "update-ref", "refs/pull/7/head", git(server, "rev-parse", "main"))

    runner = rehearse(record, meanwhile=pushed)
    assert runner.codes["Fetch the pull request as data"] == 1 and not runner.comment.exists()


def test_a_commit_without_an_open_pull_request_ends_quietly(rehearse: Any, tmp_path: Path) -> None:
    def closed(server: Path) -> None:
        (tmp_path / "runner" / "pulls.json").write_text("[]")

    runner = rehearse(record, meanwhile=closed)
    assert runner.codes["Find the open pull request of this commit"] == 0 and not runner.comment.exists()
