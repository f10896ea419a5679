"""No instruction may repeat an item of a test set.

A text repeats an item if it has the same words, if the two share `NGRAM` words in a row (the measure of GPT-3:
Brown et al. 2020, arXiv:2005.14165, appendix C), or if they are near-duplicates. Only the last catches an item of
fewer than 13 words in other words; a paraphrase with other words is not found. Texts without spaces between words count
by letters.

The index of the test sets is a folder of arrays that is made once, in the cache, and named by a hash of all texts and
options. Processes share its pages.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import UserError, first_line
from rba_bench.files import cache_dir, exclusive, read_json, sha256_json, write_json
from rba_bench.synthesis.texts.near_duplicates import BANDS, NearDuplicateOptions, jaccard, sketch_texts
from rba_bench.synthesis.texts.words import hash64, shingles, words

if TYPE_CHECKING:
    import numpy as np

NGRAM = 13  # words
# Fewer words in common than within a set: a test item that slips in costs more than an instruction that is lost.
ALIKE = NearDuplicateOptions.model_validate({"threshold": 0.65})
_VERSION = 1
_FACTS = "index.json"  # written last
_ARRAYS = ("exact", "exact_sets", "ngrams", "ngram_sets", "bands", "band_rows", "values", "value_sets")

# Name of the set, its texts, and why it could not be read ("" where it could).
NamedTexts = tuple[str, Sequence[str], str]


@dataclass(frozen=True)
class Hit:
    """An item of a test set that a text repeats.

    Attributes:
        test_set: Name of the set, of several the first.
        how: `same words`, `13 words in a row` or `near duplicate`.
    """

    test_set: str
    how: str

    def __str__(self) -> str:
        return f"{self.test_set} ({self.how})"


def build_benchmark_index(
    test_sets: Iterable[NamedTexts], options: NearDuplicateOptions = ALIKE, root: Path | None = None
) -> Path:
    """The index of test sets, made now unless the cache holds it.

    Args:
        test_sets: Those to check against, and those that cannot be read with the reason.
        options: What counts as nearly the same.
        root: Where indices are kept; None for the cache.

    Returns:
        Its folder, for `BenchmarkIndex`.
    """
    sets = list(test_sets)
    names = [name for name, texts, _ in sets if texts]
    facts = {
        "version": _VERSION,
        "near_duplicates": options.resolved(),
        "checked": {name: len(texts) for name, texts, _ in sets if texts},
        "not_checked": {name: problem or "it holds no texts" for name, texts, problem in sets if not texts},
    }
    content = sha256_json([facts, [[name, list(texts)] for name, texts, _ in sets]])
    folder = (root or cache_dir() / "decontamination") / content[:24]
    if not (folder / _FACTS).is_file():
        with exclusive(folder, f"another process makes {folder}: waiting"):
            if not (folder / _FACTS).is_file():
                arrays = _index_arrays([texts for _, texts, _ in sets if texts], options)
                _write(folder, arrays, facts | {"names": names, "content_sha256": content})
    return folder


def _write(folder: Path, arrays: dict[str, "np.ndarray"], facts: dict[str, Any]) -> None:
    import numpy as np

    unfinished = folder.with_name(f".{folder.name}.unfinished")  # this process holds the lock
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
    write_json(unfinished / _FACTS, facts)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def _index_arrays(sets: Sequence[Sequence[str]], options: NearDuplicateOptions) -> dict[str, "np.ndarray"]:
    """Sorted hashes with the number of the first set that has them, and the sketches of all different texts."""
    import numpy as np

    exact: dict[int, int] = {}
    ngrams: dict[int, int] = {}
    different: list[str] = []
    for number, texts in enumerate(sets):
        for text in texts:
            tokens = words(text)
            key = hash64(" ".join(tokens))
            if tokens and key not in exact:
                exact[key] = number
                different.append(text)
                for run in shingles(tokens, NGRAM) if len(tokens) >= NGRAM else ():
                    ngrams.setdefault(hash64(run), number)
    sketches = sketch_texts(different, options)
    keys = (np.arange(BANDS, dtype=np.uint64) << np.uint64(32)) | sketches.bands
    order = np.argsort(keys.ravel(), kind="stable")
    return {
        **_sorted_arrays("exact", "exact_sets", exact),
        **_sorted_arrays("ngrams", "ngram_sets", ngrams),
        "bands": keys.ravel()[order],
        "band_rows": (order // BANDS).astype(np.uint32),
        "values": sketches.values,
        "value_sets": np.fromiter(exact.values(), np.uint32, len(exact)),
    }


def _sorted_arrays(name: str, sets: str, numbers: dict[int, int]) -> dict[str, "np.ndarray"]:
    import numpy as np

    keys = np.fromiter(numbers, np.uint64, len(numbers))
    order = np.argsort(keys)
    return {name: keys[order], sets: np.fromiter(numbers.values(), np.uint32, len(numbers))[order]}


class BenchmarkIndex:
    """An index of test sets.

    Args:
        folder: Of `build_benchmark_index`.

    Attributes:
        checked: Number of texts by name of the set.
        not_checked: Why a set could not be read, by its name.
        content_sha256: Of all texts and options, for the manifest.

    Raises:
        UserError: the folder holds no index, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        try:
            facts = read_json(folder / _FACTS)
            self._arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
            }
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{folder} is no index of test sets ({first_line(error)}): make it again"
            ) from error
        if facts["version"] != _VERSION:
            raise UserError(f"{folder} is an index of another version: make it again")
        self.checked: dict[str, int] = facts["checked"]
        self.not_checked: dict[str, str] = facts["not_checked"]
        self.content_sha256: str = facts["content_sha256"]
        self._names: list[str] = facts["names"]
        self._options = NearDuplicateOptions.model_validate(facts["near_duplicates"])

    def find(self, text: str) -> Hit | None:
        """The test set that a text repeats an item of, None if it repeats none."""
        tokens = words(text)
        if not tokens or not self._names:
            return None
        number = self._look_up("exact", "exact_sets", [" ".join(tokens)])
        if number is not None:
            return Hit(self._names[number], "same words")
        if len(tokens) >= NGRAM:
            number = self._look_up("ngrams", "ngram_sets", shingles(tokens, NGRAM))
            if number is not None:
                return Hit(self._names[number], f"{NGRAM} words in a row")
        number = self._near(text)
        return None if number is None else Hit(self._names[number], "near duplicate")

    def _look_up(self, keys: str, sets: str, runs: Sequence[str]) -> int | None:
        """The number of the first set with one of the runs of words."""
        import numpy as np

        known = self._arrays[keys]
        if not len(known):
            return None
        wanted = np.fromiter((hash64(run) for run in runs), np.uint64, len(runs))
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        hits = self._arrays[sets][places[known[places] == wanted]]
        return int(hits.min()) if len(hits) else None

    def _near(self, text: str) -> int | None:
        """The number of the first set with a near-duplicate."""
        import numpy as np

        sketch = sketch_texts([text], self._options)
        keys = (np.arange(BANDS, dtype=np.uint64) << np.uint64(32)) | sketch.bands[0]
        known = self._arrays["bands"]
        starts, ends = np.searchsorted(known, keys), np.searchsorted(known, keys, side="right")
        found = [self._arrays["band_rows"][start:end] for start, end in zip(starts, ends, strict=True)]
        rows = np.unique(np.concatenate(found))
        mine = np.broadcast_to(sketch.values, (len(rows), sketch.values.shape[1]))
        alike = rows[jaccard(mine, self._arrays["values"][rows]) >= self._options.threshold - 1e-9]
        return int(self._arrays["value_sets"][alike].min()) if len(alike) else None
