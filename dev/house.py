"""How the package is divided, beside installed peers: modules, functions and classes per 1,000 lines, full folders.

    python dev/house.py [PEER ...]           default: lm_eval, accelerate, sacrebleu
    python dev/house.py --before REVISION    also this package as it was at a commit
    python dev/house.py --levels             also the folders with many modules

Lines are all lines of the files. Peers are the versions installed beside rba-bench; one that is absent is left out.
"""

import argparse
import ast
import importlib.util
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = "rba_bench"
PEERS = ("lm_eval", "accelerate", "sacrebleu")
MANY = 15  # modules on one level
LEFT_OUT = {"tests", "tasks"}  # of tasks there is one small file each, however many


@dataclass(frozen=True)
class House:
    """Counts of a package, tests and vendored folders left out."""

    modules: int
    lines: int
    function_lengths: tuple[int, ...]
    classes: int
    private_once: float

    def per_thousand(self, count: int) -> float:
        """`count` a thousand lines."""
        return 1000 * count / self.lines


def folder_of(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def files_of(folder: Path) -> list[Path]:
    """Its Python files, without tests and task definitions."""
    return sorted(path for path in folder.rglob("*.py") if not LEFT_OUT & set(path.relative_to(folder).parts))


def measure(folder: Path) -> House:
    """Count what a package is made of."""
    lengths, names = [], Counter[str]()
    private: set[str] = set()
    lines = classes = 0
    files = files_of(folder)
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        lines += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append((node.end_lineno or node.lineno) - node.lineno + 1)
                if node.name.startswith("_") and not node.name.startswith("__"):
                    private.add(node.name)
            elif isinstance(node, ast.ClassDef):
                classes += 1
            elif isinstance(node, ast.Name):
                names[node.id] += 1
            elif isinstance(node, ast.Attribute):
                names[node.attr] += 1
    once = sum(names[name] == 1 for name in private) / max(len(private), 1)
    return House(len(files), lines, tuple(lengths), classes, once)


def earlier(revision: str) -> House:
    """This package as it was at a commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision, OURS], check=True, capture_output=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        return measure(Path(folder) / OURS)


def table(houses: dict[str, House]) -> str:
    """A Markdown table with a column for each package."""
    rows = {
        "modules": [str(h.modules) for h in houses.values()],
        "lines": [f"{h.lines:,}" for h in houses.values()],
        "modules per 1,000 lines": [f"{h.per_thousand(h.modules):.1f}" for h in houses.values()],
        "functions per 1,000 lines": [
            f"{h.per_thousand(len(h.function_lengths)):.0f}" for h in houses.values()
        ],
        "classes per 1,000 lines": [f"{h.per_thousand(h.classes):.1f}" for h in houses.values()],
        "function, median lines": [f"{statistics.median(h.function_lengths):.0f}" for h in houses.values()],
        "function, longest": [str(max(h.function_lengths)) for h in houses.values()],
        "private functions named once": [f"{h.private_once:.0%}" for h in houses.values()],
    }
    lines = [f"| | {' | '.join(houses)} |", f"|---|{'---:|' * len(houses)}"]
    return "\n".join([*lines, *(f"| {title} | {' | '.join(cells)} |" for title, cells in rows.items())])


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", default=PEERS)
    parser.add_argument("--before", metavar="REVISION", help="also this package as it was at a commit")
    parser.add_argument("--levels", action="store_true", help="also the folders with many modules")
    arguments = parser.parse_args()
    houses = {f"{OURS} at {arguments.before}": earlier(arguments.before)} if arguments.before else {}
    houses[OURS] = measure(ROOT / OURS)
    houses |= {name: measure(folder) for name in arguments.peers if (folder := folder_of(name)) is not None}
    sys.stdout.write(table(houses) + "\n")
    if arguments.levels:
        levels = Counter(path.parent.relative_to(ROOT).as_posix() for path in files_of(ROOT / OURS))
        full = [f"{count:3} modules in {name}" for name, count in levels.most_common() if count >= MANY]
        sys.stdout.write("\n" + "\n".join(full) + "\n")


if __name__ == "__main__":
    main()
