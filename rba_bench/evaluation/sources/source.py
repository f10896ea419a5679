"""What a source is, and which module the `source` of a task's `dataset_kwargs` names.

What the sources share: options that are checked, and names of items that survive a re-ordering of the data.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.files import sha256_bytes
from rba_bench.progress import say

DATA_DIR_VARIABLE = "RBA_DATA_DIR"
# The `source` of a task's `dataset_kwargs`: module of this package and its function `(options, place) -> Loaded`.
SOURCES = {
    **{
        name: (name, "load")
        for name in ("asr", "covost2", "dowis", "fleurs", "mustc", "speech_ifeval", "spoken_qa")
    },
    "spoken_alpaca": ("spoken_alpaca", "load_spoken_alpaca"),
    "voicebench": ("spoken_alpaca", "load_voicebench"),
    "topics": ("held_out", "load_topics"),
    "consistency": ("held_out", "load_consistency"),
}


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
        documents: See `rba_bench.evaluation.documents.make_document`.
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
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r} in dataset_kwargs; known: {', '.join(sorted(SOURCES))}")
    module, function = SOURCES[source]
    loaded: Loaded = getattr(import_module(f"{__package__}.{module}"), function)(options, place)
    kept, left_out = documents.with_references(loaded.documents, source)
    if not kept:
        raise UserError(f"source {source} yielded no items for {dict(options)}")
    origin = {**loaded.origin, **({"without_reference": left_out} if left_out else {})}
    return Loaded(documents.unique_ids(kept), origin)


def checked(options: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """`defaults` with what the task says in their place.

    Args:
        options: The `dataset_kwargs` of the task beside `source`.
        defaults: Every option that the source knows; `...` marks one that the task must give.

    Raises:
        UserError: an option that looks like a misspelt one, or one that is missing. Other strangers are passed over:
            stock lm_eval hands its model arguments to the data set as well.
    """
    for name in sorted(options.keys() - defaults.keys()):
        if near := get_close_matches(name, defaults, n=1, cutoff=0.75):
            raise UserError(f"unknown dataset_kwargs {name!r}; did you mean {near[0]!r}?")
    given = {name: options[name] for name in defaults if options.get(name) is not None}
    chosen = {**defaults, **given}
    if missing := [name for name, value in chosen.items() if value is ...]:
        raise UserError(f"dataset_kwargs lack {', '.join(missing)}")
    return chosen


class Names:
    """Item names made from what is asked: `<set>-<hash>`, and `-2`, `-3` for the same words again."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._seen: Counter[str] = Counter()

    def of(self, text: str) -> str:
        """The next name of an item that asks `text`."""
        name = f"{self.prefix}-{sha256_bytes(text.encode())[:12]}"
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}-{self._seen[name]}"


def compare_size(name: str, found: int, published: int) -> dict[str, int]:
    """Facts for the record; a set of another size than the published one is said on stderr."""
    if found != published:
        say(f"{name}: {found} items, the published set has {published}")
    return {"published_items": published}
