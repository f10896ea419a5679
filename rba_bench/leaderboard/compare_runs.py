"""`rba-bench compare`: what run A scores above run B, for two runs or for every pair of equal task in two folders.

Also the modality gap: what the text ceiling scores above a model on the same items.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RUN_FILE, RunRecord, read_record
from rba_bench.files import folder_name
from rba_bench.leaderboard.board_groups import GroupKey, data_hash, full_run_key, group_key
from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.judges import judges_of, same_judge
from rba_bench.leaderboard.loaded_runs import CEILING, LoadedRun, kind_of_run, load_checked_run
from rba_bench.leaderboard.pairing import Contrast, RunPair
from rba_bench.leaderboard.tables import NOTHING, SHORT, TextTable, interval_text
from rba_bench.metrics.interval import FEWEST, Interval
from rba_bench.untrusted import printable

HEADINGS = ("metric", "A", "B", "A-B [95 %]", "(A-B)/B % [95 %]", "n", "left out", "win/tie/loss")
LEGEND = (
    "A and B are the scores on the items that are scored in both runs; intervals are paired 95 % intervals, items of "
    "one cluster are drawn together. * marks a difference whose interval excludes zero (never with fewer than "
    f"{FEWEST} independent items), each line for itself: of 20 lines without a difference, one may be marked by "
    "chance. Wins are items on which A is better."
)
RETAINED = "retained % [95 %]"
SAME_METRIC = ("aggregation", "macro", "scale", "signature", "higher_is_better")  # fields that must be equal
TEST_SET = {
    "source": "source", "n_items": "number of items", "items_sha256": "texts", "audio_set_sha256": "clips",
}  # fmt: skip
SHOWN = 3  # differences of two protocols that a refusal names
_ABSENT = "absent"


class RunHeader(NamedTuple):
    """A run folder and its record, the samples not read."""

    folder: Path
    record: RunRecord


@dataclass(frozen=True)
class RunComparison:
    """Two runs on the same items, metric by metric: of one task under one protocol, or else across protocols.

    Attributes:
        retained: Where A is a control (`eval --audio`) of the same protocol as B: its scores as shares of B's.
    """

    first: LoadedRun
    second: LoadedRun
    metrics: tuple[Contrast, ...]
    retained: Mapping[str, Interval] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        record = self.first.record
        return {
            "task": record.task,
            "protocol": record.protocol,
            "protocol_hash": record.protocol_hash,
            "data_hash": data_hash(record),
            "across": difference_of_records(self.first.record, self.second.record),
            "a": _run_facts(self.first),
            "b": _run_facts(self.second),
            "metrics": [
                {
                    **asdict(contrast),
                    "significant": contrast.difference.excludes(0.0),
                    "retained": asdict(share) if (share := self.retained.get(contrast.metric)) else None,
                }
                for contrast in self.metrics
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
            control = f", control {run.record.audio_control}" if run.record.audio_control else ""
            lines.append(f"{letter} = {run.name} ({run.folder}, {run.record.created[:10]}{control}{partial})")
        if difference := difference_of_records(record, self.second.record):
            share = (
                ["retained is A as a share of B: what remains without the speech"] if self.retained else []
            )
            return [*lines, f"compared with --across, although {difference}", *share]
        reads_transcript = [kind_of_run(run) == CEILING for run in (self.first, self.second)]
        if reads_transcript == [False, True]:
            lines.append(
                "B reads the transcript: (A-B)/B is the share of B's score that A loses with speech input (the "
                "forgetting rate of speech_ifeval)"
            )
        elif reads_transcript == [True, False]:
            lines.append("A reads the transcript: A-B is the modality gap")
        return lines

    def table(self) -> TextTable:
        """One row per metric."""
        rows = []
        for each in self.metrics:
            factor = 100.0 / each.scale
            difference, relative = each.difference, each.relative
            rows.append(
                [
                    metric_heading(each.metric, each.scale, each.higher_is_better),
                    f"{each.a * factor:.2f}",
                    f"{each.b * factor:.2f}",
                    _signed_text(difference, factor) + (" *" if difference.excludes(0.0) else ""),
                    NOTHING if relative is None else _signed_text(relative, 100.0),
                    str(each.n),
                    str(each.n_left_out),
                    f"{each.wins}/{each.ties}/{each.losses}",
                    *([_percent(self.retained.get(each.metric))] if self.retained else []),
                ]
            )
        return TextTable((*HEADINGS, *((RETAINED,) if self.retained else ())), rows)


@dataclass(frozen=True)
class ComparisonResult:
    """All comparisons, and in sentences what could not be compared."""

    comparisons: tuple[RunComparison, ...]
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"comparisons": [each.to_dict() for each in self.comparisons], "left_out": list(self.left_out)}


def compare_runs(
    a: Path | Sequence[Path], b: Path | Sequence[Path], across: bool = False
) -> ComparisonResult:
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
    first, second = run_headers(a), run_headers(b)
    names = [str(place) if isinstance(place, Path) else ", ".join(map(str, place)) for place in (a, b)]
    if across:
        if len(first) != 1 or len(second) != 1:
            raise UserError(
                "across protocols two single runs are compared: name one run folder each, not "
                f"{names[0]} and {names[1]}"
            )
        return ComparisonResult((_compare_pair(first[0].folder, second[0].folder),), ())
    pairs, left_out = _match_runs(first, second)
    if not pairs:
        same_items = len(first) == len(second) == 1 and data_hash(first[0].record) == data_hash(
            second[0].record
        )
        fix = "; --across compares them all the same" if same_items else ""
        raise UserError(f"{names[0]} and {names[1]} cannot be compared: {left_out[0]}{fix}")
    return ComparisonResult(tuple(_compare_pair(*pair) for pair in pairs), tuple(left_out))


def run_headers(place: Path | Sequence[Path]) -> list[RunHeader]:
    """Folder and record of the run at `place` (a run folder or its `run.json`), else of all runs below it, sorted.

    Args:
        place: One place, or several.

    Raises:
        UserError: there is none, or two different records carry one run id.
    """
    headers: dict[tuple[str, str], RunHeader] = {}
    for path in [place] if isinstance(place, Path) else place:
        if not path.exists():
            raise UserError(f"no run at {path}: it does not exist")
        folder = path.parent if path.name == RUN_FILE else path
        is_run = (folder / RUN_FILE).is_file()
        folders = [folder] if is_run else sorted(file.parent for file in folder.rglob(RUN_FILE))
        if not folders:
            raise UserError(f"no finished run ({RUN_FILE}) in or below {path}")
        for folder in folders:
            record = read_record(folder)
            first = headers.setdefault((str(record.model["name"]), record.run_id), RunHeader(folder, record))
            if first.record != record:
                raise UserError(f"{first.folder} and {folder} are different records of one run; remove one")
    return list(headers.values())


def difference_of_records(a: RunRecord, b: RunRecord) -> str:
    """Why two runs must not be compared, naming what differs; "" if they may be."""
    if a.task != b.task:
        return f"they are runs of different tasks, {a.task} and {b.task}"
    reasons = []
    if a.protocol_hash != b.protocol_hash:
        leaves = list(_differing_leaves(a.protocol_spec, b.protocol_spec))
        reasons.append(f"their protocols differ in {_leaves_text(leaves)}")
    if data_hash(a) != data_hash(b):
        values = [(name, a.data.get(key), b.data.get(key)) for key, name in TEST_SET.items()]
        leaves = [(name, mine, theirs) for name, mine, theirs in values if mine != theirs]
        reasons.append(f"their test sets differ in {_leaves_text(leaves)}")
    return "; ".join(reasons)


def _match_runs(
    first: Sequence[RunHeader], second: Sequence[RunHeader]
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Folders to compare, and why the rest is left out."""
    left, right = _by_group(first), _by_group(second)
    pairs: list[tuple[Path, Path]] = []
    notes = []
    for key in sorted(left.keys() & right.keys()):
        ours, others = left[key], right[key]
        matched = [(ours[0].folder, others[0].folder)]
        if max(len(ours), len(others)) > 1:  # the runs of equal seed and limit where these are unambiguous
            mine, theirs = (
                [(record.seeds.get("generation"), record.limit) for _, record in side]
                for side in (ours, others)
            )
            matched = [
                (ours[mine.index(replicate)].folder, others[theirs.index(replicate)].folder)
                for replicate in mine
                if mine.count(replicate) == theirs.count(replicate) == 1
            ]
        pairs += matched
        if len(matched) < max(len(ours), len(others)):
            notes.append(
                f"{key[0]}: of {len(ours)} and {len(others)} runs not all have one counterpart of equal seed; name one "
                "run folder each"
            )
    if not pairs and len(first) == len(second) == 1:
        return pairs, [difference_of_records(first[0].record, second[0].record)]
    return pairs, notes + _unmatched_notes(left, right)


def _by_group(headers: Sequence[RunHeader]) -> dict[GroupKey, list[RunHeader]]:
    groups: dict[GroupKey, list[RunHeader]] = {}
    for header in headers:
        groups.setdefault(group_key(header.record), []).append(header)
    return groups


def _unmatched_notes(
    left: Mapping[GroupKey, list[RunHeader]], right: Mapping[GroupKey, list[RunHeader]]
) -> list[str]:
    """What only one side has, a sentence per task."""
    unmatched = left.keys() ^ right.keys()
    notes = []
    for task in sorted({key[0] for key in unmatched}):
        ours, theirs = (
            [each.record for key in sorted(unmatched & side.keys()) if key[0] == task for each in side[key]]
            for side in (left, right)
        )
        if ours and theirs:
            notes.append(f"{task}: {difference_of_records(ours[0], theirs[0])}")
        else:
            side, record = ("A", ours[0]) if ours else ("B", theirs[0])
            notes.append(f"{task} under protocol {record.protocol_hash[:SHORT]}: only {side} has a run of it")
    return notes


def _compare_pair(first: Path, second: Path) -> RunComparison:
    a, b = load_checked_run(first), load_checked_run(second)

    def definition(run: LoadedRun, metric: str) -> list[Any]:
        value = run.record.metrics.get(metric)
        return [getattr(value, name) for name in SAME_METRIC] if value else []

    metrics = [metric for metric in a.record.metrics if definition(a, metric) == definition(b, metric)]
    judges_a, judges_b = judges_of(a.record), judges_of(b.record)
    metrics = [metric for metric in metrics if same_judge(judges_a.get(metric), judges_b.get(metric))]
    if not metrics:
        raise UserError(f"{first} and {second} have no metric of one signature and one judge in common")
    pair = RunPair(a, b, across=bool(difference_of_records(a.record, b.record)))
    contrasts = [contrast for metric in metrics if (contrast := pair.contrast(metric)) is not None]
    if not contrasts:
        raise UserError(f"{first} and {second} have no item with a score in both")
    retained = {}
    if a.record.audio_control and full_run_key(a.record) == group_key(b.record):
        retained = {metric: share for metric in metrics if (share := pair.retained(metric)) is not None}
    return RunComparison(a, b, tuple(contrasts), retained)


def _differing_leaves(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """`(path, value in A, value in B)` of every leaf that differs."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            below = f"{path}.{key}" if path else str(key)
            yield from _differing_leaves(a.get(key, _ABSENT), b.get(key, _ABSENT), below)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (mine, theirs) in enumerate(zip(a, b, strict=True)):
            yield from _differing_leaves(mine, theirs, f"{path}[{index}]")
    elif a != b:
        yield path, a, b


def _leaves_text(leaves: Sequence[tuple[str, Any, Any]]) -> str:
    if not leaves:
        return "their hashes, though not in what they record"

    def shorten(value: Any) -> str:
        text = value if value == _ABSENT else json.dumps(value, ensure_ascii=False, sort_keys=True)
        return printable(text if len(text) <= 48 else text[:45] + "...")

    texts = [f"{path} ({shorten(a)} against {shorten(b)})" for path, a, b in leaves[:SHOWN]]
    return ", ".join(texts + ([f"{len(leaves) - SHOWN} more"] if len(leaves) > SHOWN else []))


def _run_facts(run: LoadedRun) -> dict[str, Any]:
    record = run.record
    return {
        "model": run.name,
        "kind": kind_of_run(run),
        "run_id": record.run_id,
        "folder": str(run.folder),
        "partial": record.partial,
        "created": record.created,
    }


def _percent(share: Interval | None) -> str:
    return NOTHING if share is None else interval_text((share.value, share.low, share.high), 100.0)


def _signed_text(interval: Interval, factor: float) -> str:
    return interval_text((interval.value, interval.low, interval.high), factor, digits=2, signed=True)


def modality_gaps(
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
    gaps: dict[tuple[str, str], Interval] = {}
    for model_record, ceiling_record in zip(records, ceiling, strict=True):
        [comparison] = compare_runs(
            record_folder(out, ceiling_record), record_folder(out, model_record)
        ).comparisons
        for contrast in comparison.metrics:
            gaps[model_record.run_id, contrast.metric] = contrast.difference
    return gaps


def record_folder(out: Path, record: RunRecord) -> Path:
    """Where `evaluate` put a record."""
    return out / folder_name(str(record.model["name"])) / record.run_id
