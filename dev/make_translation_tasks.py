"""Write the task files of speech translation and transcription: one YAML a direction, one YAML a group.

python dev/make_translation_tasks.py            write what is missing or differs, remove what no longer belongs
python dev/make_translation_tasks.py --check    write nothing; exit 1 if a file would change
"""

import argparse
import sys
from pathlib import Path

import yaml

from rba_bench.evaluation.sources import language_pairs
from rba_bench.files import write_atomic

TASKS = Path(__file__).resolve().parent.parent / "tasks"


def wanted() -> dict[Path, str]:
    """Path under `tasks/` and text of every file."""
    found: dict[Path, str] = {}
    for name in language_pairs.SHIPPED:
        text = language_pairs.yaml_text(name)
        assert text is not None  # every shipped name is one that can be made
        found[Path(language_pairs.benchmark_of(name)) / f"{name}.yaml"] = text
    for name in language_pairs.GROUPS:
        found[Path(language_pairs.benchmark_of(name)) / f"{name}.yaml"] = language_pairs.group_text(name)
    return found


def stale(folder: Path) -> set[Path]:
    """Files of the full track in our folders that are not wanted (any more)."""
    ours = {path.parent for path in wanted()}
    present = {path.relative_to(folder) for name in ours for path in (folder / name).glob("*.yaml")}
    return {path for path in present - wanted().keys() if _is_full(folder / path)}


def differing(folder: Path) -> set[Path]:
    """Files that are missing or hold something else."""
    return {path for path, text in wanted().items() if not _holds(folder / path, text)}


def main() -> int:
    """Write or check; the exit code is 1 if `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, tell what would change")
    check = parser.parse_args().check
    changed, gone = differing(TASKS), stale(TASKS)
    for path in sorted(changed | gone):
        sys.stderr.write(f"{'differs' if path in changed else 'not wanted'}: tasks/{path}\n")
    if check:
        return int(bool(changed | gone))
    for path in changed:
        write_atomic(TASKS / path, wanted()[path])
    for path in gone:
        (TASKS / path).unlink()
    return 0


def _is_full(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "!function" not in text and (yaml.safe_load(text).get("metadata") or {}).get("track") == "full"


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
