"""Sealing: the checks and the manifest that make the parquet files of another tool an alignment set.

Any folder of parquet files with the columns of `alignment_set.shard_schema()` that training needs (`COLUMNS` and
`audio {bytes, path}`) becomes an alignment set: `seal_alignment_set` checks it and writes `manifest.json` with its
checksums.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench import __version__
from rba_bench.audio import clips
from rba_bench.audio.alignment_index import SPLIT_NAMES, GroupIndex, build_group_index
from rba_bench.audio.alignment_set import COLUMNS as NEEDED
from rba_bench.audio.alignment_set import (
    MANIFEST,
    SEALED,
    AlignmentRow,
    AlignmentSet,
    make_row,
    refuse_missing,
    schema_version,
    shard_schema,
)
from rba_bench.audio.samples import is_silent
from rba_bench.audio.set_card import write_set_card
from rba_bench.audio.turns import TURNS, check_turns, turns_type_fault
from rba_bench.errors import RbaError, UserError
from rba_bench.files import read_json, sha256_file, sha256_json, write_json
from rba_bench.progress import bar, say
from rba_bench.seeding import stable_seed

KINDS = ("instruct", "qa", "s2tt", "ifeval")
SHOWN, NAMED = 100, 3  # bad clips shown on stderr, and in the message of the failure
CONFIDENCE = 0.95


def seal_alignment_set(folder: Path | str, sample: int | None = None) -> AlignmentSet:
    """Check the parquet files under a folder and write the manifest that makes them an alignment set.

    What is checked: columns and their types, ids that differ, kinds and splits that are known, no group in two splits,
    and of each clip that it can be decoded, is not silent, and has the hash, rate and duration that its row says. Of
    earlier turns, the texts and the clips that there are. With such turns the set is of version 2, else of version 1.

    Args:
        folder: searched for `*.parquet` at any depth; the files stay as they are. A manifest that `seal` wrote is
            written anew, one of `rba-bench synth` is left alone.
        sample: decode only so many clips, drawn at random; the share of bad clips that this cannot rule out is in the
            manifest. None = all.

    Returns:
        The set, opened.

    Raises:
        UserError: no parquet files, a set of `rba-bench synth`, or files that do not pass. Bad clips are listed on
            stderr by id and reason; the message has their number and the first.
    """
    place = Path(folder)
    _refuse_synthesised(place)
    if sample is not None and sample < 1:
        raise UserError(f"a sample of {sample} clips: use 1 or more")
    names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.parquet"))
    if not names:
        raise UserError(f"no parquet files under {place}")
    checksums = {}
    with bar("sealing", len(names), unit="files") as advance:
        for name in names:
            _check_columns(place / name)
            checksums[name] = sha256_file(place / name)
            advance(1)
    sealed = {"rba_bench": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    manifest: dict[str, Any] = {
        "schema_version": schema_version(check_turns([place / name for name in names], sample is None)),
        "status": "complete",
        SEALED: sealed,
        "checksums": checksums,
    }
    index = build_group_index(AlignmentSet(place, manifest))
    if unknown := sorted(set(index.kinds) - set(KINDS)):
        raise UserError(f"{place} has groups of kind {', '.join(unknown)}; valid: {', '.join(KINDS)}")
    manifest["counts"] = _counts(index) | {"hours": round(_check_ids(place, names) / 3600, 4)}
    manifest[SEALED] = sealed | _check_clips(place, names, index.rows, sample, sha256_json(checksums))
    write_json(place / MANIFEST, manifest)
    alignment = AlignmentSet.open(place, verify=False)
    write_set_card(alignment)
    return alignment


def _refuse_synthesised(folder: Path) -> None:
    path = folder / MANIFEST
    try:
        manifest = read_json(path) if path.is_file() else None
    except ValueError:
        manifest = None  # a torn manifest is written anew
    if isinstance(manifest, dict) and not manifest.get(SEALED):
        raise UserError(
            f"{path} was not written by sealing: run `rba-bench synth --out {folder}` again instead"
        )


def _check_columns(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    refuse_missing(path, columns.names)
    families = (pa.types.is_string, pa.types.is_large_string), (pa.types.is_integer,), (pa.types.is_floating,)
    for name in NEEDED:
        present, expected = columns.field(name).type, shard_schema().field(name).type
        family = next(tests for tests in families if any(test(expected) for test in tests))
        if not any(test(present) for test in family):
            raise UserError(f"{path}: column {name} is of type {present}, not {expected}")
    if TURNS in columns.names and (fault := turns_type_fault(columns.field(TURNS).type)):
        raise UserError(f"{path}: column {TURNS} {fault}")


def _check_clips(folder: Path, names: list[str], total: int, sample: int | None, key: str) -> dict[str, Any]:
    """Decode the clips, all or a sample, as training will. Raises UserError if some are bad.

    Returns, for the manifest, how many of how many were decoded, and the share of bad ones that this cannot rule out.
    """
    numbers = np.arange(total)
    if sample is not None and sample < total:
        draw = np.random.default_rng(stable_seed("seal", key))
        numbers = np.sort(draw.choice(total, sample, replace=False))
    bad: list[str] = []
    with bar("decoding", len(numbers), unit="clips") as advance:
        for row, place in _rows(folder, names, numbers):
            if fault := _fault(row):
                bad.append(f"{row.id} (row {row.audio.row} of {place}): {fault}")
                if len(bad) <= SHOWN:
                    say(f"bad clip {bad[-1]}")
            advance(1)
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        examples = "; ".join(bad[:NAMED])
        raise UserError(f"{len(bad)} of {len(numbers)} clips cannot be trained on: {examples}{more}")
    n, facts = len(numbers), {"clips_heard": len(numbers), "clips": total}
    if n == total:
        return facts
    # With a share p of bad clips, none is among n with probability (1 - p)^n; where that is 5 %, p is about 3 / n.
    bound = 1 - (1 - CONFIDENCE) ** (1 / n)
    say(f"decoded {n} of {total} clips, none bad: at most {bound:.2%} of all are bad, with 95 % confidence")
    return {**facts, "bad_share_at_most": round(bound, 6), "confidence": CONFIDENCE}


def _rows(folder: Path, names: list[str], numbers: np.ndarray) -> Iterator[tuple[AlignmentRow, str]]:
    """The numbers rows of all files, counted through, row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 0  # row of the set where the file begins
    for name in names:
        path = folder / name
        try:
            with pq.ParquetFile(path) as file:
                start = 0  # row of the file where the group begins
                for group in range(file.metadata.num_row_groups):
                    size = file.metadata.row_group(group).num_rows
                    low, high = np.searchsorted(numbers, [first + start, first + start + size])
                    places = numbers[low:high] - first - start
                    if len(places):
                        records = file.read_row_group(group, columns=list(NEEDED)).take(places).to_pylist()
                        for record, row in zip(records, places + start, strict=True):
                            yield make_row(record, str(path), int(row)), name
                    start += size
                first += start
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error


def _fault(row: AlignmentRow) -> str:
    """What is wrong with a clip, "" if nothing is."""
    if row.audio.sha256 is None or row.audio.sampling_rate is None:
        return "no audio_sha256 or no sampling_rate"
    try:
        wave = clips.load_clip(row.audio)
        rate, count = clips.measure_clip(clips.read_clip_bytes(row.audio))
    except clips.AudioError as error:
        return str(error.__cause__ or error)  # without the place, which the caller says
    except RbaError as error:
        return str(error)
    seconds = count / rate
    if rate != row.audio.sampling_rate:
        return f"recorded at {rate} Hz, not {row.audio.sampling_rate} Hz"
    if not abs(seconds - row.duration) <= max(0.05, 0.02 * seconds):
        return f"lasts {seconds:.2f} s, not {row.duration:.2f} s"
    return "silent" if is_silent(wave) else ""


def _check_ids(folder: Path, names: list[str]) -> float:
    """Seconds of speech. Raises UserError if two clips have the same id."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ids, seconds = [], 0.0
    for name in names:
        table = pq.read_table(folder / name, columns=["id", "duration"])
        if table["id"].null_count or table["duration"].null_count:
            raise UserError(f"{folder / name} has rows without id or duration")
        ids.append(np.asarray([clip_id.encode() for clip_id in table["id"].to_pylist()], dtype=np.bytes_))
        seconds += pc.sum(table["duration"]).as_py() or 0.0
    ordered = np.sort(np.concatenate(ids))
    if (twice := np.flatnonzero(ordered[1:] == ordered[:-1])).size:
        raise UserError(f"{folder}: the clip id {bytes(ordered[twice[0]]).decode()!r} occurs twice")
    return seconds


def _counts(index: GroupIndex) -> dict[str, Any]:
    kinds = {kind: int((index.kind == number).sum()) for number, kind in enumerate(index.kinds)}
    splits = {name: int((index.split == number).sum()) for number, name in enumerate(SPLIT_NAMES)}
    clips_ = {"clips": index.rows, "clips_without_response": index.unanswered}
    return {"groups": len(index.ids), **clips_, "groups_by_kind": kinds, "groups_by_split": splits}
