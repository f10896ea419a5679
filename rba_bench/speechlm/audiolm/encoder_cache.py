"""Cache of encoder states by clip, in memory up to a bound and optionally on disk.

States are kept before the projector: they depend on the encoder alone. An entry belongs to a clip with its perturbation
(`SpeechRequest.key`) and to a tag that names everything else that decides the states (`encoder_tag`).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from rba_bench.files import replacing, sha256_bytes, sha256_json
from rba_bench.progress import say
from rba_bench.speechlm.speech_model import SpeechRequest

DEFAULT_BYTES = 128 * 2**20
# Raise it whenever the states of a family change (2: those of Qwen2.5-Omni, before the projector)
VERSION = 2


def encoder_tag(weights_sha256: str, setup_sha256: str, padding: str, dtype: str) -> str:
    """What decides states beside the clip: weights, processor files, padding mode and number type, as one hash."""
    return sha256_json([VERSION, weights_sha256, setup_sha256, padding, dtype])


class EncoderCache:
    """States by clip: least recently used first out; with a folder also kept for later runs.

    Args:
        tag: from `encoder_tag`; entries of other tags are never returned.
        max_bytes: bound of what is kept in memory (the CPU's), 0 keeps nothing.
        folder: entries are also written here, one safetensors file each; None writes nothing.

    Attributes:
        hits: lookups that were answered.
        misses: lookups that were not.
    """

    def __init__(self, tag: str, max_bytes: int = DEFAULT_BYTES, folder: Path | None = None) -> None:
        self.tag = tag
        self.max_bytes = max_bytes
        self.folder = folder
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> torch.Tensor | None:
        """States [S, D] of a clip, on the CPU; None where unknown."""
        states = self._memory.get(key)
        if states is not None:
            self._memory.move_to_end(key)
        elif self.folder is not None:
            # not there, or damaged by a copy: made again
            with suppress(OSError, SafetensorError, KeyError):
                states = load(self._path(key).read_bytes())["states"]
            if states is not None:
                self._keep(key, states)
        self.hits += states is not None
        self.misses += states is None
        return states

    def __contains__(self, key: str) -> bool:
        """Whether a clip's states are known, without reading or counting a lookup."""
        return key in self._memory or (self.folder is not None and self._path(key).exists())

    def put(self, key: str, states: torch.Tensor) -> None:
        """Keep states [S, D] of a clip."""
        # a copy of its own: a row of a batch would hold the whole batch
        states = states.detach().to("cpu", copy=True).contiguous()
        self._keep(key, states)
        if self.folder is None:
            return
        try:
            # Whole or not at all, but not forced to disk as `files.write_atomic` does: thousands of entries that can be
            # made again are not worth the waiting.
            with replacing(self._path(key)) as temporary:
                temporary.write_bytes(save({"states": states}))
        except OSError as error:  # full, or not ours to write to
            say(f"encoded clips are not kept on disk any longer: {error}")
            self.folder = None

    def _keep(self, key: str, states: torch.Tensor) -> None:
        if key in self._memory:
            self._bytes -= self._memory.pop(key).nbytes
        self._memory[key] = states
        self._bytes += states.nbytes
        while self._bytes > self.max_bytes:
            self._bytes -= self._memory.popitem(last=False)[1].nbytes

    def _path(self, key: str) -> Path:
        assert self.folder is not None  # asked for only with a folder
        name = sha256_bytes(key.encode())  # keys may hold any character
        return self.folder / self.tag[:16] / name[:2] / f"{name}.safetensors"


def encode_with_cache(
    requests: Sequence[SpeechRequest],
    cache: EncoderCache | None,
    encode: Callable[[list[np.ndarray]], Sequence[torch.Tensor]],
    device: torch.device | str = "cpu",
) -> list[torch.Tensor]:
    """States of each request's clip, each distinct clip encoded once.

    Clips are the same where their `key` is; without one, where they are the same array.

    Args:
        requests: with audio.
        cache: looked into and filled; None for no cache.
        encode: states [S_i, D] of some clips.
        device: where cached states are needed.

    Returns:
        One tensor [S_i, D] per request; requests on one clip share it.
    """
    states: dict[str | int, torch.Tensor] = {}
    to_encode: dict[str | int, np.ndarray] = {}
    keys: list[str | int] = [request.key or id(request.audio) for request in requests]
    for key, request in zip(keys, requests, strict=True):
        if key in states or key in to_encode:
            continue
        cached = cache.get(request.key) if cache is not None and request.key else None
        if cached is not None:
            states[key] = cached.to(device)
        elif request.audio is not None:
            to_encode[key] = request.audio
    encoded = encode(list(to_encode.values())) if to_encode else []
    for key, rows in zip(to_encode, encoded, strict=True):
        states[key] = rows
        if cache is not None and isinstance(key, str):
            cache.put(key, rows)
    return [states[key] for key in keys]
