"""The held-out part of an alignment set, which several in-domain tests draw from."""

from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import MANIFEST, AlignmentRow, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import tables
from rba_bench.evaluation.sources.base import DATA_DIR_VARIABLE, Place

SPLITS = ("test", "validation")  # held out; the first that has rows, unless the task names one


def open_set(named: str, task: str, place: Place) -> AlignmentSet:
    """The alignment set of a task: the folder it names, else `DATA_DIR/<task>` or `DATA_DIR`.

    Raises:
        MissingPrerequisite: there is none.
        UserError: it is damaged.
    """
    if named:
        return AlignmentSet.open(Path(named))
    if place.data_dir is not None:
        for folder in (place.data_dir / task, place.data_dir):
            if (folder / MANIFEST).is_file():
                return AlignmentSet.open(folder)
    raise MissingPrerequisite(
        f"no alignment set: name its folder (with {MANIFEST}) by --data-dir or {DATA_DIR_VARIABLE}; "
        "make one with `rba-bench synth --out DIR`"
    )


def rows(alignment: AlignmentSet, kind: str, wanted: str = "") -> tuple[str, list[AlignmentRow]]:
    """The split, and its rows of one kind.

    Args:
        alignment: The set.
        kind: `instruct`, `qa` or `s2tt`.
        wanted: Split; "" for the first of SPLITS that has such rows.

    Raises:
        UserError: there are none.
    """
    of_kind = [row for row in alignment.rows() if row.kind == kind]
    for split in (wanted,) if wanted else SPLITS:
        if members := [row for row in of_kind if row.split == split]:
            return split, members
    present = ", ".join(sorted({row.split for row in of_kind})) or "none"
    raise UserError(
        f"{alignment.path} holds no items of kind {kind} in the split {wanted or ' or '.join(SPLITS)}; "
        f"splits there: {present}"
    )


def document(row: AlignmentRow, **more: Any) -> dict[str, Any]:
    """A row as a spoken instruction; `more` as in `documents.make`."""
    ref = row.audio
    path = str(Path(ref.path).resolve())
    return documents.make(
        id=row.id,
        kind="chat",
        clip=tables.Clip(ref.sha256, ref.sampling_rate, ref.duration, path, ref.row),
        instruction=row.instruction,
        prompt=row.prompt,
        topic=row.topic,
        voice=row.voice,
        source_lang=row.source_lang,
        target_lang=row.target_lang,
        **more,
    )
