"""Run records from disk, each checked against its own samples before it may stand on a board.

What a row is (a model, or a reference and which), and which text ceiling a model is measured against.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rba_bench.errors import UserError
from rba_bench.evaluation.records import (
    RUN_FILE,
    SAMPLES_FILE,
    RunRecord,
    Sample,
    parse,
    read_record,
    sample_bytes,
)
from rba_bench.files import sha256_bytes
from rba_bench.metrics.aggregate import WIDTHS, macro_rows, macro_score, score_function
from rba_bench.metrics.bootstrap import Floats, ScoreFn
from rba_bench.untrusted import plain, read_untrusted_file

Identity = tuple[tuple[int, str, str, str], ...]


@dataclass(frozen=True)
class Run:
    """A record with the samples it was computed from.

    Attributes:
        record: Content of `run.json`.
        samples: All samples, in the order of the test set.
        folder: Where it was read.
        record_bytes: `run.json` as it is on disk, for publishing unchanged.
        sample_bytes: `samples.jsonl` as it was written.
    """

    record: RunRecord
    samples: tuple[Sample, ...]
    folder: Path
    record_bytes: bytes
    sample_bytes: bytes

    @property
    def name(self) -> str:
        """Name of the model, as it may be shown."""
        return plain(self.record.model["name"])

    @cached_property
    def items(self) -> Identity:
        """What was asked: position, clip, cluster and group of every item. Runs with equal items can be paired."""
        return tuple((item.doc_id, item.audio_sha256, item.cluster, item.group) for item in self.samples)

    def scored(self, metric: str) -> NDArray[np.bool_]:
        """Which items have a score of `metric`, `[n]`; the others were not heard, got no reply or no verdict."""
        return np.array([metric in sample.scores for sample in self.samples])

    @cached_property
    def _item_rows(self) -> dict[str, Floats]:
        return {}

    def item_rows(self, metric: str) -> Floats:
        """Summable rows of a metric `[n, k]`, one per item in the order of the test set; zeros where there is no score.

        Raises:
            UserError: the samples do not hold what the record's aggregation needs.
        """
        if metric not in self._item_rows:
            aggregation = self.record.metrics[metric].aggregation
            try:
                score_function(aggregation)  # known?
                empty = [0.0] * WIDTHS[aggregation]
                rows = [_row(sample.scores.get(metric), empty) for sample in self.samples]
            except ValueError as error:
                raise UserError(
                    f"{self.folder}: {metric} cannot be computed from its samples: {error}"
                ) from error
            self._item_rows[metric] = np.asarray(rows, dtype=np.float64)
        return self._item_rows[metric]

    def rows(self, metric: str) -> tuple[Floats, ScoreFn]:
        """Summable rows as they are drawn, and the score of their sum; macro metrics have a block of columns per group.

        Raises:
            UserError: the samples do not hold what the record's aggregation needs.
        """
        stated = self.record.metrics[metric]
        rows, score = self.item_rows(metric), score_function(stated.aggregation)
        if not stated.macro:
            return rows, score
        groups = [sample.group for sample in self.samples]
        return macro_rows(rows, groups), macro_score(score, rows.shape[1])


def _row(score: float | Sequence[int] | None, empty: Sequence[float]) -> Sequence[float]:
    if score is None:
        return empty
    row = [float(score), 1.0] if isinstance(score, int | float) else score
    if len(row) != len(empty):
        raise ValueError(f"a row of {len(row)} statistics where {len(empty)} are needed")
    return row


def find(paths: Iterable[Path], out: Path | None = None) -> list[Path]:
    """Folders with a `run.json` in or below `paths`, sorted.

    Copies that an earlier build left in `out` are passed over, unless a path names `out` or something in it.

    Raises:
        UserError: a path does not exist, or nothing was found.
    """
    folders: set[Path] = set()
    listed = list(paths)
    for path in listed:
        if not path.exists():
            raise UserError(f"no run records at {path}: it does not exist")
        files = [path] if path.is_file() else path.rglob(RUN_FILE)
        own = out is None or path.resolve().is_relative_to(out.resolve())
        folders |= {file.parent for file in files if own or not _below(file, out)}
    if not folders:
        raise UserError(
            f"no finished run ({RUN_FILE}) below {', '.join(map(str, listed)) or 'no path at all'}"
        )
    return sorted(folders)


def _below(file: Path, folder: Path | None) -> bool:
    return folder is not None and file.resolve().is_relative_to(folder.resolve())


def unfinished(paths: Iterable[Path]) -> list[Path]:
    """Folders below `paths` with samples but no record: runs that were interrupted and not resumed."""
    samples = (file.parent for path in paths if path.is_dir() for file in path.rglob(SAMPLES_FILE))
    return sorted({folder for folder in samples if not (folder / RUN_FILE).exists()})


def read(folder: Path) -> Run:
    """One run, verified: hash of the samples, their number, and every metric recomputed from them.

    Raises:
        UserError: something is missing, damaged, or does not follow from the samples.
    """
    record = read_record(folder)
    data = sample_bytes(folder)
    if sha256_bytes(data) != record.samples_sha256:
        raise UserError(
            f"{folder}: the samples are not the ones that {RUN_FILE} was computed from (hash differs)"
        )
    samples = tuple(sorted(parse(data, folder), key=lambda sample: sample.doc_id))
    run = Run(record, samples, folder, read_untrusted_file(folder / RUN_FILE), data)
    _verify(run)
    return run


def distinct(runs: Sequence[Run]) -> list[Run]:
    """`runs` without exact copies.

    Raises:
        UserError: two different records carry the same run id.
    """
    kept: dict[tuple[str, str], Run] = {}
    for run in runs:
        known = kept.setdefault((run.name, run.record.run_id), run)
        if known.record_bytes != run.record_bytes:
            raise UserError(f"{known.folder} and {run.folder} are different records of one run; remove one")
    return list(kept.values())


def _verify(run: Run) -> None:
    record = run.record
    if len({sample.doc_id for sample in run.samples}) != len(run.samples) or len(run.samples) != record.n:
        raise UserError(
            f"{run.folder}: {record.n} items recorded, {len(run.samples)} samples found, or some twice"
        )
    counts = Counter(sample.status for sample in run.samples)
    if {status: count for status, count in record.statuses.items() if count} != dict(counts):
        raise UserError(f"{run.folder}: statuses recorded {record.statuses}, counted {dict(counts)}")
    for metric in record.metrics:
        _verify_metric(run, metric)


def _verify_metric(run: Run, metric: str) -> None:
    stated = run.record.metrics[metric]
    n = int(run.scored(metric).sum())
    if (stated.n, stated.n_missing) != (n, len(run.samples) - n):
        raise UserError(
            f"{run.folder}: {metric} is recorded with n {stated.n} and {stated.n_missing} missing, "
            f"its samples hold {n} and {len(run.samples) - n}"
        )
    if not n:
        raise UserError(f"{run.folder}: no sample has a {metric}")
    rows, score = run.rows(metric)
    found = score(rows.sum(axis=0).tolist())
    if not abs(found - stated.value) <= 1e-6 * stated.scale:  # so that a NaN does not pass
        raise UserError(f"{run.folder}: {metric} is recorded as {stated.value}, its samples give {found}")


MODEL = "model"
CEILING = "ceiling"
REFERENCES = {"text": CEILING, "cascade": "cascade", "constant": "constant"}  # what was asked for: what it is
KINDS = (MODEL, *REFERENCES.values())
_WITH_PARTS = ("text", "cascade")  # also `text:<llm>`, `cascade:<whisper>+<llm>`


def kind_of(run: Run) -> str:
    """`model`, or the kind of reference the run is; by what was asked for, so no checkpoint can pose as one."""
    return kind_of_spec(str(run.record.model["spec"]))


def kind_of_spec(spec: str) -> str:
    """The same, of what was asked for (`--model`)."""
    head, _, rest = spec.partition(":")
    return REFERENCES[head] if rest and head in _WITH_PARTS else REFERENCES.get(spec, MODEL)


def names_of(run: Run) -> frozenset[str]:
    """What a reference may be called by: its name, its spec, and the LLM in it by id and by last part; lower case."""
    spec = str(run.record.model["spec"])
    llm = spec.partition(":")[2].split("+")[-1]
    return frozenset(name.casefold() for name in (run.name, spec, *_short(llm)) if name)


def ceilings_for(run: Run, ceilings: Sequence[Run], wanted: str | None = None) -> list[Run]:
    """The ceilings that fit a run: those called `wanted`; else the only one; else those of the run's own text LLM.

    Its own LLM is the one its training started from, or the second half of a cascade. Several are left where one model
    was run with several seeds; none where nothing tells which of several it should be.
    """
    if wanted is not None:
        return [ceiling for ceiling in ceilings if wanted.casefold() in names_of(ceiling)]
    if len({ceiling.name for ceiling in ceilings}) <= 1:
        return list(ceilings)
    own = _own_llm(run)
    return [ceiling for ceiling in ceilings if own & names_of(ceiling) or _same_weights(run, ceiling)]


def _own_llm(run: Run) -> frozenset[str]:
    base = str((run.record.model.get("training") or {}).get("base") or "")
    llm = str(run.record.model["spec"]).partition("+")[2] if kind_of(run) == "cascade" else ""
    return frozenset(name.casefold() for part in (base, llm) for name in _short(part) if name)


def _short(llm: str) -> tuple[str, str]:
    """`org/model`, a path or `openai:https://host/v1#model`, and its last part."""
    return llm, llm.rpartition("#")[2].rstrip("/").rpartition("/")[2]


def _same_weights(run: Run, ceiling: Run) -> bool:
    text = run.record.model.get("text")
    own = text.get("weights_sha256") if isinstance(text, dict) else None
    return own is not None and own == ceiling.record.model.get("weights_sha256")
