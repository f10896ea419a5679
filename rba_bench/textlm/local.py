"""A text LLM run in this process by transformers: `LocalTextLM` answers and scores, `LocalJudge` judges."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rba_bench.errors import UserError, first_line
from rba_bench.textlm import chat
from rba_bench.textlm.chat import (
    ContentTokenizer,
    disable_thinking,
    render_chat,
    template_in_folder,
    template_of,
    warn_unread_variables,
)
from rba_bench.textlm.draws import TokenSampler
from rba_bench.textlm.engine_support import causal_lm_decoder
from rba_bench.textlm.generation import Decoder
from rba_bench.textlm.judging import JudgeModel, Message, Question, Reply
from rba_bench.textlm.replies import opened_thinking
from rba_bench.textlm.sampling import Continuation, continue_all, continue_batch, decode_tokens, to_generation
from rba_bench.textlm.text_model import Decoding, Generation, TextLM
from rba_bench.textlm.weights import (
    compute_dtype,
    hub_commit,
    load_model,
    local_folder,
    resolve_device,
    setup_sha256,
    weights_identity,
    weights_sha256,
)

ANCHOR = "a"  # a token before another shows whether that one begins with a space
PROBE = ("zqsystemtextqz", "zqusertextqz")


class LocalTextLM(TextLM):
    """A causal LM with a chat template: batches are padded and sorted by length, results in input order.

    A model whose turns or forward pass differ overrides `_turn_ids`, `_decoder`, `_draw_batch` and `_edge_logits`.

    Attributes:
        name: the folder's name.
        batch_size: rows answered together; answers do not depend on it.
        context: longest prompt plus answer in tokens, None if the model names no limit.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: dict[str, Any],
        batch_size: int = 32,
        template: dict[str, Any] | None = None,
        stops: tuple[list[int], list[int]] | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}: use 1 or more")
        self.model = model
        self.tokenizer = tokenizer
        self.content = ContentTokenizer(tokenizer)
        self.batch_size = batch_size
        self._tokens_read = 0
        self.template = template or {}
        self.name = Path(str(identity.get("path", "text"))).name
        self._identity = identity
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.chat_stops, self.complete_stops = stops or chat.stop_ids(tokenizer, model, **self.template)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.chat_stops[0]

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        device: str = "cpu",
        batch_size: int = 32,
        trust_remote_code: bool = False,
        template: dict[str, Any] | None = None,
    ) -> "LocalTextLM":
        """Load a folder or Hub id, safetensors only.

        Args:
            path_or_id: what `save_pretrained` wrote, or an id such as `Qwen/Qwen2.5-7B-Instruct`.
            device: a torch device, or `auto`. On the CPU the model computes in float32 however it is stored.
            batch_size: rows per batch.
            trust_remote_code: run Python code that ships with the model.
            template: extra variables of the chat template, such as `{"enable_thinking": False}`.

        Raises:
            MissingPrerequisite: the model is not there.
            UserError: it is not a causal LM with a chat template, it is damaged, or the device is unusable.
        """
        folder = local_folder(path_or_id, "text model")
        where = resolve_device(device)
        model = load_model(AutoModelForCausalLM, folder, "text model", where, trust_remote_code)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no usable tokenizer: {first_line(error)}") from error
        identity = {"kind": "text", **weights_identity(folder, path_or_id, model, trust_remote_code)}
        warn_unread_variables(template_of(tokenizer), template or {}, Path(str(path_or_id)).name)
        return cls(model, tokenizer, identity, batch_size, template)

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Answer each user turn; see `TextLM.chat`."""
        rows = [self._turn_ids(text) for text in user_texts]
        return self._generate(rows, decoding, seeds, self.chat_stops, self.opened)

    def converse(
        self, conversations: Sequence[Sequence[Message]], decoding: Decoding, seeds: Sequence[int]
    ) -> list[Generation]:
        """Answer conversations; see `TextLM.converse`."""
        rows = [self.conversation_ids(messages) for messages in conversations]
        return self._generate(rows, decoding, seeds, self.chat_stops, self.opened)

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Continue raw text; see `TextLM.complete`."""
        rows = [self._ids(text) for text in prompts]
        return self._generate(rows, decoding, seeds, self.complete_stops)

    @torch.inference_mode()
    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Summed natural-log probability of each response and the end token; see `TextLM.logprobs`.

        Raises:
            UserError: prompt and response are longer than the model's context.
        """
        if len(user_texts) != len(responses):
            raise ValueError(f"{len(user_texts)} user turns for {len(responses)} responses")
        rows = [self.scored_ids(*pair) for pair in zip(user_texts, responses, strict=True)]
        longest = max((len(prompt) + len(answer) for prompt, answer in rows), default=0)
        if self.context is not None and longest > self.context:
            raise UserError(f"{longest} tokens to score, but the model's context is {self.context}")
        values = [0.0] * len(rows)
        for batch in self._batches([len(prompt) + len(answer) for prompt, answer in rows]):
            inputs = self.pad([[*prompt, *answer] for prompt, answer in (rows[i] for i in batch)])
            longest = max(len(rows[i][1]) for i in batch)
            # Left padding puts all answers at the right edge, so the head runs over that edge alone.
            logits = self._edge_logits(inputs, longest + 1)[:, :-1].float()
            targets = inputs["input_ids"][:, -longest:, None]
            picked = logits.log_softmax(dim=-1).gather(-1, targets).squeeze(-1).double()
            for index, row in zip(batch, picked, strict=True):
                values[index] = float(row[longest - len(rows[index][1]) :].sum())
        return values

    def tokens_read(self) -> int:
        """Tokens of all prompts that were continued; see `TextLM.tokens_read`."""
        return self._tokens_read

    def answer_length(self, response: str) -> int:
        """Tokens of a response and its end token: what `logprobs` is summed over."""
        return len(self.content.text_ids(response)) + 1

    def pre_query_template(self) -> str:
        """The chat template up to where the user's words begin; see `TextLM.pre_query_template`."""
        return chat.pre_query_template(self.tokenizer, **self.template)

    @cached_property
    def opened(self) -> str:
        """The tag with which the template opens the model's thinking, "" if it does not."""
        return opened_thinking(chat.render_user_turn(self.tokenizer, chat.SENTINEL, **self.template))

    def identity(self) -> dict[str, Any]:
        """Kind, path, `weights_sha256`, `setup_sha256`, `n_parameters`, dtype, template variables."""
        return {**self._identity, **({"template": self.template} if self.template else {})}

    def _generate(
        self,
        rows: Sequence[list[int]],
        decoding: Decoding,
        seeds: Sequence[int],
        stops: list[int],
        opened: str = "",
    ) -> list[Generation]:
        if len(rows) != len(seeds):
            raise ValueError(f"{len(rows)} prompts for {len(seeds)} seeds")
        room = None if self.context is None else self.context - decoding.max_new_tokens - 1
        results: dict[int, Generation] = {}
        for i, row in enumerate(rows):
            if not row or (room is not None and len(row) > room):
                fault = f"prompt of {len(row)} tokens leaves no room in the model's context"
                results[i] = Generation("", 0, "error", fault if row else "empty prompt")
        open_rows = [i for i in range(len(rows)) if i not in results]
        self._tokens_read += sum(len(rows[i]) for i in open_rows)
        drawn = self._draw([rows[i] for i in open_rows], decoding, [seeds[i] for i in open_rows], stops)
        for index, continuation in zip(open_rows, drawn, strict=True):
            results[index] = to_generation(self.tokenizer, continuation, opened)
        return [results[i] for i in range(len(rows))]

    @torch.no_grad()
    def _draw(
        self, rows: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int], stops: list[int]
    ) -> list[Continuation]:
        """One continuation for each row of ids: by the engine, or batch by batch where it cannot drive the model."""
        decoder = self._decoder() if rows else None
        if decoder is not None:
            return continue_all(decoder, rows, decoding, seeds, stops, self.batch_size, self.model.device)
        continuations: dict[int, Continuation] = {}
        for batch in self._batches([len(row) for row in rows]):
            drawn = self._draw_batch([rows[i] for i in batch], decoding, [seeds[i] for i in batch], stops)
            continuations.update(zip(batch, drawn, strict=True))
        return [continuations[i] for i in range(len(rows))]

    def _decoder(self) -> Decoder | None:
        """The model as the engine drives it, None where it cannot."""
        return causal_lm_decoder(self.model)

    def _draw_batch(
        self, rows: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int], stops: list[int]
    ) -> list[Continuation]:
        """The same for a batch, by the model's own `generate`."""
        inputs = self.pad(rows)
        return continue_batch(self.model, inputs, decoding, seeds, stop_ids=stops, pad_id=self.pad_id)

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """A conversation up to the answer; what was said in it forges no mark of a turn."""
        roles = [message.role for message in messages]

        def write(contents: Sequence[str]) -> str:
            turns = [Message(*turn) for turn in zip(roles, contents, strict=True)]
            return _render_messages(self.tokenizer, turns, self.template)

        return self.content.ids(write, [message.content for message in messages])

    def _turn_ids(self, user_text: str) -> list[int]:
        """A user turn up to the answer."""
        return self.content.ids(self._render, [user_text])

    def _render(self, contents: Sequence[str]) -> str:
        """A user turn up to the answer, and the answer if it is given too."""
        return chat.render_user_turn(self.tokenizer, contents[0], **self.template) + "".join(contents[1:])

    def _ids(self, text: str) -> list[int]:
        """Token ids of raw text, whose special tokens are written out."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def scored_ids(self, user_text: str, response: str) -> tuple[list[int], list[int]]:
        """Prompt ids and ids of the response with its end token: what `logprobs` sums over.

        They are tokenised as one text, as the model would have met them, unless the border moves (a token
        that spans prompt and response cannot be drawn after the prompt).
        """
        prompt = self._turn_ids(user_text)
        whole = self.content.ids(self._render, [user_text, response])
        answer = whole[len(prompt) :] if whole[: len(prompt)] == prompt else self.content.text_ids(response)
        return prompt, [*answer, self.chat_stops[0]]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        # longest first: memory peaks at once
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def pad(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` [B, L] of rows, padded on the left, on the model's device."""
        width = max(len(row) for row in rows)
        ids = torch.tensor([[self.pad_id] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def _edge_logits(self, inputs: dict[str, torch.Tensor], keep: int) -> torch.Tensor:
        """Logits [B, keep, V] of the last positions of a left-padded batch."""
        positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        logits: torch.Tensor = self.model(**inputs, position_ids=positions, logits_to_keep=keep).logits
        return logits


class LocalJudge(JudgeModel):
    """A local causal LM as judge model.

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
            template: Extra variables of the chat template. Where it reads `enable_thinking`, that is False unless set
                here: a judge is asked for a word or a digit, and has no room to think.

        Raises:
            MissingPrerequisite: The model is not there.
            UserError: The device is unusable, or the batch size.
        """
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}: use 1 or more")
        folder = local_folder(path_or_id, "judge")
        template = disable_thinking(template_in_folder(folder), template or {})
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
            probe = [Message("system", PROBE[0]), Message("user", PROBE[1])]
            try:  # some chat templates refuse a system turn (Gemma 2), some leave it out
                rendered = _render_messages(self._lm.tokenizer, probe, self._lm.template)
            except UserError:
                rendered = ""
            self._takes_system = all(word in rendered for word in PROBE)
        return self._lm

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """`(position, reply)` batch by batch; a question that does not fit the model's context is an `error`."""
        rows = [self._ids(question.messages) for question in questions]
        groups: dict[Question, list[int]] = {}  # by what the questions of one batch must have in common
        for position, (row, question) in enumerate(zip(rows, questions, strict=True)):
            room = self.lm.context
            if room is not None and len(row) + question.max_tokens + 1 > room:
                reason = f"question of {len(row)} tokens leaves no room in the judge's context of {room}"
                yield position, Reply("", status="error", error=reason, prompt_tokens=len(row))
                continue
            groups.setdefault(replace(question, messages=(), seed=0), []).append(position)
        for setting, fitting in groups.items():
            fitting.sort(key=lambda i: (-len(rows[i]), i))  # longest first: memory peaks at once
            for start in range(0, len(fitting), self.batch_size):
                batch = fitting[start : start + self.batch_size]
                seeds = [questions[i].seed for i in batch]
                replies = self._answer_fitting([rows[i] for i in batch], setting, seeds)
                yield from zip(batch, replies, strict=True)

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the model reads it, ready for the answer; special tokens are written out."""
        lm = self.lm  # loading it tells whether its template takes a system turn
        turns = messages if self._takes_system else fold_system(messages)
        return _render_messages(lm.tokenizer, turns, lm.template)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        lm = self.lm  # as in `render`
        # what is judged may hold the marks of a turn: it must not answer in the judge's name
        return lm.conversation_ids(messages if self._takes_system else fold_system(messages))

    def _answer_fitting(self, rows: list[list[int]], setting: Question, seeds: list[int]) -> list[Reply]:
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
    def _answer(self, rows: list[list[int]], setting: Question, seeds: list[int]) -> list[Reply]:
        began = perf_counter()
        first = None  # logits [B, V] of the first token of each answer
        if setting.top_logprobs or setting.max_tokens == 1:
            first = self.lm._edge_logits(self.lm.pad(rows), 1)[:, -1].float()
        if setting.max_tokens == 1 and first is not None:  # the token that a longer answer would begin with
            words = torch.tensor(seeds, device=first.device)
            tokens = TokenSampler(setting.temperature)(first, words, torch.zeros_like(words)).tokens
            drawn = [[] if token in self.lm.chat_stops else [token] for token in tokens.tolist()]
        else:
            decoding = Decoding(max_new_tokens=setting.max_tokens, temperature=setting.temperature)
            drawn = [c.tokens for c in self.lm._draw(rows, decoding, seeds, self.lm.chat_stops)]
        logprobs: list[tuple[tuple[str, float], ...]] = [()] * len(rows)
        if first is not None and setting.top_logprobs:
            values, ids = first.log_softmax(-1).topk(min(setting.top_logprobs, first.shape[1]), dim=-1)
            logprobs = [
                tuple((self._token_text(token), value) for token, value in zip(*row, strict=True))
                for row in zip(ids.tolist(), values.double().tolist(), strict=True)
            ]
        seconds = (perf_counter() - began) / len(rows)
        return [
            Reply(
                decode_tokens(self.lm.tokenizer, tokens, self.lm.opened),
                likeliest,
                prompt_tokens=len(row),
                completion_tokens=len(tokens),
                latency_s=seconds,
            )
            for row, tokens, likeliest in zip(rows, drawn, logprobs, strict=True)
        ]

    def _token_text(self, token: int) -> str:
        """A token as it is written inside a text: decoders drop the space of a first token."""
        decode = partial(self.lm.tokenizer.decode, clean_up_tokenization_spaces=False)
        before = self.lm.tokenizer(ANCHOR, add_special_tokens=False)["input_ids"]
        return str(decode([*before, token])[len(decode(before)) :])


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with its system turns in front of the first user turn's words."""
    system = [message.content for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(turns) if message.role == "user"), None)
    if first is None:
        return [Message("user", "\n\n".join(system)), *turns]
    turns[first] = Message("user", "\n\n".join([*system, turns[first].content]))
    return turns


def _render_messages(tokenizer: Any, messages: Sequence[Message], template: dict[str, Any]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return render_chat(tokenizer, turns, add_generation_prompt=True, **template)
