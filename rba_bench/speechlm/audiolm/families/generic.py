"""Any other audio-in, text-out model: the processor's own inputs and the model's own `generate`, unverified.

The model does not run step by step, so nothing is shared or cached, and requests go one at a time: whether an unknown
model keeps the rows of a batch apart cannot be known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from rba_bench.errors import UserError, first_line
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily, Features
from rba_bench.speechlm.audiolm.families.dialogue import Turns, turn_texts
from rba_bench.speechlm.speech_model import SAMPLING_RATE
from rba_bench.textlm.chat import Variables

REFUSALS = (TypeError, ValueError, KeyError, AttributeError, IndexError, NotImplementedError)


class Generic(AudioFamily):
    """A model whose processor takes `text` and `audio` and has a chat template.

    Raises:
        UserError: a trial request of one second fails.
    """

    splits: ClassVar[bool] = False
    max_batch: ClassVar[int | None] = 1

    def __init__(
        self, model: Any, processor: Any, true_length: bool = True, template: Variables | None = None
    ) -> None:
        super().__init__(model, processor, true_length, template)
        trial = np.random.default_rng(0).normal(0, 0.05, SAMPLING_RATE).astype(np.float32)
        kind = model.config.model_type
        try:
            inputs = self.plain_inputs([""], [trial])
            if len(inputs) <= 2:  # text and its mask only
                raise ValueError(f"{type(processor).__name__} takes no audio")
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            with torch.no_grad():
                model.generate(**inputs, do_sample=False, max_new_tokens=1)
        except REFUSALS as error:
            reason = first_line(error)
            raise UserError(
                f"a model of type {kind!r} has no adapter here, and the general way fails ({reason}): serve it "
                "behind an OpenAI-compatible endpoint and give `openai:<base_url>#<model>`"
            ) from error

    def find_audio_token(self) -> int:
        """Not needed: -1 where the config names none."""
        return int(getattr(self.model.config, "audio_token_id", -1))

    @property
    def padding(self) -> str:
        """As the processor pads."""
        return "processor"

    def plain_inputs(self, prompts: Sequence[str], clips: Sequence[np.ndarray]) -> dict[str, Any]:
        """See `AudioFamily.plain_inputs`."""
        inputs = self.processor(
            text=[self.render(prompt) for prompt in prompts],
            audio=[np.asarray(clip, dtype=np.float32) for clip in clips],
            sampling_rate=SAMPLING_RATE,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        weight = self.model.dtype
        return {
            name: value.to(weight) if value.is_floating_point() else value
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }

    def _prompt_ids(self, prompt: str, turns: Turns = ()) -> tuple[int, ...]:
        for text in (prompt, *turn_texts(turns)):
            self.content.refuse(text)  # the processor reads text as the tokenizer does
        return super()._prompt_ids(prompt, turns)

    def n_tokens(self, n_samples: int) -> int:
        """Unknown; counted as one."""
        return 1

    def features(self, clips: Sequence[np.ndarray]) -> Features:
        """Not known for such a model."""
        raise self._unknown()

    def encode_audio(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Not known for such a model."""
        raise self._unknown()

    def project(self, states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Not known for such a model."""
        raise self._unknown()

    def _unknown(self) -> UserError:
        return UserError(
            f"a model of type {self.model.config.model_type!r} has no adapter that runs it in steps"
        )
