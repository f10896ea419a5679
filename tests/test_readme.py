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
    board = (ROOT / "leaderboards" / "small" / "index.md").read_text(encoding="utf-8")
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


def table(title: str) -> list[dict[str, str]]:
    """Rows of the first table below a line of `benchmarks/RESULTS.md` that begins so, by their columns."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    block = re.search(rf"^(?:#+ )?{re.escape(title)}.*?\n(\|.*?)\n\n", results, re.M | re.S)
    assert block is not None, title
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block[1].splitlines()]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_the_three_reasons_are_measured() -> None:
    """Their numbers are those of the tables that they link to, rounded."""
    [ours] = [row for row in table("Items a second") if row["contestant"] == "`rba-bench eval`"]
    assert f"{float(ours['x first']):.1f} times the items per second" in README
    assert ours["answers that differ from the first"].startswith("0 of ")
    races = []
    for shape in ("decoder", "encoder"):
        rows = {row[""]: row for row in table(f"Shape `{shape}`; the audio tower is frozen.")}
        races.append(rows["rba-bench, live reference"])
    low, high = sorted(float(row["x TRL live"]) for row in races)
    assert f"{low:.1f} to {high:.1f} times the pairs per second of TRL" in README
    assert (
        all(0.45 < float(row["of first row's"]) < 0.55 for row in races) and "in half\n  the memory" in README
    )
    boards = [row for row in table("Boards of 10 equal systems") if row["n"] == "100"]
    now, before = ([float(row[name]) for row in boards] for name in ("now", "before"))
    assert f"100 items, {min(now):.0f} to {max(now):.0f} % rank any pair" in README
    assert f"{min(before):.0f} to {max(before) + 0.01:.0f} % do" in README
