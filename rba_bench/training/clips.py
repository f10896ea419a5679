"""Clips as the policy wants them: tokenised prompt plus encoder states, each clip encoded once per run.

With a frozen encoder the states of a clip never change, so rollout, chosen, rejected and SFT share one encoding, and
later epochs reuse it. What is kept is the encoder's output *before* the projector, because the projector trains. With a
training encoder the log-mel features are kept instead and encoded with gradient in every step.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import load
from rba_bench.errors import UserError


@dataclass(frozen=True)
class Clip:
    """One clip, ready for the policy.

    Attributes:
        prompt_ids: [P] int64, chat prompt up to the assistant's turn, one placeholder per audio token.
        sound: [T', D] encoder states (20 ms), or [T, M] log-mel frames (10 ms) when the encoder trains.
    """

    prompt_ids: Tensor
    sound: Tensor

    @property
    def nbytes(self) -> int:
        """Memory the clip takes."""
        return self.sound.nbytes + self.prompt_ids.nbytes


class ClipMemory:
    """Encoded groups, oldest use out first; `limit_bytes` is kept unless a single group exceeds it."""

    def __init__(self, limit_bytes: float) -> None:
        self.limit_bytes = limit_bytes
        self._groups: OrderedDict[str, dict[str, Clip]] = OrderedDict()
        self._bytes = 0

    def get(self, group_id: str) -> dict[str, Clip] | None:
        """The clips of a group by row id, if they are here."""
        if group_id in self._groups:
            self._groups.move_to_end(group_id)
        return self._groups.get(group_id)

    def put(self, group_id: str, clips: dict[str, Clip]) -> None:
        """Keep a group, and forget others if there is no room."""
        self._groups[group_id] = clips
        self._bytes += sum(clip.nbytes for clip in clips.values())
        while self._bytes > self.limit_bytes and len(self._groups) > 1:
            _, dropped = self._groups.popitem(last=False)
            self._bytes -= sum(clip.nbytes for clip in dropped.values())


_last: dict[str, ClipMemory] = {}


def shared_memory(key: str, limit_bytes: float) -> ClipMemory:
    """The memory of this process's last run if that had the same `key`, else a new one.

    Runs in one process that differ in method only (as in the quickstart) then encode each clip once together. `key`
    must stand for everything that decides a clip's content: encoder, processor, data, device.
    """
    if key not in _last:
        _last.clear()
        _last[key] = ClipMemory(limit_bytes)
    _last[key].limit_bytes = limit_bytes
    return _last[key]


class ClipStore:
    """Encodes clips on demand and keeps them.

    A group is always encoded as a whole, so that a clip's states never depend on what was in memory: a resumed run
    must meet bit-identical states, and the last bits of a batched encoding depend on the batch.

    Args:
        model: composite model (or anything with its `encode_audio`), on its device.
        processor: composite processor.
        groups: all groups by id, as `AlignmentSet.groups` gives them.
        frozen: whether the encoder is frozen, so that states rather than features are kept.
        memory: where encoded clips are kept.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        groups: dict[str, list[AlignmentRow]],
        *,
        frozen: bool = True,
        memory: ClipMemory | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.groups = groups
        self.frozen = frozen
        self.memory = ClipMemory(2**31) if memory is None else memory
        self.encoded = 0  # clips encoded so far, repeats included
        self.seconds = 0.0  # spent on that

    def get(self, rows: Sequence[AlignmentRow]) -> list[Clip]:
        """The clips of `rows`, in order."""
        return [self._group(row.group_id)[row.id] for row in rows]

    def _group(self, group_id: str) -> dict[str, Clip]:
        kept = self.memory.get(group_id)
        if kept is None:
            started = time.monotonic()
            rows = self.groups[group_id]
            kept = {row.id: clip for row, clip in zip(rows, self.encode(rows), strict=True)}
            self.memory.put(group_id, kept)
            self.seconds += time.monotonic() - started
        return kept

    @torch.no_grad()
    def encode(
        self, rows: Sequence[AlignmentRow], alter: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> list[Clip]:
        """Encode clips now, past the memory. `alter` changes each wave first (the audio guard sends silence)."""
        waves = [load(row.audio) for row in rows]
        if alter is not None:
            waves = [alter(wave) for wave in waves]
        texts = [self.processor.render(row.prompt) for row in rows]
        inputs = self.processor(texts, waves, padding_side="right")
        prompts = [
            ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        sounds, lengths = inputs["input_features"].transpose(1, 2), inputs["feature_lengths"]
        if self.frozen:
            device = next(self.model.parameters()).device
            training = self.model.training
            self.model.eval()
            states, lengths = self.model.encode_audio(inputs["input_features"].to(device), lengths.to(device))
            self.model.train(training)
            sounds = states
        self.encoded += len(rows)
        return [
            Clip(prompt, sound[: int(length)].clone())  # a view would keep the padded batch alive
            for prompt, sound, length in zip(prompts, sounds, lengths, strict=True)
        ]


class ResponseTokens:
    """Token ids of answers as the chat template closes them, so that teacher text ends where generation would stop.

    Raises:
        UserError: on use, if the template does not put the answer right behind the generation prompt.
    """

    def __init__(self, processor: Any, end_ids: Sequence[int]) -> None:
        self.processor = processor
        self.end_ids = frozenset(end_ids)
        self._known: dict[tuple[str, str], tuple[int, ...]] = {}

    def __call__(self, prompt: str, response: str) -> tuple[int, ...]:
        """Ids of `response` and the end-of-turn token."""
        key = (prompt, response)
        if key not in self._known:
            self._known[key] = self._tokenize(prompt, response)
        return self._known[key]

    def _tokenize(self, prompt: str, response: str) -> tuple[int, ...]:
        opened, closed = self.processor.render(prompt), self.processor.render(prompt, response)
        if not closed.startswith(opened):
            raise UserError(
                "the chat template does not put the answer behind its generation prompt: cannot train on it"
            )
        ids = self.processor.tokenizer(closed[len(opened) :], add_special_tokens=False)["input_ids"]
        for position, token in enumerate(ids):
            if token in self.end_ids:
                return tuple(ids[: position + 1])
        raise UserError(
            "the chat template does not close the assistant's turn with an end token: cannot train on it"
        )
