"""Counts and distributions of an alignment set, read column by column: the audio is not touched.

Memory does not grow with the clips but for 24 bytes each, which exact quantiles and the choice of clips need: a set of
a million clips takes 24 MB.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rba_bench.audio.alignment_set import AlignmentSet, refuse_missing
from rba_bench.errors import UserError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = ("kind", "split", "topic", "difficulty", "voice", "source_lang", "target_lang")
SECONDS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)  # quantiles of durations
ERRORS = (0.5, 0.75, 0.9, 0.95, 0.99, 1.0)  # quantiles of word error rates
ROWS_AT_ONCE = 65_536
_NUMBERS = ("duration", "asr_wer")


class FilterCount(NamedTuple):
    """How much a filter left out.

    Attributes:
        part: What was filtered: instructions, answers, clips, entries.
        reason: Name of the filter; "kept" for what none of them left out.
        n: How many.
        meaning: The reason in words.
    """

    part: str
    reason: str
    n: int
    meaning: str = ""


KEPT = "kept"


@dataclass(frozen=True)
class VoiceCount:
    """One voice: its clips, their hours, and the mean of their word error rates (None without transcripts)."""

    clips: int
    hours: float
    wer: float | None


@dataclass(frozen=True)
class SetStatistics:
    """What is in a set; C clips in S shards.

    Attributes:
        groups: Number of instructions.
        labels: For each of LABELS, the number of clips by value, the most frequent first; "" stands for none.
        voice, topic: [C] int32, places in `labels["voice"]` and `labels["topic"]`.
        seconds: [C] float32, durations as the set states them; NaN where it does not.
        wer: [C] float32, word error rates of the transcripts; NaN where there are none.
        starts: [S + 1] int64, number of the first clip of each shard.
        filters: What was left out, as the manifest tells.
    """

    groups: int
    labels: dict[str, dict[str, int]]
    voice: np.ndarray
    topic: np.ndarray
    seconds: np.ndarray
    wer: np.ndarray
    starts: np.ndarray
    filters: list[FilterCount]

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.seconds)

    @property
    def hours(self) -> float:
        """Hours of speech, as far as durations are stated."""
        return float(np.nansum(self.seconds, dtype=np.float64)) / 3600

    def voices(self) -> dict[str, VoiceCount]:
        """Each voice, the most frequent first."""
        names = list(self.labels["voice"])
        clips = np.bincount(self.voice, minlength=len(names))
        seconds = np.bincount(self.voice, np.nan_to_num(self.seconds), len(names))
        known = ~np.isnan(self.wer)
        errors = np.bincount(self.voice[known], self.wer[known], len(names))
        transcribed = np.bincount(self.voice[known], minlength=len(names))
        return {
            name: VoiceCount(
                int(clips[place]),
                round(float(seconds[place]) / 3600, 4),
                round(float(errors[place] / transcribed[place]), 4) if transcribed[place] else None,
            )
            for place, name in enumerate(names)
        }

    def summary(self) -> dict[str, Any]:
        """Everything as JSON values: counts, quantiles of seconds and of word error rates, filters."""
        return {
            "groups": self.groups,
            "clips": self.clips,
            "hours": round(self.hours, 4),
            "clips_by": {name: dict(counts) for name, counts in self.labels.items() if name != "voice"},
            "voices": {name: vars(count) for name, count in self.voices().items()},
            "seconds": quantiles(self.seconds, SECONDS),
            "wer": quantiles(self.wer, ERRORS),
            "filters": [count._asdict() for count in self.filters],
        }


def quantiles(values: np.ndarray, at: tuple[float, ...]) -> dict[str, float]:
    """`n`, `mean`, and quantiles by names such as `p50`, of what is not NaN; empty where nothing is known."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {}
    found = np.quantile(known, at)
    named = {f"p{100 * place:g}": round(float(value), 4) for place, value in zip(at, found, strict=True)}
    return {"n": len(known), "mean": round(float(known.mean(dtype=np.float64)), 4), **named}


def read_statistics(
    alignment: AlignmentSet, advance: Callable[[int], None] = lambda _: None
) -> SetStatistics:
    """Count a set.

    Args:
        alignment: Opened, verified or not.
        advance: Is told the number of shards that have been read.

    Raises:
        UserError: a shard is missing, damaged, or lacks columns.
    """
    codes: dict[str, dict[str, int]] = {name: {} for name in LABELS}
    counts: dict[str, Counter[int]] = {name: Counter() for name in LABELS}
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in ("voice", "topic", *_NUMBERS, "group")}
    sizes = []
    for path in alignment.shards:
        sizes.append(0)
        for batch in _batches(path):
            sizes[-1] += len(batch)
            for name in LABELS:
                values = _codes(batch[name], codes[name])
                counts[name].update(dict(zip(*_tally(values), strict=True)))
                if name in arrays:
                    arrays[name].append(values)
            for name in _NUMBERS:
                arrays[name].append(_numbers(batch, name))
            groups = batch["group_id"].unique().to_pylist()
            arrays["group"].append(np.unique([hash(group) for group in groups]))
        advance(1)
    ranks = {name: _by_frequency(codes[name], counts[name]) for name in LABELS}
    whole = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in arrays.items()}
    return SetStatistics(
        groups=len(np.unique(whole["group"])),
        labels={name: labels for name, (labels, _) in ranks.items()},
        voice=ranks["voice"][1][whole["voice"].astype(np.int32)],
        topic=ranks["topic"][1][whole["topic"].astype(np.int32)],
        seconds=whole["duration"],
        wer=whole["asr_wer"],
        starts=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
        filters=filter_counts(alignment.manifest),
    )


def filter_counts(manifest: Mapping[str, Any]) -> list[FilterCount]:
    """What a manifest tells of filters; what other tools write in these places is passed over."""
    parts = dict(_mapping(manifest.get("filters")))
    if imported := _mapping(_mapping(manifest.get("imported")).get("dropped")):
        parts["entries"] = {"dropped": imported}
    found = []
    for part, facts in parts.items():
        facts = _mapping(facts)
        if isinstance(facts.get(KEPT), int):
            found.append(FilterCount(str(part), KEPT, facts[KEPT]))
        for reason, entry in _mapping(facts.get("dropped")).items():
            n, meaning = _mapping(entry).get("n"), _mapping(entry).get("meaning")
            if isinstance(n, int) and n > 0:
                found.append(FilterCount(str(part), str(reason), n, str(meaning or "")))
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _batches(path: Path) -> "Iterator[pa.RecordBatch]":
    """Batches of the columns that are counted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            refuse_missing(path, present)
            columns = [name for name in ("group_id", *LABELS, *_NUMBERS) if name in present]
            yield from file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shard {path} cannot be read ({first_line(error)})") from error


def _codes(column: "pa.Array", names: dict[str, int]) -> np.ndarray:
    """[n] int32, numbers of the values of a column of few values; new ones are added to `names`, null is ""."""
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = pc.fill_null(_cast(column, pa.string()), "").dictionary_encode()
    table = [names.setdefault(value, len(names)) for value in coded.dictionary.to_pylist()]
    return np.asarray(table, dtype=np.int32)[coded.indices.to_numpy(zero_copy_only=False)]


def _cast(column: "pa.Array", kind: "pa.DataType") -> "pa.Array":
    """The column as another type; nulls where another tool wrote what cannot be cast."""
    import pyarrow as pa

    try:
        return column.cast(kind, safe=False)
    except pa.ArrowException:
        return pa.nulls(len(column), kind)


def _tally(codes: np.ndarray) -> tuple[list[int], list[int]]:
    values, counts = np.unique(codes, return_counts=True)
    return values.tolist(), counts.tolist()


def _numbers(batch: "pa.RecordBatch", name: str) -> np.ndarray:
    """[n] float32, NaN for null and where there is no such column."""
    import pyarrow as pa

    if name not in batch.schema.names:
        return np.full(len(batch), np.nan, dtype=np.float32)
    values: np.ndarray = _cast(batch[name], pa.float32()).to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.float32("nan"))


def _by_frequency(codes: Mapping[str, int], counts: Counter[int]) -> tuple[dict[str, int], np.ndarray]:
    """Numbers by name, the most frequent first, and the new place of each code, [n] int32."""
    names = sorted(codes, key=lambda name: (-counts[codes[name]], name))
    places = np.zeros(len(names), dtype=np.int32)
    places[[codes[name] for name in names]] = np.arange(len(names), dtype=np.int32)
    return {name: counts[codes[name]] for name in names}, places
