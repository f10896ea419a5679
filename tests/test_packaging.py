"""Dockerfile and workflow name files, extras and tests that exist; actions are pinned, and no right is given away."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def steps() -> list[dict[str, Any]]:
    return [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_the_image_copies_what_the_build_needs_and_the_ignore_file_lets_it_in() -> None:
    copied = {
        name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    let_in = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied == let_in and all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "rba_bench"} <= copied
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(EXTRAS)


def test_the_image_runs_as_a_user_without_root_rights_and_pins_what_it_installs() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users and users[-1] not in ("root", "0")
    assert DOCKERFILE.rindex("USER ") < DOCKERFILE.index("ENTRYPOINT")
    installs = re.findall(r"pip install [^&\n]*", DOCKERFILE)
    assert installs and all("--constraint constraints.txt" in line for line in installs)


def test_actions_are_pinned_to_commits_and_may_read_alone() -> None:
    uses = [step["uses"] for step in steps() if "uses" in step]
    assert uses and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name) for name in uses)
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in WORKFLOW["jobs"].values())
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
    kept = [step["with"].get("persist-credentials") for step in steps() if "checkout" in step.get("uses", "")]
    assert kept and not any(value is None or value for value in kept)


def test_the_workflow_runs_the_gate_and_tests_that_exist() -> None:
    lines = "\n".join(step.get("run", "") for step in steps())
    assert ".ci/run" in lines.splitlines() and "rba-bench doctor" in lines and "uvx " in lines
    named = re.findall(r"tests/[\w/.]+", lines)
    assert named and all((ROOT / name).exists() for name in named)
    systems = WORKFLOW["jobs"]["elsewhere"]["strategy"]["matrix"]["os"]
    assert {system.split("-")[0] for system in systems} == {"windows", "macos"}
