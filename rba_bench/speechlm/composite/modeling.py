"""The composite SpeechLM: `audio_tower` -> `multi_modal_projector` -> `language_model` -> `lm_head`.

The steps are public (`encode_audio`, `project`, `merge`) so that a trainer can encode a clip once, keep its
states, and hang any number of responses on it. Layout and names are those transformers uses for its own audio
models.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from rba_bench.cards import CARD
from rba_bench.errors import UserError
from rba_bench.speechlm.composite.configuration import CompositeConfig
from rba_bench.speechlm.composite.ctc_compressor import (
    CompressedProjector,
    CompressorSizes,
    CTCCompressor,
    DepthwiseKernel,
    ZeroLinear,
)
from rba_bench.speechlm.composite.decoder_compressor import (
    KIND,
    DecoderCompressor,
    DecoderSettings,
)
from rba_bench.speechlm.composite.encoder import (
    ScaledLinear,
    StackProjector,
    TrueLengthWhisperEncoder,
    length_mask,
)
from rba_bench.speechlm.model_card import write_model_card


class CompositePreTrainedModel(PreTrainedModel):
    """What both composite classes share: loading, initialisation and feature flags."""

    config: CompositeConfig
    config_class = CompositeConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["StackProjector"]
    _skip_keys_device_placement = "past_key_values"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (ScaledLinear, ZeroLinear, DepthwiseKernel)):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class CompositeModel(CompositePreTrainedModel):
    """Encoder, projector and language model without its head.

    Attributes:
        audio_tower: `TrueLengthWhisperEncoder`.
        compressor: `CTCCompressor` or `DecoderCompressor`, where there is one: with it `encode_audio` ends.
        multi_modal_projector: `StackProjector`, or `CompressedProjector` behind a compressor.
        language_model: the backbone of any causal language model (`AutoModel.from_config(text_config)`).
    """

    def __init__(self, config: CompositeConfig) -> None:
        super().__init__(config)
        self.audio_tower = TrueLengthWhisperEncoder(config.audio_config)
        self.compressor = _new_compressor(config)
        if self.compressor is None:
            self.multi_modal_projector: nn.Module = StackProjector(config)
        else:
            width = self.compressor.sizes.hidden_size
            self.multi_modal_projector = CompressedProjector(
                config.hidden_size, width, config.projector_hidden_size
            )
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def encode_audio(
        self, input_features: torch.Tensor, feature_lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel [B, M, T] (10 ms frames) to encoder states [B, T', D] (20 ms) and their lengths [B].

        This is what is worth caching: it does not depend on projector or language model. Behind a compressor the
        states are its tokens [B, A, H + W], one for about a word piece, and the lengths their numbers.
        """
        if isinstance(self.compressor, DecoderCompressor):
            return self.compressor.encode(self.audio_tower, input_features, feature_lengths)
        states, lengths = self.audio_tower(input_features, feature_lengths)
        return (states, lengths) if self.compressor is None else self.compressor(states, lengths)

    def project(
        self, states: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states [B, T', D] to audio tokens [B, A, H] and the number of tokens of each clip [B]."""
        frames = states.shape[1]
        if lengths is None:
            lengths = torch.full((states.shape[0],), frames, device=states.device)
        lengths = lengths.to(states.device)
        if bool((lengths < frames).any()):  # what a cache or a collator left behind the end must not count
            states = states.masked_fill(~length_mask(lengths, frames)[..., None], 0.0)
        embeds = self.multi_modal_projector(states.to(self.multi_modal_projector.linear_1.weight.dtype))
        return embeds, lengths if self.compressor else -(-lengths // self.config.stack_factor)

    def expand(
        self, input_ids: torch.Tensor, n_tokens: torch.Tensor, side: str, *beside: torch.Tensor | None
    ) -> list[torch.Tensor | None]:
        """Rows with each clip's one placeholder repeated for its audio tokens.

        Args:
            input_ids: [B, L], one placeholder a clip.
            n_tokens: [N] numbers of audio tokens, in order of appearance.
            side: `left` or `right`, where rows are padded; where the mask has zeros on the left, it is that side.
            *beside: attention mask and labels [B, L], or None; a mask is made where there is none.

        Returns:
            `input_ids`, then what stands beside them, [B, L'] each.
        """
        placeholders = input_ids == self.config.audio_token_id
        repeats = torch.ones_like(input_ids).masked_scatter(placeholders, n_tokens.to(input_ids))
        mask, labels = beside
        mask = torch.ones_like(input_ids) if mask is None else mask
        if not bool(mask[:, 0].all()):
            side = "left"
        expanded: list[torch.Tensor | None] = []
        for fill, rows in ((0, input_ids), (0, mask), (-100, labels)):
            if rows is None:
                expanded.append(None)
                continue
            wide = [torch.repeat_interleave(row, times) for row, times in zip(rows, repeats, strict=True)]
            expanded.append(pad_sequence(wide, True, fill, padding_side=side))
        return expanded

    def merge(
        self,
        input_ids: torch.Tensor,
        audio_embeds: torch.Tensor | None = None,
        n_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Word embeddings [B, L, H] of `input_ids` with audio tokens in the places of the placeholders.

        Args:
            input_ids: [B, L]; placeholders are `config.audio_token_id`.
            audio_embeds: [N, A, H], the batch's clips in order of appearance; None in a batch without audio.
            n_tokens: [N] true number of tokens of each clip; None when all fill A.

        Raises:
            ValueError: the placeholders do not match the audio tokens in number.
        """
        placeholders = input_ids == self.config.audio_token_id
        # the placeholder may lie outside the embedding table: its own row is never used
        words = self.language_model.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        expected = int(placeholders.sum())
        n_audio = 0
        if audio_embeds is not None:
            audio = audio_embeds.flatten(0, 1)
            if n_tokens is not None:
                audio = audio_embeds[length_mask(n_tokens.to(audio_embeds.device), audio_embeds.shape[1])]
            n_audio = audio.shape[0]
        if n_audio != expected:
            raise ValueError(
                f"the text has {expected} audio placeholders, but the clips make {n_audio} audio tokens"
            )
        if not expected:
            return words
        return words.masked_scatter(placeholders[..., None], audio.to(words.dtype))

    def read_audio(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        audio_lengths: torch.Tensor | None = None,
        side: str = "right",
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Embeddings of a batch: `merge` of `project` of `encode_audio`; `audio_states` stand in for features.

        Behind a compressor the clips' numbers of tokens are known only now: where each has one placeholder, the rows
        grow (see `expand`).

        Returns:
            Embeddings [B, L', H], and `input_ids`, `attention_mask` and `labels` [B, L'] that go with them.
        """
        if audio_states is None and input_features is not None:
            audio_states, audio_lengths = self.encode_audio(input_features, feature_lengths)
        if audio_states is None:
            return self.merge(input_ids), input_ids, attention_mask, labels
        embeds, n_tokens = self.project(audio_states, audio_lengths)
        if self.compressor and int((input_ids == self.config.audio_token_id).sum()) == len(n_tokens):
            grown, attention_mask, labels = self.expand(input_ids, n_tokens, side, attention_mask, labels)
            assert grown is not None  # only what stands beside it may be None
            input_ids = grown
        return self.merge(input_ids, embeds, n_tokens), input_ids, attention_mask, labels

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        audio_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of the language model; see `CompositeForConditionalGeneration.forward`."""
        fresh = past_key_values is None or past_key_values.get_seq_length() == 0
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("give input_ids or inputs_embeds")
            if fresh:
                audio = (input_features, feature_lengths, audio_states, audio_lengths)
                inputs_embeds, _, attention_mask, _ = self.read_audio(input_ids, attention_mask, None, *audio)
            else:  # a decoding step: the audio is in the cache already
                inputs_embeds = self.language_model.get_input_embeddings()(input_ids)
        mask = attention_mask if position_ids is None and fresh else None
        if mask is not None and mask.ndim == 2 and not bool(mask[:, 0].all()):
            # from each row's first real token; the default (0, 1, 2, ...) says the same without padding on the left
            position_ids = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )


def _new_compressor(config: CompositeConfig) -> CTCCompressor | DecoderCompressor | None:
    """The compressor that a configuration asks for, with random weights."""
    stored, audio, width = config.compressor, config.audio_config, config.hidden_size
    if stored is None:
        return None
    if stored.get("kind") == KIND:
        return DecoderCompressor(DecoderSettings.from_dict(stored), audio, width)
    return CTCCompressor(CompressorSizes(**stored), audio.d_model, width)


def word_embeddings(text_model: PreTrainedModel) -> torch.Tensor:
    """The input embeddings [V, H] as they enter the first layer: what audio tokens should look like."""
    embedding = text_model.get_input_embeddings()
    # Gemma 3 scales inside its embedding layer, which audio tokens do not pass through
    return embedding.weight.detach() * float(getattr(embedding, "scalar_embed_scale", 1.0))


class CompositeForConditionalGeneration(CompositePreTrainedModel, GenerationMixin):
    """The composite with its language-model head: speech and text in, text out."""

    def __init__(self, config: CompositeConfig) -> None:
        super().__init__(config)
        self.model = CompositeModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=config.lm_head_bias)
        embedding = self.model.language_model.get_input_embeddings().weight
        name = next(key for key, value in self.model.language_model.named_parameters() if value is embedding)
        self._tied_weights_keys = {"lm_head.weight": f"model.language_model.{name}"}
        self.post_init()

    def save_pretrained(self, save_directory: Path | str, *args: Any, **kwargs: Any) -> None:
        """Write weights and configuration, and a card where there is no README."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True) and not (Path(save_directory) / CARD).exists():
            write_model_card(save_directory)

    @classmethod
    def from_parts(
        cls,
        encoder: TrueLengthWhisperEncoder,
        text_model: PreTrainedModel,
        audio_token_id: int,
        stack_factor: int = 4,
        projector_hidden_size: int = 0,
        compressor: CTCCompressor | DecoderCompressor | None = None,
    ) -> "CompositeForConditionalGeneration":
        """A composite around an encoder and a causal language model, with a new projector.

        The parts are taken over, not copied. The projector starts with outputs of the size of word
        embeddings.

        Args:
            encoder: see `TrueLengthWhisperEncoder.from_whisper`.
            text_model: any `AutoModelForCausalLM`.
            audio_token_id: see `CompositeConfig`.
            stack_factor: see `CompositeConfig`.
            projector_hidden_size: see `CompositeConfig`.
            compressor: to stand between encoder and projector; None = the stacked projector.

        Raises:
            UserError: the text model cannot be taken apart into backbone and linear head.
        """
        head = text_model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise UserError(f"{type(text_model).__name__} has no linear language-model head")
        config = CompositeConfig(
            encoder.config,
            text_model.config,
            audio_token_id,
            stack_factor,
            projector_hidden_size,
            head.bias is not None,
            None if compressor is None else compressor.sizes.to_dict(),
        )
        with torch.device("meta"):  # the skeleton only; no second copy of a large language model
            model = cls(config)
        if type(text_model.base_model) is not type(model.model.language_model):
            raise UserError(
                f"{type(text_model).__name__} is not a backbone and a head; it cannot be the text model"
            )
        if compressor is None:
            rms = float(word_embeddings(text_model).float().pow(2).mean().sqrt())
            projector: nn.Module = StackProjector(config, embedding_rms=rms)
        else:
            width = compressor.sizes.hidden_size
            projector = CompressedProjector(config.hidden_size, width, config.projector_hidden_size)
            model.model.compressor = compressor.to(dtype=text_model.dtype, device=text_model.device)
        model.model.audio_tower = encoder
        model.model.multi_modal_projector = projector.to(dtype=text_model.dtype, device=text_model.device)
        model.model.language_model = text_model.base_model
        model.lm_head = head
        model.tie_weights()
        model.generation_config = text_model.generation_config
        return model.eval()

    def encode_audio(
        self, input_features: torch.Tensor, feature_lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `CompositeModel.encode_audio`."""
        return self.model.encode_audio(input_features, feature_lengths)

    def project(
        self, states: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `CompositeModel.project`."""
        return self.model.project(states, lengths)

    def merge(
        self,
        input_ids: torch.Tensor,
        audio_embeds: torch.Tensor | None = None,
        n_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `CompositeModel.merge`."""
        return self.model.merge(input_ids, audio_embeds, n_tokens)

    def text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of hidden states [..., H]: the head, and what the text model does to its result."""
        logits: torch.Tensor = self.lm_head(hidden)
        scale, cap = self.config.logit_scale, self.config.logit_softcapping
        if scale != 1.0:
            logits = logits * scale
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        audio_lengths: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        # `generate` makes positions only if it finds this name here
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and the loss where labels are given.

        Args:
            input_ids: [B, L] with one placeholder per audio token; behind a compressor with one per clip, and all that
                is said of L is then of rows as `expand` makes them.
            attention_mask: [B, L], 0 on padding (either side).
            input_features: [N, M, T] log-mel of all clips of the batch, in order of appearance.
            feature_lengths: [N] frames of each clip.
            audio_states: [N, T', D] from `encode_audio`, instead of `input_features`.
            audio_lengths: [N] states of each clip.
            inputs_embeds: [B, L, H] from `merge`, instead of all of the above.
            labels: [B, L], -100 where there is no loss; shifted inside.
            logits_to_keep: only the last n positions (0: all), or the positions given.
            position_ids: [B, L]; by default they count from each row's first real token.
            past_key_values: cache; audio is looked at only while it is empty.
            **kwargs: handed to the language model.

        Raises:
            ValueError: placeholders without audio, or audio without placeholders.
        """
        fresh = past_key_values is None or past_key_values.get_seq_length() == 0
        if inputs_embeds is None and input_ids is not None and fresh:
            audio = (input_features, feature_lengths, audio_states, audio_lengths)
            inputs_embeds, _, attention_mask, labels = self.model.read_audio(
                input_ids, attention_mask, labels, *audio
            )
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if isinstance(logits_to_keep, torch.Tensor):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.text_logits(hidden)
        loss = None
        if labels is not None:
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.Tensor | None = None,
        audio_states: torch.Tensor | None = None,
        audio_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate` from features, from cached states or from `inputs_embeds`.

        Clips are merged into embeddings once, before rows are repeated for beams or several return sequences.
        The result starts with `input_ids` where they are given (grown, behind a compressor); with `inputs_embeds`
        alone it holds new tokens only. The audio placeholder is never generated.
        """
        input_ids = kwargs.pop("input_ids", inputs)
        if input_ids is not None and kwargs.get("inputs_embeds") is None:
            audio = (input_features, feature_lengths, audio_states, audio_lengths)
            kwargs["inputs_embeds"], input_ids, kwargs["attention_mask"], _ = self.model.read_audio(
                input_ids, kwargs.get("attention_mask"), None, *audio, side="left"
            )
        if input_ids is not None:
            kwargs["input_ids"] = input_ids
        if self.config.audio_token_id < self.config.text_config.vocab_size:
            suppressed = kwargs.get("suppress_tokens") or []
            kwargs["suppress_tokens"] = [*suppressed, self.config.audio_token_id]
        return super().generate(**kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers, but `use_cache=False` also keeps the merged prompt on later steps."""
        # these grow with every step, unlike the mask, which may be dropped
        positions = kwargs.get("position_ids")
        if inputs_embeds is not None and kwargs.get("past_key_values") is None and positions is not None:
            new = positions.shape[-1] - inputs_embeds.shape[1]
            if new > 0:
                words = self.get_input_embeddings()(input_ids[:, -new:])
                inputs_embeds = torch.cat([inputs_embeds, words], dim=1)
            kwargs["is_first_iteration"] = True
        return super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
