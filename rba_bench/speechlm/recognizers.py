"""Speech recognisers for cascades: openai-whisper, Whisper and CTC models of transformers, and our own CTC head.

All decode greedily: a transcript depends on recogniser, language and clip alone. Clips longer than 30 s are cut where
they are quietest, and the words of the pieces joined (`RecognizerByPieces`).
"""

import copy
import difflib
import hashlib
import math
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from rba_bench.assets import is_asset
from rba_bench.cards import without_paths
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.speechlm.clip_batches import PIECE_S, split_long_clip, transcribe_in_batches
from rba_bench.speechlm.composite.ctc import CTCRecognizer
from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder
from rba_bench.speechlm.composite.processing import LogMelFeatureExtractor
from rba_bench.speechlm.speech_model import SAMPLING_RATE, audio_fault
from rba_bench.textlm.formats.conversion import BINARY
from rba_bench.textlm.formats.openai_whisper import is_openai_name
from rba_bench.textlm.weights import HUB_ID, load_model, local_folder, resolve_device, weights_identity

SHORTEST_S = 0.1  # shorter clips get silence behind them: convolutions need a few frames
WINDOW_STEP_S = 2.5  # shorter windows have whole steps, so that clips of about one length share a batch
_NO_DTYPE = (
    "recogniser {spec} cannot be told to compute in {dtype}: use float32, or a Whisper model of transformers"
)
_NO_WINDOW = (
    "recogniser {spec} takes no shorter window: leave silence_s out, or use a Whisper model of transformers"
)
MAX_NEW_TOKENS = 224  # of a transcript of one piece, as in openai-whisper


class RecognizerByPieces(ABC):
    """What recognisers of up to 30 s at a time share."""

    rows: int
    _identity: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """Kind, path, hashes, `n_parameters`, language, and how long clips are cut."""
        return {**self._identity, "decoding": f"greedy, pieces of {PIECE_S:g} s"}

    def fault(self, audio: np.ndarray | None) -> str:
        """Why the samples are unusable, "" if they are fine; no clip is too long."""
        return audio_fault(audio)

    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        """Words of each clip, in order."""
        pieces = [(i, piece) for i, clip in enumerate(clips) for piece in split_long_clip(clip)]
        texts = transcribe_in_batches(
            [piece for _, piece in pieces], self.rows, self._transcribe_batch, self._window
        )
        words: list[list[str]] = [[] for _ in clips]
        for (i, _), text in zip(pieces, texts, strict=True):
            words[i] += [text] if text else []
        return [" ".join(parts) for parts in words]

    def _window(self, _piece: np.ndarray) -> int:
        """What the pieces of one batch must have in common."""
        return 0

    def in_whole_windows(self) -> "RecognizerByPieces":
        """The same recogniser without `silence_s`; with the same weights in memory."""
        return self

    @abstractmethod
    def _transcribe_batch(self, pieces: Sequence[np.ndarray]) -> list[str]:
        """Words of pieces that fit the recogniser, in order."""


@runtime_checkable
class Recognizer(Protocol):
    """From clips to words."""

    def identity(self) -> dict[str, Any]:
        """`weights_sha256`, `n_parameters`, and what else decides the transcript."""
        ...

    def fault(self, audio: np.ndarray | None) -> str:
        """Why these samples cannot be recognised, "" if they can."""
        ...

    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        """Words of each clip (float mono, 16 kHz), in order."""
        ...


def recognizer_facts(name: str, recognizer: Recognizer) -> dict[str, Any]:
    """What identifies a recogniser in manifests: the name that the user gave and its identity, without paths."""
    identity = {key: value for key, value in recognizer.identity().items() if key != "path"}
    facts: dict[str, Any] = without_paths({"name": name, **identity})
    return facts


def load_recognizer(
    spec: str,
    *,
    device: str = "cpu",
    batch_size: int = 16,
    language: str | None = None,
    trust_remote_code: bool = False,
    strict_language: bool = True,
    dtype: str | None = None,
    silence_s: float | None = None,
) -> RecognizerByPieces:
    """The recogniser behind a name.

    Args:
        spec: a name of openai-whisper (`tiny`, `base.en`, `large-v3`; downloaded once), a `.pt` file in its format,
            a folder of faster-whisper (CTranslate2), or the folder or Hub id of a transformers checkpoint (Whisper, or
            any CTC model). The names win over folders of the same name; write `./tiny` for the folder.
        device: a torch device, or `auto`.
        batch_size: pieces per batch; transcripts do not depend on it.
        language: code of the language spoken (`de`), None = the model finds it out. Only for Whisper.
        trust_remote_code: run Python code that ships with a checkpoint.
        strict_language: refuse `language` for a recogniser that cannot be told one; False = leave it out there.
        dtype: name of a torch number type to compute in, only for Whisper models of transformers; None = float32 on
            the CPU, elsewhere as stored.
        silence_s: give Whisper clips with so many seconds of silence behind them, None = filled up to 30 s, as it was
            trained. Only for Whisper models of transformers; see `TransformersWhisper`.

    Raises:
        MissingPrerequisite: no such recogniser, or it cannot be downloaded.
        UserError: it is there but cannot be used.
    """
    if batch_size < 1:
        raise UserError(f"batch size is {batch_size}: use 1 or more")
    if is_openai_name(spec) or (Path(spec).is_file() and Path(spec).name != BINARY):
        _refuse_options(spec, dtype, silence_s)
        return OpenAIWhisper.load(spec, device, batch_size, language)
    if not Path(spec).exists() and not HUB_ID.fullmatch(spec) and not is_asset(spec):
        import whisper

        names = whisper.available_models()
        close = difflib.get_close_matches(spec, names, 1)
        hint = f", did you mean {close[0]!r}?" if close else ":"
        raise MissingPrerequisite(
            f"no recogniser {spec!r}{hint} give one of openai-whisper ({', '.join(names)}), a .pt file, a folder "
            "(transformers, faster-whisper) or a Hub id"
        )
    folder = local_folder(spec, "recogniser")
    place = resolve_device(device)
    return _load_transformers(
        folder, spec, place, batch_size, language, trust_remote_code, strict_language, dtype, silence_s
    )


class EncoderCTC:
    """A CTC head on a composite's own encoder.

    Args:
        recognizer: the head.
        encoder: the encoder it was trained on.
        features: log-mel features of that encoder.
        weights_sha256: hash of head and encoder weights.
        batch_size: clips per batch.
    """

    def __init__(
        self,
        recognizer: CTCRecognizer,
        encoder: TrueLengthWhisperEncoder,
        features: LogMelFeatureExtractor,
        weights_sha256: str,
        batch_size: int = 32,
    ) -> None:
        self.recognizer = recognizer
        self.encoder = encoder
        self.features = features
        self.weights_sha256 = weights_sha256
        self.batch_size = batch_size

    def identity(self) -> dict[str, Any]:
        """Hash of head and encoder, and their number of parameters."""
        parts = [*self.recognizer.parameters(), *self.encoder.parameters()]
        return {"weights_sha256": self.weights_sha256, "n_parameters": sum(part.numel() for part in parts)}

    def fault(self, audio: np.ndarray | None) -> str:
        """Why the samples are unusable, or longer than the encoder's positions; "" if they are fine."""
        if fault := audio_fault(audio):
            return fault
        frames = self.features.n_frames(0 if audio is None else len(audio))
        longest = 2 * self.encoder.config.max_source_positions
        return "" if frames <= longest else f"audio is longer than the encoder's {longest / 100:g} s"

    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        """Words of each clip, in order."""
        return transcribe_in_batches(clips, self.batch_size, self._transcribe_batch)

    @torch.no_grad()
    def _transcribe_batch(self, clips: Sequence[np.ndarray]) -> list[str]:
        mel = self.features(list(clips)).to(self.encoder.device)
        return self.recognizer.transcribe(self.encoder, mel["input_features"], mel["feature_lengths"])


class OpenAIWhisper(RecognizerByPieces):
    """Whisper as OpenAI's own package runs it: greedy, without timestamps, no fallback to sampling.

    Args:
        model: what `whisper.load_model` returned.
        name: for the identity.
        batch_size: pieces per batch.
        language: code of the language spoken, None = detected piece by piece.

    Raises:
        UserError: a language the model does not know.
    """

    def __init__(self, model: Any, name: str, batch_size: int = 16, language: str | None = None) -> None:
        from whisper.tokenizer import LANGUAGES

        languages = list(LANGUAGES)[: model.num_languages] if model.is_multilingual else ["en"]
        if language is not None and language not in languages:
            raise UserError(f"recogniser {name} does not know language {language!r}; use {_few(languages)}")
        self.model = model
        self.rows = batch_size
        self.language = language
        digest = hashlib.sha256()  # over names and bytes, in name order: the same wherever the file lies
        for key, tensor in sorted(model.state_dict().items()):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        self._identity = {
            "kind": "openai-whisper",
            "path": name,
            "weights_sha256": digest.hexdigest(),
            "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
            # as the package does by default
            "dtype": "float16" if model.device.type == "cuda" else "float32",
            "language": language or "auto",
        }

    @classmethod
    def load(
        cls, name: str, device: str, batch_size: int = 16, language: str | None = None
    ) -> "OpenAIWhisper":
        """Load a published name or a `.pt` file; files are read as tensors only, never as code.

        Raises:
            MissingPrerequisite: the weights cannot be downloaded.
            UserError: the file holds no Whisper weights.
        """
        import whisper

        if not is_openai_name(name):
            place = resolve_device(device)
            try:
                model = whisper.load_model(name, place)
            except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
                raise UserError(
                    f"{name} is no openai-whisper checkpoint (dims and model_state_dict): {first_line(error)}"
                ) from error
            return cls(model.eval(), name, batch_size, language)
        try:
            model = whisper.load_model(name, resolve_device(device))
        except (OSError, RuntimeError) as error:  # URLError; RuntimeError: checksum
            raise MissingPrerequisite(
                f"weights of openai-whisper {name} cannot be downloaded ({first_line(error)}): "
                f"put {name}.pt into ~/.cache/whisper, or give a transformers folder"
            ) from error
        return cls(model.eval(), name, batch_size, language)

    def _transcribe_batch(self, pieces: Sequence[np.ndarray]) -> list[str]:
        import whisper

        # One by one: loudness is clipped relative to the loudest frame of what is passed.
        waves = [whisper.pad_or_trim(np.asarray(piece, dtype=np.float32)) for piece in pieces]
        mels = [whisper.log_mel_spectrogram(wave, self.model.dims.n_mels) for wave in waves]
        options = whisper.DecodingOptions(
            language=self.language, without_timestamps=True, fp16=self.model.device.type == "cuda"
        )
        results = whisper.decode(self.model, torch.stack(mels).to(self.model.device), options)
        return [result.text.strip() for result in results]


class TransformersWhisper(RecognizerByPieces):
    """A Whisper checkpoint of transformers: greedy, without timestamps, suppressed tokens as shipped.

    Whisper was trained on windows of 30 s, and its encoder computes all of them for the shortest clip. With `silence_s`
    it gets a shorter window. With less than about 6 s of silence tiny.en says words again and again behind the end of a
    clip (dev/LOG.md), and at any length some transcripts differ from those of whole windows.

    Args:
        model: `WhisperForConditionalGeneration` in eval mode.
        features: its feature extractor.
        tokenizer: its tokenizer.
        identity: of the weights.
        batch_size: pieces per batch.
        language: code of the language spoken, None = detected piece by piece.
        silence_s: seconds of silence in the window behind each piece; None = up to 30 s.

    Raises:
        UserError: a language the model does not know.
    """

    def __init__(
        self,
        model: Any,
        features: Any,
        tokenizer: Any,
        identity: dict[str, Any],
        batch_size: int = 16,
        language: str | None = None,
        silence_s: float | None = None,
    ) -> None:
        self.model = model
        self.features = features
        self.tokenizer = tokenizer
        self.rows = batch_size
        self.silence_s = silence_s
        self._identity = {"kind": "whisper", **identity, "language": language or "auto"}
        if silence_s is not None:
            self._identity["silence_s"] = silence_s
            # The encoder's own tensors: nothing is copied
            self._short_encoder = TrueLengthWhisperEncoder(model.config).to(model.device, model.dtype).eval()
            self._short_encoder.load_state_dict(model.get_encoder().state_dict(), assign=True)
        shipped = model.generation_config
        self.options: dict[str, Any] = {}
        if getattr(shipped, "is_multilingual", False):
            languages = [token.strip("<|>") for token in shipped.lang_to_id]
            if language is not None and language not in languages:
                raise UserError(f"this recogniser does not know language {language!r}; use {_few(languages)}")
            self.options = {"language": language, "task": "transcribe"}
        elif language not in (None, "en"):
            raise UserError(f"this recogniser transcribes English only, not {language!r}")
        self.options["max_new_tokens"] = min(MAX_NEW_TOKENS, model.config.max_target_positions // 2)

    def in_whole_windows(self) -> "TransformersWhisper":
        """See `RecognizerByPieces`."""
        whole = copy.copy(self)
        whole.silence_s = None
        whole._identity = {key: value for key, value in self._identity.items() if key != "silence_s"}
        return whole

    def _window(self, piece: np.ndarray) -> int:
        """Mel frames of 10 ms, by the piece alone: a transcript does not depend on what else is in the batch."""
        if self.silence_s is None:
            return round(100 * PIECE_S)
        seconds = len(piece) / SAMPLING_RATE + self.silence_s
        return round(100 * min(PIECE_S, WINDOW_STEP_S * math.ceil(seconds / WINDOW_STEP_S)))

    @torch.no_grad()
    def _transcribe_batch(self, pieces: Sequence[np.ndarray]) -> list[str]:
        inputs = self.features(list(pieces), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        mel = inputs["input_features"].to(self.model.device, self.model.dtype)
        given: dict[str, Any] = {"input_features": mel}
        if (frames := self._window(pieces[0])) < mel.shape[-1]:
            states, _ = self._short_encoder(mel[..., :frames])
            given = {"encoder_outputs": BaseModelOutput(last_hidden_state=states)}
        with (
            _transformers_errors_alone()
        ):  # Whisper's own code trips the warnings of `generate`, at every first call
            ids = self.model.generate(
                **given, do_sample=False, num_beams=1, return_timestamps=False, **self.options
            )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]


@contextmanager
def _transformers_errors_alone() -> Iterator[None]:
    """Keep transformers' warnings from the terminal."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class TransformersCTC(RecognizerByPieces):
    """A CTC checkpoint of transformers (wav2vec 2.0, HuBERT, WavLM, ...): best class per frame, collapsed.

    Models that cannot tell padding from speech get one clip at a time, as their makers advise.

    Args:
        model: what `AutoModelForCTC` loaded, in eval mode.
        features: its feature extractor.
        tokenizer: its tokenizer.
        identity: of the weights.
        batch_size: pieces per batch.
    """

    def __init__(
        self, model: Any, features: Any, tokenizer: Any, identity: dict[str, Any], batch_size: int = 16
    ) -> None:
        self.model = model
        self.features = features
        self.tokenizer = tokenizer
        masked = getattr(features, "return_attention_mask", False)
        self.rows = batch_size if masked and hasattr(model, "_get_feat_extract_output_lengths") else 1
        self._identity = {"kind": "ctc", **identity}

    @torch.no_grad()
    def _transcribe_batch(self, pieces: Sequence[np.ndarray]) -> list[str]:
        shortest = round(SHORTEST_S * SAMPLING_RATE)
        inputs = self.features(
            [np.pad(piece, (0, max(0, shortest - len(piece)))) for piece in pieces],
            sampling_rate=SAMPLING_RATE,
            padding=True,
            return_tensors="pt",
        ).to(self.model.device)
        logits = self.model(**inputs).logits
        lengths = [logits.shape[1]] * len(pieces)
        if len(pieces) > 1:
            lengths = self.model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(-1)).tolist()
        best = zip(logits.argmax(dim=-1).tolist(), lengths, strict=True)
        return [self.tokenizer.decode(row[:length]).strip() for row, length in best]


def _load_transformers(
    folder: Path,
    spec: str,
    device: str,
    batch_size: int,
    language: str | None,
    trust_remote_code: bool,
    strict_language: bool,
    dtype: str | None,
    silence_s: float | None,
) -> RecognizerByPieces:
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModelForCTC,
        AutoTokenizer,
        WhisperForConditionalGeneration,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    try:
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).model_type
        if kind != "whisper" and kind not in MODEL_FOR_CTC_MAPPING_NAMES:
            raise UserError(
                f"{folder} holds a model of type {kind!r}; a recogniser is Whisper or a CTC model"
            )
        features = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=trust_remote_code)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no usable recogniser: {first_line(error)}") from error
    if kind == "whisper":
        number = None if dtype is None else getattr(torch, dtype)
        model = load_model(
            WhisperForConditionalGeneration, folder, "recogniser", device, trust_remote_code, dtype=number
        )
        identity = weights_identity(folder, spec, model, trust_remote_code)
        return TransformersWhisper(model, features, tokenizer, identity, batch_size, language, silence_s)
    _refuse_options(spec, dtype, silence_s)
    if language is not None and strict_language:
        raise UserError(f"a recogniser of type {kind!r} takes no language; leave it out")
    optional = (
        "masked_spec_embed",
    )  # stands for masked spans in training; some published checkpoints lack it
    model = load_model(AutoModelForCTC, folder, "recogniser", device, trust_remote_code, optional)
    identity = weights_identity(folder, spec, model, trust_remote_code)
    return TransformersCTC(model, features, tokenizer, identity, batch_size)


def _refuse_options(spec: str, dtype: str | None, silence_s: float | None) -> None:
    """One line about an option that only Whisper models of transformers have."""
    if dtype is not None:
        raise UserError(_NO_DTYPE.format(spec=spec, dtype=dtype))
    if silence_s is not None:
        raise UserError(_NO_WINDOW.format(spec=spec))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
