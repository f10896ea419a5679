"""The policy's own LLM as a text model: it reads turns, answers and scores them with the weights of this moment.

Nothing is copied. It writes the answers of BLSP and AudioChatLlama before training, judges in self-rewarding, and its
answers to the transcripts are the ceiling of what alignment can reach.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch

from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.driving import of_family
from rba_bench.speechlm.audiolm.engine import last_logits_only
from rba_bench.speechlm.audiolm.families.base import AudioFamily
from rba_bench.textlm import chat
from rba_bench.textlm.base import Decoding, Generation
from rba_bench.textlm.generation import Decoder
from rba_bench.textlm.local import LocalTextLM
from rba_bench.textlm.replies import opening
from rba_bench.textlm.sampling import Continuation, continue_batch
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.teachers.readers import Shell, eval_mode, without_adapters


class PolicyTextLM(LocalTextLM):
    """The `TextLM` inside a speech model, spoken to by the speech model's template for turns without audio.

    Args:
        family: the model, as it trains; it is put into eval mode while it answers.
        weights: what names its weights in `identity` (such as the base model's hash, with the step if it has trained).
        batch_size: rows per batch.
        adapters: leave low-rank adapters in the decoder on; without them it is the LLM they were put into.
        half: compute in bfloat16 (autocast), as a policy of that precision does.
    """

    def __init__(
        self,
        family: AudioFamily,
        weights: str,
        batch_size: int = 32,
        adapters: bool = True,
        half: bool = False,
    ) -> None:
        identity = {"kind": "self", "path": "self", "weights_sha256": weights}
        super().__init__(family.model, family.tokenizer, identity, batch_size, stops=_stops(family))
        self.family = family
        self.adapters = adapters
        self.half = half
        self.pad_id = family.pad_id
        self.context = family.context
        self.sync = CollectiveSync()  # of the processes, where they share the weights out
        self.shell: Shell | None = None

    def walk_in_step(self, sync: CollectiveSync, shell: Shell) -> None:
        """From now on scoring calls the model through `shell`, and as often as the other processes do."""
        self.sync, self.shell = sync, shell

    def keep_company(self) -> None:
        """Wait until no process scores any more."""
        self.sync.leave(lambda: self.logprobs(["?"], ["!"]))

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """See `TextLM.chat`."""
        with self._speaking():
            return super().chat(user_texts, decoding, seeds)

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
        before, found, _ = self.family.render_text(chat.SENTINEL).partition(chat.SENTINEL)
        if not found:
            raise UserError("the chat template does not show the words of a turn: it cannot be used here")
        return before

    @cached_property
    def opened(self) -> str:
        """See `LocalTextLM.opened`."""
        return opening(self.family.render_text(chat.SENTINEL))

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        bare = without_adapters(self.family.decoder, not self.adapters)
        device = next(self.model.parameters()).device.type
        cast = torch.autocast(device, torch.bfloat16, enabled=self.half)
        with torch.no_grad(), eval_mode(self.model), self.family.reading_text(), bare, cast:
            yield

    def _turn_ids(self, user_text: str) -> list[int]:
        return list(self.family.text_ids(user_text))

    def _scored_ids(self, user_text: str, response: str) -> tuple[list[int], list[int]]:
        return self._turn_ids(user_text), list(self.family.answer_ids(response))

    def _decoder(self) -> Decoder | None:
        return of_family(self.family)

    def _draw_batch(
        self, rows: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int], stops: list[int]
    ) -> list[Continuation]:
        inputs = self._padded(rows)
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


def _stops(family: AudioFamily) -> tuple[list[int], list[int]]:
    """Tokens that end an answer, and those that end either turn where the template shows them."""
    try:
        return family.stops, chat.stop_ids(family.tokenizer, family.model)[1]
    except (
        UserError,
        TypeError,
        ValueError,
    ):  # as in `AudioFamily.find_stops`: templates that take parts only
        return family.stops, family.stops
