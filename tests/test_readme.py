"""The README says what is: its table is the published board's, its tree exists, and it stays short."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = 900  # of the whole file, as `wc -w` counts them
ROWS = 6


def test_the_readme_stays_short() -> None:
    assert len(README.split()) <= WORDS


def test_the_table_is_the_published_one() -> None:
    block = README.split("<!-- board -->")[1].split("<!-- /board -->")[0]
    head, line, *rows = block.strip().splitlines()
    assert 1 <= len(rows) <= ROWS and len(set(rows)) == len(rows)
    board = (ROOT / "leaderboards" / "micro" / "index.md").read_text(encoding="utf-8")
    greedy = board.split("### Scores, greedy decoding")[1].split("\n### ")[0].splitlines()
    assert greedy.index(line) == greedy.index(head) + 1
    assert not [row for row in rows if row not in greedy]


def test_every_folder_of_the_tree_exists() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    inside = set(re.findall(r"^  (\w+)/", tree, re.M))
    outside = re.findall(r"^(\w+)/", tree, re.M)
    packages = {path.parent.name for path in (ROOT / "rba_bench").glob("*/__init__.py")}
    assert inside == packages
    assert not [name for name in outside if not (ROOT / name).is_dir()]
