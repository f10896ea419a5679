"""Clips as the policy reads them: tokenised prompt plus encoder states. Each clip is encoded once per run.

With a frozen encoder the states of a clip never change, so rollout, chosen, rejected and SFT share one encoding, and
later epochs reuse it; with a folder, later runs too. What is kept is the encoder's output *before* the projector, as
the projector trains. With a training encoder the wave is encoded with gradient in every step.

A resumed run must get bit-identical states, so a clip's states must not depend on the clips that are encoded with it,
and the last bits of a batched encoding depend on the batch's shape. So batches always have `ROWS` clips, at a length
that each of them alone decides (`steady_frames`): where clips are missing, those of coming steps take the places, or
repetitions. Families whose encoders do not read one rectangle of frames encode a voice group at a time, always as a
whole.

`Prefetcher` reads and decodes clips ahead in threads, while the model computes. Threads, not processes: reading,
decoding, resampling and hashing release Python's lock, and nothing has to be copied between processes. The results are
those of the same function called when they are needed, so reading ahead changes no result.
"""

import copy
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import load_clip
from rba_bench.errors import RbaError, UserError
from rba_bench.progress import say
from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.speechlm.speech_model import SAMPLING_RATE
from rba_bench.training.data.pairs import Sample, SampleRequest

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

THREADS = 4  # at most; they only have to keep up with the model


class Prefetcher(Generic[K, V]):
    """Results of a pure function, made before they are asked for.

    Args:
        work: what to do with an item; called from several threads at once.
        limit: most items that are in the works or kept; 0 does everything when it is asked for.
        threads: how many work.
    """

    def __init__(self, work: Callable[[K], V], limit: int, threads: int | None = None) -> None:
        self.work = work
        self.limit = limit
        self._threads = max(1, min(THREADS, os.cpu_count() or 1)) if threads is None else threads
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[K, Future[V]] = {}

    def ahead(self, items: Iterable[K]) -> None:
        """Begin with these, soonest needed first, as far as the bound allows; what is not among them is dropped."""
        upcoming = list(dict.fromkeys(islice(items, self.limit)))
        kept = {item: self._begun.pop(item) for item in upcoming if item in self._begun}
        for stale in self._begun.values():
            stale.cancel()
        self._begun = kept
        for item in upcoming:
            if item in self._begun:
                continue
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="prefetch")
            self._begun[item] = self._pool.submit(self.work, item)

    def __call__(self, item: K) -> V:
        """The result for an item; a failure of its work is raised here, as if it had been done here."""
        begun = self._begun.get(item)
        return self.work(item) if begun is None else begun.result()

    def close(self) -> None:
        """Stop; what is in the works ends first. Asking goes on working."""
        self._begun = {}
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


MIB = 2**20
# clips of a batch: enough to fill a GPU; a processor is full with four, and gains nothing from more
ROWS = {"cpu": 4}
ROWS_DEFAULT = 16
Hear = Literal["speech", "transcript", "silence"]  # see `TrainingRecipe.hear`
SLACK_S = 0.05  # so much at the end of a clip is not missed


@dataclass(frozen=True)
class ClipInput:
    """One clip, ready for the policy.

    Attributes:
        prompt_ids: [P] int64, chat prompt up to the assistant's turn, one placeholder per audio token.
        sound: [S, D] encoder states, or [n] samples at 16 kHz when the encoder trains; None where the instruction is
            read as text.
    """

    prompt_ids: Tensor
    sound: Tensor | None


_last: dict[str, EncoderCache] = {}


def shared_cache(tag: str, limit_mb: float) -> EncoderCache:
    """The memory of this process's last run if that had the same `tag`, else a new one.

    Runs in one process that differ in method only (as in the quickstart) then encode each clip once together. `tag`
    must stand for everything that decides a clip's states beside its audio: encoder, processor, padding, device.
    """
    if tag not in _last:
        _last.clear()
        _last[tag] = EncoderCache(tag)
    _last[tag].max_bytes = int(limit_mb * MIB)
    return _last[tag]


class ClipStore:
    """Encodes clips on demand and keeps them.

    Args:
        family: the model's adapter, on its device.
        groups: all groups by id.
        frozen: whether the encoder is frozen, so that states rather than waves are wanted.
        cache: where states are kept.
        strict: whether a clip that is longer than its set says, and than the model's maximum, ends the run; otherwise
            it is cut.
        ahead: most clips that are read and decoded before they are needed.
        hear: what stands where the speech would: the speech, its transcript, or as much silence.

    Attributes:
        coming: rows of the next steps, soonest first, whose clips may fill up a batch.
        encoded: clips encoded so far, repeats included.
        seconds: spent on that.
        misstated: ids of clips that were longer than their set says and were cut.
    """

    def __init__(
        self,
        family: AudioFamily,
        groups: Mapping[str, list[AlignmentRow]],
        *,
        frozen: bool = True,
        cache: EncoderCache | None = None,
        strict: bool = False,
        ahead: int = 0,
        hear: Hear = "speech",
    ) -> None:
        self.family = family
        self.groups = groups
        self.frozen = frozen
        self.hear = hear
        self.cache = EncoderCache("run", 2**31) if cache is None else cache
        self.coming: Callable[[], Iterable[AlignmentRow]] = tuple
        self._n_tokens: dict[int, int] = {}
        self._counter = _counter(family) if frozen else family
        self.encoded = 0
        self.seconds = 0.0
        self.strict = strict
        self.misstated: set[str] = set()
        # the wave of a clip as the model can encode it, and the number of samples of the whole clip
        self.waves: Prefetcher[AlignmentRow, tuple[np.ndarray, int]] = Prefetcher(self._load_wave, ahead)

    def get(self, rows: Sequence[AlignmentRow]) -> list[ClipInput]:
        """The clips of `rows`, in order, or what `hear` puts in their place."""
        if self.hear == "transcript":
            return self.text(rows)
        states = self.states(rows) if self.frozen else {}
        inputs = []
        for row in rows:
            sound = states[row.id] if self.frozen else torch.from_numpy(self._wave(row))
            inputs.append(ClipInput(self._prompt(row, sound), sound))
        return inputs

    def states(self, rows: Iterable[AlignmentRow]) -> dict[str, Tensor]:
        """Encoder states [S, D] of each row's clip by the row's id, on the CPU; those that are not known are made.

        To be called ahead too: what is made is kept, as far as the cache's bound allows.
        """
        wanted = {row.id: row for row in rows}
        kept = {row.id: self.cache.get(self._key(row)) for row in wanted.values()}
        known = {id_: states for id_, states in kept.items() if states is not None}
        missing = [row for row in wanted.values() if row.id not in known]
        if missing:
            started = time.monotonic()
            if self.family.steady:
                known |= self._steady(missing)
            else:
                for group_id in dict.fromkeys(row.group_id for row in missing):  # each group as a whole
                    group = self.groups[group_id]
                    known |= self._keep(group, self._encode([self._wave(row) for row in group]))
            self.seconds += time.monotonic() - started
        return {id_: known[id_] for id_ in wanted}

    def text(self, rows: Sequence[AlignmentRow]) -> list[ClipInput]:
        """The same instructions read as text."""
        inputs = []
        for row in rows:
            with _named(f"row {row.id}"):
                ids = self.family.text_ids(row.last_user_text, row.turns)
                inputs.append(ClipInput(torch.tensor(ids), None))
        return inputs

    def inputs(self, prompts: Sequence[tuple[AlignmentRow, bool]]) -> list[ClipInput]:
        """The inputs of prompts, in order. A prompt is a row, and whether its instruction is text instead of audio."""
        audio = iter(self.get([row for row, as_text in prompts if not as_text]))
        text = iter(self.text([row for row, as_text in prompts if as_text]))
        return [next(text if as_text else audio) for _, as_text in prompts]

    def distinct_inputs(self, samples: Sequence[SampleRequest | Sample]) -> tuple[list[ClipInput], list[int]]:
        """The distinct inputs of some samples or requests, and for each of these the index of its input."""
        prompts = {(sample.row.id, sample.as_text): (sample.row, sample.as_text) for sample in samples}
        indices = {key: index for index, key in enumerate(prompts)}
        places = [indices[sample.row.id, sample.as_text] for sample in samples]
        return self.inputs(list(prompts.values())), places

    def any_input(self) -> ClipInput:
        """The input of some clip, for a forward pass whose result is not used."""
        return self.get([self.groups[next(iter(self.groups))][0]])[0]

    def silence(self, rows: Sequence[AlignmentRow]) -> list[ClipInput]:
        """The clips of `rows` with silence instead of sound, past the cache."""
        waves = [np.zeros_like(self._wave(row)) for row in rows]
        if not self.frozen:
            sounds = [torch.from_numpy(wave) for wave in waves]
        elif self.family.steady:
            sounds = [self._encode([wave], self.family.steady_frames(len(wave))[0])[0] for wave in waves]
        else:
            sounds = self._encode(waves)
        return [ClipInput(self._prompt(row, sound), sound) for row, sound in zip(rows, sounds, strict=True)]

    def _steady(self, rows: Sequence[AlignmentRow]) -> dict[str, Tensor]:
        """States of rows, in batches of one shape."""
        waves = {row.id: self._wave(row) for row in rows}
        places: dict[tuple[int, int], list[AlignmentRow]] = {}
        for row in rows:
            places.setdefault(self.family.steady_frames(len(waves[row.id])), []).append(row)
        room = {place: -len(batch) % self._rows for place, batch in places.items()}
        for row in self.coming():  # clips of coming steps, where a batch has room for them
            if not any(room.values()):
                break
            if row.id in waves or self._key(row) in self.cache:
                continue
            if not room.get(self.family.steady_frames(round((row.duration or 0.0) * SAMPLING_RATE))):
                continue
            wave = self._wave(row)
            place = self.family.steady_frames(len(wave))  # what is written of a clip need not be so
            if room.get(place):
                room[place] -= 1
                places[place].append(row)
                waves[row.id] = wave
        states: dict[str, Tensor] = {}
        for (frames, _), batch in sorted(places.items()):
            for start in range(0, len(batch), self._rows):
                part = batch[start : start + self._rows]
                states |= self._keep(part, self._encode([waves[row.id] for row in part], frames))
        return states

    def _keep(self, rows: Sequence[AlignmentRow], states: Sequence[Tensor]) -> dict[str, Tensor]:
        self.encoded += len(rows)
        for row, made in zip(rows, states, strict=True):
            self.cache.put(self._key(row), made)
        return {row.id: made for row, made in zip(rows, states, strict=True)}

    @property
    def _rows(self) -> int:
        return ROWS.get(next(self.family.model.parameters()).device.type, ROWS_DEFAULT)

    def look_ahead(self, rows: Iterable[AlignmentRow]) -> None:
        """Begin to read and decode the clips of rows, soonest needed first, as far as `waves.limit` allows."""
        if self.hear != "transcript":
            self.waves.ahead(row for row in rows if not (self.frozen and self._key(row) in self.cache))

    def _key(self, row: AlignmentRow) -> str:
        """What the states of a clip are kept by."""
        return f"silence for {row.audio.sha256}" if self.hear == "silence" else row.audio.sha256

    def _wave(self, row: AlignmentRow) -> np.ndarray:
        wave, size = self.waves(row)
        lost = (size - len(wave)) / SAMPLING_RATE
        if lost > SLACK_S and not (row.duration or 0.0) > size / SAMPLING_RATE - SLACK_S:
            about = f"clip {row.id} has {size / SAMPLING_RATE:.1f} s of sound, the set says {row.duration}"
            if self.strict:
                raise UserError(f"{about}: correct the set's durations, or set long_clips to cut")
            if not self.misstated:
                say(f"{about}: it is cut, as others like it will be; they are counted in rba_run.json")
            self.misstated.add(row.id)
        return wave

    def _load_wave(self, row: AlignmentRow) -> tuple[np.ndarray, int]:
        try:
            wave = load_clip(row.audio)
        except RbaError as error:
            raise type(error)(f"row {row.id}: {error}") from error
        heard = np.zeros_like(wave) if self.hear == "silence" else wave
        return self.family.truncate(heard), len(wave)

    @torch.no_grad()
    def _encode(self, waves: Sequence[np.ndarray], frames: int | None = None) -> list[Tensor]:
        """States [S, D] of waves, on the CPU; with `frames` in a batch of `ROWS` waves of that length."""
        model = self.family.model
        device = next(model.parameters()).device
        filled = [*waves, *[waves[0]] * (self._rows - len(waves))] if frames is not None else waves
        features = self.family.plain_features(filled)
        if frames is not None:
            features = self.family.pad_frames(features, frames)
        training = model.training
        model.eval()
        states, lengths = self.family.encode_audio(
            {name: value.to(device) for name, value in features.items()}
        )
        model.train(training)
        # a view would keep the padded batch alive
        pairs = list(zip(states, lengths.tolist(), strict=True))[: len(waves)]
        return [row[:length].to("cpu", copy=True) for row, length in pairs]

    def _prompt(self, row: AlignmentRow, sound: Tensor) -> Tensor:
        """Prompt ids with as many placeholders as the clip has audio tokens."""
        size = len(sound)
        if self.frozen and size not in self._n_tokens:  # which alone decides it: asked once for each
            with torch.no_grad():
                _, counts = self._counter.project(sound[None].float(), torch.tensor([size]))
            self._n_tokens[size] = int(counts[0])
        n_tokens = self._n_tokens[size] if self.frozen else self.family.n_tokens(size)
        if n_tokens < 1:
            raise UserError(f"clip {row.id} of {row.duration:.3f} s is too short for the encoder: remove it")
        with _named(f"row {row.id}"):
            ids = self.family.prompt_ids(row.prompt, row.turns)
            return torch.tensor(self.family.expand(ids, n_tokens))


@contextmanager
def _named(whose: str) -> Iterator[None]:
    """Say whose text cannot be read."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{whose}: {error}") from error


def _counter(family: AudioFamily) -> AudioFamily:
    """The same model with a projector of its own on the CPU, to ask for numbers of audio tokens.

    The one that trains may be in another number type, or shared out among processes.
    """
    parts = family.parts()
    kept = {id(module): module for name in ("encoder", "llm") for module in parts[name]}
    copied = copy.copy(family)
    copied.model = copy.deepcopy(family.model, kept)
    for module in copied.parts()["projector"]:
        if any(parameter.is_meta for parameter in module.parameters()):  # another process reads the weights
            module.to_empty(device="cpu")
            for tensor in (*module.parameters(), *module.buffers()):
                torch.nn.init.zeros_(tensor)
        module.requires_grad_(False).float().cpu()
    return copied


class ResponseTokens:
    """Token ids of answers as the family closes them, so that teacher text ends where generation would stop.

    Args:
        family: the model's adapter.
    """

    def __init__(self, family: AudioFamily) -> None:
        self.family = family
        self.end_ids = frozenset(family.stops)
        self._known: dict[str, tuple[int, ...]] = {}

    def __call__(self, response: str) -> tuple[int, ...]:
        """Ids of `response` and the end-of-turn token."""
        if response not in self._known:
            with _named(f"the answer {response[:60]!r}"):
                self._known[response] = tuple(self.family.answer_ids(response))
        return self._known[response]
