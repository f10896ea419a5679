"""Encoder and projector of the composite: a Whisper encoder at the clip's true length, and states to audio tokens.

Two convolutions (the second with stride 2) turn T mel frames of 10 ms into (T + 1) // 2 states of 20 ms. In a
batch the frames behind a clip's end are set to zero before each convolution and hidden from attention, so
that a clip's states do not depend on its batch mates. Given a full 30 s input the result is that of the stock
encoder; on shorter input it differs from stock Whisper, which gets the rest of the 30 s as silence. The projector
stacks states and maps them to the width of the language model.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, WhisperConfig
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder, sinusoids

from rba_bench.speechlm.composite.configuration import CompositeConfig


def state_lengths(feature_lengths: torch.Tensor, mel_stride: int = 1) -> torch.Tensor:
    """Number of encoder states (20 ms times `mel_stride`) for each number of mel frames (10 ms); 0 stays 0."""
    return (-(-feature_lengths // mel_stride) + 1) // 2


def length_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Boolean [B, size], true where the position lies before the row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class TrueLengthWhisperEncoder(WhisperEncoder):
    """`WhisperEncoder` for input of any length up to `max_source_positions` states; the same parameters."""

    config: WhisperConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers does this for the encoder as a whole, but never visits a module of foreign code that has no
        # parameters of its own (transformers 5.23, `_initialize_weights`)
        if module is self.embed_positions:
            init.copy_(module.weight, sinusoids(*module.weight.shape))
        else:
            super()._init_weights(module)

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        # Not in Whisper: a first convolution with stride 2 gives states of 40 ms and halves the cost of small encoders.
        self.mel_stride = int(getattr(config, "conv1_stride", 1))
        if self.mel_stride > 1:
            self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, 3, stride=self.mel_stride, padding=1)
        self.post_init()

    @classmethod
    def from_whisper(cls, path: Path | str, dtype: torch.dtype = torch.float32) -> "TrueLengthWhisperEncoder":
        """The encoder of a Whisper checkpoint (folder or Hub id), with its decoder left behind."""
        whisper = AutoModel.from_pretrained(path, dtype=dtype)
        encoder = cls(whisper.config).to(dtype)
        encoder.load_state_dict(whisper.get_encoder().state_dict())
        return encoder.eval()

    def forward(
        self, input_features: torch.Tensor, feature_lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode log-mel features.

        Args:
            input_features: [B, M, T], M mel bins and T frames of 10 ms.
            feature_lengths: [B] true numbers of frames; None when all clips fill T.

        Returns:
            states [B, T', D] with zeros behind each clip's end, and lengths [B] in states of 20 ms.

        Raises:
            ValueError: the input is longer than the position table allows.
        """
        lengths, padded = self._true_lengths(input_features, feature_lengths)
        hidden = input_features.to(self.conv1.weight.dtype)
        if padded:
            # The stock convolutions see zeros beside a clip that stands alone, so they must see zeros here too.
            hidden = hidden.masked_fill(~length_mask(lengths, hidden.shape[-1])[:, None], 0.0)
        hidden = nn.functional.gelu(self.conv1(hidden))
        if padded:
            frames = -(-lengths // self.mel_stride)
            hidden = hidden.masked_fill(~length_mask(frames, hidden.shape[-1])[:, None], 0.0)
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        n_states = state_lengths(lengths, self.mel_stride)
        mask = length_mask(n_states, hidden.shape[1]) if padded else None
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]].to(hidden.dtype)
        hidden = nn.functional.dropout(hidden, p=self.dropout, training=self.training)
        attention_mask = None
        if mask is not None:
            attention_mask = create_bidirectional_mask(self.config, hidden, mask.long())
        for layer in self.layers:
            if self.training and self.layerdrop > 0.0 and torch.rand([]) < self.layerdrop:
                continue
            hidden = layer(hidden, attention_mask)
        hidden = self.layer_norm(hidden)
        if mask is not None:
            hidden = hidden.masked_fill(~mask[..., None], 0.0)
        return hidden, n_states

    def _true_lengths(
        self, features: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, bool]:
        """Frame counts on the right device, and whether any clip is shorter than the batch."""
        batch, _, frames = features.shape
        limit = 2 * self.mel_stride * self.max_source_positions
        if frames > limit:
            raise ValueError(
                f"{frames} mel frames given, but this encoder takes at most {limit} ({limit / 100:g} s)"
            )
        if lengths is None:
            return torch.full((batch,), frames, device=features.device), False
        if lengths.shape != (batch,):
            raise ValueError(f"feature_lengths must have shape ({batch},), not {tuple(lengths.shape)}")
        return lengths.to(features.device), bool((lengths < frames).any())


class ScaledLinear(nn.Linear):
    """A linear layer that starts with zero bias and normal weights of standard deviation `std`."""

    def __init__(self, in_features: int, out_features: int, std: float) -> None:
        self.std = std
        super().__init__(in_features, out_features)

    def reset_parameters(self) -> None:
        """Draw the weights; those that came from a checkpoint stay."""
        init.normal_(self.weight, std=self.std)
        init.zeros_(self.bias)


class StackProjector(nn.Module):
    """Stack k encoder states, normalise, and map them to the language model's width with a two-layer MLP.

    The second layer starts so that audio tokens have about the size of word embeddings: a pretrained language
    model then meets nothing out of its range on the first step.

    Args:
        config: sizes.
        embedding_rms: root mean square of the language model's word embeddings; by default what they start with.
    """

    def __init__(self, config: CompositeConfig, embedding_rms: float | None = None) -> None:
        super().__init__()
        self.stack_factor = config.stack_factor
        width, hidden = config.audio_config.d_model * config.stack_factor, config.projector_hidden_size
        rms = embedding_rms or getattr(config.text_config, "initializer_range", 0.02)
        self.norm = nn.LayerNorm(width)
        self.linear_1 = ScaledLinear(width, hidden, std=width**-0.5)
        self.act = nn.GELU()
        std = rms * (0.425 * hidden) ** -0.5  # E[gelu(x)^2] = 0.425 for x ~ N(0, 1)
        self.linear_2 = ScaledLinear(hidden, config.text_config.hidden_size, std)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B, T', D] states of 20 ms to [B, ceil(T' / k), H] audio tokens; the last is filled with zeros."""
        batch, frames, width = states.shape
        states = nn.functional.pad(states, (0, 0, 0, -frames % self.stack_factor))
        stacked = states.reshape(batch, -1, width * self.stack_factor)
        return self.linear_2(self.act(self.linear_1(self.norm(stacked))))
