"""Clips of an alignment set to look at: a seeded choice over voices and topics, and their rows with stored bytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.clips import clip_file
from rba_bench.audio.parquet import nothing_stored, stored_bytes
from rba_bench.audio.set_statistics import SetStatistics
from rba_bench.audio.turns import TURN_TEXTS, TURNS
from rba_bench.errors import AudioError, UserError, first_line

ROWS_AT_ONCE = 64
SHOWN = (
    *("id", "group_id", "kind", "prompt", "instruction", "response", "references", "source_lang", "topic"),
    *("difficulty", "voice", "split", "duration", "asr_text", "asr_wer", "snr_db", "noise_colour", "speed"),
    *("augmentation", "audio"),
)


def choose_clips(statistics: SetStatistics, n: int, seed: int, worst: int = 0) -> np.ndarray:
    """Numbers of up to `n` clips, ascending: all voices equally often, and of each voice all topics.

    Rare voices and topics are therefore over-represented. Which clips stand for a voice and a topic is drawn.

    Args:
        statistics: Of the set.
        n: How many.
        seed: Of the draw.
        worst: How many of them are those with the highest word error rates (above 0).
    """
    order = np.random.default_rng(seed).permutation(statistics.clips)
    errors = np.nan_to_num(statistics.wer)
    by_error = order[np.argsort(-errors[order], kind="stable")][: min(worst, n)]
    first = by_error[errors[by_error] > 0]
    order = order[~np.isin(order, first)]
    voice, topic = statistics.voice[order], statistics.topic[order]
    turn = _rank_within(voice * np.int64(len(statistics.labels["topic"]) or 1) + topic)
    by_turn = np.argsort(turn, kind="stable")
    in_voice = np.empty(len(order), dtype=np.int64)
    in_voice[by_turn] = _rank_within(voice[by_turn])
    rest = order[np.argsort(in_voice, kind="stable")][: n - len(first)]
    return np.sort(np.concatenate([first, rest]).astype(np.int64))


def _rank_within(groups: np.ndarray) -> np.ndarray:
    """For each place, how many earlier places are of the same group, [n] int64."""
    by_group = np.argsort(groups, kind="stable")
    ordered = groups[by_group]
    begins = np.flatnonzero(np.concatenate([[True] * bool(len(ordered)), ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(begins, len(ordered)))
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[by_group] = np.arange(len(groups)) - np.repeat(begins, sizes)
    return ranks


def read_clips(
    alignment: AlignmentSet, statistics: SetStatistics, numbers: Sequence[int] | np.ndarray
) -> Iterator[tuple[dict[str, Any], bytes | None, str]]:
    """Rows of clips, read by row group: row groups without a wanted clip are passed over.

    Args:
        alignment: The set.
        statistics: Of the set, for the sizes of its shards.
        numbers: Of the clips, ascending.

    Yields:
        The columns of SHOWN that the set has, with `turns` (texts alone) where there are earlier turns and without
        `audio`; the stored bytes, None where there are none; and why there are none.

    Raises:
        UserError: a shard cannot be read.
    """
    import pyarrow as pa

    starts = statistics.starts
    for shard in np.unique(np.searchsorted(starts, numbers, side="right") - 1):
        path = alignment.shards[shard]
        rows = [int(n - starts[shard]) for n in numbers if starts[shard] <= n < starts[shard + 1]]
        try:
            for row, record in _rows(path, rows):
                audio = record.pop("audio", None)
                data = stored_bytes(path, audio)
                yield record, data or None, "" if data else nothing_stored(path, row, audio)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"shard {path} cannot be read ({first_line(error)})") from error


def _rows(path: Path, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of one shard by their numbers, ascending; few rows are in memory, however large the row groups."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        present = file.schema_arrow.names
        columns = [name for name in SHOWN if name in present] + (list(TURN_TEXTS) if TURNS in present else [])
        start = 0
        for group in range(file.metadata.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            wanted = [row for row in rows if start <= row < end]
            batches = file.iter_batches(ROWS_AT_ONCE, [group], columns, use_threads=False) if wanted else ()
            for batch in batches:
                some = [row for row in wanted if start <= row < start + len(batch)]
                yield from zip(some, batch.take([row - start for row in some]).to_pylist(), strict=True)
                start += len(batch)
                if start > wanted[-1]:
                    break
            start = end


def playable(data: bytes | None, problem: str) -> tuple[bytes, str, str]:
    """A clip as a browser plays it, the ending of its file, and why there is none ("" if there is).

    Args:
        data: Encoded clip; None where there is none.
        problem: Why there is none.
    """
    if data is None:
        return b"", "", problem
    try:
        return *clip_file(data), ""
    except AudioError as error:
        return b"", "", f"the clip cannot be decoded: {first_line(error)}"
