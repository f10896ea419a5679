"""Workflows for submissions: a fork's code never runs with a right to write, and their scripts do what they say."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.leaderboard.given_submission import git, propose, repository_with, submitted

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


class Runner:
    """What a runner gives to a script: a checkout, an environment, and files for summary and outputs."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.checkout, self.temp = folder / "checkout", folder / "temp"
        self.temp.mkdir()
        self.summary, self.output = self.temp / "summary", self.temp / "output"
        program = self.checkout / ".venv" / "bin" / "rba-bench"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rba_bench "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        files = {"GITHUB_STEP_SUMMARY": self.summary, "GITHUB_OUTPUT": self.output, "RUNNER_TEMP": self.temp}
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in files.items()}, **environment
        }  # fmt: skip

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
        return subprocess.run(
            command, cwd=self.checkout, env=self.environment, capture_output=True, text=True
        )


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A checkout of a base whose server has a pull request, number 7, that adds a record."""
    if shutil.which("git") is None or shutil.which("bash") is None:
        pytest.skip("needs git and bash")
    server = repository_with(tmp_path / "server", "base", "sft")
    head = git(server, "rev-parse", propose(server, submitted("rba-group")))
    git(server, "update-ref", "refs/pull/7/head", head)
    git(tmp_path, "clone", "-q", str(server), str(tmp_path / "checkout"))
    base = git(server, "rev-parse", "main")
    return Runner(tmp_path, NUMBER="7", BASE=base, HEAD_SHA=head)


def test_the_scripts_review_a_pull_request_of_a_real_server(runner: Runner) -> None:
    fetched = runner.run(script(SUBMISSION, "Fetch the pull request as data"))
    assert fetched.returncode == 0, fetched.stderr
    done = runner.run(script(SUBMISSION, "Review"))
    assert done.returncode == 0, done.stderr
    report = runner.summary.read_text()
    assert report.startswith("### Records of runs: 1 pass") and "rba-group" in report
    assert not (runner.checkout / "leaderboards" / "micro" / "records" / "rba-group").exists()


def test_the_comment_is_the_report_and_only_of_the_commit_that_was_checked(runner: Runner) -> None:
    fetch = script(COMMENT, "Fetch the pull request as data")
    assert runner.run(fetch).returncode == 0
    done = runner.run(script(COMMENT, "Review"))
    assert done.returncode == 0, done.stderr
    first, *lines, last = runner.output.read_text().rstrip("\n").split("\n")
    assert first == f"report<<{last}" and len(last) == 32
    assert lines[0] == "### Records of runs: 1 pass" and not [line for line in lines if last in line]
    posted = runner.temp / "posted"
    gh = runner.checkout / ".venv" / "bin" / "gh"
    gh.write_text(f'#!/bin/sh\necho "$@" > "{posted}.words"\ncat > "{posted}"\n')
    gh.chmod(0o755)
    runner.environment |= {
        "PATH": f"{gh.parent}:{os.environ['PATH']}", "REPORT": "\n".join(lines), "GITHUB_REPOSITORY": "o/r"
    }  # fmt: skip
    [step] = COMMENT["jobs"]["comment"]["steps"]
    assert runner.run(step["run"]).returncode == 0
    assert posted.read_text().strip() == "\n".join(lines).strip()
    assert Path(f"{posted}.words").read_text().startswith("pr comment 7 --repo o/r")
    runner.environment["HEAD_SHA"] = "f" * 40
    assert runner.run(fetch).returncode != 0


def test_a_refused_record_fails_the_check_and_is_reported_all_the_same(runner: Runner) -> None:
    runner.run(script(SUBMISSION, "Fetch the pull request as data"))
    file = next((runner.checkout / "leaderboards").glob("micro/records/sft/*/run.json"))
    git(runner.checkout, "checkout", "-q", "refs/remotes/pull/head")
    file.write_text(file.read_text() + " ")
    git(runner.checkout, "commit", "-qam", "changed")
    git(runner.checkout, "update-ref", "refs/remotes/pull/head", "HEAD")
    git(runner.checkout, "checkout", "-q", "main")
    done = runner.run(script(SUBMISSION, "Review"))
    assert done.returncode == 1 and "records are only added" in runner.summary.read_text()
    assert runner.run(script(COMMENT, "Review")).returncode == 0
    assert "records are only added" in runner.output.read_text()
