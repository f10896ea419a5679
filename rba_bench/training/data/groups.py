"""The data of a run: one or several alignment sets, read group by group, whatever their size.

data = TrainingData.open(choices(["set-a", {"path": "set-b", "kinds": ["qa"]}]))
order = data.order(steps * groups_per_step, seed)
rows = data.train[order[0][1]]
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from rba_bench.audio.alignment_index import SPLIT_NAMES, IndexedSet
from rba_bench.audio.alignment_set import AlignmentRow, AlignmentSet
from rba_bench.errors import UserError
from rba_bench.files import sha256_json
from rba_bench.seeding import stable_seed
from rba_bench.training.data.order import GroupOrder, ShuffleWindow

Shuffle = Literal["auto", "full", "window"]
# sets up to this size are hashed at the start, larger ones shard by shard when first touched
VERIFY_BYTES = 16 * 2**30
# sets beyond this are shuffled in windows, so that a cold disk reads in long stretches
WINDOW_BYTES = 10 * 2**30
GROUPS_KEPT = 1024  # groups kept as rows
CANDIDATES = 8  # validation groups looked at per group chosen, to balance topics


@dataclass(frozen=True)
class SetChoice:
    """One alignment set of a run.

    Attributes:
        path: its folder.
        weight: its share of the draws, in any unit; None (for all sets of the run) shuffles all groups together.
        kinds: kinds of group that are used; None = all.
    """

    path: str
    weight: float | None = None
    kinds: tuple[str, ...] | None = None


def choices(value: Any) -> list[SetChoice]:
    """The sets that a recipe's `alignment_set` names: a folder, `{path, weight, kinds}`, or a list of these.

    Raises:
        UserError: something else, or nothing.
    """
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    sets = [_choice(item) for item in listed]
    if not sets:
        raise UserError("alignment_set names no set: give a folder")
    if len({choice.weight is None for choice in sets}) > 1:
        raise UserError("alignment_set: give every set a weight, or none of them")
    return sets


def _choice(value: Any) -> SetChoice:
    if isinstance(value, SetChoice):
        return value
    if isinstance(value, str | Path):
        return SetChoice(str(value))
    if not isinstance(value, Mapping) or value.keys() - {"path", "weight", "kinds"} or "path" not in value:
        raise UserError(f"alignment_set: {value!r} is neither a folder nor {{path, weight, kinds}}")
    kinds, weight = value.get("kinds"), value.get("weight")
    if weight is not None and not (isinstance(weight, int | float) and 1e-6 <= weight < float("inf")):
        raise UserError(
            f"alignment_set: the weight of {value['path']} must be a positive number, not {weight!r}"
        )
    if kinds is not None and (isinstance(kinds, str) or not kinds):
        raise UserError(f"alignment_set: kinds of {value['path']} must be a list such as [qa], not {kinds!r}")
    share = None if weight is None else float(weight)
    return SetChoice(str(value["path"]), share, None if kinds is None else tuple(kinds))


@dataclass(frozen=True)
class Part:
    """Groups of one set.

    Attributes:
        source: the set.
        prefix: what ids are given in front.
        numbers: of the groups in its index, ascending, [n] uint32.
        left_out: clips of the set that are not used, [C] bool; None = none.
    """

    source: IndexedSet
    prefix: str
    numbers: np.ndarray
    left_out: np.ndarray | None = None

    def rows(self, number: int) -> list[AlignmentRow]:
        """Clips of a group that are used."""
        rows = self.source.rows(number, self.prefix)
        if self.left_out is None:
            return rows
        start = int(self.source.index.starts[number])
        out = self.left_out[start : start + len(rows)]
        return [row for row, left in zip(rows, out, strict=True) if not left]

    @property
    def voices(self) -> np.ndarray:
        """Clips of each group, [n]."""
        return used_clips(self.source, self.left_out)[self.numbers]


def used_clips(source: IndexedSet, left_out: np.ndarray | None) -> np.ndarray:
    """Clips that are used of each group of a set, [G] int64."""
    index = source.index
    if left_out is None:
        return np.diff(index.starts)
    return np.add.reduceat(~left_out, index.starts[:-1], dtype=np.int64)


class GroupIds(Sequence[str]):
    """Ids of groups, made when asked for."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._ends = np.cumsum([len(part.numbers) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        index = place + len(self) if place < 0 else place
        if not 0 <= index < len(self):
            raise IndexError(place)
        which = int(np.searchsorted(self._ends, index, side="right"))
        part = self.parts[which]
        number = part.numbers[index - int(self._ends[which])]  # counted from the end of the part
        return part.prefix + part.source.index.name(int(number))


class Groups(Mapping[str, list[AlignmentRow]]):
    """Rows by group id; they are read from the shards when asked for, and those asked for last are kept.

    Raises:
        UserError: on access, where a shard is damaged.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.ids = GroupIds(parts)
        self._kept: OrderedDict[str, list[AlignmentRow]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, group_id: object) -> bool:
        return isinstance(group_id, str) and self._find(group_id) is not None

    def __getitem__(self, group_id: str) -> list[AlignmentRow]:
        with self._lock:
            if group_id in self._kept:
                self._kept.move_to_end(group_id)
                return list(self._kept[group_id])
        match = self._find(group_id)
        if match is None:
            raise KeyError(group_id)
        part, number = match
        rows = part.rows(number)
        with self._lock:
            self._kept[group_id] = rows
            if len(self._kept) > GROUPS_KEPT:
                self._kept.popitem(last=False)
        return list(rows)

    def place(self, group_id: str) -> int:
        """Place of a group in `ids`. Raises KeyError if it is not among them."""
        match = self._find(group_id)
        if match is None:
            raise KeyError(group_id)
        before = takewhile(lambda part: part is not match[0], self.parts)
        place = int(np.searchsorted(match[0].numbers, match[1]))
        return sum(len(part.numbers) for part in before) + place

    @property
    def voices(self) -> np.ndarray:
        """Clips of each group, in the order of `ids`."""
        return np.concatenate([part.voices for part in self.parts])

    def of_kind(self, kind: str) -> list[str]:
        """Ids of the groups of a kind, in order; nothing is read for it."""
        group_ids = []
        for part in self.parts:
            index = part.source.index
            if kind in index.kinds:
                chosen = part.numbers[index.kind[part.numbers] == index.kinds.index(kind)]
                group_ids += [part.prefix + index.name(int(number)) for number in chosen]
        return group_ids

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that occur, sorted."""
        names = set()
        for part in self.parts:
            index = part.source.index
            names |= {index.kinds[code] for code in np.unique(index.kind[part.numbers])}
        return tuple(sorted(names))

    def _find(self, group_id: str) -> tuple[Part, int] | None:
        for part in self.parts:
            if not group_id.startswith(part.prefix):
                continue
            try:
                number = part.source.index.find(group_id[len(part.prefix) :])
            except KeyError:
                continue
            place = int(np.searchsorted(part.numbers, number))
            if place < len(part.numbers) and part.numbers[place] == number:
                return part, number
        return None


class TrainingData:
    """The sets of a run, opened; make it with `open`.

    With several sets, ids of groups and rows begin with the first letters of their set's hash, so that equal ids of
    different sets stay apart. The order in which the sets are named does not matter.

    Attributes:
        sources: the opened sets, sorted by content.
        chosen: what was chosen, in the order of `sources`.
        train, validation: groups of a split with a response.
        all: groups of both.
        window: how the training groups are shuffled; None = all together.
    """

    def __init__(
        self, chosen: Sequence[SetChoice], sources: Sequence[IndexedSet], window: ShuffleWindow | None
    ) -> None:
        pairs = sorted(zip(chosen, sources, strict=True), key=lambda pair: pair[1].data.sha256)
        self.chosen = [choice for choice, _ in pairs]
        self.sources = [source for _, source in pairs]
        self.window = window
        self._left_out: list[np.ndarray | None] = [None for _ in self.sources]
        self._divide("has no training rows with a response")

    @classmethod
    def open(
        cls, sets: Sequence[SetChoice], *, shuffle: Shuffle = "auto", verify_bytes: int = VERIFY_BYTES
    ) -> "TrainingData":
        """Open the sets of a run.

        Args:
            sets: from `choices`.
            shuffle: "full", "window" (nearly sequential reading) or "auto": by size, beyond WINDOW_BYTES "window".
            verify_bytes: sets up to this size are hashed here, larger ones shard by shard when first touched.

        Raises:
            UserError: a damaged or unfinished set, one given twice, a kind that it has not, or nothing to train on.
        """
        folders = [AlignmentSet.open(choice.path, verify=False) for choice in sets]
        hashes = [folder.sha256 for folder in folders]
        for number, sha in enumerate(hashes):
            if sha in hashes[:number]:
                raise UserError(f"alignment set {sets[number].path} is given twice: name each content once")
        sources = []
        for folder in folders:
            small = sum(path.stat().st_size for path in folder.shards if path.is_file()) <= verify_bytes
            sources.append(IndexedSet(folder, verify_now=small))
        large = sum(source.bytes for source in sources) > WINDOW_BYTES
        windowed = shuffle == "window" or (shuffle == "auto" and large)
        return cls(sets, sources, ShuffleWindow() if windowed else None)

    def leave_out(self, clips: Sequence[np.ndarray]) -> None:
        """Use the sets without some of their clips; groups of which no clip remains are gone too.

        Args:
            clips: [C] bool for each of `sources`.

        Raises:
            UserError: of a set nothing would remain to train on.
        """
        self._left_out = [out if out.any() else None for out in clips]
        self._divide("has no training rows that the model can take")

    def _divide(self, empty: str) -> None:
        self.train = Groups(self._parts(("train",)))
        self.validation = Groups(self._parts(("validation",)))
        self.all = Groups(self._parts(("train", "validation")))
        for choice, part in zip(self.chosen, self.train.parts, strict=True):
            if not len(part.numbers):
                raise UserError(f"alignment set {choice.path} {empty}")

    @cached_property
    def sha256(self) -> str:
        """Identity of the content and of what is used of it; of one whole set, that set's hash."""
        parts = [
            [source.data.sha256, choice.weight, None if choice.kinds is None else sorted(choice.kinds)]
            for choice, source in zip(self.chosen, self.sources, strict=True)
        ]
        whole = len(parts) == 1 and parts[0][2] is None
        return str(parts[0][0]) if whole else sha256_json(parts)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the training groups, sorted."""
        return self.train.kinds

    def order(self, length: int, seed: int) -> GroupOrder:
        """The sequence of training groups of a run of `length` positions."""
        weights = [choice.weight for choice in self.chosen]
        shares = None if None in weights else [weight for weight in weights if weight is not None]
        sizes = [len(part.numbers) for part in self.train.parts]
        return GroupOrder(self.train.ids, length, seed, sizes=sizes, weights=shares, window=self.window)

    def record(self) -> dict[str, Any]:
        """What a run record says of its data, as JSON values; no paths."""
        sets = [
            {
                "sha256": source.data.sha256,
                "weight": choice.weight,
                "kinds": None if choice.kinds is None else sorted(choice.kinds),
                "train_groups": len(part.numbers),
                "clips": source.index.rows,
                "clips_without_response": source.index.unanswered,
                "bytes": source.bytes,
                "origin": {"kinds": sorted(source.index.kinds), **source.data.origin},
            }
            for choice, source, part in zip(self.chosen, self.sources, self.train.parts, strict=True)
        ]
        shuffle = "full" if self.window is None else f"window of {self.window.blocks} x {self.window.block}"
        return {"sha256": self.sha256, "shuffle": shuffle, "sets": sets}

    def _parts(self, splits: Sequence[str]) -> list[Part]:
        several = len(self.sources) > 1
        parts = []
        for choice, source, out in zip(self.chosen, self.sources, self._left_out, strict=True):
            index = source.index
            kept = np.isin(index.split, [SPLIT_NAMES.index(split) for split in splits])
            if choice.kinds is not None:
                if unknown := sorted(set(choice.kinds) - set(index.kinds)):
                    raise UserError(
                        f"alignment set {choice.path} has no groups of kind {', '.join(unknown)}; "
                        f"it has {', '.join(index.kinds)}"
                    )
                kept &= np.isin(index.kind, [index.kinds.index(kind) for kind in choice.kinds])
            kept &= used_clips(source, out) > 0
            prefix = f"{source.data.sha256[:8]}/" if several else ""
            parts.append(Part(source, prefix, np.flatnonzero(kept).astype(np.uint32), out))
        return parts


def validation_rows(groups: Groups, per_kind: int, seed: int) -> dict[str, list[AlignmentRow]]:
    """Held-out clips by kind: one clip a group, topics as even as the set allows, the same for equal seeds.

    Args:
        groups: `TrainingData.validation`.
        per_kind: clips of each kind, fewer where there are fewer groups. The paper validates on 128 a domain.
        seed: chooses groups and voices.
    """
    chosen: dict[str, list[AlignmentRow]] = {}
    for kind in groups.kinds:
        rank = {group_id: stable_seed("validation", seed, group_id) for group_id in groups.of_kind(kind)}
        looked_at = set(sorted(rank, key=rank.__getitem__)[: per_kind * CANDIDATES])
        clips = {}
        for group_id in filter(looked_at.__contains__, rank):  # as they lie in the shards
            rows = groups[group_id]
            clips[group_id] = rows[rank[group_id] % len(rows)]
        topics: dict[str, list[AlignmentRow]] = {}
        for group_id in sorted(clips, key=rank.__getitem__):
            topics.setdefault(clips[group_id].topic, []).append(clips[group_id])
        turns = zip_longest(*(topics[topic] for topic in sorted(topics)))
        chosen[kind] = [row for turn in turns for row in turn if row is not None][:per_kind]
    return chosen
