"""The text teacher of a student: it reads the transcript where the student gets the audio, and then the same answer.

`TextTeacher` gives hidden states and distributions. Equal requests, as in a voice group with one answer, are read once.
Requests are taken by length, as many at a time as fit into `batch_tokens`; answers to one transcript share its turn
where the layout allows it. Token n must be the same token to student and teacher (`shared_vocabulary`).

`CachedTeacher` keeps the likeliest tokens of each transcript with its answer, for answers that do not change in
training (the alignment set's own). With all of them kept, the teacher is not even loaded. An entry is keyed by exactly
what decides it: the turn's tokens, the answer's tokens, the teacher, T and k. The value of an entry of n positions,
little-endian: magic, number type, k, n; ids int32 [n, k]; log-probabilities [n, k]; log of the rest float32 [n].
"""

import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rba_bench.assets import resolve_model
from rba_bench.errors import UserError
from rba_bench.files import cache_dir, sha256_bytes, sha256_json
from rba_bench.progress import bar
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.training.data.batch import StateTargets, Targets, TopKTargets
from rba_bench.training.data.packing import Mode, Response, plan_layout
from rba_bench.training.losses.distillation import top_k
from rba_bench.training.model.policy import CHUNK_ELEMENTS, SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.options.nested_options import TeacherOptions
from rba_bench.training.teachers.keyed_store import MIB, Store
from rba_bench.training.teachers.readers import OtherReader, OwnReader, Reader, frozen_copy


def shared_vocabulary(
    student: Any,
    teacher: Any,
    *,
    student_rows: int,
    teacher_rows: int,
    end_ids: Collection[int],
    audio_token_id: int | None = None,
    name: str = "teacher",
) -> int:
    """How many tokens, counted from 0, both sides can be compared on.

    Heads often have more rows than there are tokens, and not equally many; such rows are cut off. Special and added
    tokens that only one side knows, the audio placeholder above all, do not matter: no answer holds them.

    Args:
        student: tokenizer of the speech model.
        teacher: tokenizer of the text teacher.
        student_rows: tokens that the student's head names.
        teacher_rows: tokens that the teacher's head names.
        end_ids: tokens that end the student's answers.
        audio_token_id: the student's placeholder.
        name: the teacher, for the message.

    Returns:
        The number of tokens that both heads name.

    Raises:
        UserError: a token that an answer can hold is another one to the teacher, or none.
    """
    ours, theirs = (
        {int(number): token for token, number in tokenizer.get_vocab().items()}
        for tokenizer in (student, teacher)
    )
    rows = min(student_rows, teacher_rows)
    added = {
        token
        for tokenizer in (student, teacher)
        for token in (*getattr(tokenizer, "added_tokens_decoder", {}), *tokenizer.all_special_ids)
    }
    extra = added - set(end_ids)
    for token in sorted({*ours, *theirs}):
        if token >= student_rows or token == audio_token_id:
            continue  # the student never answers with this token
        same = ours.get(token) == theirs.get(token) and token < rows
        if not same and not (token in extra and (token not in ours or token not in theirs)):
            shown = [repr(side[token]) if token in side else "none" for side in (theirs, ours)]
            raise UserError(
                f"teacher.model {name} has another vocabulary than the student: token {token} is {shown[0]} for the "
                f"teacher and {shown[1]} for the student; use `teacher.model: self` or a text model of the student's "
                "family, or learn from the teacher's text (method sft)"
            )
    return rows


Tokens = tuple[int, ...]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class _Job:
    """One user turn with the answers that follow it, and the room it takes: rows of a width."""

    prompt: Tokens
    answers: tuple[Tokens, ...]
    rows: int
    width: int


class TextTeacher:
    """States and distributions of a text LLM on transcripts, without gradient.

    Args:
        reader: the LLM.
        vocabulary: tokens that teacher and student share: logits are cut to them (see `vocabulary.shared_vocabulary`).
        layout: how answers lie (see `data.packing`). `pad` is right for every decoder; the others need one that
            takes 4-D masks and looks back without limit.
        batch_tokens: tokens read at once, padding included; None reads everything at once, so that processes that
            share the work of a forward pass make equally many of them.
        precision: bfloat16 computes under autocast, as the student then does.
    """

    def __init__(
        self,
        reader: Reader,
        vocabulary: int | None = None,
        layout: Mode = "pad",
        batch_tokens: int | None = 16384,
        precision: Precision = "float32",
    ) -> None:
        self.reader = reader
        self.vocabulary = reader.vocabulary if vocabulary is None else vocabulary
        self.layout: Mode = layout
        self.batch_tokens = batch_tokens
        self.precision: Precision = precision
        self.tokens_read = 0  # without padding, for the record

    def identity(self) -> dict[str, Any]:
        """What decides the distributions beside what is read."""
        return {**self.reader.identity(), "vocabulary": self.vocabulary, "precision": self.precision}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The state to read in; see `Reader.reading`."""
        kind = self.reader.device.type
        half = torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")
        with self.reader.reading(), half:
            yield

    def head(self, states: Tensor) -> Tensor:
        """Logits [..., V] of states [..., H] over the shared vocabulary, without gradient."""
        with self.reading():
            return self.reader.head(states)[..., : self.vocabulary]

    def targets(
        self, texts: Sequence[str], responses: Sequence[Response], places: Sequence[int] | None = None
    ) -> Targets:
        """Distributions at all positions of some answers.

        Args:
            texts: what the teacher reads instead of each clip (`AlignmentRow.user_text`).
            responses: answers of a batch; `clip` counts `texts`.
            places: numbers of the responses that are wanted, in any order; None = all.

        Raises:
            UserError: turn and answer are longer than the teacher's context.
        """
        indices = tuple(sorted(set(range(len(responses)) if places is None else places)))
        states = self.states(
            [texts[responses[index].clip] for index in indices],
            [responses[index].tokens for index in indices],
        )
        return StateTargets(indices, torch.cat(states), self.head)

    def states(self, texts: Sequence[str], answers: Sequence[Tokens]) -> list[Tensor]:
        """Last hidden state that each answer token is predicted from, end token included.

        Args:
            texts: user turns, one an answer.
            answers: token ids.

        Returns:
            [n_i, H] for each answer.
        """
        requests = [(self.reader.text_ids(text), tokens) for text, tokens in zip(texts, answers, strict=True)]
        states: dict[tuple[Tokens, Tokens], Tensor] = {}
        with self.reading():
            for batch in self._batches(list(dict.fromkeys(requests))):
                states |= self.reader.call(partial(self._read, batch))
        return [states[request] for request in requests]

    def words(self, spoken: Sequence[str]) -> list[Tensor]:
        """Embeddings [T_i, H] of the words of transcripts, without template (DiVA)."""
        ids = self.word_ids(spoken)
        flat = torch.tensor(
            [token for row in ids for token in row], dtype=torch.long, device=self.reader.device
        )
        with self.reading():  # once for all: processes that share the embeddings must ask equally often
            words = self.reader.inside(lambda: self.reader.embed(flat))
        return list(words.split([len(row) for row in ids]))

    def word_ids(self, spoken: Sequence[str]) -> list[list[int]]:
        """Token ids of the words of transcripts, without template."""
        return [self.reader.content.text_ids(text) for text in spoken]

    def _batches(self, requests: Sequence[tuple[Tokens, Tokens]]) -> Iterator[list[_Job]]:
        """Distinct requests, widest first so that memory peaks at once, those on one turn together."""
        by_prompt: dict[Tokens, list[Tokens]] = {}
        for prompt, tokens in requests:
            by_prompt.setdefault(prompt, []).append(tokens)
        jobs = []
        for prompt, answers in by_prompt.items():
            longest, context = len(prompt) + max(map(len, answers)) - 1, self.reader.context
            if context is not None and longest > context:
                raise UserError(
                    f"a transcript with its answer takes {longest} tokens, the teacher's context is {context}: use "
                    "another teacher.model, or leave the item out"
                )
            shared_width = len(prompt) + sum(len(tokens) - 1 for tokens in answers)
            size = (len(answers), longest) if self.layout == "pad" else (1, shared_width)
            jobs.append(_Job(prompt, tuple(answers), *size))
        batch: list[_Job] = []
        rows = 0
        for job in sorted(jobs, key=lambda job: -job.width):
            limit = self.batch_tokens
            if batch and limit is not None and (rows + job.rows) * batch[0].width > limit:
                yield batch
                batch, rows = [], 0
            batch.append(job)
            rows += job.rows
        if batch:
            yield batch

    def _read(self, jobs: Sequence[_Job]) -> dict[tuple[Tokens, Tokens], Tensor]:
        prompts = [torch.tensor(job.prompt) for job in jobs]
        responses = [Response(number, tokens) for number, job in enumerate(jobs) for tokens in job.answers]
        layout = plan_layout(
            prompts, responses, self.layout, self.reader.pad_id, by_document=self.reader.by_document
        ).to(self.reader.device)
        dtype = self.reader.embed(layout.input_ids[:1, :1]).dtype
        states = self.reader.decode(layout.input_ids, layout.attention_mask(dtype), layout.position_ids)
        flat = states.flatten(0, 1)
        self.tokens_read += sum(job.width * job.rows for job in jobs)
        return {
            (jobs[answer.clip].prompt, answer.tokens): flat.index_select(0, sources[: len(answer.tokens)])
            for answer, sources in zip(responses, layout.sources, strict=True)
        }


HEADER = struct.Struct("<4sHII")
MAGIC = b"RTK1"
KINDS: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}
FILL_ANSWERS = 256  # written together by `fill`: what a kill costs

Kept = Literal["float32", "float16"]
Entry = tuple[Tensor, Tensor, Tensor]  # ids [n, k], log-probabilities [n, k], log of the rest [n]


def encode_entry(entry: Entry, kept: Kept = "float32") -> bytes:
    """An entry as it is kept."""
    ids, logprobs, rest = (tensor.detach().cpu().numpy() for tensor in entry)
    code = list(KINDS).index(kept)
    head = HEADER.pack(MAGIC, code, ids.shape[1], len(ids))
    body = [ids.astype("<i4"), logprobs.astype(np.dtype(KINDS[kept]).newbyteorder("<")), rest.astype("<f4")]
    return head + b"".join(array.tobytes() for array in body)


def decode_entry(data: bytes) -> Entry:
    """The inverse of `encode_entry`, but for the rounding of half precision.

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


class CachedTeacher(TextTeacher):
    """A text teacher that reads an answer at most once.

    Args:
        text_teacher: the same teacher without a cache.
        store: what is kept.
        k: likeliest tokens.
        temperature: at which probabilities are taken.
        kept: number type of the log-probabilities.
    """

    def __init__(
        self, text_teacher: TextTeacher, store: Store, k: int, temperature: float, kept: Kept = "float32"
    ) -> None:
        if k < 1 or temperature <= 0:
            raise ValueError(f"k = {k} and T = {temperature} must be positive")
        plain = text_teacher
        super().__init__(plain.reader, plain.vocabulary, plain.layout, plain.batch_tokens, plain.precision)
        self.store = store
        self.k = min(k, self.vocabulary)
        self.temperature = float(temperature)
        self.kept: Kept = kept
        teacher = {name: value for name, value in plain.identity().items() if name != "path"}
        self._tag = sha256_json([teacher, self.k, self.temperature, kept])

    def identity(self) -> dict[str, Any]:
        """The teacher's, with k and T."""
        return {**super().identity(), "top_k": self.k, "temperature": self.temperature, "kept_as": self.kept}

    def targets(
        self, texts: Sequence[str], responses: Sequence[Response], places: Sequence[int] | None = None
    ) -> TopKTargets:
        """Distributions at all positions of some answers, on the CPU; see `TextTeacher.targets`."""
        indices = tuple(sorted(set(range(len(responses)) if places is None else places)))
        requests = [(texts[responses[index].clip], responses[index].tokens) for index in indices]
        keys = [self._key(*request) for request in requests]
        entries = {key: self._entry(data) for key, data in self.store.get(keys).items()}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in entries}
        if missing:
            entries |= {key: self._entry(data) for key, data in self._ask(missing).items()}
        columns = zip(*(entries[key] for key in keys), strict=True)
        ids, logprobs, rest = (torch.cat(column) for column in columns)
        return TopKTargets(indices, ids, logprobs, rest)

    def fill(self, texts: Sequence[str], answers: Sequence[Tokens]) -> int:
        """Read everything that is not kept yet, ahead of training; a killed call continues where it stopped.

        Returns:
            How many answers the teacher had to read.
        """
        requests = {self._key(*request): request for request in zip(texts, answers, strict=True)}
        missing = self.store.missing(list(requests))
        if not missing:
            return 0
        # like lengths together, so that little padding is read
        missing.sort(key=lambda key: (-len(requests[key][0]) - len(requests[key][1]), key))
        with bar("teacher reads", len(missing), unit="answers") as advance:
            for start in range(0, len(missing), FILL_ANSWERS):
                part = missing[start : start + FILL_ANSWERS]
                self._ask({key: requests[key] for key in part})
                advance(len(part))
        return len(missing)

    def _key(self, text: str, tokens: Tokens) -> bytes:
        turn = self.reader.text_ids(text)
        value = np.array([len(turn), *turn, *tokens], dtype="<i8").tobytes()
        return bytes.fromhex(sha256_bytes(self._tag.encode() + value))

    def _ask(self, requests: dict[bytes, tuple[str, Tokens]]) -> dict[bytes, bytes]:
        texts, answers = zip(*requests.values(), strict=True)
        states = self.states(texts, answers)
        chunks = torch.cat(states).split(max(1, CHUNK_ELEMENTS // self.vocabulary))
        parts = [top_k(self.head(chunk).float(), self.k, self.temperature) for chunk in chunks]
        lengths = [len(answer_states) for answer_states in states]
        columns = (torch.cat(column).cpu().split(lengths) for column in zip(*parts, strict=True))
        entries = zip(*columns, strict=True)
        data = {key: encode_entry(entry, self.kept) for key, entry in zip(requests, entries, strict=True)}
        self.store.put(data)
        return data

    def _entry(self, data: bytes) -> Entry:
        try:
            return decode_entry(data)
        except ValueError as error:
            raise UserError(
                f"{self.store.path} is damaged ({error}): delete it, it will be made again"
            ) from error


def make_text_teacher(
    options: TeacherOptions,
    family: AudioFamily,
    *,
    weights: str,
    shared: bool,
    layout: Mode = "pad",
    precision: Precision = "float32",
    device: str = "cpu",
    whole: bool = False,
    shell: SpeechPolicy | None = None,
    sync: CollectiveSync | None = None,
) -> TextTeacher:
    """The text teacher of a student, before its first step.

    Args:
        options: of the recipe.
        family: the student, with the weights of the base model (and adapters that have not trained).
        weights: hash of the base model.
        shared: the LLM's own weights do not train (it is frozen, or adapters train in its place), so that the teacher
            can use them in place; otherwise it gets a copy.
        layout: of the student, see `data.packing`; answers to another model, or to one whose rows cannot be shared,
            are padded.
        precision: of the student.
        device: where another model is put.
        whole: everything in one forward pass; needed where processes share the LLM's weights.
        shell: what the LLM is called through where processes share weights out; the student's own, or that of the copy.
        sync: of the processes, where they share weights out.

    Raises:
        MissingPrerequisite: no such model.
        UserError: it cannot be learnt from token by token.
    """
    reader: Reader
    if options.model == "self":
        layout = layout if family.shares_rows else "pad"
        if shell is not None:
            reader = OwnReader(shell.family, weights, shell=shell, sync=sync)
        else:
            reader = OwnReader(family if shared else frozen_copy(family), weights, sync=sync)
    else:
        layout = "pad"
        if parse_endpoint(options.model) is not None:
            raise UserError(
                f"teacher.model {options.model}: a served model gives no distributions over its vocabulary; use a "
                "local one, or learn from its text (method sft)"
            )
        reader = OtherReader(resolve_model(options.model, "teacher"), device, options.template)
    vocabulary = shared_vocabulary(
        family.tokenizer,
        reader.tokenizer,
        student_rows=family.model.get_output_embeddings().weight.shape[0],
        teacher_rows=reader.vocabulary,
        end_ids=family.stops,
        audio_token_id=family.audio_token_id,
        name=options.model,
    )
    return TextTeacher(reader, vocabulary, layout, None if whole else options.batch_tokens, precision)


def make_cached_teacher(options: TeacherOptions, text_teacher: TextTeacher) -> CachedTeacher:
    """The same teacher asked once, for answers that do not change in training; needs `top_k` above 0."""
    folder = cache_dir() / "teachers" if options.folder is None else Path(options.folder)
    name = sha256_json({key: value for key, value in text_teacher.identity().items() if key != "path"})[:16]
    store = Store(folder / f"{name}.sqlite", int(options.memory_mb * MIB))
    return CachedTeacher(text_teacher, store, options.top_k, options.temperature, options.kept_as)
