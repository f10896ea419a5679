"""From encoder states to tokens a language model can read."""

import torch
from torch import nn
from transformers import initialization as init

from rba_bench.speechlm.composite.configuration import CompositeConfig


class StackProjector(nn.Module):
    """Stack k encoder states, normalise, and map them to the language model's width with a two-layer MLP.

    The second layer starts so that audio tokens have about the size of word embeddings: a pretrained language
    model then meets nothing out of its range on the first step.
    """

    def __init__(self, config: CompositeConfig) -> None:
        super().__init__()
        self.stack_factor = config.stack_factor
        width = config.audio_config.d_model * config.stack_factor
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, config.projector_hidden_size)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(config.projector_hidden_size, config.text_config.hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[B, T', D] states of 20 ms to [B, ceil(T' / k), H] audio tokens; the last is filled with zeros."""
        batch, frames, width = states.shape
        states = nn.functional.pad(states, (0, 0, 0, -frames % self.stack_factor))
        stacked = states.reshape(batch, -1, width * self.stack_factor)
        return self.linear_2(self.act(self.linear_1(self.norm(stacked))))

    @torch.no_grad()
    def initialize(self, embedding_rms: float) -> None:
        """Random weights whose output has about the root mean square `embedding_rms`."""
        init.ones_(self.norm.weight)
        init.zeros_(self.norm.bias)
        init.normal_(self.linear_1.weight, std=self.linear_1.in_features**-0.5)
        # E[gelu(x)^2] = 0.425 for x ~ N(0, 1)
        init.normal_(self.linear_2.weight, std=embedding_rms * (0.425 * self.linear_2.in_features) ** -0.5)
        init.zeros_(self.linear_1.bias)
        init.zeros_(self.linear_2.bias)
