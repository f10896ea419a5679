"""ArmoRM: many objectives, weighted by a gate that reads the prompt (Wang et al. 2024, arXiv 2406.12845).

The classifier of RLHFlow/ArmoRM-Llama3-8B-v0.1, written from its paper and the names and shapes of its weights. The
code on the Hub imports a part of transformers that version 5 no longer has.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

from rba_bench.errors import UserError


class GatedOutput(NamedTuple):
    """What one batch of conversations is worth.

    Attributes:
        score: The reward, [B].
        logits: The objectives that it is made of, before the gate, [B, objectives].
    """

    score: Tensor
    logits: Tensor


class Gate(nn.Module):
    """Weights of the objectives, from the state at the end of the prompt: a ReLU network and a softmax.

    Args:
        width: Of the state.
        objectives: How many weights.
        hidden: Width of the layers between.
        depth: Number of these layers.
        temperature: The softmax's.
    """

    def __init__(self, width: int, objectives: int, hidden: int, depth: int, temperature: float) -> None:
        super().__init__()
        sizes = [width, *[hidden] * depth, objectives]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.logit_scale = nn.Parameter(torch.ones(1))
        self.temperature = temperature

    def forward(self, state: Tensor) -> Tensor:
        """Weights [B, objectives] from states [B, width]; they add up to `logit_scale`."""
        *between, last = self.layers
        for layer in between:
            state = layer(state).relu()
        return (last(state) / self.temperature).softmax(dim=-1) * self.logit_scale


class LlamaForRewardModelWithGating(LlamaPreTrainedModel):
    """ArmoRM's form of Llama. Rows are padded on the right.

    Attributes:
        turn: Tokens between the user's words and the answer. The gate reads the state at the first of them, which is
            the end of the user's turn.
    """

    turn: tuple[int, ...] = ()

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        objectives = int(getattr(config, "num_objectives", 19))
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(objectives), requires_grad=False)
        self.gating = Gate(
            config.hidden_size,
            objectives,
            int(getattr(config, "gating_hidden_dim", 1024)),
            int(getattr(config, "gating_n_hidden", 3)),
            float(getattr(config, "gating_temperature", 10)),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> GatedOutput:
        """Score conversations of ids [B, T]; the heads compute in float32.

        Raises:
            UserError: A row has no turn of the assistant.
        """
        states = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        rows = torch.arange(len(input_ids), device=input_ids.device)
        last = attention_mask.sum(dim=1) - 1
        asked = states[rows, self._end_of_prompt(input_ids)].float()
        objectives = self.regression_layer.float()(states[rows, last].float())
        weights = self.gating.float()(asked)
        score = (weights * (objectives @ self.reward_transform_matrix.float())).sum(dim=-1)
        return GatedOutput(score, objectives)

    def _end_of_prompt(self, input_ids: Tensor) -> Tensor:
        """Where `turn` begins for the last time, [B]."""
        turn = torch.tensor(self.turn, device=input_ids.device)
        if not self.turn or input_ids.shape[1] < len(turn):
            raise UserError("the gate of the reward model finds no turn of the assistant")
        found = (input_ids.unfold(1, len(turn), 1) == turn).all(dim=-1)
        if not bool(found.any(dim=1).all()):
            raise UserError("the gate of the reward model finds no turn of the assistant")
        positions = torch.arange(found.shape[1], device=found.device)
        return (positions * found).argmax(dim=1)
