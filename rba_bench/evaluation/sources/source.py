"""What a source of test sets is, and what all sources share.

A source is a function `load_<name>(options, place) -> LoadedSet`; `SOURCES` says in which module it lies. The key
`source` of a task's `dataset_kwargs` names it, and the other keys are its options.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.documents import Document, unique_ids, with_references
from rba_bench.files import sha256_bytes
from rba_bench.progress import say

DATA_DIR_VARIABLE = "RBA_DATA_DIR"
_OWN_MODULE = (
    "asr", "covost2", "dowis", "fleurs", "mustc", "small", "speech_ifeval", "spoken_benchmark", "spoken_qa",
)  # fmt: skip
SOURCES = {  # name -> module of this package
    **{name: name for name in _OWN_MODULE},
    **dict.fromkeys(("spoken_alpaca", "voicebench"), "spoken_alpaca"),
    **dict.fromkeys(("topics", "consistency"), "held_out"),
}


@dataclass(frozen=True)
class Place:
    """Where data may be found and kept.

    Attributes:
        data_dir: Folder with local copies of data sets, None to ask the Hub.
        options: What the user chose for this run beside the task: `baseline`, a file or run folder.
        offline: Of the Hub only what its cache holds.
    """

    data_dir: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    offline: bool = False

    @classmethod
    def of(cls, data_dir: Path | str | None = None, **options: Any) -> "Place":
        """As given, else as the environment variable RBA_DATA_DIR says (for stock `lm_eval`)."""
        folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
        return cls(Path(folder) if folder else None, {k: v for k, v in options.items() if v is not None})


@dataclass(frozen=True)
class LoadedSet:
    """A test set.

    Attributes:
        documents: The items.
        origin: JSON facts for the record: repository, resolved revision (or `local`), what was left out and why.
            No paths of this machine.
    """

    documents: list[Document]
    origin: dict[str, Any]


def load_source(source: str, options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The documents of a task.

    Args:
        source: Key of SOURCES.
        options: The other `dataset_kwargs` of the task.
        place: Where to look.

    Raises:
        UserError: no such source, bad options, or data of another layout.
        MissingPrerequisite: the data is not there.
    """
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r} in dataset_kwargs; known: {', '.join(sorted(SOURCES))}")
    load: Callable[[Mapping[str, Any], Place], LoadedSet]
    load = getattr(import_module(f"{__package__}.{SOURCES[source]}"), f"load_{source}")
    loaded = load(options, place)
    documents, left_out = with_references(loaded.documents, source)
    if not documents:
        raise UserError(f"source {source} yielded no items for {dict(options)}")
    origin = {**loaded.origin, **({"without_reference": left_out} if left_out else {})}
    return LoadedSet(unique_ids(documents), origin)


def check_options(options: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """The options of a task, with `defaults` for those that it does not give.

    Args:
        options: The `dataset_kwargs` of the task beside `source`.
        defaults: Every option that the source knows; `...` marks one that the task must give.

    Raises:
        UserError: an option that looks like a misspelt one, or one that is missing. Other unknown options are ignored:
            stock lm_eval hands its model arguments to the data set as well.
    """
    for name in sorted(options.keys() - defaults.keys()):
        if near := get_close_matches(name, defaults, n=1, cutoff=0.75):
            raise UserError(f"unknown dataset_kwargs {name!r}; did you mean {near[0]!r}?")
    values = {**defaults, **{name: options[name] for name in defaults if options.get(name) is not None}}
    if missing := [name for name, value in values.items() if value is ...]:
        raise UserError(f"dataset_kwargs lack {', '.join(missing)}")
    return values


class ItemNames:
    """Names of items made from their words: `<set>-<hash>`, and `-2`, `-3` for the same words again.

    They do not change when the data set is sorted in another way.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._used: Counter[str] = Counter()

    def of(self, text: str) -> str:
        """The next name of an item that asks `text`."""
        name = f"{self.prefix}-{sha256_bytes(text.encode())[:12]}"
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}-{self._used[name]}"


def compare_size(name: str, found: int, published: int) -> dict[str, int]:
    """Facts for the record; a line on stderr if the set has another size than the published one."""
    if found != published:
        say(f"{name}: {found} items, the published set has {published}")
    return {"published_items": published}
