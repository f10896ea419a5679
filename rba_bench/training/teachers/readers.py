"""Language models that read transcripts: the policy's own LLM, in place or as a copy, or another model.

A `Reader` turns ids into states and states into logits, without gradient and in eval mode; text teachers use it.
`PolicyTextLM` is the policy's own LLM as a text model, with the weights of the moment and without a copy: it writes the
answers of BLSP and AudioChatLlama before training, and is the judge in self-rewarding.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.engine import last_logits_only
from rba_bench.speechlm.audiolm.families.adapter import PROMPTS_KEPT, AudioFamily
from rba_bench.speechlm.audiolm.text_decoder import speech_decoder
from rba_bench.textlm import chat
from rba_bench.textlm.block_attention import NAME as BY_DOCUMENT
from rba_bench.textlm.chat import ContentTokenizer, Variables, disable_thinking, template_of
from rba_bench.textlm.formats.conversion import read_source
from rba_bench.textlm.generation import Decoder
from rba_bench.textlm.local import LocalTextLM
from rba_bench.textlm.replies import opened_thinking
from rba_bench.textlm.sampling import Continuation, continue_batch
from rba_bench.textlm.text_model import Decoding, Generation, TextLM
from rba_bench.textlm.weights import (
    compute_dtype,
    load_model,
    local_folder,
    resolve_device,
    setup_sha256,
    weights_sha256,
)
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharding import CollectiveSync

PROBE_TOKENS = 7
T = TypeVar("T")


class Reader(ABC):
    """A causal LM and how it is spoken to.

    Attributes:
        tokenizer: of the text it reads.
        content: the same, to whom the words of others are words alone.
        vocabulary: tokens its head names.
        pad_id: a token to fill rows with.
        context: longest prompt plus answer in tokens, None if the model names no limit.
        by_document: it attends by document, see `textlm.block_attention`.
    """

    by_document: bool = False
    tokenizer: Any
    content: ContentTokenizer
    vocabulary: int
    pad_id: int
    context: int | None

    @abstractmethod
    def text_ids(self, text: str) -> tuple[int, ...]:
        """A user turn of this text up to the answer, by the model's own template."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the states beside what is read."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """The state to read in: eval mode, no gradient, adapters as they have to be; all put back afterwards."""

    def inside(self, work: Callable[[], T]) -> T:
        """Do something with the model; where processes share its weights out, all must do so equally often."""
        return work()

    def call(self, work: Callable[[], T]) -> T:
        """The same for work that runs the decoder once; processes may ask unequally often."""
        return self.inside(work)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where ids are read."""

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Word embeddings [..., H] of ids."""

    @abstractmethod
    def decode(self, ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor) -> Tensor:
        """Last hidden states [R, S, H] of ids [R, S], after the final norm."""

    @abstractmethod
    def head(self, states: Tensor) -> Tensor:
        """Logits [..., `vocabulary`] of states [..., H]."""


class OwnReader(Reader):
    """The LLM inside a speech model.

    Args:
        family: the model; `frozen_copy` makes one whose LLM stays as it is.
        weights: what names its weights in records.
        adapters: leave low-rank adapters on; without them it is the LLM they were put into.
        shell: of a copy whose weights processes share out; what reads in place needs none, its caller is inside.
        sync: of the processes, where they share the weights out.
    """

    def __init__(
        self,
        family: AudioFamily,
        weights: str,
        adapters: bool = False,
        shell: SpeechPolicy | None = None,
        sync: CollectiveSync | None = None,
    ) -> None:
        self.family = family
        self.shell = shell
        self.weights = weights
        self.adapters = adapters
        self.tokenizer = family.tokenizer
        self.content = family.content
        self.pad_id = family.pad_id
        self.context = family.context
        self.vocabulary: int = family.model.get_output_embeddings().weight.shape[0]
        self.sync = sync or CollectiveSync()
        self.by_document = family.decoder.config._attn_implementation == BY_DOCUMENT

    def text_ids(self, text: str) -> tuple[int, ...]:
        """See `AudioFamily.text_ids`."""
        return self.family.text_ids(text)

    def identity(self) -> dict[str, Any]:
        """Kind, hash of the weights and number type."""
        dtype = str(next(self.family.decoder.parameters()).dtype).removeprefix("torch.")
        return {"kind": "self", "weights_sha256": self.weights, "dtype": dtype}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See `Reader.reading`."""
        decoder = self.family.decoder
        bare = without_adapters(decoder, not self.adapters)
        with torch.no_grad(), eval_mode(decoder), self.family.reading_text(), bare:
            yield

    def inside(self, work: Callable[[], T]) -> T:
        """See `Reader.inside`."""
        return work() if self.shell is None else self.shell.inside(work)

    def call(self, work: Callable[[], T]) -> T:
        """See `Reader.call`."""
        self.sync.enter()
        return self.inside(work)

    @property
    def device(self) -> torch.device:
        """See `Reader.device`."""
        return self.family.model.get_input_embeddings().weight.device

    def embed(self, ids: Tensor) -> Tensor:
        """See `Reader.embed`."""
        return self.family.model.get_input_embeddings()(ids)

    def decode(self, ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor) -> Tensor:
        """See `Reader.decode`."""
        return self.family.decode(self.embed(ids), attention_mask, position_ids, use_cache=False)

    def head(self, states: Tensor) -> Tensor:
        """See `Reader.head`."""
        return self.family.head(states)


class OtherReader(Reader):
    """A text LLM of a folder or Hub id; its weights are loaded when it first reads.

    Args:
        path_or_id: an instruction-tuned causal LM, safetensors only.
        device: a torch device, or `auto`.
        template: variables of its chat template. Where that knows `enable_thinking`, it is False unless said here: the
            answers that it reads do not think.

    Raises:
        MissingPrerequisite: it is not there.
        UserError: it has no tokenizer or chat template, or the device is unusable.
    """

    def __init__(self, path_or_id: str, device: str = "cpu", template: Variables | None = None) -> None:
        self.path = path_or_id
        self.folder = local_folder(path_or_id, "text teacher")
        self._where = resolve_device(device)
        try:
            self.config = AutoConfig.from_pretrained(self.folder).get_text_config()
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"teacher.model {path_or_id}: {' '.join(str(error).split())}") from error
        self.content = ContentTokenizer(self.tokenizer)
        self.template = disable_thinking(template_of(self.tokenizer), template or {})
        self.vocabulary = int(self.config.vocab_size)
        self.context = getattr(self.config, "max_position_embeddings", None)
        pad = self.tokenizer.pad_token_id
        self.pad_id = 0 if pad is None else pad
        self._cached_ids = lru_cache(PROMPTS_KEPT)(self._tokenized)
        self._model: Any = None
        self._identity: dict[str, Any] = {}
        self.text_ids("probe")  # refuses here what has no chat template

    def text_ids(self, text: str) -> tuple[int, ...]:
        """See `Reader.text_ids`."""
        return self._cached_ids(text)

    def _tokenized(self, text: str) -> tuple[int, ...]:
        if not self.tokenizer.chat_template:
            raise UserError(f"teacher.model {self.path} has no chat template: use an instruction-tuned model")

        def render(texts: Sequence[str]) -> str:
            return chat.render_user_turn(self.tokenizer, texts[0], **self.template)

        return tuple(self.content.ids(render, [text]))

    def identity(self) -> dict[str, Any]:
        """Kind, hashes of weights and setup, number type; nothing is loaded for it."""
        if not self._identity:
            self._identity = {
                "kind": "text",
                "path": self.path,
                "weights_sha256": weights_sha256(self.folder),
                "setup_sha256": setup_sha256(self.folder),
                **({"source": source} if (source := read_source(self.folder)) else {}),
                "dtype": str(compute_dtype(self._where)).removeprefix("torch."),
                **({"template": self.template} if self.template else {}),
            }
        return dict(self._identity)

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    @property
    def model(self) -> Any:
        """The model, loaded now if it is not yet.

        Raises:
            UserError: damaged files, or a model whose states and head do not give its logits.
        """
        if self._model is None:
            model = load_model(AutoModelForCausalLM, self.folder, "text teacher", self._where)
            self._model = model.requires_grad_(False)
            ids = torch.arange(PROBE_TOKENS, device=self.device)[None]
            with torch.no_grad():
                logits = model(input_ids=ids).logits.float()
                ours = self.head(self.decode(ids, None, ids)).float()
            close = ours.shape == logits.shape and torch.allclose(ours, logits, rtol=1e-2, atol=1e-2)
            if not close or logits.shape[-1] != self.vocabulary:
                self._model = None
                raise UserError(
                    f"teacher.model {self.path}: the logits of a {self.config.model_type} cannot be recomputed from "
                    "hidden states and lm_head, so it cannot teach token by token; use another teacher, or its "
                    "answers (method sft)"
                )
        return self._model

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See `Reader.reading`; the model is in eval mode anyway."""
        with torch.no_grad():
            yield

    @property
    def device(self) -> torch.device:
        """See `Reader.device`."""
        return torch.device(self._where)

    def embed(self, ids: Tensor) -> Tensor:
        """See `Reader.embed`."""
        return self.model.get_input_embeddings()(ids)

    def decode(self, ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor) -> Tensor:
        """See `Reader.decode`."""
        return self.model.base_model(
            input_ids=ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state

    def head(self, states: Tensor) -> Tensor:
        """See `Reader.head`."""
        logits: Tensor = self.model.get_output_embeddings()(states)
        # what Granite, Cohere and Gemma do to their logits behind the head (transformers 5.23)
        if (divisor := getattr(self.config, "logits_scaling", None)) is not None:
            logits = logits / divisor
        if (factor := getattr(self.config, "logit_scale", None)) is not None:
            logits = logits * factor
        if (cap := getattr(self.config, "final_logit_softcapping", None)) is not None:
            logits = (logits / cap).tanh() * cap
        return logits


def frozen_copy(family: AudioFamily) -> AudioFamily:
    """The same model with an LLM of its own that never changes; encoder and projector are shared, not copied."""
    parts = family.parts()
    memo: dict[int, Any] = {id(module): module for name in ("encoder", "projector") for module in parts[name]}
    copied = copy.copy(family)
    copied.model = copy.deepcopy(family.model, memo)
    for module in copied.parts()["llm"]:
        module.requires_grad_(False).eval()  # not the whole model: what is shared may be training
    return copied


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """A module in eval mode, and then every part of it as it was."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def without_adapters(module: nn.Module, off: bool = True) -> Iterator[None]:
    """Low-rank adapters inside a module switched off, and then on again where they were on.

    Args:
        module: with or without adapters.
        off: False does nothing.
    """
    # the attribute first: peft takes a second to import, and is there only where adapters are
    layers = [layer for layer in module.modules() if off and hasattr(layer, "enable_adapters")]
    if layers:
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [part for part in layers if isinstance(part, BaseTunerLayer) and not part.disable_adapters]
    flags = [(weight, weight.requires_grad) for weight in module.parameters()] if layers else []
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for weight, flag in flags:  # peft switches gradients on and off along with the adapters
            weight.requires_grad_(flag)


class PolicyTextLM(LocalTextLM):
    """The `TextLM` inside a speech model, spoken to by the speech model's template for turns without audio.

    Args:
        family: the model, as it trains; it is put into eval mode while it answers.
        weights: what names its weights in `identity` (such as the base model's hash, with the step if it has trained).
        batch_size: rows per batch.
        adapters: leave low-rank adapters in the decoder on; without them it is the LLM they were put into.
        half: compute in bfloat16 (autocast), as a policy of that precision does.
        shell: what the model is called through where processes share its weights out.
        sync: of the processes, where they share the weights out.
    """

    def __init__(
        self,
        family: AudioFamily,
        weights: str,
        batch_size: int = 32,
        adapters: bool = True,
        half: bool = False,
        shell: SpeechPolicy | None = None,
        sync: CollectiveSync | None = None,
    ) -> None:
        identity = {"kind": "self", "path": "self", "weights_sha256": weights}
        # what ends an answer, and what ends either turn where the template shows it
        stops = family.stops, family.stops
        with suppress(UserError, TypeError, ValueError):  # as in `AudioFamily.find_stops`
            stops = family.stops, chat.stop_ids(family.tokenizer, family.model)[1]
        super().__init__(family.model, family.tokenizer, identity, batch_size, stops=stops)
        self.family = family
        self.adapters = adapters
        self.half = half
        self.pad_id = family.pad_id
        self.context = family.context
        self.shell = shell
        self.sync = sync or CollectiveSync()

    def run_dummy_forwards(self) -> None:
        """Dummy forward passes until no process scores any more."""
        self.sync.leave(lambda: self.logprobs(["?"], ["!"]))

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.chat`."""
        with self._speaking():
            return super().chat(user_texts, decoding, seeds)

    converse = TextLM.converse  # of single turns: its template is the family's, not the tokenizer's

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.complete`."""
        with self._speaking():
            return super().complete(prompts, decoding, seeds)

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """See `TextLM.logprobs`."""
        with self._speaking():
            return super().logprobs(user_texts, responses)

    def pre_query_template(self) -> str:
        """See `TextLM.pre_query_template`."""
        before, separator, _ = self.family.render_text(chat.SENTINEL).partition(chat.SENTINEL)
        if not separator:
            raise UserError("the chat template does not show the words of a turn: it cannot be used here")
        return before

    @cached_property
    def opened(self) -> str:
        """See `LocalTextLM.opened`."""
        return opened_thinking(self.family.render_text(chat.SENTINEL))

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        bare = without_adapters(self.family.decoder, not self.adapters)
        device = next(self.model.parameters()).device.type
        cast = torch.autocast(device, torch.bfloat16, enabled=self.half)
        with torch.no_grad(), eval_mode(self.model), self.family.reading_text(), bare, cast:
            yield

    def _turn_ids(self, user_text: str) -> list[int]:
        return list(self.family.text_ids(user_text))

    def scored_ids(self, user_text: str, response: str) -> tuple[list[int], list[int]]:
        """See `LocalTextLM.scored_ids`."""
        return self._turn_ids(user_text), list(self.family.answer_ids(response))

    def _decoder(self) -> Decoder | None:
        return speech_decoder(self.family)

    def _draw_batch(
        self, rows: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int], stops: list[int]
    ) -> list[Continuation]:
        inputs = self.pad(rows)
        words = self.model.get_input_embeddings()(inputs.pop("input_ids"))
        with last_logits_only(self.model.get_output_embeddings()):
            return continue_batch(
                self.model,  # not the family's generator, which has the adapter for speech on
                {"inputs_embeds": words, **inputs},
                decoding,
                seeds,
                stop_ids=stops,
                pad_id=self.pad_id,
            )

    def _edge_logits(self, inputs: dict[str, torch.Tensor], keep: int) -> torch.Tensor:
        self.sync.enter()

        def score() -> torch.Tensor:
            words = self.model.get_input_embeddings()(inputs["input_ids"])
            states = self.family.decode(words, inputs["attention_mask"], use_cache=False)
            return self.family.head(states[:, -keep:])

        if self.shell is None:
            return score()
        with torch.inference_mode(False), torch.no_grad():  # weights gathered meanwhile train later
            return self.shell.inside(score)
