"""Run records loaded from disk, each checked against its own samples before it may stand on a board.

Also what a run is on a board (a model, or a reference and which one), and which text ceiling a model is measured
against.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rba_bench.errors import UserError
from rba_bench.evaluation.records import (
    RUN_FILE,
    SAMPLES_FILE,
    RunRecord,
    Sample,
    ScoredItem,
    parse_checked_items,
    parse_checked_samples,
    parse_samples,
    read_beside,
    read_record_bytes,
    sample_bytes,
)
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard.item_facts import Items, facts_of_items
from rba_bench.metrics.aggregate import resampling_rows, summable_rows
from rba_bench.metrics.bootstrap import Floats, ScoreFn
from rba_bench.untrusted import plain, read_untrusted_file

ItemKeys = tuple[tuple[int, str, str, str], ...]
MODEL = "model"
CEILING = "ceiling"
REFERENCES = {"text": CEILING, "cascade": "cascade", "constant": "constant"}  # by `--model`
KINDS = (MODEL, *REFERENCES.values())
_WITH_PARTS = ("text", "cascade")  # also `text:<llm>`, `cascade:<whisper>+<llm>`


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A record, and the samples it was computed from, which are read when they are first asked for.

    Attributes:
        record: Content of `run.json`.
        folder: The run folder.
        record_sha256: Hash of `run.json`.
        beside: The mark and the attestation of the record, as they are on disk, by the names of their files; see
            `provenance`. Of several copies of a record the run has what any of them has.
    """

    record: RunRecord
    folder: Path
    record_sha256: str
    beside: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def record_bytes(self) -> bytes:
        """`run.json` as it is on disk, for publishing unchanged.

        Raises:
            UserError: it was changed since it was read first.
        """
        data = read_untrusted_file(self.folder / RUN_FILE)
        if sha256_bytes(data) != self.record_sha256:
            raise UserError(f"{self.folder / RUN_FILE} was changed meanwhile: repeat the command")
        return data

    @cached_property
    def sample_bytes(self) -> bytes:
        """`samples.jsonl` as it was written.

        Raises:
            UserError: they are not those of the record.
        """
        data = sample_bytes(self.folder)
        if sha256_bytes(data) != self.record.samples_sha256:
            raise UserError(
                f"{self.folder}: the samples are not the ones that {RUN_FILE} was computed from (hash differs)"
            )
        return data

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """All samples, in the order of the test set. The record must have been checked, see `load_checked_run`."""
        return in_order(parse_checked_samples(self.sample_bytes))

    @cached_property
    def item_facts(self) -> Items:
        """What the samples say of their items; for runs with equal items the same object."""
        return facts_of_items(self.samples)

    def release(self) -> None:
        """Forget everything but the record; it is read again if it is asked for."""
        kept = self.__getstate__()
        vars(self).clear()
        vars(self).update(kept)

    def __getstate__(self) -> dict[str, object]:
        """What goes to another process: no samples."""
        return {name: vars(self)[name] for name in ("record", "folder", "record_sha256", "beside")}

    def add_beside(self, beside: Mapping[str, bytes]) -> None:
        """What lies beside a copy of this record; what this one has stays."""
        for name, data in beside.items():
            self.beside.setdefault(name, data)

    @property
    def name(self) -> str:
        """Name of the model, as it may be shown."""
        return _shown(self.record.model["name"])

    @cached_property
    def scored_items(self) -> tuple[Sample | ScoredItem, ...]:
        """Identity and scores of all samples, in the order of the test set; without their texts if nobody asked."""
        if "samples" in vars(self):
            return self.samples
        return tuple(sorted(parse_checked_items(self.sample_bytes), key=lambda item: item.doc_id))

    @cached_property
    def items(self) -> ItemKeys:
        """Position, clip, cluster and group of every item. Runs with equal items can be paired."""
        return tuple((item.doc_id, item.audio_sha256, item.cluster, item.group) for item in self.scored_items)

    @cached_property
    def clusters(self) -> tuple[str, ...]:
        """Cluster of every item."""
        return tuple(item[2] for item in self.items)

    @cached_property
    def target_langs(self) -> frozenset[str]:
        """Languages of the answers."""
        return frozenset(item.target_lang for item in self.scored_items)

    @cached_property
    def _item_rows(self) -> dict[str, Floats]:
        return {}

    @cached_property
    def _has_score(self) -> dict[str, NDArray[np.bool_]]:
        return {}

    def has_score(self, metric: str) -> NDArray[np.bool_]:
        """Which items have a score of `metric`, `[n]`; the others have no audio, no reply or no verdict."""
        if metric not in self._has_score:
            self._has_score[metric] = np.array([metric in item.scores for item in self.scored_items])
        return self._has_score[metric]

    def item_rows(self, metric: str) -> Floats:
        """Summable rows of a metric `[n, k]`, one per item in the order of the test set; zeros where there is no score.

        Raises:
            UserError: the samples do not hold what the record's aggregation needs.
        """
        if metric not in self._item_rows:
            aggregation = self.record.metrics[metric].aggregation
            try:
                rows = summable_rows([item.scores.get(metric) for item in self.scored_items], aggregation)
            except ValueError as error:
                raise UserError(
                    f"{self.folder}: {metric} cannot be computed from its samples: {error}"
                ) from error
            self._item_rows[metric] = rows
        return self._item_rows[metric]

    def share(self, like: "LoadedRun") -> None:
        """Hold what the record has in common with another one only once; thousands of records are held at a time."""
        for name in ("protocol_spec", "decoding", "data", "exploits", "hardware", "versions"):
            if getattr(like.record, name) == getattr(self.record, name):
                setattr(self.record, name, getattr(like.record, name))

    def condense(self, like: "LoadedRun | None" = None) -> None:
        """Keep the scores of all metrics as arrays and forget the samples, which would fill the memory by hundreds.

        Args:
            like: A condensed run on the same items, if there is one, whose names of items are shared.
        """
        for metric in self.record.metrics:
            self.has_score(metric), self.item_rows(metric)
        if like is not None and like.items == self.items:
            vars(self).update(items=like.items, clusters=like.clusters)
        self.clusters, self.target_langs  # noqa: B018  read before the samples go
        for name in ("samples", "item_facts", "scored_items", "sample_bytes", "record_bytes"):
            vars(self).pop(name, None)

    def rows(self, metric: str) -> tuple[Floats, ScoreFn]:
        """Summable rows as they are resampled, and the score of their sum; see `resampling_rows`.

        Raises:
            UserError: the samples do not hold what the record's aggregation needs.
        """
        value = self.record.metrics[metric]
        groups = [item[3] for item in self.items] if value.macro else None
        return resampling_rows(self.item_rows(metric), value.aggregation, groups)


_shown = lru_cache(maxsize=2**14)(plain)  # names are asked for again and again


def find_runs(paths: Iterable[Path], out: Path | None = None) -> list[Path]:
    """Folders with a `run.json` in or below `paths`, sorted.

    Copies that an earlier build left in `out` are passed over, unless a path names `out` or something in it.

    Raises:
        UserError: a path does not exist, or nothing was found.
    """
    folders: set[Path] = set()
    paths = list(paths)
    for path in paths:
        if not path.exists():
            raise UserError(f"no run records at {path}: it does not exist")
        files = [path] if path.is_file() else path.rglob(RUN_FILE)
        if out is not None and not path.resolve().is_relative_to(out.resolve()):
            files = [file for file in files if not file.resolve().is_relative_to(out.resolve())]
        folders |= {file.parent for file in files}
    if not folders:
        raise UserError(
            f"no finished run ({RUN_FILE}) below {', '.join(map(str, paths)) or 'no path at all'}"
        )
    return sorted(folders)


def find_unfinished_runs(paths: Iterable[Path]) -> list[Path]:
    """Folders below `paths` with samples but no record: runs that were interrupted and not resumed."""
    samples = (file.parent for path in paths if path.is_dir() for file in path.rglob(SAMPLES_FILE))
    return sorted({folder for folder in samples if not (folder / RUN_FILE).exists()})


def open_run(folder: Path) -> LoadedRun:
    """A run of which only the record is read; nothing is known yet of its samples.

    Raises:
        UserError: there is no record, or it is not one of this schema.
    """
    record, data = read_record_bytes(folder)
    return LoadedRun(record, folder, sha256_bytes(data), read_beside(folder))


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Samples in the order of the test set."""
    return tuple(sorted(samples, key=lambda sample: sample.doc_id))


def load_checked_run(folder: Path) -> LoadedRun:
    """Load one run and check it: hash of the samples, their number, and every metric recomputed from them.

    Raises:
        UserError: something is missing, damaged, or does not follow from the samples.
    """
    run = open_run(folder)
    check_run(run)
    return run


def check_run(run: LoadedRun) -> None:
    """Read and check the samples of a run whose record was read; see `load_checked_run`."""
    record, folder = run.record, run.folder
    samples = in_order(parse_samples(run.sample_bytes, folder))
    if len({sample.doc_id for sample in samples}) != len(samples) or len(samples) != record.n:
        raise UserError(f"{folder}: {record.n} items recorded, {len(samples)} samples found, or some twice")
    counts = Counter(sample.status for sample in samples)
    if {status: count for status, count in record.statuses.items() if count} != dict(counts):
        raise UserError(f"{folder}: statuses recorded {record.statuses}, counted {dict(counts)}")
    vars(run)["samples"] = samples  # of lines that nobody has checked before
    for metric, recorded in record.metrics.items():
        n = int(run.has_score(metric).sum())
        if (recorded.n, recorded.n_missing) != (n, len(samples) - n):
            raise UserError(
                f"{folder}: {metric} is recorded with n {recorded.n} and {recorded.n_missing} missing, "
                f"its samples hold {n} and {len(samples) - n}"
            )
        if not n:
            raise UserError(f"{folder}: no sample has a {metric}")
        rows, score = run.rows(metric)
        value = score(rows.sum(axis=0).tolist())
        if not abs(value - recorded.value) <= 1e-6 * recorded.scale:  # so that a NaN does not pass
            raise UserError(f"{folder}: {metric} is recorded as {recorded.value}, its samples give {value}")


def without_copies(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    """`runs` without exact copies; what lies beside a copy (a mark, an attestation) is not lost with it.

    Raises:
        UserError: two different records carry the same run id.
    """
    distinct: dict[tuple[str, str], LoadedRun] = {}
    for run in runs:
        first = distinct.setdefault((run.name, run.record.run_id), run)
        if first.record_sha256 != run.record_sha256:
            raise UserError(f"{first.folder} and {run.folder} are different records of one run; remove one")
        first.add_beside(run.beside)
    return list(distinct.values())


def kind_of_run(run: LoadedRun) -> str:
    """`model`, or the kind of reference the run is; by the `--model` of the run, so no checkpoint can pose as one."""
    return kind_of_spec(str(run.record.model["spec"]))


def kind_of_spec(spec: str) -> str:
    """`model`, or the kind of reference that `--model spec` stands for."""
    head, _, rest = spec.partition(":")
    return REFERENCES[head] if rest and head in _WITH_PARTS else REFERENCES.get(spec, MODEL)


def reference_names(run: LoadedRun) -> frozenset[str]:
    """What a reference may be called by: its name, its spec, and the LLM in it by id and by last part; lower case."""
    spec = str(run.record.model["spec"])
    llm = spec.partition(":")[2].split("+")[-1]
    return _lower_case_names(run.name, spec, llm, _last_part(llm))


def matching_ceilings(
    run: LoadedRun, ceilings: Sequence[LoadedRun], name: str | None = None
) -> list[LoadedRun]:
    """The ceilings that fit a run: those called `name`; else the only one; else those of the run's own text LLM.

    Its own LLM is the one its training started from, or the second half of a cascade. Several are left where one model
    was run with several seeds; none where nothing tells which of several it should be.
    """
    if name is not None:
        return [ceiling for ceiling in ceilings if name.casefold() in reference_names(ceiling)]
    if len({ceiling.name for ceiling in ceilings}) <= 1:
        return list(ceilings)
    model = run.record.model
    base = str((model.get("training") or {}).get("base") or "")
    llm = str(model["spec"]).partition("+")[2] if kind_of_run(run) == "cascade" else ""
    llm_names = _lower_case_names(base, _last_part(base), llm, _last_part(llm))
    text = model.get("text")
    weights = text.get("weights_sha256") if isinstance(text, dict) else None
    return [
        ceiling
        for ceiling in ceilings
        if llm_names & reference_names(ceiling)
        or (weights is not None and weights == ceiling.record.model.get("weights_sha256"))
    ]


def _lower_case_names(*names: str) -> frozenset[str]:
    return frozenset(name.casefold() for name in names if name)


def _last_part(llm: str) -> str:
    """Of `org/model`, a path or `openai:https://host/v1#model`."""
    return llm.rpartition("#")[2].rstrip("/").rpartition("/")[2]
