"""The composite as a policy: log-probabilities of answers to clips.

Sound is projected once per clip, the decoder runs once over merged embeddings, and logits are made only where an answer
token is predicted, in chunks. The module is what the Trainer wraps (so that DDP sees its forward); the composite inside
is what is saved.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from rba_bench.training.clips import Clip
from rba_bench.training.layout import Branch, Layout, plan

CHUNK_ELEMENTS = 2**26  # logits computed at once; 256 MiB in float32


class SpeechPolicy(nn.Module):
    """A composite model that scores answers.

    Args:
        composite: `CompositeForConditionalGeneration`.
        frozen_encoder: whether clips carry encoder states (else log-mel features, encoded here with gradient).
        share_prefix: see `layout`.
    """

    def __init__(self, composite: Any, frozen_encoder: bool = True, share_prefix: bool = True) -> None:
        super().__init__()
        self.composite = composite
        self.frozen_encoder = frozen_encoder
        self.share_prefix = share_prefix

    @property
    def pad_id(self) -> int:
        """A token to fill rows with: any but the audio placeholder, which would ask for sound."""
        return 1 if self.composite.config.audio_token_id == 0 else 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.parameters()).device
        return device

    def forward(self, clips: Sequence[Clip], branches: Sequence[Branch]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of answer tokens.

        Args:
            clips: the batch's clips.
            branches: answers, each to one of the clips.

        Returns:
            [N, L] log pi(y_t | y_<t, x) in nats (float32) and [N, L] bool, True at answer tokens.
        """
        prompts = [clip.prompt_ids for clip in clips]
        layout = plan(prompts, branches, self.share_prefix, self.pad_id).to(self.device)
        hidden = self._hidden(clips, layout)
        kept = layout.mask.flatten().nonzero().squeeze(1)
        states = hidden.flatten(0, 1).index_select(0, layout.sources.flatten()[kept])
        values = self._token_logprobs(states, layout.targets.flatten()[kept])
        flat = values.new_zeros(layout.mask.numel()).index_copy(0, kept, values)
        return flat.view(layout.mask.shape), layout.mask

    def embed(self, clips: Sequence[Clip], input_ids: Tensor, clip_of_row: Tensor | None = None) -> Tensor:
        """Input embeddings [R, S, H] of prompts with the clips' sound in place; row r hears clip `clip_of_row[r]`."""
        embeds, counts = self.composite.project(*self._states(clips))
        if clip_of_row is not None:
            embeds, counts = embeds.index_select(0, clip_of_row), counts.index_select(0, clip_of_row)
        merged: Tensor = self.composite.merge(input_ids, embeds, counts)
        return merged

    def _states(self, clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(clip.sound) for clip in clips], device=self.device)
        sound = pad_sequence([clip.sound.to(self.device) for clip in clips], batch_first=True)
        if self.frozen_encoder:
            return sound, lengths
        states, lengths = self.composite.encode_audio(sound.transpose(1, 2), lengths)
        return states, lengths

    def _hidden(self, clips: Sequence[Clip], layout: Layout) -> Tensor:
        embeds = self.embed(clips, layout.input_ids, layout.clip_of_row)
        hidden: Tensor = self.composite.get_decoder()(
            inputs_embeds=embeds,
            attention_mask=layout.attention_mask(embeds.dtype),
            position_ids=layout.position_ids,
            use_cache=False,
        ).last_hidden_state
        return hidden

    def _token_logprobs(self, states: Tensor, targets: Tensor) -> Tensor:
        """[K, H] states and [K] tokens to [K] log-probabilities; beyond one chunk, logits are remade in backward."""
        head = self.composite.get_output_embeddings()

        def score(chunk: Tensor, tokens: Tensor) -> Tensor:
            return -F.cross_entropy(head(chunk).float(), tokens, reduction="none")

        size = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
        if len(targets) <= size:
            return score(states, targets)
        pairs = zip(states.split(size), targets.split(size), strict=True)
        return torch.cat([checkpoint(score, chunk, tokens, use_reentrant=False) for chunk, tokens in pairs])
