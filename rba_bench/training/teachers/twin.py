"""The student's text twin: it reads the transcript where the student hears the clip, and then the same answer.

What is asked for several times, as in a voice group with one answer, is read once. Requests are taken by length, as
many at a time as fit into `batch_tokens`; answers to one transcript share its turn where the layout says so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rba_bench.errors import UserError
from rba_bench.training.data.packing import Mode, Response, plan
from rba_bench.training.data.targets import StateTargets
from rba_bench.training.teachers.readers import Reader

Tokens = tuple[int, ...]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class _Job:
    """One user turn with the answers that follow it, and the room it takes: rows of a width."""

    prompt: Tokens
    answers: tuple[Tokens, ...]
    rows: int
    width: int


class TextTwin:
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
        self, texts: Sequence[str], branches: Sequence[Response], places: Sequence[int] | None = None
    ) -> StateTargets:
        """Distributions at all positions of some answers.

        Args:
            texts: what the teacher reads instead of each clip (`AlignmentRow.user_text`).
            branches: answers of a batch; `clip` counts `texts`.
            places: numbers of the branches that are wanted, in any order; None = all.

        Raises:
            UserError: turn and answer are longer than the teacher's context.
        """
        wanted = tuple(sorted(set(range(len(branches)) if places is None else places)))
        states = self.states(
            [texts[branches[place].clip] for place in wanted], [branches[place].tokens for place in wanted]
        )
        return StateTargets(wanted, torch.cat(states), self.head)

    def states(self, texts: Sequence[str], answers: Sequence[Tokens]) -> list[Tensor]:
        """Last hidden state that each answer token is predicted from, end token included.

        Args:
            texts: user turns, one an answer.
            answers: token ids.

        Returns:
            [n_i, H] for each answer.
        """
        asked = [(self.reader.text_ids(text), tokens) for text, tokens in zip(texts, answers, strict=True)]
        found: dict[tuple[Tokens, Tokens], Tensor] = {}
        with self.reading():
            for batch in self._batches(list(dict.fromkeys(asked))):
                found |= self.reader.call(partial(self._read, batch))
        return [found[one] for one in asked]

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

    def _batches(self, asked: Sequence[tuple[Tokens, Tokens]]) -> Iterator[list[_Job]]:
        """Distinct requests, widest first so that memory peaks at once, those on one turn together."""
        by_prompt: dict[Tokens, list[Tokens]] = {}
        for prompt, tokens in asked:
            by_prompt.setdefault(prompt, []).append(tokens)
        jobs = [self._job(prompt, answers) for prompt, answers in by_prompt.items()]
        batch: list[_Job] = []
        rows = 0
        for job in sorted(jobs, key=lambda job: -job.width):
            full = (
                self.batch_tokens is not None and (rows + job.rows) * batch[0].width > self.batch_tokens
                if batch
                else False
            )
            if full:
                yield batch
                batch, rows = [], 0
            batch.append(job)
            rows += job.rows
        if batch:
            yield batch

    def _job(self, prompt: Tokens, answers: Sequence[Tokens]) -> _Job:
        longest, context = len(prompt) + max(map(len, answers)) - 1, self.reader.context
        if context is not None and longest > context:
            raise UserError(
                f"a transcript with its answer takes {longest} tokens, the teacher's context is {context}: use "
                "another teacher.model, or leave the item out"
            )
        if self.layout == "pad":
            return _Job(prompt, tuple(answers), len(answers), longest)
        return _Job(prompt, tuple(answers), 1, len(prompt) + sum(len(tokens) - 1 for tokens in answers))

    def _read(self, jobs: Sequence[_Job]) -> dict[tuple[Tokens, Tokens], Tensor]:
        prompts = [torch.tensor(job.prompt) for job in jobs]
        branches = [Response(number, tokens) for number, job in enumerate(jobs) for tokens in job.answers]
        layout = plan(
            prompts, branches, self.layout, self.reader.pad_id, by_document=self.reader.by_document
        ).to(self.reader.device)
        dtype = self.reader.embed(layout.input_ids[:1, :1]).dtype
        states = self.reader.decode(layout.input_ids, layout.attention_mask(dtype), layout.position_ids)
        flat = states.flatten(0, 1)
        self.tokens_read += sum(job.width * job.rows for job in jobs)
        return {
            (jobs[branch.clip].prompt, branch.tokens): flat.index_select(0, sources[: len(branch.tokens)])
            for branch, sources in zip(branches, layout.sources, strict=True)
        }
