"""The manifest of an alignment set that another tool made, so that training can trust it.

Any folder of parquet files with the columns of `alignment_set.schema()` that training needs (`COLUMNS` and
`audio {bytes, path}`) becomes an alignment set: `seal` checks it and writes `manifest.json` with its checksums.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench import __version__
from rba_bench.audio import clips
from rba_bench.audio.alignment_index import SPLIT_NAMES, GroupIndex, build
from rba_bench.audio.alignment_set import COLUMNS as NEEDED
from rba_bench.audio.alignment_set import (
    MANIFEST,
    SCHEMA_VERSION,
    SEALED,
    AlignmentRow,
    AlignmentSet,
    make_row,
    refuse_missing,
    schema,
)
from rba_bench.errors import UserError
from rba_bench.files import read_json, sha256_file, write_json
from rba_bench.progress import bar

KINDS = ("instruct", "qa", "s2tt")


def seal(folder: Path | str) -> AlignmentSet:
    """Check the parquet files under a folder and write the manifest that makes them an alignment set.

    What is checked: columns and their types, ids that differ, kinds and splits that are known, no group in two splits,
    and of each file that its first clip can be heard and is what its hash says. Training checks each clip it reads.

    Args:
        folder: searched for `*.parquet` at any depth; the files stay as they are. A manifest that `seal` wrote is
            written anew, one of `rba-bench synth` is left alone.

    Returns:
        The set, opened.

    Raises:
        UserError: no parquet files, a set of `rba-bench synth`, or files that do not pass; the message names the first.
    """
    place = Path(folder)
    _refuse_synthesised(place)
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*.parquet"))
    if not names:
        raise UserError(f"no parquet files under {place}")
    checksums = {}
    with bar("sealing", len(names), unit="files") as advance:
        for name in names:
            _check_file(place / name)
            checksums[name] = sha256_file(place / name)
            advance(1)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        SEALED: {"rba_bench": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds")},
        "checksums": checksums,
    }
    index = build(AlignmentSet(place, manifest))
    if unknown := sorted(set(index.kinds) - set(KINDS)):
        raise UserError(f"{place} has groups of kind {', '.join(unknown)}; valid: {', '.join(KINDS)}")
    manifest["counts"] = _counts(index) | {"hours": round(_ids_differ(place, names) / 3600, 4)}
    write_json(place / MANIFEST, manifest)
    return AlignmentSet.open(place, verify=False)


def _refuse_synthesised(folder: Path) -> None:
    path = folder / MANIFEST
    try:
        found = read_json(path) if path.is_file() else None
    except ValueError:
        found = None  # a torn manifest is written anew
    if isinstance(found, dict) and not found.get(SEALED):
        raise UserError(
            f"{path} was not written by sealing: run `rba-bench synth --out {folder}` again instead"
        )


def _check_file(path: Path) -> None:
    """Columns, types and the first clip of one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow
            refuse_missing(path, found.names)
            for name in NEEDED:
                _check_type(path, found.field(name), schema().field(name).type)
            rows = file.metadata.num_rows
            first = file.read_row_group(0, columns=list(NEEDED)).slice(0, 1).to_pylist() if rows else []
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    for record in first:
        _check_clip(make_row(record, str(path), 0))


def _check_type(path: Path, field: Any, wanted: Any) -> None:
    import pyarrow as pa

    families = (pa.types.is_string, pa.types.is_large_string), (pa.types.is_integer,), (pa.types.is_floating,)
    family = next(tests for tests in families if any(test(wanted) for test in tests))
    if not any(test(field.type) for test in family):
        raise UserError(f"{path}: column {field.name} is of type {field.type}, not {wanted}")


def _check_clip(row: AlignmentRow) -> None:
    try:
        seconds = len(clips.load(row.audio)) / clips.SAMPLING_RATE
    except clips.AudioError as error:
        raise UserError(f"clip {row.id}: {error}") from error
    if abs(seconds - row.duration) > max(0.05, 0.02 * seconds):
        raise UserError(f"clip {row.id} of {row.audio.path} lasts {seconds:.2f} s, not {row.duration:.2f} s")


def _ids_differ(folder: Path, names: list[str]) -> float:
    """Seconds of speech. Raises UserError if two clips have the same id."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ids, seconds = [], 0.0
    for name in names:
        table = pq.read_table(folder / name, columns=["id", "duration"])
        if table["id"].null_count or table["duration"].null_count:
            raise UserError(f"{folder / name} has rows without id or duration")
        ids.append(np.asarray([one.encode() for one in table["id"].to_pylist()], dtype=np.bytes_))
        seconds += pc.sum(table["duration"]).as_py() or 0.0
    found = np.sort(np.concatenate(ids))
    if (twice := np.flatnonzero(found[1:] == found[:-1])).size:
        raise UserError(f"{folder}: the clip id {bytes(found[twice[0]]).decode()!r} occurs twice")
    return seconds


def _counts(index: GroupIndex) -> dict[str, Any]:
    kinds = {kind: int((index.kind == number).sum()) for number, kind in enumerate(index.kinds)}
    splits = {name: int((index.split == number).sum()) for number, name in enumerate(SPLIT_NAMES)}
    clips_ = {"clips": index.rows, "clips_without_response": index.unanswered}
    return {"groups": len(index.ids), **clips_, "groups_by_kind": kinds, "groups_by_split": splits}
