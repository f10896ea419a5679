"""A text LLM run in this process by transformers."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rba_bench.errors import UserError
from rba_bench.textlm import chat
from rba_bench.textlm.base import Decoding, Generation
from rba_bench.textlm.content import ContentTokenizer
from rba_bench.textlm.drivable import of_causal_lm
from rba_bench.textlm.generation import Decoder
from rba_bench.textlm.replies import opening
from rba_bench.textlm.sampling import Continuation, continue_all, continue_batch, to_generation
from rba_bench.textlm.template import note_unknown, text_of
from rba_bench.textlm.weights import describe, load_model, local_folder, resolve_device


class LocalTextLM:
    """A causal LM with a chat template: batches are padded and sorted by length, results in input order.

    A model that is spoken to or computed in another way overrides `_turn_ids`, `_decoder`, `_draw_batch` and
    `_edge_logits`.

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
            raise UserError(f"{folder} holds no usable tokenizer: {str(error).splitlines()[0]}") from error
        identity = {"kind": "text", **describe(folder, path_or_id, model, trust_remote_code)}
        note_unknown(text_of(tokenizer), template or {}, Path(str(path_or_id)).name)
        return cls(model, tokenizer, identity, batch_size, template)

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Answer each user turn; see `TextLM.chat`."""
        rows = [self._turn_ids(text) for text in user_texts]
        return self._generate(rows, decoding, seeds, self.chat_stops, self.opened)

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Continue raw text; see `TextLM.complete`."""
        return self._generate([self._ids(text) for text in prompts], decoding, seeds, self.complete_stops)

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Summed natural-log probability of each response and the end token; see `TextLM.logprobs`.

        Raises:
            UserError: prompt and response are longer than the model's context.
        """
        if len(user_texts) != len(responses):
            raise ValueError(f"{len(user_texts)} user turns for {len(responses)} responses")
        rows = [
            self._scored_ids(text, response) for text, response in zip(user_texts, responses, strict=True)
        ]
        longest = max((len(prompt) + len(answer) for prompt, answer in rows), default=0)
        if self.context is not None and longest > self.context:
            raise UserError(f"{longest} tokens to score, but the model's context is {self.context}")
        values = [0.0] * len(rows)
        for batch in self._batches([len(prompt) + len(answer) for prompt, answer in rows]):
            for index, value in zip(batch, self._score([rows[i] for i in batch]), strict=True):
                values[index] = value
        return values

    def pre_query_template(self) -> str:
        """The chat template up to where the user's words begin; see `TextLM.pre_query_template`."""
        return chat.pre_query_template(self.tokenizer, **self.template)

    @cached_property
    def opened(self) -> str:
        """The tag with which the template opens the model's thinking, "" if it does not."""
        return opening(chat.render_user(self.tokenizer, chat.SENTINEL, **self.template))

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
        results: list[Generation | None] = [_unanswerable(row, room) for row in rows]
        open_rows = [i for i, result in enumerate(results) if result is None]
        drawn = self._draw([rows[i] for i in open_rows], decoding, [seeds[i] for i in open_rows], stops)
        for index, continuation in zip(open_rows, drawn, strict=True):
            results[index] = to_generation(self.tokenizer, continuation, opened)
        return [result for result in results if result is not None]

    @torch.no_grad()
    def _draw(
        self, rows: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int], stops: list[int]
    ) -> list[Continuation]:
        """One continuation for each row of ids: by the engine, or batch by batch where it cannot drive the model."""
        decoder = self._decoder() if rows else None
        if decoder is not None:
            return continue_all(decoder, rows, decoding, seeds, stops, self.batch_size, self.model.device)
        found: dict[int, Continuation] = {}
        for batch in self._batches([len(row) for row in rows]):
            drawn = self._draw_batch([rows[i] for i in batch], decoding, [seeds[i] for i in batch], stops)
            found.update(zip(batch, drawn, strict=True))
        return [found[i] for i in range(len(rows))]

    def _decoder(self) -> Decoder | None:
        """The model as the engine drives it, None where it cannot."""
        return of_causal_lm(self.model)

    def _draw_batch(
        self, rows: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int], stops: list[int]
    ) -> list[Continuation]:
        """The same for a batch, by the model's own `generate`."""
        inputs = self._padded(rows)
        return continue_batch(self.model, inputs, decoding, seeds, stop_ids=stops, pad_id=self.pad_id)

    def _turn_ids(self, user_text: str) -> list[int]:
        """A user turn up to the answer."""
        return self.content.ids(self._rendered, [user_text])

    def _rendered(self, told: Sequence[str]) -> str:
        """A user turn up to the answer, and the answer if it is told too."""
        return chat.render_user(self.tokenizer, told[0], **self.template) + "".join(told[1:])

    def _ids(self, text: str) -> list[int]:
        return list(
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
        )  # the template writes them out

    def _scored_ids(self, user_text: str, response: str) -> tuple[list[int], list[int]]:
        """Prompt ids and ids of the response with its end token.

        They are tokenised as one text, as the model would have met them, unless the border moves (a token
        that spans prompt and response cannot be drawn after the prompt).
        """
        prompt = self._turn_ids(user_text)
        whole = self.content.ids(self._rendered, [user_text, response])
        answer = whole[len(prompt) :] if whole[: len(prompt)] == prompt else self.content.text_ids(response)
        return prompt, [*answer, self.chat_stops[0]]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        order = sorted(
            range(len(lengths)), key=lambda i: (-lengths[i], i)
        )  # longest first: memory peaks at once
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _padded(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        width = max(len(row) for row in rows)
        ids = torch.tensor([[self.pad_id] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}

    def _edge_logits(self, inputs: dict[str, torch.Tensor], keep: int) -> torch.Tensor:
        """Logits [B, keep, V] of the last positions of a left-padded batch."""
        positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        logits: torch.Tensor = self.model(**inputs, position_ids=positions, logits_to_keep=keep).logits
        return logits

    @torch.inference_mode()
    def _score(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        inputs = self._padded([prompt + answer for prompt, answer in rows])
        longest = max(len(answer) for _, answer in rows)
        # Left padding puts all answers at the right edge, so the head runs over that edge alone.
        logits = self._edge_logits(inputs, longest + 1)
        values = logits[:, :-1].float().log_softmax(dim=-1)
        targets = inputs["input_ids"][:, -longest:, None]
        picked = values.gather(-1, targets).squeeze(-1).double()
        return [float(picked[i, longest - len(answer) :].sum()) for i, (_, answer) in enumerate(rows)]


def _unanswerable(row: list[int], room: int | None) -> Generation | None:
    if not row:
        return Generation("", 0, "error", "empty prompt")
    if room is not None and len(row) > room:
        return Generation(
            "", 0, "error", f"prompt of {len(row)} tokens leaves no room in the model's context"
        )
    return None
