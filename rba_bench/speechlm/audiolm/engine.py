"""An audio-in, text-out checkpoint run in this process: a composite, or an audio LLM of transformers."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import RUN_RECORD
from rba_bench.speechlm.audiolm.encoder_cache import (
    DEFAULT_BYTES,
    EncoderCache,
    encode_with_cache,
    encoder_tag,
)
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily, pad_states
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.audiolm.text_decoder import prefix_before_audio, speech_decoder, unpadded
from rba_bench.speechlm.speech_model import (
    SAMPLING_RATE,
    SpeechLM,
    SpeechRequest,
    StageClock,
    answer_usable,
    audio_fault,
    device_clock,
)
from rba_bench.textlm.chat import ControlStringError, Variables, template_of, warn_unread_variables
from rba_bench.textlm.generation import Decoder, GenerationRequest, Prompts
from rba_bench.textlm.sampling import Continuation, continue_batch, continue_prompts, to_generation
from rba_bench.textlm.text_model import Decoding, Generation
from rba_bench.textlm.weights import local_folder, resolve_device, weights_identity

# Of RUN_RECORD, into the identity
RUN_KEYS = ("method", "base", "track", "seed", "steps", "alignment_set_sha256")
RUNS_AHEAD = 64  # runs of clips whose features wait for `generate`
# Clips are encoded together while the longest is at most this many times the shortest: less pads less, more calls the
# encoder less often. Of 1.0 to 3.0 the cheapest on a CPU; batches planned by length make one or two runs of it.
ENCODE_WASTE = 1.2


class TransformersSpeechLM(SpeechLM):
    """Composites, Qwen2-Audio and their like: each distinct clip is encoded once, answers are drawn in batches.

    An answer depends on model, request and decoding alone. Clips longer than the model's limit are cut there, and the
    answer's `error` says so.

    Attributes:
        name: for tables and folders.
        family: the architecture's adapter, with model and processor.
        batch_size: requests per batch; answers do not depend on it.
        clock: seconds spent in `features`, `encoder` and `decoder`.
        cache: states of clips with a `key`; None for families that are not taken apart.
    """

    def __init__(
        self,
        family: AudioFamily,
        identity: dict[str, Any],
        name: str,
        batch_size: int = 32,
        cache: EncoderCache | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}: use 1 or more")
        self.family = family
        self.name = name
        self.batch_size = min(batch_size, family.max_batch or batch_size)
        self.cache = cache
        self.device = family.model.device
        self.clock: StageClock = device_clock(str(self.device))
        self._identity = identity
        # Features by the `id` of their clips, and these clips, so that no other array gets their address meanwhile
        self._prepared: OrderedDict[tuple[int, ...], tuple[list[np.ndarray], dict[str, torch.Tensor]]] = (
            OrderedDict()
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: Path | str,
        device: str = "cpu",
        batch_size: int = 32,
        true_length: bool = True,
        trust_remote_code: bool = False,
        name: str | None = None,
        cache_bytes: int = DEFAULT_BYTES,
        cache_folder: Path | None = None,
        template: Variables | None = None,
    ) -> "TransformersSpeechLM":
        """Load a folder or Hub id, safetensors only.

        Args:
            path_or_id: what `save_pretrained` of model and processor wrote, or an id such as
                `Qwen/Qwen2-Audio-7B-Instruct`.
            device: a torch device, or `auto`. On the CPU the model computes in float32 however it is stored.
            batch_size: requests per batch.
            true_length: encode clips without padding to 30 s where that changes nothing (recorded as `padding`).
            trust_remote_code: run Python code that ships with the model.
            name: the folder's or the id's last part by default.
            cache_bytes: bound of the encoder states kept in memory.
            cache_folder: where encoder states are kept for later runs; None keeps them for this run only.
            template: variables of the chat template, such as `{"enable_thinking": False}`.

        Raises:
            MissingPrerequisite: nothing there, or its processor needs a package that is missing.
            UserError: another kind of model, damaged files, or an unusable device.
        """
        folder = local_folder(path_or_id, "speech model")
        family = load_family(folder, resolve_device(device), true_length, trust_remote_code, template)
        shown = name or Path(str(path_or_id)).resolve().name
        warn_unread_variables(
            template_of(family.processor) or template_of(family.tokenizer), family.template, shown
        )
        identity = {
            **family.identity(),
            **weights_identity(folder, path_or_id, family.model, trust_remote_code),
            **_training_facts(folder),
            **({"template": family.template} if family.template else {}),
        }
        cache = None
        if family.splits:
            weights = family.encoder_sha256() or identity["weights_sha256"]
            tag = encoder_tag(weights, identity["setup_sha256"], family.padding, identity["dtype"])
            cache = EncoderCache(tag, cache_bytes, cache_folder)
        return cls(family, identity, shown, batch_size, cache)

    @property
    def max_seconds(self) -> float | None:
        """Longest audio that the model takes; the rest is cut off. None without such a limit."""
        return self.family.max_seconds

    def identity(self) -> dict[str, Any]:
        """Kind, path, `weights_sha256`, `setup_sha256`, `n_parameters`, dtype; what the family adds; its training."""
        return dict(self._identity)

    @torch.no_grad()
    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer each request, in order; see `SpeechLM.generate`."""
        faults = [self._fault(request, decoding) for request in requests]
        usable = [i for i, fault in enumerate(faults) if not fault]
        answers: dict[int, Generation] = {}
        decoder = speech_decoder(self.family) if usable else None
        for batch in [usable] if decoder is not None else self._batches(usable, requests):
            some = [requests[i] for i in batch]
            if decoder is None:
                continuations = self._continue(some, decoding)
            else:
                continuations = self._continue_by_engine(decoder, some, decoding)
            answers.update(zip(batch, map(self._answer, continuations, some), strict=True))
        return answer_usable(requests, faults, [answers[i] for i in usable])

    def _fault(self, request: SpeechRequest, decoding: Decoding) -> str:
        if fault := audio_fault(request.audio):
            return fault
        try:
            ids = self.family.prompt_ids(request.prompt)
        except ControlStringError as error:
            return str(error)
        if self.family.splits and ids.count(self.family.audio_token_id) != 1:
            return "the prompt contains the token that stands for the audio"
        n_samples = _n_samples(request)
        if fault := self.family.refusal(n_samples):
            return fault
        length, context = len(ids) - 1 + self.family.n_tokens(n_samples), self.family.context
        if context is not None and length + decoding.max_new_tokens + 1 > context:
            return f"prompt and audio of {length} tokens leave no room in the model's context of {context}"
        return ""

    def _batches(self, usable: Sequence[int], requests: Sequence[SpeechRequest]) -> Iterator[list[int]]:
        """Longest clips first, so that memory peaks at once; requests for one clip stay together."""
        names = {i: requests[i].key or id(requests[i].audio) for i in usable}
        first = {names[i]: i for i in reversed(usable)}
        order = sorted(usable, key=lambda i: (-_n_samples(requests[i]), first[names[i]], i))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _answer(self, continuation: Continuation, request: SpeechRequest) -> Generation:
        """Text and status, with a remark where the audio was longer than the model's limit."""
        opened = self.family.opened(request.prompt)
        answer = to_generation(self.family.tokenizer, continuation, opened)
        limit, seconds = self.max_seconds, _n_samples(request) / SAMPLING_RATE
        if limit is None or _n_samples(request) <= limit * SAMPLING_RATE:
            return answer
        return replace(answer, error=f"heard the first {limit:g} of {seconds:.1f} s of audio")

    def _continue_by_engine(
        self, decoder: Decoder, requests: Sequence[SpeechRequest], decoding: Decoding
    ) -> list[Continuation]:
        """Answers by the generation engine. Clips are encoded a batch at a time, shortly before they are read."""
        numbers: dict[object, int] = {}  # of distinct prompts
        distinct: list[SpeechRequest] = []
        to_generate = []
        for request in requests:
            content = (request.prompt, request.key or id(request.audio))
            if content not in numbers:
                numbers[content] = len(distinct)
                distinct.append(request)
            to_generate.append(GenerationRequest(numbers[content], request.seed))
        family, states = self.family, None
        if family.compresses:  # encoded first, as only then their numbers of tokens are known; they are few
            states = encode_with_cache(distinct, self.cache, self._encode, self.device)
            counts = [len(of_clip) for of_clip in states]
        else:
            counts = [family.n_tokens(_n_samples(request)) for request in distinct]
        prompts = zip(distinct, counts, strict=True)
        rows = [family.expand(family.prompt_ids(request.prompt), count) for request, count in prompts]
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
        ready: dict[int, torch.Tensor] = {}
        embed = partial(self._embeds, distinct, states, rows, order, ready)
        lengths, start = [len(row) for row in rows], prefix_before_audio(family, rows)
        with self.clock("decoder"), family.reading_speech():
            return continue_prompts(
                decoder,
                Prompts(lengths, embed, start),
                to_generate,
                decoding,
                family.stops,
                self.batch_size,
                family.banned,
            )

    def _embeds(
        self,
        requests: Sequence[SpeechRequest],
        states: Sequence[torch.Tensor] | None,
        rows: Sequence[Sequence[int]],
        order: Sequence[int],
        ready: dict[int, torch.Tensor],
        numbers: Sequence[int],
    ) -> list[torch.Tensor]:
        """Input embeddings of some prompts; those next in `order` are made with them, and kept until they are read."""
        while missing := [i for i in numbers if i not in ready]:
            begin = order.index(missing[0])
            batch = order[begin : begin + self.batch_size]
            encoded = None if states is None else [states[i] for i in batch]
            merged = self._merge([requests[i] for i in batch], encoded)
            sizes = [len(rows[i]) for i in batch]
            if merged["attention_mask"].sum(1).tolist() != sizes:
                raise ValueError("the projector made another number of audio tokens than it announces")
            ready.update(zip(batch, unpadded(merged["inputs_embeds"], sizes), strict=True))
        return [ready.pop(i) for i in numbers]

    def _merge(
        self, requests: Sequence[SpeechRequest], encoded: list[torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Embeddings with the audio in its places, left-padded; of clips encoded now, or before."""
        family = self.family
        if encoded is None:
            encoded = encode_with_cache(requests, self.cache, self._encode, self.device)
        states, lengths = pad_states(encoded)
        with self.clock("encoder"):
            embeds, n_tokens = family.project(states, lengths)
            rows = [
                family.expand(family.prompt_ids(request.prompt), count)
                for request, count in zip(requests, n_tokens.tolist(), strict=True)
            ]
            input_ids, mask = (tensor.to(self.device) for tensor in family.collate(rows))
            return {"inputs_embeds": family.merge(input_ids, embeds, n_tokens), "attention_mask": mask}

    def prepare(self, requests: Sequence[SpeechRequest]) -> None:
        """Extract the features of a batch ahead of `generate`, from another thread.

        Where `generate` then puts clips together otherwise, it extracts them anew.
        """
        if not self.family.splits:
            return
        usable = [
            request
            for request in requests
            if not audio_fault(request.audio) and not self.family.refusal(_n_samples(request))
        ]
        usable.sort(key=lambda request: -_n_samples(request))
        not_cached = {
            request.key or id(request.audio): request.audio
            for request in usable
            if self.cache is None or not request.key or request.key not in self.cache
        }
        clips = [clip for clip in not_cached.values() if clip is not None]
        for run in _runs(clips):
            some = [clips[i] for i in run]
            self._prepared[tuple(map(id, some))] = (some, self.family.features(some))
            while len(self._prepared) > RUNS_AHEAD:
                self._prepared.popitem(last=False)

    def _encode(self, clips: list[np.ndarray]) -> list[torch.Tensor]:
        """States of clips, in runs of like length so that little padding is encoded."""
        encoded: dict[int, torch.Tensor] = {}
        for run in _runs(clips):
            some = [clips[i] for i in run]
            with self.clock("features"):
                prepared = self._prepared.pop(tuple(map(id, some)), None)
                features = prepared[1] if prepared else self.family.features(some)
                features = {name: value.to(self.device) for name, value in features.items()}
            with self.clock("encoder"):
                states, lengths = self.family.encode_audio(features)
            for i, row, length in zip(run, states, lengths.tolist(), strict=True):
                encoded[i] = row[:length]
        return [encoded[i] for i in range(len(clips))]

    def _continue(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Continuation]:
        """Answers of a batch by the model's own `generate`."""
        family = self.family
        if family.splits:
            inputs: dict[str, Any] = self._merge(requests)
        else:  # as the processor makes them, for models that are not run step by step
            clips = [request.audio for request in requests if request.audio is not None]
            with self.clock("features"):
                inputs = {
                    name: value.to(self.device) if isinstance(value, torch.Tensor) else value
                    for name, value in family.plain_inputs([r.prompt for r in requests], clips).items()
                }
        seeds = [request.seed for request in requests]
        with self.clock("decoder"), last_logits_only(family.model.get_output_embeddings()):
            return continue_batch(
                family.generator, inputs, decoding, seeds, stop_ids=family.stops, pad_id=family.pad_id
            )


def _runs(clips: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Positions of clips that are encoded together: of like length, longest first."""
    order = sorted(range(len(clips)), key=lambda i: -len(clips[i]))
    while order:
        limit = len(clips[order[0]]) / ENCODE_WASTE
        run = [i for i in order if len(clips[i]) >= limit]
        order = order[len(run) :]
        yield run


@contextmanager
def last_logits_only(head: torch.nn.Module) -> Iterator[None]:
    """Keep `generate` from computing logits of the whole prompt, of which it reads the last position.

    Qwen2-Audio has no `logits_to_keep` (transformers 5.23): 32 prompts of 300 tokens would take 6 GB of logits.
    """
    handle = head.register_forward_pre_hook(lambda _module, args: (args[0][:, -1:], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _n_samples(request: SpeechRequest) -> int:
    return 0 if request.audio is None else len(request.audio)


def _training_facts(folder: Path) -> dict[str, Any]:
    """How a checkpoint was trained, if it says so."""
    path = folder / RUN_RECORD
    if not path.is_file():
        return {}
    try:
        record = read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); copy the checkpoint again") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} is damaged (no JSON object); copy the checkpoint again")
    return {"run": {key: record[key] for key in RUN_KEYS if key in record}}
