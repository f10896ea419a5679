"""Nearly the same words as an earlier text: MinHash with banded locality-sensitive hashing, in bounded memory.

Two texts are near-duplicates if the Jaccard similarity of their word shingles reaches a threshold. The
signatures are those of `datasketch`; texts with one equal band are candidates (Leskovec, Rajaraman, Ullman: Mining
of Massive Datasets, chapter 3). Each candidate is then compared by the smallest hashes of its shingles (bottom-k
sketch: Broder 1997, "On the resemblance and containment of documents"), which is exact for texts of up to `SKETCH`
shingles and an estimate for longer ones. So bands only decide what is found: at the threshold at least 94 % of all
pairs, more above it.

Memory: at most 4 * (SKETCH + BANDS + 1) bytes a kept text, and 34 MB for the heads of the chains: 230 MB for a million
long texts. Texts themselves are not kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.installing import extra
from rba_bench.recipes import Recipe
from rba_bench.synthesis.texts.words import hash64, shingles, words

if TYPE_CHECKING:
    import numpy as np

BANDS = 16
RECALL = 0.94  # of pairs at the threshold
SKETCH = 32
PADDING = 0xFFFFFFFF  # of sketches, above every hash
_SEED, _END = 1, "|"
_HEADS_LOG2, _TAG_BITS, _NUMBER_BITS = 19, 6, 26  # of a bucket; a chain's entry is a tag and a number
_PART = 4096  # texts, and pairs of texts, that are compared at once


class NearDuplicateOptions(Recipe):
    """What counts as nearly the same."""

    threshold: float = Field(0.7, ge=0.3, le=1, description="Jaccard similarity of word shingles")
    shingle_words: int = Field(2, ge=1, le=13, description="words in a shingle")

    @property
    def rows(self) -> int:
        """Rows of a band: the most with which a pair at the threshold is found with probability RECALL."""
        rows = 1
        while rows < 32 and 1 - (1 - self.threshold ** (rows + 1)) ** BANDS >= RECALL:
            rows += 1
        return rows


@dataclass(frozen=True)
class Sketches:
    """What is remembered of n texts.

    Attributes:
        bands: Hashes of the bands of their signatures, uint32 of shape [n, BANDS].
        values: The smallest hashes of their shingles in rising order, then PADDING, uint32 of shape [n, SKETCH].
    """

    bands: "np.ndarray"
    values: "np.ndarray"

    def __len__(self) -> int:
        return len(self.bands)

    def __getitem__(self, chosen: Any) -> "Sketches":
        """Those of some texts, chosen as rows of an array are."""
        return Sketches(self.bands[chosen], self.values[chosen])


def text_shingles(text: str, size: int) -> list[str]:
    """Runs of words of a text whose ends are marked: another word at an end counts as much as one in the middle."""
    tokens = words(text)
    return shingles([_END, *tokens, _END] if tokens and size > 1 else tokens, size)


def sketch_texts(texts: Sequence[str], options: NearDuplicateOptions) -> Sketches:
    """Sketches of texts; each depends on its own text alone, so any process may make them.

    Raises:
        MissingPrerequisite: `datasketch` is not installed.
    """
    import numpy as np

    try:
        from datasketch import MinHash
    except ImportError as error:
        raise MissingPrerequisite(
            f"near duplicates are found with datasketch: install it with `{extra('synth')}`"
        ) from error
    hashed = [
        np.unique(np.fromiter((hash64(run) % PADDING for run in runs), np.uint32, len(runs)))
        for runs in (text_shingles(text, options.shingle_words) for text in texts)
    ]
    values = np.full((len(texts), SKETCH), PADDING, np.uint32)
    for row, found in zip(values, hashed, strict=True):
        row[: min(SKETCH, len(found))] = found[:SKETCH]
    settings = _minhash_settings(BANDS * options.rows)
    signatures: np.ndarray = np.empty((len(texts), BANDS * options.rows), np.uint64)
    minhashes = MinHash.generator((found.tolist() for found in hashed), **settings)
    for row, minhash in zip(signatures, minhashes, strict=True):
        row[:] = minhash.hashvalues
    return Sketches(_band_hashes(signatures.reshape(len(texts), BANDS, options.rows)), values)


@lru_cache(maxsize=8)
def _minhash_settings(n: int) -> dict[str, Any]:
    """Arguments of MinHash for signatures of n hashes; its permutations are drawn once, not for each text."""
    from datasketch import MinHash

    settings = {"num_perm": n, "seed": _SEED, "hashfunc": int, "scheme": "affine32"}
    return {**settings, "permutations": MinHash(**settings).permutations}


def _band_hashes(signatures: "np.ndarray") -> "np.ndarray":
    """Hashes of the rows of each band, [n, BANDS, rows] to uint32 of shape [n, BANDS]: FNV-1a over whole rows."""
    import numpy as np

    hashes: np.ndarray = np.full(signatures.shape[:2], 0xCBF29CE484222325, np.uint64)
    for row in range(signatures.shape[2]):
        hashes = (hashes ^ signatures[:, :, row]) * np.uint64(0x100000001B3)
        hashes ^= hashes >> np.uint64(29)
    return (hashes >> np.uint64(32)).astype(np.uint32)


def jaccard(a: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """Similarity of pairs of sketches, two arrays of shape [n, SKETCH] to one of shape [n].

    Exact where neither sketch is full; else that of the SKETCH smallest hashes of the union, an unbiased estimate.
    """
    import numpy as np

    merged = np.sort(np.concatenate([a, b], axis=1), axis=1)
    valid = merged != PADDING
    repeated = np.zeros_like(valid)
    repeated[:, 1:] = (merged[:, 1:] == merged[:, :-1]) & valid[:, 1:]
    rank = np.cumsum(valid & ~repeated, axis=1)  # place of each hash in the union, from 1
    full = (a[:, -1] != PADDING) | (b[:, -1] != PADDING)
    union = np.where(full, np.minimum(rank[:, -1], SKETCH), rank[:, -1])
    both = (repeated & (rank <= union[:, None])).sum(axis=1)
    return both / np.maximum(union, 1)


class NearDuplicates:
    """Sketches of the kept texts, found again by their bands.

    The order of the texts decides: the earlier one stays, and a text that was dropped drops no other. The result does
    not depend on how texts are cut into batches. A run that goes on after a kill calls `insert` with the saved sketches
    of what was kept, in the same order.

    Attributes:
        least: Similarity from which on two texts are near duplicates.
    """

    def __init__(self, options: NearDuplicateOptions) -> None:
        import numpy as np

        self.options = options
        self.least = options.threshold - 1e-9  # the same for 4 of 5 however it is rounded
        self._n = 0
        self._heads = np.zeros((BANDS, 1 << _HEADS_LOG2), np.uint32)  # latest entry of a bucket, 0: none
        self._next = np.zeros((1 << 12, BANDS), np.uint32)  # the entry before, in the same bucket
        self._values = np.zeros(1 << 16, np.uint32)  # sketches without padding, one behind the other
        self._ends = np.zeros(1 << 12, np.uint32)

    def __len__(self) -> int:
        return self._n

    @property
    def nbytes(self) -> int:
        """Memory of the index in bytes, as far as it is in use."""
        texts = self._n * (4 * BANDS + 4) + 4 * int(self._end(self._n))
        return int(self._heads.nbytes) + texts

    def add(self, sketches: Sketches) -> "np.ndarray":
        """Judge texts in their order, and keep those that are new.

        Returns:
            For each text the number of the earliest kept text that it nearly repeats, or -1 where it is kept, int64 of
            shape [n]. Kept texts are numbered from 0 in the order in which they came.
        """
        import numpy as np

        earlier = np.empty(len(sketches), np.int64)
        for start in range(0, len(sketches), _PART):
            part = sketches[start : start + _PART]
            found = self.find(part)
            self._find_within(part, found)
            self.insert(part[found < 0])
            earlier[start : start + _PART] = found
        return earlier

    def insert(self, sketches: Sketches) -> None:
        """Keep texts without comparing them: those that were kept before.

        Raises:
            UserError: more texts than an index can hold.
        """
        import numpy as np

        n, total = len(sketches), self._n + len(sketches)
        if total >= 1 << _NUMBER_BITS:
            raise UserError(
                f"an index of near duplicates holds {1 << _NUMBER_BITS:,} texts: make several sets"
            )
        self._next, self._ends = _grown(self._next, total), _grown(self._ends, total)
        numbers = np.arange(self._n + 1, total + 1, dtype=np.uint32)
        buckets, tags = _places(sketches.bands)
        entries = (tags << np.uint32(_NUMBER_BITS)) | numbers[:, None]
        for band in range(BANDS if n else 0):
            order = np.argsort(buckets[:, band], kind="stable")
            bucket, entry = buckets[order, band], entries[order, band]
            before = self._heads[band, bucket]
            same = bucket[1:] == bucket[:-1]
            before[1:][same] = entry[:-1][same]
            self._next[self._n + order, band] = before
            self._heads[band, bucket] = entry  # of equal buckets the last one is assigned
        used, end = sketches.values != PADDING, self._end(self._n)
        ends = end + np.cumsum(used.sum(axis=1))
        if n:
            self._values = _grown(self._values, int(ends[-1]))
            self._values[end : int(ends[-1])] = sketches.values[used]
            self._ends[self._n : total] = ends
        self._n = total

    def _end(self, n: int) -> int:
        """Where the sketches of the first n kept texts end."""
        return int(self._ends[n - 1]) if n else 0

    def find(self, sketches: Sketches) -> "np.ndarray":
        """The earliest kept text that each text nearly repeats, -1 for none: follows the chains of all buckets."""
        import numpy as np

        none = np.iinfo(np.int64).max
        found = np.full(len(sketches), none, np.int64)
        buckets, tags = _places(sketches.bands)
        entries = self._heads[np.arange(BANDS), buckets]
        rows, bands = np.nonzero(entries)
        entry = entries[rows, bands]
        while len(entry):
            numbers = (entry & np.uint32((1 << _NUMBER_BITS) - 1)).astype(np.int64) - 1
            likely = (entry >> np.uint32(_NUMBER_BITS)) == tags[rows, bands]
            pairs = np.unique((rows[likely] << _NUMBER_BITS) | numbers[likely])
            for start in range(0, len(pairs), _PART):
                row, number = np.divmod(pairs[start : start + _PART], 1 << _NUMBER_BITS)
                alike = jaccard(sketches.values[row], self._sketches(number)) >= self.least
                np.minimum.at(found, row[alike], number[alike])
            entry = self._next[numbers, bands]
            rows, bands, entry = rows[entry > 0], bands[entry > 0], entry[entry > 0]
        return np.where(found == none, -1, found)

    def _sketches(self, numbers: "np.ndarray") -> "np.ndarray":
        """Padded sketches of kept texts, uint32 of shape [n, SKETCH]."""
        import numpy as np

        ends = self._ends[numbers].astype(np.int64)
        starts = np.where(numbers > 0, self._ends[numbers - 1], 0).astype(np.int64)
        places = starts[:, None] + np.arange(SKETCH)
        values = self._values[np.minimum(places, len(self._values) - 1)]
        return np.where(places < ends[:, None], values, np.uint32(PADDING))

    def _find_within(self, sketches: Sketches, earlier: "np.ndarray") -> None:
        """Fill in `earlier` for texts that nearly repeat a text of the same part which is kept."""
        import numpy as np

        keys = (np.arange(BANDS, dtype=np.int64) << 32) | sketches.bands
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.any(counts[inverse.reshape(keys.shape)] > 1, axis=1).tolist()
        buckets: dict[int, list[int]] = {}
        numbers = np.empty(len(sketches), np.int64)
        count = self._n
        for row in np.nonzero(earlier < 0)[0].tolist():
            if shared[row]:
                own = keys[row].tolist()
                candidates = sorted({other for key in own for other in buckets.get(key, ())})
                mine = np.broadcast_to(sketches.values[row], (len(candidates), SKETCH))
                alike = jaccard(mine, sketches.values[candidates]) >= self.least
                if alike.any():
                    earlier[row] = numbers[candidates[int(alike.argmax())]]
                    continue
                for key in own:
                    buckets.setdefault(key, []).append(row)
            numbers[row] = count
            count += 1


class TextsInTurn:
    """Texts that come together and are kept or dropped one by one, for other reasons too.

    Where a text is compared with the index alone, most of the time goes into following chains that have as many links
    for one text as for a thousand. So all are looked up together; those kept since then are few, and are compared here.

    Args:
        index: Of the texts before; takes in those that are kept.
        sketches: Of all texts.
        asked: Rows of those that `add` may be called for; in rising order.
    """

    def __init__(self, index: NearDuplicates, sketches: Sketches, asked: Sequence[int]) -> None:
        import numpy as np

        self.index, self.sketches = index, sketches
        rows = np.asarray(asked, np.int64)
        self._earlier = dict(zip(asked, index.find(sketches[rows]).tolist(), strict=True))
        self._kept: dict[int, list[int]] = {}  # rows by the keys of their bands
        self._numbers: dict[int, int] = {}  # of kept rows

    def add(self, row: int) -> int:
        """As `NearDuplicates.add` for one of the texts: what it nearly repeats, or -1, and then it is kept."""
        import numpy as np

        if self._earlier[row] >= 0:
            return self._earlier[row]
        keys = ((np.arange(BANDS, dtype=np.int64) << 32) | self.sketches.bands[row]).tolist()
        candidates = sorted({other for key in keys for other in self._kept.get(key, ())})
        if candidates:
            mine = np.broadcast_to(self.sketches.values[row], (len(candidates), SKETCH))
            alike = jaccard(mine, self.sketches.values[candidates]) >= self.index.least
            if alike.any():
                return self._numbers[candidates[int(alike.argmax())]]
        for key in keys:
            self._kept.setdefault(key, []).append(row)
        self._numbers[row] = len(self.index)
        self.index.insert(self.sketches[row : row + 1])
        return -1


def _places(bands: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
    """Bucket and tag of each band; a tag tells most texts apart that share a bucket by chance."""
    import numpy as np

    buckets = bands & np.uint32((1 << _HEADS_LOG2) - 1)
    return buckets, (bands >> np.uint32(_HEADS_LOG2)) & np.uint32((1 << _TAG_BITS) - 1)


def _grown(array: "np.ndarray", n: int) -> "np.ndarray":
    """The array, or a copy with room for at least n rows; rows that were never written cost no memory."""
    import numpy as np

    if len(array) >= n:
        return array
    grown = np.zeros((max(n, 2 * len(array)), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
