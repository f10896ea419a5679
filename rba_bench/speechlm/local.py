"""A composite SpeechLM run in this process."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench.errors import UserError
from rba_bench.files import read_json, sha256_bytes, sha256_json
from rba_bench.speechlm.audiolm.encoder_cache import DEFAULT_BYTES, EncoderCache, encoder_tag, states_of
from rba_bench.speechlm.audiolm.families.base import pad_states
from rba_bench.speechlm.base import SAMPLING_RATE, SpeechRequest, answer_usable, audio_fault
from rba_bench.speechlm.clock import StageClock, device_clock
from rba_bench.speechlm.composite.configuration import CompositeConfig
from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
from rba_bench.speechlm.composite.processing import CompositeProcessor
from rba_bench.textlm.base import Decoding, Generation
from rba_bench.textlm.chat import stop_ids
from rba_bench.textlm.replies import opening
from rba_bench.textlm.sampling import continue_batch, to_generation
from rba_bench.textlm.template import Variables, note_unknown, text_of
from rba_bench.textlm.weights import describe, load_model, local_folder, resolve_device

RUN_FILE = "rba_run.json"
RUN_KEYS = (
    "method",
    "base",
    "track",
    "seed",
    "steps",
    "alignment_set_sha256",
)  # of RUN_FILE, into the identity


class CompositeSpeechLM:
    """Encoder, projector and LM: batches hold clips of like length, and a clip asked twice is encoded once.

    Attributes:
        name: for tables and folders.
        model: `CompositeForConditionalGeneration` in eval mode.
        processor: its `CompositeProcessor`.
        batch_size: requests per batch; answers do not depend on it.
        clock: seconds spent in `features`, `encoder` and `decoder`.
        cache: states of clips with a `key`; None where the encoder may change (in training).
        template: variables of the chat template.
    """

    def __init__(
        self,
        model: CompositeForConditionalGeneration,
        processor: CompositeProcessor,
        identity: dict[str, Any],
        name: str,
        batch_size: int = 32,
        cache: EncoderCache | None = None,
        template: Variables | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch size is {batch_size}: use 1 or more")
        self.model = model
        self.processor = processor
        self.name = name
        self.batch_size = batch_size
        self.clock: StageClock = device_clock(str(model.device))
        self.cache = cache
        self.template: dict[str, Any] = dict(template or {})
        self._identity = identity
        tokenizer = processor.tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = processor.chat_template
        self.stops = stop_ids(tokenizer, model, **self.template)[0]
        self.opened = opening(processor.render("", **self.template))
        self.context: int | None = getattr(model.config.text_config, "max_position_embeddings", None)
        self.longest_frames = 2 * model.config.audio_config.max_source_positions

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        device: str = "cpu",
        batch_size: int = 32,
        name: str | None = None,
        cache_bytes: int = DEFAULT_BYTES,
        cache_folder: Path | None = None,
        template: Variables | None = None,
    ) -> "CompositeSpeechLM":
        """Load a checkpoint folder, safetensors only.

        Args:
            path: what `save_pretrained` of model and processor wrote, or a Hub id.
            device: a torch device, or `auto`. On the CPU the model computes in float32 however it is stored.
            batch_size: requests per batch.
            name: the folder's name by default.
            cache_bytes: bound of the encoder states kept in memory.
            cache_folder: where encoder states are kept for later runs; None keeps them for this run only.
            template: variables of the chat template, such as `{"enable_thinking": False}`.

        Raises:
            MissingPrerequisite: nothing there.
            UserError: another kind of model, damaged files, or an unusable device.
        """
        folder = local_folder(path, "checkpoint")
        where = resolve_device(device)
        kind = _json(folder / "config.json").get("model_type")
        if kind != CompositeConfig.model_type:
            raise UserError(
                f"{folder} holds a model of type {kind!r}; a SpeechLM checkpoint is {CompositeConfig.model_type!r}"
            )
        model = load_model(CompositeForConditionalGeneration, folder, "checkpoint", where)
        try:
            processor = CompositeProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no usable processor: {str(error).splitlines()[0]}") from error
        identity = {"kind": "composite", **describe(folder, path, model), **_run(folder)}
        # The encoder's own weights: checkpoints that trained other parts share its states
        ear = _weights_sha256(model.model.audio_tower)
        tag = encoder_tag(ear, identity["setup_sha256"], "true-length", identity["dtype"])
        cache = EncoderCache(tag, cache_bytes, cache_folder)
        shown = name or folder.resolve().name
        note_unknown(text_of(processor), template or {}, shown)
        return cls(model, processor, identity, shown, batch_size, cache, template)

    def identity(self) -> dict[str, Any]:
        """Kind, path, `weights_sha256`, `setup_sha256`, `n_parameters`, dtype, template variables, training."""
        return {**self._identity, **({"template": self.template} if self.template else {})}

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer each request, in order; see `SpeechLM.generate`.

        A clip beyond the processor's longest is heard up to there, and the answer's `error` says so.
        """
        texts = [self.processor.render(request.prompt, **self.template) for request in requests]
        faults = [self._fault(request, text, decoding) for request, text in zip(requests, texts, strict=True)]
        usable = [i for i, fault in enumerate(faults) if not fault]
        answers: dict[int, Generation] = {}
        for batch in self._batches(usable, requests):
            drawn = self._answer([requests[i] for i in batch], [texts[i] for i in batch], decoding)
            answers.update(zip(batch, drawn, strict=True))
        return answer_usable(requests, faults, [answers[i] for i in usable])

    def _fault(self, request: SpeechRequest, text: str, decoding: Decoding) -> str:
        if fault := audio_fault(request.audio):
            return fault
        assert request.audio is not None  # audio_fault has seen to it
        n_samples = len(request.audio)
        if text.count(self.processor.audio_token) != 1:
            return f"the prompt contains {self.processor.audio_token}, which stands for the audio"
        if self.processor.feature_extractor.n_frames(n_samples) > self.longest_frames:
            seconds = n_samples / SAMPLING_RATE
            return f"audio of {seconds:.1f} s is longer than the encoder's {self.longest_frames / 100:g} s"
        words = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - 1
        length = words + self.processor.n_audio_tokens(n_samples)
        if self.context is not None and length + decoding.max_new_tokens + 1 > self.context:
            return (
                f"prompt and audio of {length} tokens leave no room in the model's context of {self.context}"
            )
        return ""

    def _batches(self, usable: Sequence[int], requests: Sequence[SpeechRequest]) -> Iterator[list[int]]:
        """Longest clips first, so that memory peaks at once; requests for one clip stay together."""
        first: dict[int, int] = {}
        for i in usable:
            first.setdefault(id(requests[i].audio), i)
        order = sorted(usable, key=lambda i: (-_n_samples(requests[i]), first[id(requests[i].audio)], i))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    @torch.no_grad()
    def _answer(
        self, requests: Sequence[SpeechRequest], texts: Sequence[str], decoding: Decoding
    ) -> list[Generation]:
        clips = [request.audio for request in requests if request.audio is not None]
        states, lengths = pad_states(states_of(requests, self.cache, self._encode, self.model.device))
        inputs = self._tokens(texts, [len(clip) for clip in clips])
        with self.clock("decoder"):
            drawn = continue_batch(
                self.model,
                {**inputs, "audio_states": states, "audio_lengths": lengths},
                decoding,
                [request.seed for request in requests],
                stop_ids=self.stops,
                pad_id=self.processor.tokenizer.pad_token_id,
            )
        tokenizer = self.processor.tokenizer
        answers = [to_generation(tokenizer, continuation, self.opened) for continuation in drawn]
        return [self._remark(answer, len(clip)) for answer, clip in zip(answers, clips, strict=True)]

    def _encode(self, clips: list[np.ndarray]) -> list[torch.Tensor]:
        """Encoder states of clips."""
        with self.clock("features"):
            mels = self.processor.feature_extractor(clips).to(self.model.device)
        with self.clock("encoder"):
            states, lengths = self.model.encode_audio(mels["input_features"], mels["feature_lengths"])
        return [row[:length] for row, length in zip(states, lengths.tolist(), strict=True)]

    def _tokens(self, texts: Sequence[str], n_samples: Sequence[int]) -> dict[str, torch.Tensor]:
        """Left-padded tokens with a placeholder for each audio token; `_fault` has seen to it that there is one."""
        word = self.processor.audio_token
        expanded = [
            text.replace(word, word * self.processor.n_audio_tokens(n))
            for text, n in zip(texts, n_samples, strict=True)
        ]
        found = self.processor.tokenizer(
            expanded, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
        ).to(self.model.device)
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

    def _remark(self, answer: Generation, n_samples: int) -> Generation:
        if not self.processor.feature_extractor.is_truncated(n_samples):
            return answer
        heard = self.processor.feature_extractor.max_seconds
        return replace(
            answer, error=f"heard the first {heard:g} of {n_samples / SAMPLING_RATE:.1f} s of audio"
        )


def _weights_sha256(module: torch.nn.Module) -> str:
    parts = sorted(module.state_dict().items())
    return sha256_json(
        [
            [name, sha256_bytes(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())]
            for name, part in parts
        ]
    )


def _n_samples(request: SpeechRequest) -> int:
    return 0 if request.audio is None else len(request.audio)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); copy the checkpoint again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (no JSON object); copy the checkpoint again")
    return value


def _run(folder: Path) -> dict[str, Any]:
    """How a checkpoint was trained, if it says so."""
    path = folder / RUN_FILE
    if not path.is_file():
        return {}
    found = _json(path)
    return {"run": {key: found[key] for key in RUN_KEYS if key in found}}
