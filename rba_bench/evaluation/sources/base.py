"""What a source is, and which module the `source` of a task's `dataset_kwargs` names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents

DATA_DIR_VARIABLE = "RBA_DATA_DIR"
NOT_SOURCES = ("base", "held_out", "baselines", "common", "directions", "hub", "languages", "tables")


@dataclass(frozen=True)
class Place:
    """Where data may be found and kept.

    Attributes:
        data_dir: Folder with local copies of data sets, None to ask the Hub.
        options: What the user chose for this run beside the task: `baseline`, a file or run folder.
    """

    data_dir: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data_dir: Path | str | None = None, **options: Any) -> "Place":
        """As given, else as the environment variable RBA_DATA_DIR says (for stock `lm_eval`)."""
        chosen = data_dir or os.environ.get(DATA_DIR_VARIABLE)
        return cls(Path(chosen) if chosen else None, {k: v for k, v in options.items() if v is not None})


@dataclass(frozen=True)
class Loaded:
    """A test set.

    Attributes:
        documents: See `rba_bench.evaluation.documents.make`.
        origin: JSON facts for the record: repository, resolved revision (or `local`), what was left out and why.
            No paths of this machine.
    """

    documents: list[dict[str, Any]]
    origin: dict[str, Any]


def load(source: str, options: Mapping[str, Any], place: Place) -> Loaded:
    """The documents of a task.

    Args:
        source: Name of a module in this package.
        options: The other `dataset_kwargs` of the task.
        place: Where to look.

    Raises:
        UserError: no such source, bad options, or data of another layout.
        MissingPrerequisite: the data is not there.
    """
    if not source.isidentifier() or source in NOT_SOURCES or find_spec(f"{__package__}.{source}") is None:
        raise UserError(f"unknown source {source!r} in dataset_kwargs; see tasks/README.md")
    loaded: Loaded = import_module(f"{__package__}.{source}").load(options, place)
    kept, left_out = documents.with_references(loaded.documents, source)
    if not kept:
        raise UserError(f"source {source} yielded no items for {dict(options)}")
    origin = {**loaded.origin, **({"without_reference": left_out} if left_out else {})}
    return Loaded(documents.unique_ids(kept), origin)
