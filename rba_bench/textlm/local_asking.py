"""Questions to a text LLM run in this process: whole conversations, batched, with the odds of the first token."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from rba_bench.errors import UserError
from rba_bench.textlm.asking import Message, Question, Reply
from rba_bench.textlm.base import Decoding
from rba_bench.textlm.chat import render
from rba_bench.textlm.draws import TokenSampler
from rba_bench.textlm.local import LocalTextLM
from rba_bench.textlm.sampling import written
from rba_bench.textlm.template import quiet, text_in
from rba_bench.textlm.weights import (
    compute_dtype,
    hub_commit,
    local_folder,
    resolve_device,
    setup_sha256,
    weights_sha256,
)

ANCHOR = "a"  # a token before another shows whether that one begins with a space
PROBE = ("zqsystemtextqz", "zqusertextqz")


class LocalAsker:
    """A local causal LM as judge: the `JudgeModel` protocol.

    A reply depends on model, question and seed alone, not on the batch. The weights are loaded at the first question,
    so that a judge may be named long before it is needed; its identity is that of the files.

    Attributes:
        name: The folder's name.
        batch_size: Questions per batch.
    """

    def __init__(
        self,
        path_or_id: str | Path,
        device: str = "cpu",
        batch_size: int = 32,
        trust_remote_code: bool = False,
        template: dict[str, Any] | None = None,
    ) -> None:
        """Find the model.

        Args:
            path_or_id: Folder or Hub id of an instruction-tuned causal LM, safetensors only.
            device: A torch device, or `auto`. On the CPU the model computes in float32 however it is stored.
            batch_size: Questions per batch.
            trust_remote_code: Run Python code that ships with the model.
            template: Extra variables of the chat template. Where it knows `enable_thinking`, that is False unless said
                here: a judge is asked for a word or a digit, and has no room to think.

        Raises:
            MissingPrerequisite: The model is not there.
            UserError: The device is unusable, or the batch size.
        """
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}: use 1 or more")
        folder = local_folder(path_or_id, "judge")
        template = quiet(text_in(folder), template or {})
        self.batch_size = batch_size
        self.name = Path(str(path_or_id)).name
        self._load = (folder, resolve_device(device), batch_size, trust_remote_code, template)
        self._lm: LocalTextLM | None = None
        self._takes_system = True
        self._identity = {
            "kind": "text",
            "path": str(path_or_id),
            "weights_sha256": weights_sha256(folder),
            "setup_sha256": setup_sha256(folder),
            **({"revision": commit} if (commit := hub_commit(folder)) else {}),
            "dtype": "float32" if compute_dtype(self._load[1]) is torch.float32 else "stored",
            **({"template": template} if template else {}),
        }

    def identity(self) -> dict[str, Any]:
        """Kind, path, `weights_sha256`, `setup_sha256`, dtype, template variables."""
        return dict(self._identity)

    @property
    def lm(self) -> LocalTextLM:
        """The loaded model.

        Raises:
            UserError: It is not a causal LM with a chat template, or damaged.
        """
        if self._lm is None:
            self._lm = LocalTextLM.from_pretrained(*self._load)
            self._takes_system = _takes_system(self._lm.tokenizer, self._lm.template)
        return self._lm

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """`(position, reply)` batch by batch; a question that does not fit the model's context is an `error`."""
        rows = [self._ids(question.messages) for question in questions]
        for position, (row, question) in enumerate(zip(rows, questions, strict=True)):
            if (reason := self._unanswerable(row, question)) is not None:
                yield position, Reply("", status="error", error=reason, prompt_tokens=len(row))
        for setting, members in _settings(questions).items():
            fitting = [i for i in members if self._unanswerable(rows[i], questions[i]) is None]
            fitting.sort(key=lambda i: (-len(rows[i]), i))  # longest first: memory peaks at once
            for start in range(0, len(fitting), self.batch_size):
                batch = fitting[start : start + self.batch_size]
                seeds = [questions[i].seed for i in batch]
                replies = self._answer_fitting([rows[i] for i in batch], setting, seeds)
                yield from zip(batch, replies, strict=True)

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the model reads it, ready for the answer; special tokens are written out."""
        lm = self.lm  # loading it tells whether its template takes a system turn
        return _render(lm.tokenizer, messages if self._takes_system else fold_system(messages), lm.template)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        roles = [message.role for message in messages]

        def write(told: Sequence[str]) -> str:
            return self.render([Message(role, content) for role, content in zip(roles, told, strict=True)])

        # what is judged may hold the marks of a turn: it must not answer in the judge's name
        return self.lm.content.ids(write, [message.content for message in messages])

    def _unanswerable(self, row: list[int], question: Question) -> str | None:
        room = self.lm.context
        if room is None or len(row) + question.max_tokens + 1 <= room:
            return None
        return f"question of {len(row)} tokens leaves no room in the judge's context of {room}"

    def _answer_fitting(self, rows: list[list[int]], setting: "_Setting", seeds: list[int]) -> list[Reply]:
        """Replies of a batch, in halves where it does not fit into memory."""
        try:
            return self._answer(rows, setting, seeds)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        half = len(rows) // 2
        return [
            *self._answer_fitting(rows[:half], setting, seeds[:half]),
            *self._answer_fitting(rows[half:], setting, seeds[half:]),
        ]

    @torch.inference_mode()
    def _answer(self, rows: list[list[int]], setting: "_Setting", seeds: list[int]) -> list[Reply]:
        began = perf_counter()
        wants_odds = setting.top_logprobs or setting.max_tokens == 1
        first = self._first_logits(self.lm._padded(rows)) if wants_odds else None
        if setting.max_tokens == 1 and first is not None:
            drawn = [_until(self.lm.chat_stops, [token]) for token in _draw(first, setting, seeds)]
        else:
            drawn = self._continue(rows, setting, seeds)
        odds = [()] * len(rows) if first is None else self._odds(first, setting.top_logprobs)
        seconds = (perf_counter() - began) / len(rows)
        return [
            Reply(
                written(self.lm.tokenizer, tokens, self.lm.opened),
                likeliest,
                prompt_tokens=len(row),
                completion_tokens=len(tokens),
                latency_s=seconds,
            )
            for row, tokens, likeliest in zip(rows, drawn, odds, strict=True)
        ]

    def _first_logits(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of the first answer token, `[rows, vocabulary]`, float32."""
        positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        logits = self.lm.model(**inputs, position_ids=positions, logits_to_keep=1).logits
        return torch.as_tensor(logits[:, -1]).float()

    def _continue(self, rows: list[list[int]], setting: "_Setting", seeds: list[int]) -> list[list[int]]:
        decoding = Decoding(max_new_tokens=setting.max_tokens, temperature=setting.temperature)
        drawn = self.lm._draw(rows, decoding, seeds, self.lm.chat_stops)
        return [continuation.tokens for continuation in drawn]

    def _odds(self, logits: torch.Tensor, count: int) -> list[tuple[tuple[str, float], ...]]:
        """The likeliest first tokens of each row as written (spaces kept) with their natural-log probabilities."""
        if not count:
            return [()] * len(logits)
        values, tokens = logits.log_softmax(dim=-1).topk(min(count, logits.shape[1]), dim=-1)
        return [
            tuple((self._written(token), value) for token, value in zip(*row, strict=True))
            for row in zip(tokens.tolist(), values.double().tolist(), strict=True)
        ]

    def _written(self, token: int) -> str:
        """A token as it is written inside a text: decoders drop the space of a first token."""
        tokenizer = self.lm.tokenizer
        before = tokenizer(ANCHOR, add_special_tokens=False)["input_ids"]
        told = [
            tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (before, [*before, token])
        ]
        return str(told[1][len(told[0]) :])


class _Setting(NamedTuple):
    """What the questions of one batch must have in common."""

    max_tokens: int
    temperature: float
    top_logprobs: int


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its system turns in front of the first user turn's words."""
    system = [message.content for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(turns) if message.role == "user"), None)
    if first is None:
        return [Message("user", "\n\n".join(system)), *turns]
    turns[first] = Message("user", "\n\n".join([*system, turns[first].content]))
    return turns


def _settings(questions: Sequence[Question]) -> dict[_Setting, list[int]]:
    groups: dict[_Setting, list[int]] = {}
    for position, question in enumerate(questions):
        setting = _Setting(question.max_tokens, question.temperature, question.top_logprobs)
        groups.setdefault(setting, []).append(position)
    return groups


def _render(tokenizer: Any, messages: Sequence[Message], template: dict[str, Any]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return render(tokenizer, turns, add_generation_prompt=True, **template)


def _takes_system(tokenizer: Any, template: dict[str, Any]) -> bool:
    """Whether the chat template writes a system turn: some refuse it (Gemma 2), some leave it out."""
    probe = [Message("system", PROBE[0]), Message("user", PROBE[1])]
    try:
        rendered = _render(tokenizer, probe, template)
    except UserError:
        return False
    return all(word in rendered for word in PROBE)


def _draw(logits: torch.Tensor, setting: _Setting, seeds: list[int]) -> list[int]:
    """One token for each row, the same that a longer answer would begin with."""
    rows = torch.tensor(seeds, device=logits.device)
    tokens = TokenSampler(setting.temperature)(logits, rows, torch.zeros_like(rows)).tokens
    return list(map(int, tokens))


def _until(stops: list[int], tokens: list[int]) -> list[int]:
    return [] if tokens[0] in stops else tokens
