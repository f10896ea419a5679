"""What the sources share: options that are checked, and names of items that survive a re-ordering of the data."""

from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes
from rba_bench.progress import say


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
