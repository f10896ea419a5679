"""Pages and tables of a published board, compared with what its own records give."""

import re
from collections.abc import Iterator
from pathlib import Path

from rba_bench.errors import UserError
from rba_bench.leaderboard.build import PUBLISHED, RECORDS, UNFINISHED, render, warnings_of
from rba_bench.leaderboard.compare import group_runs
from rba_bench.leaderboard.equal_length import estimate
from rba_bench.leaderboard.load import distinct, find, read
from rba_bench.names import inside
from rba_bench.plain import plain
from rba_bench.untrusted import read_file, read_json

_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])")
CLOSE = 1e-9  # relative; a shown number may also differ by one in its last place


def differences(board: Path) -> Iterator[str]:
    """Files of a board that are not what `leaderboard build` makes of its records."""
    try:
        stated = read_json(board / RECORDS)
        options = stated.get("options") or {}
        baseline, warnings = str(stated["baseline"]), [str(each) for each in stated["warnings"]]
        runs = distinct([read(folder) for folder in find([board / PUBLISHED])])
        groups = group_runs(runs, baseline, options.get("ceiling"))
        estimates = [estimate(group) for group in groups] if options.get("equal_length") else []
        wanted = warnings_of(groups, baseline, estimates)
        contents, _ = render(runs, groups, warnings, options, estimates)
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"cannot be made again: {plain(error)}"
        return
    if sorted(wanted) != sorted(each for each in warnings if not each.endswith(UNFINISHED)):
        yield f"{RECORDS} has other warnings than the records give"
    for name, content in sorted(contents.items()):
        if not name.startswith(f"{PUBLISHED}/") and (fault := _compared(board, name, content)):
            yield f"{name} {fault}: rba-bench leaderboard build {board} --out {board}"


def _compared(board: Path, name: str, content: bytes) -> str:
    try:
        found = read_file(inside(board, name))
    except FileNotFoundError:
        return "is missing"
    except UserError as error:
        return f"cannot be read ({error})"
    same = found == content or _same(found.decode(errors="replace"), content.decode())
    return "" if same else "is not what the records give"


def _same(own: str, new: str) -> bool:
    """Equal texts, but for the last digits of numbers with a decimal point."""
    if _NUMBER.split(own) != _NUMBER.split(new):
        return False
    return all(map(_close, _NUMBER.findall(own), _NUMBER.findall(new)))


def _close(own: str, new: str) -> bool:
    digits = len(own.partition(".")[2].partition("e")[0])
    last_place = 10.0**-digits if "e" not in own else 0.0
    a, b = float(own), float(new)
    return abs(a - b) <= max(1.01 * last_place, CLOSE * max(abs(a), abs(b)))
