"""The README says what is: its table is the published board's, its tree and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rba_bench.cli.main import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_published_one() -> None:
    block = README.split("<!-- board -->")[1].split("<!-- /board -->")[0]
    rows = [line for line in block.splitlines() if line.startswith("|")]
    board = (ROOT / "leaderboards" / "micro" / "index.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 10
    assert not [row for row in rows if row not in board]


def test_every_folder_of_the_tree_exists() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    inside = [f"rba_bench/{name}" for name in re.findall(r"^  (\w+)/", tree, re.M)]
    outside = re.findall(r"^(\w+)/", tree, re.M)
    assert len(inside) == 11
    assert not [name for name in (*inside, *outside) if not (ROOT / name).is_dir()]


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^(rba-bench .*?)(?:  +#.*)?$", README, re.M))))
def test_every_command_shown_parses(line: str) -> None:
    """Options are checked by asking for help with the command's own words before it."""
    words = shlex.split(line)[1:]
    names = [word for word in words if word.startswith("--")]
    command = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
    shown = CliRunner().invoke(app, [*command, "--help"])
    if shown.exit_code:  # the second word was an argument, not a sub-command
        shown = CliRunner().invoke(app, [command[0], "--help"])
    assert shown.exit_code == 0, line
    assert not [name for name in names if name not in shown.stdout], line
