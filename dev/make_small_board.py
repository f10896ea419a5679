"""Make `leaderboards/small`: evaluate the systems of the track small, build the board and verify it.

python dev/make_small_board.py                    the text model, the cascade and the shipped models
python dev/make_small_board.py runs/a runs/b      and these checkpoints
python dev/make_small_board.py --records DIR      and run records that lie below DIR, such as a study's

Evaluations that are finished are not repeated. The study itself is published by `rba-bench study small --publish
leaderboards/small/study`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOARD = ROOT / "leaderboards" / "small"
TEXT = "asset:smollm2-135m-instruct"
SYSTEMS = (
    f"text:{TEXT}",
    f"cascade:asset:whisper-tiny.en+{TEXT}",
    "asset:small-base",
    "asset:small-aligned-sft",
    "asset:small-aligned-rba-single",
    "constant",
)
CONTROLLED = ("asset:small-base", f"cascade:asset:whisper-tiny.en+{TEXT}")  # with the speech taken away
CONTROLS = ("silence", "shuffle", "first=1s")
CONTROL_TASKS = "small_qa,small_instruct"


def run(*words: str) -> None:
    """One command of rba-bench; ends the script where it fails."""
    sys.stderr.write(f"rba-bench {' '.join(words)}\n")
    done = subprocess.run([sys.executable, "-m", "rba_bench", *words], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", nargs="*", help="systems beside these")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/small-board"), help="folder of the run records"
    )
    parser.add_argument(
        "--records", type=Path, action="append", default=[], help="folder of more run records"
    )
    given = parser.parse_args()
    for model in (*SYSTEMS, *given.checkpoints):
        apart = model.split(":")[0] in (
            "text",
            "cascade",
        )  # others encode each clip once for all tasks and models
        cache = () if apart else ("--encoder-cache", str(given.out / "encoder-cache"))
        run("eval", "--track", "small", "--model", model, "--out", str(given.out), *cache)
    for model in CONTROLLED:
        for control in CONTROLS:
            words = ("--model", model, "--task", CONTROL_TASKS, "--audio", control, "--no-cache")
            run("eval", *words, "--out", str(given.out))
    folders = map(str, (given.out, *given.records))
    options = ("--baseline", "small-base", "--clips", "12", "--reported-page", "../paper/index.html")
    run("leaderboard", "build", *folders, *options, "--out", str(BOARD))
    run("leaderboard", "verify", str(BOARD / "records"))


if __name__ == "__main__":
    main()
