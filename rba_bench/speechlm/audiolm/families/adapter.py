"""Adapters of audio-in, text-out architectures: what evaluation runs step by step, and what training needs to know.

    waves --features--> mels --encode_audio--> states --project--> audio tokens --merge--> inputs_embeds
    inputs_embeds --decode--> hidden states --head--> logits

Each step stands alone, so that states can be cached, one clip shared by many prompts, and a trainer can run the
decoder on embeddings it has made itself. Tensors are batch first; N clips, B sequences. `Trainable` is the half that
training and saving use: the model's parts, what never trains, how a row may be shared. `AudioFamily` is the whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.families import FAMILIES
from rba_bench.speechlm.audiolm.families.dialogue import (
    Messages,
    Turns,
    pair_texts,
    render_dialogue,
    turn_texts,
)
from rba_bench.speechlm.audiolm.families.shared_rows import shares_rows
from rba_bench.speechlm.composite.encoder import length_mask
from rba_bench.speechlm.speech_model import SAMPLING_RATE
from rba_bench.textlm.chat import ContentTokenizer, Variables, render_chat, stop_ids
from rba_bench.textlm.replies import opened_thinking
from rba_bench.textlm.weights import load_model


class Trainable:
    """The half of `AudioFamily` that training uses.

    Attributes:
        model: the `...ForConditionalGeneration`.
        processor: what goes with it.
    """

    model: Any
    processor: Any

    @property
    def has_adapter(self) -> bool:
        """Whether the model carries a LoRA adapter for speech of its own.

        Of its decoder that adapter is then what trains: turns of text alone are read without it, by weights that must
        stay as they are.
        """
        return False

    @property
    def encoder(self) -> Any:
        """The audio encoder as a model of its own."""
        return self.model.model.audio_tower

    @property
    def decoder(self) -> Any:
        """The text backbone, without head."""
        return self.model.get_decoder()

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules by part: `encoder`, `projector` (between encoder and decoder) and `llm` (decoder and head).

        Every parameter of the model is in exactly one part or in `unused()`.
        """
        inner = self.model.model
        return {
            "encoder": [self.encoder],
            "projector": [inner.multi_modal_projector],
            "llm": [self.decoder, self.model.get_output_embeddings()],
        }

    def unused(self) -> list[nn.Module]:
        """Modules that no turn of speech and text passes through (vision, speech output): they never train."""
        return []

    def frozen_parameters(self) -> list[nn.Parameter]:
        """Parameters that never train even where their part trains: the encoder's table of positions."""
        positions = getattr(self.encoder, "embed_positions", None)
        return [] if positions is None else list(positions.parameters())

    def part_of(self) -> dict[int, str]:
        """Part by `id` of a parameter; those in `unused()` and tied heads' second names left out."""
        return {
            id(parameter): name
            for name, modules in self.parts().items()
            for module in modules
            for parameter in module.parameters()
        }

    @cached_property
    def shares_rows(self) -> bool:
        """Whether several answers may stand behind one prompt in a row: the decoder obeys our mask and positions.

        See `shared_rows.shares_rows`; asked of the decoder as it is when first needed, so ask before it is wrapped.
        """
        return shares_rows(self.decoder)

    @contextmanager
    def reading_text(self) -> Iterator[None]:
        """Context for a turn of text alone: models with an adapter for speech switch it off."""
        yield

    @contextmanager
    def reading_speech(self) -> Iterator[None]:
        """Context for a turn with speech: models with an adapter for speech switch it on."""
        yield

    def save(self, folder: Path) -> None:
        """Write model, processor, template and generation config, for `load_family` and for stock transformers.

        Args:
            folder: made if absent; files of the same names are replaced.

        Raises:
            ValueError: there are adapters of a training run in it, which have to be merged first.
        """
        if hasattr(self.model, "peft_config") and not self.has_adapter:
            raise ValueError("merge the adapters before saving the model")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.model.generation_config.validate(strict=True)
        except ValueError:
            # published checkpoints set a temperature without sampling; transformers reads that and refuses to write it
            self.model.generation_config.do_sample = True
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


Features = dict[str, torch.Tensor]
OPENING_TOKENS = 32  # of the end of a prompt that are looked at for a tag; the longest one has 8
PROMPTS_KEPT = 4096  # rendered prompts; most tasks have one


class AudioFamily(Trainable, ABC):
    """Adapter of one architecture around a loaded model and its processor.

    A subclass gives `n_tokens`, `features`, `encode_audio` and `project`, and overrides what else it does in its
    own way.

    Args:
        model: the `...ForConditionalGeneration`, in eval mode for evaluation.
        processor: what `AutoProcessor` gives for it.
        true_length: encode clips at their own length where `allows_true_length`; else as the processor pads them.
        template: variables of the chat template, such as `{"enable_thinking": False}`.

    Attributes:
        template: variables of the chat template.
        tokenizer: the processor's, with a chat template.
        audio_token_id: placeholder, one per audio token.
        content: the tokenizer to whom the words of prompts and answers are words alone.
        pad_id: token that fills up rows.
        stops: tokens that end an answer; the first is what the template writes.
        context: longest prompt plus answer in tokens, None if the model names no limit.
    """

    allows_true_length: ClassVar[bool] = False  # only where the result is that of the padded form
    steady: ClassVar[bool] = False  # a batch is a rectangle of frames, one row a clip: see `steady_frames`
    # a clip's number of audio tokens is known only when it is encoded: `n_tokens` is then the most it can be
    compresses: bool = False
    splits: ClassVar[bool] = True  # False: only `plain_inputs` and the model's own generate
    max_batch: ClassVar[int | None] = None  # most requests that may be answered together
    text_first: ClassVar[bool] = False  # order of text and audio in the user turn

    def __init__(
        self, model: Any, processor: Any, true_length: bool = True, template: Variables | None = None
    ) -> None:
        self.model = model
        self.processor = processor
        self.template: dict[str, Any] = dict(template or {})
        self.true_length = true_length and self.allows_true_length
        self.tokenizer = processor.tokenizer
        template = getattr(processor, "chat_template", None)
        if template and not self.tokenizer.chat_template:
            self.tokenizer.chat_template = template
        self.audio_token_id: int = self.find_audio_token()
        self.content = ContentTokenizer(self.tokenizer, (self.audio_token_id,))
        self.stops: list[int] = self.find_stops()
        pad = self.tokenizer.pad_token_id
        # where the placeholder is the padding token too, another must fill the rows
        self.pad_id: int = self.stops[0] if pad in (None, self.audio_token_id) else pad
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.prompt_ids = lru_cache(PROMPTS_KEPT)(self._prompt_ids)
        self.text_ids = lru_cache(PROMPTS_KEPT)(partial(self._turn, self.render_text))

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """The class to load a checkpoint with this config; by default the first auto class that knows it.

        Raises:
            UserError: no auto class of transformers knows it.
        """
        from rba_bench.speechlm.audiolm.loading import auto_class

        return auto_class(config)

    @classmethod
    def load_model(cls, config: Any, folder: Path, device: str, trust_remote_code: bool = False) -> Any:
        """The model of a folder, in eval mode; families with parts beside it (adapters) load them too.

        Raises:
            MissingPrerequisite: a part needs a package that is missing.
            UserError: damaged or incomplete files.
        """
        return load_model(cls.model_class(config), folder, "speech model", device, trust_remote_code)

    @classmethod
    def load_processor(cls, folder: Path, trust_remote_code: bool = False) -> Any:
        """What goes with the model, with `tokenizer` and `apply_chat_template`; by default `AutoProcessor`.

        Raises:
            MissingPrerequisite: it needs a package that is missing.
            UserError: there is none.
        """
        from rba_bench.speechlm.audiolm.loading import load_processor

        return load_processor(folder, trust_remote_code)

    def identity(self) -> dict[str, Any]:
        """What a record says of the model beside path, weights and setup."""
        model_type = self.model.config.model_type
        entry = FAMILIES.get(model_type)
        kind = {"kind": "transformers", "model_type": model_type}
        return {**kind, "padding": self.padding, "verified": entry is not None and entry.verified}

    def encoder_sha256(self) -> str:
        """Hash of all that decides states among the weights; "" where that is not told apart from the rest."""
        return ""

    @property
    def padding(self) -> str:
        """How clips are padded, for the record: `true-length` or `30s`."""
        return "true-length" if self.true_length else "30s"

    @property
    def max_seconds(self) -> float | None:
        """Longest audio that the model takes; the rest is cut off. None without such a limit."""
        return None

    def refusal(self, n_samples: int) -> str:
        """Why the model cannot take a clip of `n_samples` at 16 kHz; "" where it can."""
        if self.n_tokens(n_samples) < 1:
            return f"audio of {1000 * n_samples / SAMPLING_RATE:.0f} ms is too short for the model"
        return ""

    @property
    def banned(self) -> list[int]:
        """Tokens that the model's own `generate` never draws."""
        return []

    @property
    def generator(self) -> Any:
        """What has `generate(inputs_embeds=..., attention_mask=...)`."""
        return self.model

    def find_audio_token(self) -> int:
        """Id of the placeholder."""
        return int(self.model.config.audio_token_id)

    def find_stops(self) -> list[int]:
        """Tokens that end an answer (see `textlm.chat.stop_ids`).

        Templates that take parts only, not plain strings, leave the tokenizer's and the model's own end tokens.
        """
        try:
            return stop_ids(self.tokenizer, self.model, **self.template)[0]
        except (UserError, TypeError, ValueError):
            shipped = self.model.generation_config.eos_token_id
            eos_ids = [self.tokenizer.eos_token_id, *(shipped if isinstance(shipped, list) else [shipped])]
            stops = list(dict.fromkeys(token for token in eos_ids if token is not None))
            if not stops:
                raise
            return stops

    def user_turn(self, prompt: str) -> list[dict[str, Any]]:
        """Parts of the user's turn: audio, and `prompt` where there is one."""
        audio = [{"type": "audio"}]
        text = [{"type": "text", "text": prompt}] if prompt else []
        return text + audio if self.text_first else audio + text

    def render(self, prompt: str, turns: Turns = ()) -> str:
        """The chat by the processor's own template up to the answer, with one placeholder for the audio.

        Args:
            prompt: text beside the audio.
            turns: earlier turns of a dialogue, which stand in the chat as text; see `dialogue`.

        Raises:
            UserError: there is no template, or it takes no earlier turns.
        """
        return render_dialogue(
            self._by_template, turns, [{"role": "user", "content": self.user_turn(prompt)}]
        )

    def render_text(self, text: str, turns: Turns = ()) -> str:
        """The chat up to the answer where the user's turn is text alone: what the model's own LLM reads.

        Args:
            text: of the user's last turn.
            turns: as of `render`.

        Raises:
            UserError: the template takes no turn without audio, or no earlier turns.
        """
        content = [{"type": "text", "text": text}]
        return render_dialogue(self._by_template, turns, [{"role": "user", "content": content}])

    def _by_template(self, messages: Messages) -> str:
        return render_chat(self.processor, messages, add_generation_prompt=True, **self.template)

    def _prompt_ids(self, prompt: str, turns: Turns = ()) -> tuple[int, ...]:
        """Token ids of `render(prompt, turns)`; see `prompt_ids`, which is this with a memory."""
        return self._turn(self.render, prompt, turns)

    def _turn(self, write: Callable[[str, Turns], str], words: str, turns: Turns = ()) -> tuple[int, ...]:
        def chat(contents: Sequence[str]) -> str:
            return write(contents[-1], pair_texts(contents[:-1]))

        return tuple(self.content.ids(chat, [*turn_texts(turns), words], self._adds_special))

    @cached_property
    def _adds_special(self) -> bool:
        """Whether the tokenizer adds its own tokens, as in `ProcessorMixin.apply_chat_template` (transformers 5.23)."""
        bos = self.tokenizer.bos_token
        return not (bos is not None and self.render("").startswith(bos))

    def opened(self, prompt: str) -> str:
        """The tag with which the template opens the model's thinking, "" if it does not."""
        last = self.prompt_ids(prompt)[-OPENING_TOKENS:]
        return opened_thinking(self.tokenizer.decode(list(last), skip_special_tokens=False))

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer and the end of its turn, to stand behind `prompt_ids` in training."""
        return [*self.content.text_ids(answer), self.stops[0]]

    def expand(self, ids: Sequence[int], n_tokens: int) -> list[int]:
        """`ids` with the one placeholder repeated for each audio token.

        Raises:
            ValueError: there is not exactly one placeholder.
        """
        ids = list(ids)
        if ids.count(self.audio_token_id) != 1:
            raise ValueError(f"{ids.count(self.audio_token_id)} placeholders for one clip")
        place = ids.index(self.audio_token_id)
        return [*ids[:place], *[self.audio_token_id] * n_tokens, *ids[place + 1 :]]

    def collate(self, rows: Sequence[Sequence[int]], left: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded `input_ids` and `attention_mask` [B, L]; left padding to generate, right to train."""
        side = "left" if left else "right"
        tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
        ids = pad_sequence(tensors, True, self.pad_id, padding_side=side)
        mask = pad_sequence([torch.ones_like(row) for row in tensors], True, 0, padding_side=side)
        return ids, mask

    @abstractmethod
    def n_tokens(self, n_samples: int) -> int:
        """Audio tokens of a clip of `n_samples` at 16 kHz; 0 where the clip is too short for the model."""

    def plain_features(self, clips: Sequence[np.ndarray]) -> Features:
        """`features` whatever autocast surrounds the call: on a processor it would round spectra to bfloat16."""
        with torch.autocast("cpu", enabled=False):
            return self.features(clips)

    @abstractmethod
    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """What the encoder reads, on the CPU, in float32: named tensors that `encode_audio` understands.

        Args:
            clips: mono float waves at 16 kHz; what lies behind `max_seconds` is cut off.
        """

    @abstractmethod
    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """States before the projector, [N, S, D], and their true lengths [N].

        This is what is worth caching: it depends on the encoder alone. A clip's states do not depend on its batch
        mates beyond rounding.
        """

    @abstractmethod
    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States [N, S, D] to audio tokens [N, A, H] in the decoder's width, and their numbers [N]."""

    def frames_needed(self, n_samples: int) -> int:
        """Frames of a batch in which a clip of `n_samples` has padding behind it; for `steady` families."""
        raise TypeError(f"{type(self).__name__} is not fed by one rectangle of frames")

    @property
    def max_frames(self) -> int:
        """Frames of the longest batch; for `steady` families."""
        raise TypeError(f"{type(self).__name__} is not fed by one rectangle of frames")

    def steady_frames(self, n_samples: int) -> tuple[int, int]:
        """Frames of the batch in which a clip is encoded, longer than it by at most an eighth or 16.

        It depends on the clip alone: in batches of one number of rows its states then have the same bits whatever is
        encoded with it. The second number keeps clips apart that fill the longest batch, as these have no mask.
        """
        needed = self.frames_needed(n_samples)
        grain = max(16, 1 << max(needed.bit_length() - 4, 0))
        frames = min(-(-needed // grain) * grain, self.max_frames)
        return frames, needed if needed > frames else 0

    def pad_frames(self, features: Features, frames: int) -> Features:
        """Features with `input_features` [N, M, T] filled with zeros up to `frames`; they change no clip's states."""
        mels = features["input_features"]
        return {**features, "input_features": torch.nn.functional.pad(mels, (0, frames - mels.shape[-1]))}

    def truncate(self, audio: np.ndarray) -> np.ndarray:
        """The part of a clip within `max_seconds`."""
        return audio if self.max_seconds is None else audio[: int(self.max_seconds * SAMPLING_RATE)]

    def merge(self, input_ids: torch.Tensor, embeds: torch.Tensor, n_tokens: torch.Tensor) -> torch.Tensor:
        """Word embeddings [B, L, H] with audio tokens in the places of the placeholders.

        Args:
            input_ids: [B, L].
            embeds: [N, A, H], clips in order of appearance.
            n_tokens: [N].

        Raises:
            ValueError: the placeholders do not match the audio tokens in number.
        """
        places = input_ids == self.audio_token_id
        # the placeholder may lie outside the embedding table; its own row is never used
        words = self.model.get_input_embeddings()(input_ids.masked_fill(places, 0))
        audio = embeds[length_mask(n_tokens.to(embeds.device), embeds.shape[1])]
        if int(places.sum()) != len(audio):
            raise ValueError(f"the text has {int(places.sum())} placeholders for {len(audio)} audio tokens")
        return words.masked_scatter(places[..., None], audio.to(words.device, words.dtype))

    def decode(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Last hidden states [B, L, H], after the final norm.

        Args:
            inputs_embeds: [B, L, H] from `merge`.
            attention_mask: [B, L], 0 on padding; or what else the backbone takes.
            position_ids: [B, L]; counted from each row's first real token by default.
            **kwargs: handed to the backbone.
        """
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        hidden: torch.Tensor = self.decoder(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, **kwargs
        ).last_hidden_state
        return hidden

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of hidden states [..., H]."""
        logits: torch.Tensor = self.model.get_output_embeddings()(hidden)
        return logits

    def plain_inputs(self, prompts: Sequence[str], clips: Sequence[np.ndarray]) -> dict[str, Any]:
        """Inputs of the model's own `generate`, where `splits` is false: left-padded, on the CPU."""
        raise TypeError(f"{type(self).__name__} runs step by step; it needs no plain inputs")


def pad_states(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [S_i, D] to [N, S, D] with zeros behind each end, and the lengths [N]."""
    lengths = torch.tensor([len(row) for row in states], device=states[0].device)
    return pad_sequence(list(states), batch_first=True), lengths
