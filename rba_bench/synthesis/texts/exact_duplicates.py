"""The same words as an earlier text, at 8 bytes a text.

Texts are compared by 64 bits of a hash of their words. Among a million different texts two share a hash with a
probability of 3e-8, and then the later one is lost.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rba_bench.synthesis.texts.words import hash64, words

if TYPE_CHECKING:
    import numpy as np

RECENT = 1 << 16  # keys in a Python set before they join the sorted array


class ExactDuplicates:
    """Keys of the texts so far. The earliest text of the same words stays, whatever the size of the batches."""

    def __init__(self) -> None:
        import numpy as np

        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, key: int) -> bool:
        import numpy as np

        return key in self._recent or bool(self._in_sorted(np.asarray([key], np.uint64))[0])

    def add(self, keys: "np.ndarray") -> "np.ndarray":
        """Take in texts by their keys, in their order.

        Args:
            keys: `text_keys` of the texts, uint64 of shape [n].

        Returns:
            True where the words are new, of shape [n].
        """
        import numpy as np

        new = np.zeros(len(keys), bool)
        known = self._in_sorted(keys)
        for number, key in enumerate(keys.tolist()):
            if not known[number] and key not in self._recent:
                self._recent.add(key)
                new[number] = True
        if len(self._recent) >= RECENT:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent = set()
        return new

    def _in_sorted(self, keys: "np.ndarray") -> "np.ndarray":
        import numpy as np

        if not len(self._sorted):
            return np.zeros(len(keys), bool)
        places = np.searchsorted(self._sorted, keys)
        return self._sorted[np.minimum(places, len(self._sorted) - 1)] == keys


def text_keys(texts: Sequence[str]) -> "np.ndarray":
    """Keys of texts: equal for equal words, uint64 of shape [n]."""
    import numpy as np

    return np.fromiter((hash64(" ".join(words(text))) for text in texts), np.uint64, len(texts))
