"""A speech model as a policy: log-probabilities of answers to clips.

Sound is encoded and projected once per clip, the decoder runs once over merged embeddings, and logits are made only
where an answer token is predicted, in chunks. The module is what the Trainer wraps (so that DDP and FSDP see its
forward); the model inside is what is saved.

Under a frozen language model (training of the connector; a reference) there is less to do: constant text before the
audio is read once (`openings`), and each chunk of logits is turned into its gradient at once, so that none is kept or
made again (`frozen_head`).
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache

from rba_bench.speechlm.audiolm.families.adapter import AudioFamily, pad_states
from rba_bench.speechlm.audiolm.families.shared_rows import attends_by_document, continues_cache
from rba_bench.speechlm.audiolm.text_decoder import try_engine
from rba_bench.textlm.block_attention import NAME as BY_DOCUMENT
from rba_bench.training.data.batch import Targets
from rba_bench.training.data.clips import ClipInput
from rba_bench.training.data.packing import REACH, BatchLayout, Mode, Response, plan_layout
from rba_bench.training.model.activations import recompute_in_backward
from rba_bench.training.model.constant_prefix import Openings, OpeningStates, openings_of
from rba_bench.training.model.token_logprobs import Score, score_rows_once, token_entropies, token_logprobs

T = TypeVar("T")
CHUNK_ELEMENTS = 2**26  # logits computed at once; 256 MiB in float32
Measure = Callable[[Tensor, Targets], Tensor]  # student logits [C, V], teacher's distributions -> [C]


class Scores(NamedTuple):
    """What a forward pass found; N answers of at most L tokens to C clips. Empty tensors stand for what was not wanted.

    Attributes:
        logprobs: [N, L] log pi(y_t | y_<t, x) in nats, at the temperature of each response, float32.
        mask: [N, L] True at answer tokens.
        divergence: [N, L] what `measure` said, 0 where there was no target.
        hidden: [N, L, H] last hidden state that each answer token is predicted from.
        sound: [C, A, H] audio tokens as the decoder reads them.
        n_sound: [C] their numbers; 0 for a clip that is text.
        entropy: [N, L] of the distribution each answer token is drawn from, nats, without gradient; 0 at padding.
    """

    logprobs: Tensor
    mask: Tensor
    divergence: Tensor
    hidden: Tensor
    sound: Tensor
    n_sound: Tensor
    entropy: Tensor


class SpeechPolicy(nn.Module):
    """A speech model that scores answers.

    Args:
        family: adapter around the model.
        frozen_encoder: whether clips carry encoder states (else waves, encoded here with gradient).
        layout: see `data.packing`; a family whose decoder takes no mask of ours is always padded.
        half: compute in bfloat16 (autocast), whatever the weights are in.
    """

    def __init__(
        self, family: AudioFamily, frozen_encoder: bool = True, layout: Mode = "pack", half: bool = False
    ) -> None:
        super().__init__()
        self.family = family
        self.model: nn.Module = family.model  # registered: its parameters are ours
        self.frozen_encoder = frozen_encoder
        self.half = half
        self.layout: Mode = layout if family.shares_rows else "pad"
        if self.layout != "pad":
            attends_by_document(family.decoder)
        try_engine(family)
        # shards have another shape
        self._vocabulary: int = family.model.get_output_embeddings().weight.shape[0]
        self._reach = _reach(family.decoder)
        self.sharded = False  # True: processes share the weights, and must all call the decoder equally often
        self.openings = OpeningStates(self._read_opening)

    def unsharded_modules(self) -> list[nn.Module]:
        """Modules that no process shares out: a frozen encoder, and what nothing passes through."""
        return self.family.unused() + (self.family.parts()["encoder"] if self.frozen_encoder else [])

    def layer_stacks(self) -> list[nn.Module]:
        """Stacks whose layers are shared out one by one."""
        return [self.family.decoder] + ([] if self.frozen_encoder else [self.family.encoder])

    @property
    def pad_id(self) -> int:
        """A token to fill rows with: any but the audio placeholder, which would ask for sound."""
        return self.family.pad_id

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(
        self,
        clips: Sequence[ClipInput],
        responses: Sequence[Response],
        targets: Targets | None = None,
        measure: Measure | None = None,
        extra_outputs: Collection[str] = (),
    ) -> Scores:
        """Log-probabilities of answer tokens.

        Args:
            clips: the batch's clips.
            responses: answers, each to one of the clips.
            targets: a teacher's distributions for some of the responses.
            measure: how far the logits are from them.
            extra_outputs: `hidden`, `sound` and `entropy`, where they are needed.
        """
        with self._autocast():
            return self._scores(clips, responses, targets, measure, extra_outputs)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()

    def _scores(
        self,
        clips: Sequence[ClipInput],
        responses: Sequence[Response],
        targets: Targets | None,
        measure: Measure | None,
        extra_outputs: Collection[str],
    ) -> Scores:
        prompts = [clip.prompt_ids for clip in clips]
        openings = Openings()
        # Recomputed activations and a cache do not go together: transformers drops the cache.
        layers = self.family.decoder.modules()
        recomputes = any(getattr(layer, "gradient_checkpointing", False) for layer in layers)
        if self.still and self._continues and not recomputes:
            openings = openings_of(prompts, self.family.audio_token_id)
        layout = self._plan(prompts, responses, openings)
        sound, n_sound, embeds = self._heard(clips, layout)
        mask = layout.attention_mask(embeds.dtype)
        cache = self.openings(openings.texts, self.family.decoder.config) if openings.texts else None
        with recompute_in_backward():
            hidden = self.family.decode(
                embeds, mask, layout.position_ids, past_key_values=cache, use_cache=cache is not None
            )
        kept = layout.mask.flatten().nonzero().squeeze(1)
        states = hidden.flatten(0, 1).index_select(0, layout.sources.flatten()[kept])
        heat = None  # temperatures of the answer tokens, where not all are 1
        if any(response.temperature != 1 for response in responses):
            of_answer = torch.tensor([response.temperature for response in responses], device=self.device)
            heat = of_answer[:, None].expand(layout.mask.shape)[layout.mask]
        values, spread = self._token_logprobs(
            states, layout.targets.flatten()[kept], heat, "entropy" in extra_outputs
        )
        far = none = values.new_zeros(0)
        if targets is not None and measure is not None:
            far = self._divergence(states, layout.mask, kept, targets, measure)
        return Scores(
            _spread(values, kept, layout.mask),
            layout.mask,
            far,
            _spread(states, kept, layout.mask) if "hidden" in extra_outputs else none,
            sound if "sound" in extra_outputs else none,
            n_sound,
            _spread(spread, kept, layout.mask) if "entropy" in extra_outputs else none,
        )

    def inside(self, work: Callable[[], T]) -> T:
        """Do something with parts of the model as a forward pass would.

        Where processes share weights out, `work` then finds embeddings, projector and head whole.
        """
        with self._autocast():
            return work()

    @torch.no_grad()
    def layer_means(self, clips: Sequence[ClipInput], responses: Sequence[Response]) -> Tensor:
        """[N, K, H] mean state of each answer behind each of the decoder's K layers, the last one normed; float32.

        Over the states at the answer's tokens but the last, which ends the turn; zeros where there is no other.
        """
        layout = self._plan([clip.prompt_ids for clip in clips], responses)
        present = layout.mask[:, 1:]  # the state at a token is where the next one is predicted from
        counts = present.sum(-1, keepdim=True).clamp(min=1)
        means: list[Tensor] = []

        def note(_: Any, __: Any, output: Any) -> None:
            states = (output[0] if isinstance(output, tuple) else output).flatten(0, 1)
            picked = states.index_select(0, layout.sources[:, 1:].flatten()).float()
            kept = picked.view(*present.shape, -1) * present[..., None]
            means.append(kept.sum(1) / counts)

        stacks: list[list[nn.Module]] = [
            list(part) for part in self.family.decoder.modules() if isinstance(part, nn.ModuleList)
        ]
        hooks = [layer.register_forward_hook(note) for layer in max(stacks, key=len)[:-1]]
        try:
            with self._autocast():
                embeds = self._merged(layout.input_ids, *self.sound(clips), layout.clip_of_document)
                mask = layout.attention_mask(embeds.dtype)
                note(None, None, self.family.decode(embeds, mask, layout.position_ids, use_cache=False))
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(means, 1)

    def sound(self, clips: Sequence[ClipInput]) -> tuple[Tensor, Tensor]:
        """Audio tokens [C, A, H] of clips and their numbers [C]; clips that are text have none.

        Raises:
            ValueError: there is no sound at all.
        """
        with_sound = [i for i, clip in enumerate(clips) if clip.sound is not None]
        if not with_sound:
            raise ValueError("a batch needs at least one clip with sound")
        sounds = [sound for clip in clips if (sound := clip.sound) is not None]
        if self.frozen_encoder:
            states, lengths = pad_states([sound.to(self.device) for sound in sounds])
        else:
            features = self.family.plain_features([sound.numpy() for sound in sounds])
            states, lengths = self.family.encode_audio(
                {name: value.to(self.device) for name, value in features.items()}
            )
        embeds, counts = self.family.project(states, lengths)
        if len(with_sound) == len(clips):
            return embeds, counts
        places = torch.tensor(with_sound, device=embeds.device)
        all_embeds = embeds.new_zeros(len(clips), *embeds.shape[1:]).index_copy(0, places, embeds)
        return all_embeds, counts.new_zeros(len(clips)).index_copy(0, places.to(counts.device), counts)

    def embed(self, clips: Sequence[ClipInput], input_ids: Tensor, clip_of_row: Tensor) -> Tensor:
        """Input embeddings [R, S, H] of prompts with sound in place; row r has that of clip `clip_of_row[r]`."""
        if all(clip.sound is None for clip in clips):
            return self.family.model.get_input_embeddings()(input_ids)
        return self._merged(input_ids, *self.sound(clips), clip_of_row)

    def _heard(self, clips: Sequence[ClipInput], layout: BatchLayout) -> tuple[Tensor, Tensor, Tensor]:
        """Audio tokens of clips, their numbers, and the layout's embeddings with them in place."""
        if all(clip.sound is None for clip in clips):
            embeds = self.family.model.get_input_embeddings()(layout.input_ids)
            counts = torch.zeros(len(clips), dtype=torch.long, device=embeds.device)
            return embeds.new_zeros(len(clips), 0, embeds.shape[-1]), counts, embeds
        sound, n_sound = self.sound(clips)
        return sound, n_sound, self._merged(layout.input_ids, sound, n_sound, layout.clip_of_document)

    def _merged(self, input_ids: Tensor, sound: Tensor, n_sound: Tensor, order: Tensor) -> Tensor:
        places = order.to(n_sound.device)
        return self.family.merge(input_ids, sound.index_select(0, order), n_sound.index_select(0, places))

    @property
    def still(self) -> bool:
        """Whether the language model is frozen and whole: what it makes of a text is then the same in every step."""
        parameters = (p for module in self.family.parts()["llm"] for p in module.parameters())
        return not self.sharded and not any(parameter.requires_grad for parameter in parameters)

    @cached_property
    def _continues(self) -> bool:
        with torch.autocast(self.device.type, enabled=False):  # whose rounding is no sign of anything
            return self.family.shares_rows and continues_cache(self.family.decoder)

    def _plan(
        self, prompts: Sequence[Tensor], responses: Sequence[Response], openings: Openings | None = None
    ) -> BatchLayout:
        by_document = self.family.decoder.config._attn_implementation == BY_DOCUMENT
        layout = plan_layout(prompts, responses, self.layout, self.pad_id, openings, self._reach, by_document)
        return layout.to(self.device)

    def _read_opening(self, ids: Tensor, cache: Cache) -> None:
        words = self.family.model.get_input_embeddings()(ids.to(self.device))
        self.family.decode(words, past_key_values=cache, use_cache=True)

    def _token_logprobs(
        self, states: Tensor, targets: Tensor, heat: Tensor | None, spread: bool
    ) -> tuple[Tensor, Tensor]:
        """[K, H] states and [K] tokens to [K] log-probabilities and, where wanted, [K] entropies.

        `heat`: [K] temperatures, None where all are 1.
        """

        def score(chunk: Tensor, start: int) -> tuple[Tensor, Tensor]:
            stop = start + len(chunk)
            logits = self.family.head(chunk).float()
            logits = logits if heat is None else logits / heat[start:stop, None]
            wide = token_entropies(logits) if spread else logits.new_zeros(0)
            return token_logprobs(logits, targets[start:stop]), wide  # which uses the logits up

        return self._by_chunk(score, states, again=len(states) > self._chunk())

    def _by_chunk(self, score: Score, states: Tensor, again: bool) -> tuple[Tensor, Tensor]:
        """What `score` makes of [K, H] states, chunk by chunk; see `score_rows_once`.

        Where the head trains, what a chunk's score is made of is kept for backward, or made `again` there.
        """
        size = self._chunk()
        if states.requires_grad and torch.is_grad_enabled() and self.still:
            return score_rows_once(score, states, size)
        if not again:
            return score(states, 0)
        starts = range(0, len(states), size)
        parts = [checkpoint(score, states[at : at + size], at, use_reentrant=False) for at in starts]
        scores, notes = (torch.cat(column) for column in zip(*parts, strict=True))
        return scores, notes

    def _divergence(
        self, states: Tensor, mask: Tensor, kept: Tensor, targets: Targets, measure: Measure
    ) -> Tensor:
        """[N, L] divergences of the responses that have targets, chunk by chunk."""
        aimed = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        aimed[torch.tensor(targets.responses, device=mask.device)] = True
        chosen = aimed[kept // mask.shape[1]].nonzero().squeeze(1)
        if len(chosen) != len(targets):
            raise ValueError(f"{len(targets)} target distributions for {len(chosen)} answer tokens")

        def score(chunk: Tensor, start: int) -> tuple[Tensor, Tensor]:
            far = measure(self.family.head(chunk).float(), targets.part(start, start + len(chunk)))
            return far, far.new_zeros(0)

        far, _ = self._by_chunk(score, states.index_select(0, chosen), again=True)
        return _spread(far, kept[chosen], mask)

    def _chunk(self) -> int:
        return max(1, CHUNK_ELEMENTS // self._vocabulary)


def _reach(decoder: Any) -> float:
    """Columns at which attention costs a decoder as much as all else: 4 H S against 2 operations a weight and layer.

    Attention to a mask of its own runs at about half the speed of plain products of matrices.
    """
    width, layers = (getattr(decoder.config, name, None) for name in ("hidden_size", "num_hidden_layers"))
    if not width or not layers:
        return REACH
    words = decoder.get_input_embeddings().weight.numel()
    return (sum(p.numel() for p in decoder.parameters()) - words) / layers / (4 * width)


def _spread(values: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Rows of `values` [K, ...] put into [N, L, ...] at flat `places`, zeros elsewhere."""
    flat = values.new_zeros(mask.numel(), *values.shape[1:]).index_copy(0, places, values)
    return flat.view(*mask.shape, *values.shape[1:])
