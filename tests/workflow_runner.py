"""A small runner of GitHub workflows: reads the YAML, and runs each `run:` step with the environment GitHub gives.

Only the steps `uses:` and those that install packages are replaced: a clone of a server's repository, and the
`rba-bench` of this checkout at `.venv/bin`. A condition or an expression of a form that is not known here is an error.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.leaderboard.given_submission import git

ROOT = Path(__file__).resolve().parents[1]
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
_CONDITION = re.compile(r"([\w.-]+) (==|!=) '([^']*)'")
_OUTPUT = re.compile(
    r"(?P<name>\w+)(?:=(?P<value>[^\n]*)|<<(?P<mark>[^\n]+)\n(?P<text>.*?)\n(?P=mark))\n", re.S
)
# The two calls of the API. `gh` filters by itself (`--jq`), here as the workflow asks for.
GH = """#!{python}
import json, os, sys
words, folder = sys.argv[1:], {folder!r}
open(folder + "/gh.log", "a").write(json.dumps(words) + "\\n")
assert os.environ["GH_TOKEN"]
if words[0] == "api":
    assert words[1:3] == ["--method", "GET"] and words[3] == "repos/owner/project/pulls" and "state=open" in words
    [jq] = [word for word in words if "select(" in word]
    assert jq == "[.[] | select(.head.sha == env.HEAD_SHA)][0].number // empty", jq
    found = [pull for pull in json.load(open(folder + "/pulls.json")) if pull["sha"] == os.environ["HEAD_SHA"]]
    print(found[0]["number"] if found else "")
else:
    assert words[:2] == ["pr", "comment"], words
    open(folder + "/comment.md", "wb").write(sys.stdin.buffer.read())
"""


class Runner:
    """Runs workflows on a bare repository, the server.

    Args:
        folder: For checkouts and files of steps.
        server: A bare repository with the pull request's commit at `refs/pull/<number>/head`.
        number: Of the pull request.
    """

    def __init__(self, folder: Path, server: Path, number: int) -> None:
        self.folder, self.server = folder, server
        self.base, self.head = (
            git(server, "rev-parse", name) for name in ("main", f"refs/pull/{number}/head")
        )
        folder.mkdir()
        (folder / "pulls.json").write_text(json.dumps([{"number": number, "sha": self.head}]))
        gh = folder / "bin" / "gh"
        gh.parent.mkdir()
        gh.write_text(GH.format(python=sys.executable, folder=str(folder)))
        gh.chmod(0o755)
        self.number, self.codes, self.logs = number, dict[str, int](), dict[str, str]()
        self.summary = folder / "summary.md"
        self.comment = folder / "comment.md"

    def event(self) -> dict[str, str]:
        """What expressions of the workflows can refer to."""
        return {
            "github.event.pull_request.number": str(self.number),
            "github.event.pull_request.base.sha": self.base,
            "github.event.workflow_run.event": "pull_request",
            "github.event.workflow_run.head_sha": self.head,
            "github.event.workflow_run.head_branch": "my $(branch)",
            "github.event.workflow_run.head_repository.owner.login": "contributor",
            "github.token": "a-token",
        }

    def run(self, workflow: dict[str, Any]) -> None:
        """Run the jobs in the order in which they need each other; exit codes of steps are in `codes`, by name."""
        values = self.event()
        for name, job in workflow["jobs"].items():
            if "needs" in job:
                assert values[f"needs.{job['needs']}.result"] == "success"
            if not self._holds(job.get("if"), values):
                continue
            found = self._job(name, job["steps"], values)
            values[f"needs.{name}.result"] = "success" if found is not None else "failure"
            if found is None:
                return
            for output, expression in job.get("outputs", {}).items():
                values[f"needs.{name}.outputs.{output}"] = self._filled(expression, {**values, **found})

    def _job(self, name: str, steps: list[dict[str, Any]], values: dict[str, str]) -> dict[str, str] | None:
        """Outputs of its steps; None once a step fails."""
        work = self.folder / f"{name}-{len(self.codes)}"
        (work / "temp").mkdir(parents=True)
        known = dict(values)
        for step in steps:
            if "id" in step:  # outputs that a step has not set are empty
                known |= {f"steps.{step['id']}.outputs.{key}": "" for key in ("number", "report")}
            if not self._holds(step.get("if"), known):
                continue
            if "uses" in step:
                self._use(step, work, known)
            elif "uv venv .venv" in step["run"]:
                self._install(work / "checkout")
            else:
                outputs = self._step(step, work, known)
                if outputs is None:
                    return None
                known |= {
                    f"steps.{step.get('id', '-')}.outputs.{key}": value for key, value in outputs.items()
                }
        return known

    def _use(self, step: dict[str, Any], work: Path, known: dict[str, str]) -> None:
        if "checkout" not in step["uses"]:
            return
        git(work, "clone", "-q", str(self.server), "checkout")
        if "ref" in step["with"]:
            git(work / "checkout", "checkout", "-q", self._filled(step["with"]["ref"], known))

    def _install(self, checkout: Path) -> None:
        program = checkout / ".venv" / "bin" / "rba-bench"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rba_bench "$@"\n')
        program.chmod(0o755)

    def _step(self, step: dict[str, Any], work: Path, known: dict[str, str]) -> dict[str, str] | None:
        output = work / "temp" / "output"
        output.write_text("")
        folder = work / "checkout"
        environment = {
            "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "CI": "true", "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": "owner/project", "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(output), "RUNNER_TEMP": str(work / "temp"),
            **{key: self._filled(value, known) for key, value in step.get("env", {}).items()},
        }  # fmt: skip
        script = work / "temp" / "step.sh"
        script.write_text(step["run"])
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
        done = subprocess.run(
            command, cwd=folder if folder.is_dir() else work, env=environment, capture_output=True, text=True,
            errors="replace", timeout=300,
        )  # fmt: skip
        self.codes[step["name"]], self.logs[step["name"]] = done.returncode, done.stdout + done.stderr
        if done.returncode:
            return None
        text = output.read_text()
        assert _OUTPUT.sub("", text) == "", f"GitHub would not read these outputs: {text!r}"
        return {
            found["name"]: found["value"] if found["mark"] is None else found["text"]
            for found in _OUTPUT.finditer(text)
        }

    def _holds(self, condition: str | None, values: dict[str, str]) -> bool:
        if condition is None:
            return True
        found = _CONDITION.fullmatch(condition)
        assert found and found[1] in values, condition
        return (values[found[1]] == found[3]) == (found[2] == "==")

    def _filled(self, text: str, values: dict[str, str]) -> str:
        assert text.count("${{") == len(_EXPRESSION.findall(text)), text
        return _EXPRESSION.sub(lambda found: values[found[1]], text)
