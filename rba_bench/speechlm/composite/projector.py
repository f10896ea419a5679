"""From encoder states to tokens a language model can read."""

import torch
from torch import nn
from transformers import initialization as init

from rba_bench.speechlm.composite.configuration import CompositeConfig


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
        # E[gelu(x)^2] = 0.425 for x ~ N(0, 1)
        self.linear_2 = ScaledLinear(
            hidden, config.text_config.hidden_size, std=rms * (0.425 * hidden) ** -0.5
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B, T', D] states of 20 ms to [B, ceil(T' / k), H] audio tokens; the last is filled with zeros."""
        batch, frames, width = states.shape
        states = nn.functional.pad(states, (0, 0, 0, -frames % self.stack_factor))
        stacked = states.reshape(batch, -1, width * self.stack_factor)
        return self.linear_2(self.act(self.linear_1(self.norm(stacked))))
