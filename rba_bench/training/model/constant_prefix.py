"""Constant text that prompts begin with, computed once: keys and values of the system turn before the audio.

Where the language model is frozen, what stands before the first audio token is the same in every step: nothing that
trains comes before it, and no gradient that anyone wants goes through it. Its keys and values are computed once a
prompt, in a pass of its own without gradient, and the rows of a batch begin behind it. A prompt of 24 tokens before
25 audio tokens and an answer of 48 is a quarter of a step of the connector.

What is read here depends on the text alone, so that a resumed run meets the same bits.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

SHORTEST = 8  # tokens; shorter openings are not worth a mask and longer keys
MOST = 4  # different openings in a batch: every row's keys hold all of them
KEPT = 32  # openings remembered; 1 MB each for a model of 135 M parameters, 4 MB for one of 8 B

Words = tuple[int, ...]


@dataclass(frozen=True)
class Openings:
    """How the prompts of a batch begin.

    Attributes:
        texts: O different openings, token ids.
        of_clip: [C] which of them each clip's prompt begins with; -1 for none.
    """

    texts: tuple[Words, ...] = ()
    of_clip: tuple[int, ...] = ()

    def length(self, clip: int) -> int:
        """Tokens of a clip's prompt that are computed elsewhere."""
        number = self.of_clip[clip] if self.of_clip else -1
        return len(self.texts[number]) if number >= 0 else 0

    @property
    def columns(self) -> tuple[int, ...]:
        """[P] number of the opening that each key before a row belongs to."""
        return tuple(number for number, text in enumerate(self.texts) for _ in text)


def openings_of(prompts: Sequence[Tensor], audio_token_id: int) -> Openings:
    """What the prompts of a batch begin with before their audio.

    With more than `MOST` different texts only what all of them share is taken. A prompt without audio begins with the
    longest of the texts that it continues.

    Args:
        prompts: prompt ids of each clip, [P_i], with audio placeholders.
        audio_token_id: the placeholder.
    """
    rows: list[Words] = [tuple(prompt.tolist()) for prompt in prompts]
    prefixes = [row[: row.index(audio_token_id)] for row in rows if audio_token_id in row]
    counts = Counter(text for text in prefixes if len(text) >= SHORTEST)
    texts = sorted(counts, key=len, reverse=True)
    if len(texts) > MOST:
        first, last = min(prefixes), max(prefixes)
        size = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        texts = [first[:size]] if size >= SHORTEST else []
    of_clip = tuple(
        next((n for n, text in enumerate(texts) if len(row) > len(text) and row[: len(text)] == text), -1)
        for row in rows
    )
    return Openings(tuple(texts), of_clip) if texts else Openings()


class _ConstantLayer(DynamicLayer):
    """Keys and values [1, heads, P, D] before those of any batch; what a batch adds is handed back, not kept."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        whole = []
        for constant, states in ((self.keys, key_states), (self.values, value_states)):
            assert constant is not None  # given when it was made
            before = constant.to(states.device, states.dtype).expand(len(states), -1, -1, -1)
            whole.append(torch.cat([before, states], dim=-2))
        return whole[0], whole[1]


class OpeningStates:
    """Keys and values of openings under a frozen language model, each computed once.

    Args:
        read: decoder pass over token ids [1, P] into a cache.
    """

    def __init__(self, read: Callable[[Tensor, Cache], object]) -> None:
        self._read = read
        self._known: OrderedDict[tuple[Words, bool], list[tuple[Tensor, Tensor]]] = OrderedDict()

    @torch.no_grad()
    def __call__(self, texts: Sequence[Words], config: Any) -> Cache:
        """A cache for the decoder that holds the openings' keys and values, text after text.

        Args:
            texts: at least one.
            config: of the decoder.
        """
        half = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        states = []
        for text in texts:
            key = (text, half)
            if key not in self._known:
                cache = DynamicCache(config=config)
                self._read(torch.tensor([text]), cache)
                self._known[key] = [(layer.keys, layer.values) for layer in cache.layers]
            self._known.move_to_end(key)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
            states.append(self._known[key])
        layers = [
            _ConstantLayer(*(torch.cat(parts, -2) for parts in zip(*layer, strict=True)))
            for layer in zip(*states, strict=True)
        ]
        return Cache(layers=layers)

    def forget(self) -> None:
        """The language model has other weights now."""
        self._known.clear()
