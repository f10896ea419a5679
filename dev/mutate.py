"""Which one-line faults of the trainer and of the leaderboards do the tests catch?

    python dev/mutate.py --list                 what is tried
    python dev/mutate.py                        try all, go on where an earlier call stopped, write dev/MUTATIONS.md
    python dev/mutate.py --only 3 17            these numbers, again

Each mutation replaces one piece of text in a copy of the tree and runs the test files that should notice. The heavy
libraries are loaded once, and every mutation is tried in a process forked from there, so that one takes seconds. A
mutation whose text is gone from the source stops the script before anything runs: it belongs to code that has changed.
First the tests are run without a mutation, because tests that fail anyway would catch everything.

Results are kept by the content of mutation, tests and the part of the package that it lies in (`rba_bench/training`),
under --work (default: a folder in the system's temporary one), so nothing is run twice and nothing stale is believed.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "dev" / "MUTATIONS.md"
COPIED = ("rba_bench", "tests", "recipes", "tasks", "dev", "benchmarks", "leaderboards", "pyproject.toml")
SOURCES = (".py", ".js", ".css", ".jinja")
TRAINER = ("rba_bench/training/", "rba_bench/textlm/")  # where its mutations are
CAUGHT = {True: "yes", False: "**no**"}
TIMEOUT_S = 600
HEAVY = (
    "torch.distributed.fsdp",
    "accelerate.utils",
    "transformers.trainer",
    "transformers.models.llama.modeling_llama",
    "transformers.models.whisper.modeling_whisper",
    "peft",
    "datasets",
    "sacrebleu",
    "scipy.stats",
    "pytest",
)


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        kind: loss, mask, position, reward, pair or normalisation of the trainer; control, retained, judges, verify,
            submission, untrusted, site, server, exports or transfer of the leaderboards.
        file: under the root.
        old: text that is there exactly once.
        new: what stands there instead.
        tests: files, or files::tests, that should fail.
    """

    kind: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _mutations() -> list[Mutation]:
    """`mutations.json`, beside this file, in order."""
    table = json.loads((ROOT / "dev" / "mutations.json").read_text(encoding="utf-8"))
    return [Mutation(**{**one, "tests": tuple(one["tests"])}) for one in table]


def check(mutations: list[Mutation]) -> None:
    """Stop if a mutation's text is not there exactly once, or a test file is gone."""
    for number, one in enumerate(mutations, 1):
        found = (ROOT / one.file).read_text(encoding="utf-8").count(one.old)
        if found != 1:
            sys.exit(f"mutation {number}: {one.file} holds {one.old!r} {found} times, not once")
        for test in one.tests:
            if not (ROOT / test.split("::")[0]).is_file():
                sys.exit(f"mutation {number}: there is no {test.split('::')[0]}")


@cache
def state(part: str, tests: tuple[str, ...]) -> str:
    """Hash of what a result is true of: the part of the package, these tests, and what they share. Taken once."""
    place = ROOT / part
    sources = (path for path in place.rglob("*") if path.suffix in SOURCES) if place.is_dir() else [place]
    files = set(sources)
    for test in tests:
        file = ROOT / test.split("::")[0]
        folders = [folder for folder in file.parents if folder.is_relative_to(ROOT / "tests")]
        shared = (path for folder in folders for path in folder.glob("*.py"))
        files |= {file, *(path for path in shared if not path.name.startswith("test_"))}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def part_of(mutation: Mutation) -> str:
    """The folder below `rba_bench` that a mutation lies in, or its file."""
    return "/".join(mutation.file.split("/")[:2])


def attempt(tree: Path, tests: tuple[str, ...], mutation: Mutation | None) -> tuple[str, float, str]:
    """Run tests in a forked process. Returns (passed | failed | broken | hung, seconds, the test that failed)."""
    started, plain = time.monotonic(), ""
    log = tree / "attempt.log"
    if mutation is not None:
        plain = (tree / mutation.file).read_text(encoding="utf-8")
        _write(tree / mutation.file, plain.replace(mutation.old, mutation.new))
    child = os.fork()
    if child == 0:
        _run(tree, tests, log)
    status = _wait(child, started + TIMEOUT_S)
    if mutation is not None:
        _write(tree / mutation.file, plain)
    names = {0: "passed", 1: "failed"}
    verdict = "hung" if status is None else names.get(status, "broken")
    failed = [
        line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))
    ]
    return verdict, time.monotonic() - started, failed[0].split(" - ")[0].split(" ", 1)[1] if failed else ""


def _write(path: Path, text: str) -> None:
    """Write a module and forget its bytecode, which may be as old and as long as the new text."""
    path.write_text(text, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def _run(tree: Path, tests: tuple[str, ...], log: Path) -> None:
    """In the child: pytest on the copy, its output in a file; does not return."""
    code = 3
    try:
        os.setpgrp()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path[:0] = [str(tree)]
        import pytest

        options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--rootdir", str(tree)]
        code = int(pytest.main([*options, *tests]))
    finally:
        os._exit(code)


def _wait(child: int, until: float) -> int | None:
    """Exit status of a child; None if it had to be ended."""
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return None


def key(mutation: Mutation, mutated: bool) -> str:
    """Name of a kept result, of the tests of a mutation with or without it."""
    tests = mutation.tests
    value = [asdict(mutation) if mutated else None, tests, state(part_of(mutation), tests)]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:24]


class Bench:
    """The copy of the tree and the results so far."""

    def __init__(self, work: Path) -> None:
        self.kept = work / "results"
        self.kept.mkdir(parents=True, exist_ok=True)
        self.tree = work / "tree"

    def open(self) -> None:
        """Make the copy, load the libraries."""
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.tree / name)
        for name in HEAVY:
            __import__(name)
        import torch

        torch.set_num_threads(1)

    def result(self, mutation: Mutation, mutated: bool = True) -> dict[str, object] | None:
        """What is known already."""
        path = self.kept / f"{key(mutation, mutated)}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def tried_at(self, mutation: Mutation) -> float:
        """When it was tried, in seconds since 1970."""
        return (self.kept / f"{key(mutation, True)}.json").stat().st_mtime

    def forget(self, mutation: Mutation) -> None:
        """Try again next time."""
        (self.kept / f"{key(mutation, True)}.json").unlink(missing_ok=True)

    def tried(self, mutation: Mutation, mutated: bool = True) -> dict[str, object]:
        """The result, by running if need be."""
        known = self.result(mutation, mutated)
        if known is not None:
            return known
        if not self.tree.is_dir() or "torch" not in sys.modules:
            self.open()
        verdict, seconds, test = attempt(self.tree, mutation.tests, mutation if mutated else None)
        found: dict[str, object] = {"verdict": verdict, "seconds": round(seconds, 1), "test": test}
        (self.kept / f"{key(mutation, mutated)}.json").write_text(json.dumps(found))
        return found


def report(mutations: list[Mutation], bench: Bench, before: str = "") -> str:
    """Tables of what has been run, a section for the trainer and one for the leaderboards.

    Args:
        mutations: All of them.
        bench: Has the results.
        before: The report so far: a section without any result stays as it is there, with its date.
    """
    head = "# Mutations\n\nOne-line faults that `python dev/mutate.py` makes, and whether the tests notice.\n"
    kept = {part.partition("\n")[0]: part for part in before.split("\n## ")[1:]}
    sections = [
        _section(
            name,
            [(n, one) for n, one in enumerate(mutations, 1) if one.file.startswith(TRAINER) == trainer],
            bench,
        )
        or kept.get(name, "").rstrip("\n")
        for name, trainer in (("Trainer", True), ("Leaderboards", False))
    ]
    return "\n## ".join([head, *filter(None, sections)]) + "\n"


def _section(name: str, mutations: list[tuple[int, Mutation]], bench: Bench) -> str:
    """One section, without the mark of its heading; "" where nothing has been run."""
    found = [(number, one, result) for number, one in mutations if (result := bench.result(one)) is not None]
    if not found:
        return ""
    rows = []
    for number, one, result in found:
        where = f"`{result['test']}`" if result["test"] else str(result["verdict"])
        cells = (
            number,
            one.kind,
            f"`{one.file}`",
            _cell(one.old),
            _cell(one.new),
            CAUGHT[result["verdict"] != "passed"],
        )
        rows.append("| " + " | ".join(map(str, (*cells, where))) + " |")
    caught = sum(result["verdict"] != "passed" for _, _, result in found)
    left_out = f"{len(mutations) - len(found)} of {len(mutations)} were not run"
    day = datetime.fromtimestamp(max(bench.tried_at(one) for _, one, _ in found), UTC).date()
    return "\n".join(
        [
            f"{name}\n",
            f"{caught} of {len(found)} are caught; {left_out} ({day}).\n",
            "| | kind | file | instead of | stands | caught | first test that failed |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return f"`{flat}`" if flat else "nothing"


def say(text: str) -> None:
    """A line for the terminal."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", type=int, nargs="+", metavar="N")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "rba-mutate")
    parser.add_argument("--report", type=Path, default=REPORT)
    given = parser.parse_args()
    mutations = _mutations()
    check(mutations)
    if given.list:
        for number, one in enumerate(mutations, 1):
            sys.stdout.write(f"{number:3} {one.kind:14} {one.file}: {_cell(one.old)} -> {_cell(one.new)}\n")
        return
    bench = Bench(given.work)
    chosen = [(n, one) for n, one in enumerate(mutations, 1) if given.only is None or n in given.only]
    for _, one in chosen:  # before the tree is copied: files may be edited while the copy is tried
        state(part_of(one), one.tests)
    for number, one in chosen:
        if given.only is not None:
            bench.forget(one)
        clean = bench.tried(one, mutated=False)
        if clean["verdict"] != "passed":
            sys.exit(f"without any mutation {' '.join(one.tests)} {clean['verdict']}: {clean['test']}")
        found = bench.tried(one)
        told = (
            "NOT CAUGHT"
            if found["verdict"] == "passed"
            else f"caught ({found['verdict']}) by {found['test']}"
        )
        say(f"{number:3} {one.kind:14} {_cell(one.old)} -> {_cell(one.new)}: {told}, {found['seconds']} s")
        before = given.report.read_text(encoding="utf-8") if given.report.is_file() else ""
        given.report.write_text(report(mutations, bench, before), encoding="utf-8")


if __name__ == "__main__":
    main()
