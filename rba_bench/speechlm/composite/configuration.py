"""Configuration of the composite SpeechLM."""

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from rba_bench.speechlm.composite.auto import note_configuration


class CompositeConfig(PretrainedConfig):
    """What is needed to build a composite: an encoder, a projector and a causal language model.

    Args:
        audio_config: a `WhisperConfig` (only its encoder fields are used), or the dict of one. An extra field
            `conv1_stride` (1 in Whisper) divides the rate of the states (50 per second).
        text_config: the configuration of any causal language model, or the dict of one with its `model_type`.
        audio_token_id: id of the placeholder token; one placeholder stands for one projected audio token.
        stack_factor: k, the number of encoder states (20 ms each) in one audio token.
        projector_hidden_size: width of the projector's hidden layer; 0 means that of the text model.
        lm_head_bias: whether the language-model head has a bias (Phi-type models).
        compressor: settings of a compressor between encoder and projector: `DecoderSettings` where its `kind` is
            `decoder`, else `CompressorSizes` of a CTC compressor; None without one, which is the stacked projector.

    `tie_word_embeddings` is that of `text_config`, whatever is passed.
    """

    model_type = "rba_composite"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        audio_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        audio_token_id: int = 0,
        stack_factor: int = 4,
        projector_hidden_size: int = 0,
        lm_head_bias: bool = False,
        compressor: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.audio_config = _as_config(audio_config, "whisper")
        self.text_config = _as_config(text_config, "llama")
        if stack_factor < 1:
            raise ValueError(f"stack_factor must be at least 1, not {stack_factor}")
        self.audio_token_id = audio_token_id
        self.stack_factor = stack_factor
        self.projector_hidden_size = projector_hidden_size or self.text_config.hidden_size
        self.lm_head_bias = lm_head_bias
        self.compressor = compressor
        kwargs["tie_word_embeddings"] = bool(getattr(self.text_config, "tie_word_embeddings", False))
        super().__init__(**kwargs)
        note_configuration()

    @property
    def logit_scale(self) -> float:
        """Factor of the logits (Cohere, Falcon-H1: a factor; Granite: a divisor); 1 for most."""
        text = self.text_config
        factor = getattr(text, "logit_scale", None) or getattr(text, "lm_head_multiplier", None) or 1.0
        return float(factor) / float(getattr(text, "logits_scaling", None) or 1.0)

    @property
    def logit_softcapping(self) -> float | None:
        """Bound c of the logits, c tanh(logits / c) (Gemma 2); None for most."""
        cap = getattr(self.text_config, "final_logit_softcapping", None)
        return None if cap is None else float(cap)

    @property
    def hidden_size(self) -> int:
        """Width of the language model (DeepSpeed and the Trainer ask for it)."""
        return int(self.text_config.hidden_size)


def _as_config(value: PretrainedConfig | dict[str, Any] | None, default_type: str) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    fields = dict(value or {})
    return AutoConfig.for_model(fields.pop("model_type", default_type), **fields)
