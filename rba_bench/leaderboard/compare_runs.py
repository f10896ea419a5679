"""`rba-bench compare`: what run A scores above run B, for two runs or for every pair of equal task in two folders.

The modality gap: what the text ceiling scores above a model on the same items.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RUN_FILE, RunRecord, read_record
from rba_bench.files import folder_name
from rba_bench.leaderboard import loaded_runs
from rba_bench.leaderboard.board_groups import GroupKey, data_hash, group_key
from rba_bench.leaderboard.loaded_runs import CEILING, Run, kind_of
from rba_bench.leaderboard.pairing import Contrast, Pair
from rba_bench.leaderboard.tables import NOTHING, TextTable
from rba_bench.metrics.interval import FEWEST, Interval
from rba_bench.untrusted import printable

HEADINGS = ("metric", "A", "B", "A-B [95 %]", "(A-B)/B % [95 %]", "n", "left out", "win/tie/loss")
LEGEND = (
    "A and B on the items scored in both; paired 95 % intervals, items of one cluster drawn together. * leaves out "
    f"zero (never with fewer than {FEWEST} independent items) and is for its own line alone: of 20 lines without a "
    "difference one may have it. Wins are items on which A is better."
)
COMPUTED = (
    "aggregation",
    "macro",
    "scale",
    "signature",
    "higher_is_better",
)  # what makes a metric the same one
SHOWN = 3  # differences of two protocols that a refusal names
SHORT = 8
_ABSENT = "absent"
Header = tuple[Path, RunRecord]


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same items, metric by metric: of one task under one protocol, or else across protocols."""

    first: Run
    second: Run
    metrics: tuple[Contrast, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        record = self.first.record
        return {
            "task": record.task,
            "protocol": record.protocol,
            "protocol_hash": record.protocol_hash,
            "data_hash": data_hash(record),
            "across": what_differs(self.first.record, self.second.record),
            "a": _run_facts(self.first),
            "b": _run_facts(self.second),
            "metrics": [
                {**asdict(found), "significant": found.difference.excludes(0.0)} for found in self.metrics
            ],
        }

    def heading(self) -> list[str]:
        """What is compared with what, in lines."""
        record = self.first.record
        lines = [
            f"{record.task} ({record.protocol}), protocol {record.protocol_hash[:SHORT]}, "
            f"test set {data_hash(record)[:SHORT]}, {record.data['n_items']} items"
        ]
        for letter, run in (("A", self.first), ("B", self.second)):
            partial = f", partial: {run.record.n} items" if run.record.partial else ""
            lines.append(f"{letter} = {run.name} ({run.folder}, {run.record.created[:10]}{partial})")
        differs = what_differs(record, self.second.record)
        return lines + ([f"compared all the same, though {differs}"] if differs else self._modality())

    def table(self) -> TextTable:
        """One row per metric."""
        return TextTable(HEADINGS, [_row(found) for found in self.metrics], self.first.record.task)

    def _modality(self) -> list[str]:
        reads = [kind_of(run) == CEILING for run in (self.first, self.second)]
        if reads == [False, True]:
            return [
                "B reads the transcript: (A-B)/B is what A loses by listening (the forgetting rate of speech_ifeval)"
            ]
        return ["A reads the transcript: A-B is the modality gap"] if reads == [True, False] else []


@dataclass(frozen=True)
class Result:
    """All comparisons, and in sentences what could not be compared."""

    comparisons: tuple[Comparison, ...]
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"comparisons": [each.to_dict() for each in self.comparisons], "left_out": list(self.left_out)}


def compare(a: Path | Sequence[Path], b: Path | Sequence[Path], across: bool = False) -> Result:
    """Compare two runs, or every run below `a` with the one below `b` of the same task, protocol and test set.

    Args:
        a: A run, a folder of runs, or several of them.
        b: The other one.
        across: Compare two single runs of the same items though task, prompts or perturbation differ: an instruction
            spoken against the same one written, noisy clips against clean ones.

    Raises:
        UserError: no finished run in one of them, a damaged one, or nothing that may be compared; the message says
            what differs.
    """
    first, second = headers(a), headers(b)
    if across:
        if len(first) != 1 or len(second) != 1:
            raise UserError(
                f"across protocols two single runs are compared: name one run folder each, not {_named(a)} and "
                f"{_named(b)}"
            )
        return Result((_compare(first[0][0], second[0][0]),), ())
    pairs, left_out = _pair_up(first, second)
    if not pairs:
        raise UserError(f"{_named(a)} and {_named(b)} cannot be compared: {left_out[0]}")
    return Result(tuple(_compare(*pair) for pair in pairs), tuple(left_out))


def _named(place: Path | Sequence[Path]) -> str:
    return str(place) if isinstance(place, Path) else ", ".join(map(str, place))


def headers(place: Path | Sequence[Path]) -> list[Header]:
    """Folder and record of the run at `place` (a run folder or its `run.json`), else of all runs below it, sorted.

    Args:
        place: One place, or several.

    Raises:
        UserError: there is none, or two different records carry one run id.
    """
    found: dict[tuple[str, str], Header] = {}
    for folder in (
        folder for one in ([place] if isinstance(place, Path) else place) for folder in _folders(one)
    ):
        record = read_record(folder)
        known = found.setdefault((str(record.model["name"]), record.run_id), (folder, record))
        if known[1] != record:
            raise UserError(f"{known[0]} and {folder} are different records of one run; remove one")
    return list(found.values())


def _folders(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"no run at {path}: it does not exist")
    place = path.parent if path.name == RUN_FILE else path
    own = (place / RUN_FILE).is_file()
    folders = [place] if own else sorted(file.parent for file in place.rglob(RUN_FILE))
    if not folders:
        raise UserError(f"no finished run ({RUN_FILE}) in or below {path}")
    return folders


def what_differs(a: RunRecord, b: RunRecord) -> str:
    """Why two runs must not be compared, naming what differs; "" if they may be."""
    if a.task != b.task:
        return f"they are runs of different tasks, {a.task} and {b.task}"
    reasons = []
    if a.protocol_hash != b.protocol_hash:
        reasons.append(f"their protocols differ in {_listed(list(_walk(a.protocol_spec, b.protocol_spec)))}")
    if data_hash(a) != data_hash(b):
        names = {
            "source": "source",
            "n_items": "number of items",
            "items_sha256": "texts",
            "audio_set_sha256": "clips",
        }
        found = [(name, a.data.get(key), b.data.get(key)) for key, name in names.items()]
        reasons.append(f"their test sets differ in {_listed([each for each in found if each[1] != each[2]])}")
    return "; ".join(reasons)


def _pair_up(first: Sequence[Header], second: Sequence[Header]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Folders to compare, and why the rest is left out."""
    left, right = _grouped(first), _grouped(second)
    pairs, notes = [], []
    for key in sorted(left.keys() & right.keys()):
        found = _replicates(left[key], right[key])
        pairs += found
        if len(found) < max(len(left[key]), len(right[key])):
            counts = f"{len(left[key])} and {len(right[key])} runs"
            notes.append(
                f"{key[0]}: of {counts} not all have one counterpart of equal seed; name one run folder each"
            )
    if not pairs and len(first) == len(second) == 1:
        return pairs, [what_differs(first[0][1], second[0][1])]
    return pairs, notes + _unpaired(left, right)


def _unpaired(left: Mapping[GroupKey, list[Header]], right: Mapping[GroupKey, list[Header]]) -> list[str]:
    """What only one side has, a sentence per task."""
    odd = left.keys() ^ right.keys()
    notes = []
    for task in sorted({key[0] for key in odd}):
        ours, theirs = (
            [header for key in sorted(odd & side.keys()) for header in side[key] if key[0] == task]
            for side in (left, right)
        )
        if ours and theirs:
            notes.append(f"{task}: {what_differs(ours[0][1], theirs[0][1])}")
        else:
            side, record = ("A", ours[0][1]) if ours else ("B", theirs[0][1])
            notes.append(f"{task} under protocol {record.protocol_hash[:SHORT]}: only {side} has a run of it")
    return notes


def _grouped(found: Sequence[Header]) -> dict[GroupKey, list[Header]]:
    groups: dict[GroupKey, list[Header]] = {}
    for header in found:
        groups.setdefault(group_key(header[1]), []).append(header)
    return groups


def _replicates(left: Sequence[Header], right: Sequence[Header]) -> list[tuple[Path, Path]]:
    """One run on each side, or else the runs of equal seed and limit where these are unambiguous."""
    if len(left) == len(right) == 1:
        return [(left[0][0], right[0][0])]
    mine, theirs = (
        [(each.seeds.get("generation"), each.limit) for _, each in side] for side in (left, right)
    )
    return [
        (left[mine.index(key)][0], right[theirs.index(key)][0])
        for key in mine
        if mine.count(key) == theirs.count(key) == 1
    ]


def _compare(first: Path, second: Path) -> Comparison:
    a, b = loaded_runs.read(first), loaded_runs.read(second)
    shared = [metric for metric in a.record.metrics if _alike(a.record, b.record, metric)]
    if not shared:
        raise UserError(f"{first} and {second} have no metric of one signature in common")
    pair = Pair(a, b, across=bool(what_differs(a.record, b.record)))
    found = [contrast for metric in shared if (contrast := pair.contrast(metric)) is not None]
    if not found:
        raise UserError(f"{first} and {second} have no item with a score in both")
    return Comparison(a, b, tuple(found))


def _alike(a: RunRecord, b: RunRecord, metric: str) -> bool:
    """True if both runs computed the metric in the same way."""
    if metric not in b.metrics:
        return False
    mine, theirs = ([getattr(each.metrics[metric], name) for name in COMPUTED] for each in (a, b))
    return mine == theirs


def _walk(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """`(path, value in A, value in B)` of every leaf that differs."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _walk(a.get(key, _ABSENT), b.get(key, _ABSENT), f"{path}.{key}" if path else str(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (mine, theirs) in enumerate(zip(a, b, strict=True)):
            yield from _walk(mine, theirs, f"{path}[{index}]")
    elif a != b:
        yield path, a, b


def _listed(found: Sequence[tuple[str, Any, Any]]) -> str:
    if not found:
        return "their hashes, though not in what they record"
    shown = [f"{path} ({_shown(a)} against {_shown(b)})" for path, a, b in found[:SHOWN]]
    more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return ", ".join(shown + more)


def _shown(value: Any) -> str:
    text = value if value == _ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return printable(text if len(text) <= 48 else text[:45] + "...")


def _run_facts(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "model": run.name,
        "kind": kind_of(run),
        "run_id": record.run_id,
        "folder": str(run.folder),
        "partial": record.partial,
        "created": record.created,
    }


def _row(found: Contrast) -> list[str]:
    factor = 100.0 / found.scale
    name = found.metric + (" %" if found.scale == 1 else "")
    return [
        name + ("" if found.higher_is_better else " (lower is better)"),
        f"{found.a * factor:.2f}",
        f"{found.b * factor:.2f}",
        _signed(found.difference, factor) + (" *" if found.difference.excludes(0.0) else ""),
        NOTHING if found.relative is None else _signed(found.relative, 100.0),
        str(found.n),
        str(found.n_left_out),
        f"{found.wins}/{found.ties}/{found.losses}",
    ]


def _signed(interval: Interval, factor: float) -> str:
    value, low, high = (f"{number * factor:+.2f}" for number in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"


def gaps(
    records: Sequence[RunRecord], ceiling: Sequence[RunRecord], out: Path
) -> dict[tuple[str, str], Interval]:
    """Ceiling minus model, paired, by run id of the model's record and metric.

    Args:
        records: Of the model.
        ceiling: Of the ceiling, on the same tasks in the same order.
        out: Folder that both were written to.

    Raises:
        UserError: the two are not on the same items under the same protocol.
    """
    found: dict[tuple[str, str], Interval] = {}
    for own, above in zip(records, ceiling, strict=True):
        [comparison] = compare(folder(above, out), folder(own, out)).comparisons
        for contrast in comparison.metrics:
            found[own.run_id, contrast.metric] = contrast.difference
    return found


def folder(record: RunRecord, out: Path) -> Path:
    """Where `evaluate` put a record."""
    return out / folder_name(str(record.model["name"])) / record.run_id
