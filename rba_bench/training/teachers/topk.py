"""The teacher's likeliest tokens, computed once for each transcript with its answer and kept.

For answers that do not change in training (the alignment set's own). With all of them kept the teacher need not even be
loaded. An entry belongs to exactly what decides it: the turn's tokens, the answer's tokens, the teacher, T and k.

Values of an entry of n positions, little-endian: magic, number type, k, n; ids int32 [n, k]; log-probabilities [n, k];
log of the rest float32 [n].
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.progress import bar
from rba_bench.training.data.packing import Response
from rba_bench.training.data.targets import TopKTargets
from rba_bench.training.losses.distillation import top_k
from rba_bench.training.teachers.store import Store
from rba_bench.training.teachers.twin import TextTwin, Tokens

HEADER = struct.Struct("<4sHII")
MAGIC = b"RTK1"
KINDS: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}
CHUNK_ELEMENTS = 2**26  # logits computed at once; 256 MiB in float32
FILL_ANSWERS = 256  # written together by `fill`: what a kill costs

Kept = Literal["float32", "float16"]
Entry = tuple[Tensor, Tensor, Tensor]  # ids [n, k], log-probabilities [n, k], log of the rest [n]


def encoded(entry: Entry, kept: Kept = "float32") -> bytes:
    """An entry as it is kept."""
    ids, logprobs, rest = (tensor.detach().cpu().numpy() for tensor in entry)
    code = list(KINDS).index(kept)
    head = HEADER.pack(MAGIC, code, ids.shape[1], len(ids))
    body = [ids.astype("<i4"), logprobs.astype(np.dtype(KINDS[kept]).newbyteorder("<")), rest.astype("<f4")]
    return head + b"".join(array.tobytes() for array in body)


def decoded(data: bytes) -> Entry:
    """The inverse of `encoded`, but for the rounding of half precision.

    Raises:
        ValueError: not such an entry.
    """
    if len(data) < HEADER.size:
        raise ValueError("too short for an entry")
    magic, code, k, n = HEADER.unpack_from(data)
    if magic != MAGIC or code >= len(KINDS):
        raise ValueError("another format")
    kind = np.dtype(list(KINDS.values())[code]).newbyteorder("<")
    if len(data) != HEADER.size + n * k * (4 + kind.itemsize) + 4 * n:
        raise ValueError("another length than it says")
    ids = np.frombuffer(data, "<i4", n * k, HEADER.size).reshape(n, k)
    logprobs = np.frombuffer(data, kind, n * k, HEADER.size + 4 * n * k).reshape(n, k)
    rest = np.frombuffer(data, "<f4", n, len(data) - 4 * n)
    return (
        torch.from_numpy(ids.astype(np.int64)),
        torch.from_numpy(logprobs.astype(np.float32)),
        torch.from_numpy(rest.astype(np.float32)),
    )


class CachedTeacher:
    """A teacher that is asked at most once.

    Args:
        twin: the teacher; it is used where something is not kept yet.
        store: what is kept.
        k: likeliest tokens.
        temperature: at which probabilities are taken.
        kept: number type of the log-probabilities.
    """

    def __init__(
        self, twin: TextTwin, store: Store, k: int, temperature: float, kept: Kept = "float32"
    ) -> None:
        if k < 1 or temperature <= 0:
            raise ValueError(f"k = {k} and T = {temperature} must be positive")
        self.twin = twin
        self.store = store
        self.k = min(k, twin.vocabulary)
        self.temperature = float(temperature)
        self.kept: Kept = kept
        teacher = {name: value for name, value in twin.identity().items() if name != "path"}
        self._tag = sha256_json([teacher, self.k, self.temperature, kept])

    def identity(self) -> dict[str, Any]:
        """The teacher's, with k and T."""
        return {
            **self.twin.identity(),
            "top_k": self.k,
            "temperature": self.temperature,
            "kept_as": self.kept,
        }

    def targets(
        self, texts: Sequence[str], branches: Sequence[Response], places: Sequence[int] | None = None
    ) -> TopKTargets:
        """Distributions at all positions of some answers, on the CPU; see `TextTwin.targets`."""
        wanted = tuple(sorted(set(range(len(branches)) if places is None else places)))
        asked = [(texts[branches[place].clip], branches[place].tokens) for place in wanted]
        keys = [self._key(*one) for one in asked]
        known = self.store.get(keys)
        entries = {key: self._entry(data) for key, data in known.items()}
        unknown = {key: one for key, one in zip(keys, asked, strict=True) if key not in entries}
        if unknown:
            entries |= {key: self._entry(data) for key, data in self._ask(unknown).items()}
        columns = zip(*(entries[key] for key in keys), strict=True)
        ids, logprobs, rest = (torch.cat(column) for column in columns)
        return TopKTargets(wanted, ids, logprobs, rest)

    def fill(self, texts: Sequence[str], answers: Sequence[Tokens]) -> int:
        """Ask ahead for everything that is not kept yet; a killed call goes on where it stopped.

        Returns:
            How many answers the teacher had to read.
        """
        asked = {self._key(text, tokens): (text, tokens) for text, tokens in zip(texts, answers, strict=True)}
        missing = self.store.missing(list(asked))
        if not missing:
            return 0
        # like lengths together, so that little padding is read
        missing.sort(key=lambda key: (-len(asked[key][0]) - len(asked[key][1]), key))
        with bar("teacher reads", len(missing), unit="answers") as advance:
            for start in range(0, len(missing), FILL_ANSWERS):
                part = missing[start : start + FILL_ANSWERS]
                self._ask({key: asked[key] for key in part})
                advance(len(part))
        return len(missing)

    def _key(self, text: str, tokens: Tokens) -> bytes:
        turn = self.twin.reader.text_ids(text)
        value = np.array([len(turn), *turn, *tokens], dtype="<i8").tobytes()
        return bytes.fromhex(sha256_bytes(self._tag.encode() + value))

    def _ask(self, unknown: dict[bytes, tuple[str, Tokens]]) -> dict[bytes, bytes]:
        texts, answers = zip(*unknown.values(), strict=True)
        states = self.twin.states(texts, answers)
        entries = self._entries(torch.cat(states), [len(one) for one in states])
        found = {key: encoded(entry, self.kept) for key, entry in zip(unknown, entries, strict=True)}
        self.store.put(found)
        return found

    def _entries(self, states: Tensor, lengths: Sequence[int]) -> Iterator[Entry]:
        size = max(1, CHUNK_ELEMENTS // self.twin.vocabulary)
        parts = [
            top_k(self.twin.head(chunk).float(), self.k, self.temperature) for chunk in states.split(size)
        ]
        ids, logprobs, rest = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        start = 0
        for length in lengths:
            cut = slice(start, start + length)
            yield ids[cut], logprobs[cut], rest[cut]
            start += length

    def _entry(self, data: bytes) -> Entry:
        try:
            return decoded(data)
        except ValueError as error:
            raise UserError(
                f"{self.store.path} is damaged ({error}): delete it, it will be made again"
            ) from error
