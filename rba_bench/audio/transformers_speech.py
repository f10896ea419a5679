"""Speech models of transformers: whatever its `text-to-audio` pipeline can load, from a folder or the Hub.

    hf:facebook/mms-tts-eng                                    VITS; one voice
    hf:kakao-enterprise/vits-vctk?voice=3,17                   VITS of several speakers: all, or those named
    hf:microsoft/speecht5_tts?speakers=FOLDER                  SpeechT5: a voice is a file of 512 numbers (x-vector)
    hf:suno/bark-small?voice=v2/en_speaker_6,v2/en_speaker_9   Bark: a voice is one of its presets; all by default

Speaker vectors are `.npy` files, or `.safetensors` files with one tensor; the name of the file is the speaker's. They
are not computed here: the model that makes them is another one, and each corpus of voices offers its own.

These models draw random numbers while they speak: VITS for durations and timbre, Bark for its codes, SpeechT5 by the
dropout of its decoder's input, which stays on (Shen et al. 2018, "Natural TTS synthesis by conditioning WaveNet on mel
spectrogram predictions", section 2.2). Here the seed is a hash of text and voice, and on a processor one thread
computes, so that equal arguments give equal samples in every process of one machine, whatever was said before.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.audio.samples import check_samples, mono, resample
from rba_bench.audio.speech_engines import Speaker, SpeechEngine
from rba_bench.audio.voice_options import parse_options, refuse_unknown, split_values
from rba_bench.errors import AudioError, MissingPrerequisite, RbaError, UserError, first_line
from rba_bench.files import sha256_once
from rba_bench.machine import package_versions
from rba_bench.seeding import stable_seed

SAMPLING_RATE = 16_000  # Hz of what `speak` returns
VECTORS = (".npy", ".safetensors")
OPTIONS = ("voice", "speakers", "vocoder", "device")
SPEECHT5_VOCODER = "microsoft/speecht5_hifigan"
# Music, and a model that comes without its vocoder; the one with it is `fastspeech2_conformer_with_hifigan`
_NO_SPEECH = {"musicgen", "musicgen_melody", "fastspeech2_conformer"}
_WEIGHTS = ("*.safetensors", "*.bin")
_lock = threading.Lock()  # the random numbers of torch have one state for the whole process


@dataclass(frozen=True)
class TransformersVoice:
    """One speaker.

    Attributes:
        name: Stable identifier used in data sets and records.
        model: Folder, or id on the Hub.
        kind: `model_type` of its configuration.
        voice: Number of a VITS speaker, preset of Bark, "" where the model has one voice.
        vector: File of a SpeechT5 speaker vector.
        vocoder: Folder or Hub id of the HiFi-GAN of a SpeechT5 model.
        device: Torch device.
    """

    name: str
    model: str
    kind: str
    voice: str = ""
    vector: str = ""
    vocoder: str = ""
    device: str = "cpu"


def find(spec: str) -> list[Speaker]:
    """The speakers of `FOLDER-OR-HUB-ID[?OPTIONS]`.

    Raises:
        UserError: It is no speech model, or has no such voice.
        MissingPrerequisite: No such folder, model or vectors.
    """
    model, _, text = spec.partition("?")
    options = parse_options(text, f"hf:{spec}")
    refuse_unknown(options, OPTIONS, f"hf:{spec}")
    model = model.rstrip("/")
    config = _config(model)
    kind = str(config.model_type)
    stem = model.rpartition("/")[2]
    shared = {"model": model, "kind": kind, "device": options.get("device", "cpu")}
    wanted = split_values(options.get("voice", ""))
    if kind == "speecht5":
        voices = _vector_voices(stem, options, shared)
    elif kind == "bark":
        voices = [_named(stem, preset, shared) for preset in _choose(wanted, _presets(model), model)]
    elif kind == "vits" and config.num_speakers > 1:
        numbers = [str(number) for number in range(config.num_speakers)]
        voices = [_named(stem, number, shared) for number in _choose(wanted, numbers, model)]
    else:
        _choose(wanted, [], model)
        voices = [TransformersVoice(stem, **shared)]
    return [Speaker(ENGINE, voice) for voice in voices]


def _named(stem: str, voice: str, shared: dict[str, str]) -> TransformersVoice:
    return TransformersVoice(f"{stem}+{voice.replace('/', '-')}", voice=voice, **shared)


def _choose(wanted: list[str], there: list[str], model: str) -> list[str]:
    """The voices that were asked for, or all. Raises UserError where one is not there."""
    for name in wanted:
        if name not in there:
            has = f"{len(there)}, such as {', '.join(there[:3])}" if there else "one only"
            raise UserError(f"hf:{model} has no voice {name!r}: it has {has}")
    return wanted or there


def _vector_voices(stem: str, options: dict[str, str], shared: dict[str, str]) -> list[TransformersVoice]:
    if "speakers" not in options:
        raise UserError(
            f"hf:{shared['model']} needs speaker vectors: add ?speakers=FOLDER with {VECTORS[0]} files"
        )
    folder = Path(options["speakers"])
    files = sorted(file for file in folder.rglob("*") if file.suffix in VECTORS) if folder.is_dir() else []
    wanted = _choose(split_values(options.get("voice", "")), [file.stem for file in files], shared["model"])
    if not files:
        raise MissingPrerequisite(f"no speaker vectors in {folder}: they are {' or '.join(VECTORS)} files")
    vocoder = options.get("vocoder", SPEECHT5_VOCODER)
    return [
        TransformersVoice(f"{stem}+{file.stem}", vector=str(file), vocoder=vocoder, **shared)
        for file in files
        if file.stem in wanted
    ]


def _config(model: str) -> Any:
    from transformers import AutoConfig

    if not model:
        raise UserError(
            "hf: names no model: write a folder or Hub id behind it, such as hf:facebook/mms-tts-eng"
        )
    if model.startswith(("/", ".", "~")) and not Path(model).is_dir():
        raise MissingPrerequisite(f"no model at hf:{model}: there is no such folder")
    try:
        config = AutoConfig.from_pretrained(model)
    except OSError as error:
        raise MissingPrerequisite(f"no model at hf:{model}: {first_line(error)}") from error
    except ValueError as error:
        raise UserError(f"hf:{model} is no usable model: {first_line(error)}") from error
    if config.model_type not in _kinds():
        raise UserError(
            f"hf:{model} is a {config.model_type} model, which does not speak: name a speech model"
        )
    return config


def _kinds() -> frozenset[str]:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES,
        MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES,
    )

    known = {*MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES, *MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES}
    return frozenset(known - _NO_SPEECH)


def _presets(model: str) -> list[str]:
    from transformers import AutoProcessor

    try:
        embeddings = AutoProcessor.from_pretrained(model).speaker_embeddings or {}
    except (OSError, ValueError) as error:
        raise UserError(f"hf:{model} has no usable processor: {first_line(error)}") from error
    # the entry that says where the others lie is no voice
    presets = [name for name, value in embeddings.items() if isinstance(value, dict)]
    if not presets:
        raise UserError(f"hf:{model} brings no voice presets (speaker_embeddings_path.json)")
    return presets


def engine_version() -> str:
    """Versions of what computes."""
    return ", ".join(f"{name} {text}" for name, text in package_versions(("transformers", "torch")).items())


def voice_facts(voice: TransformersVoice) -> dict[str, Any]:
    """What decides how the voice sounds; hashes stand for folders and files."""
    facts = {"name": voice.name, "model": _identity(voice.model), "kind": voice.kind, "voice": voice.voice}
    if voice.vector:
        facts |= {"vector": sha256_once(Path(voice.vector)), "vocoder": _identity(voice.vocoder)}
    return facts


def _identity(model: str) -> str:
    """A hash of the weights in a folder; of the Hub the id, with the commit where it is known."""
    folder = Path(model)
    if folder.is_dir():
        files = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
        return " ".join(sha256_once(file) for file in files)
    return _hub_identity(model)


@lru_cache(maxsize=16)
def _hub_identity(model: str) -> str:
    from transformers import AutoConfig

    commit = AutoConfig.from_pretrained(model)._commit_hash
    return f"{model}@{commit}" if commit else model


def speak(text: str, language: str, voice: TransformersVoice) -> np.ndarray:
    """Say `text` with `voice`; equal arguments give equal samples on one machine.

    Args:
        text: What to say.
        language: Not used: these models say what they are given, in the language that they were trained on.
        voice: Who speaks.

    Returns:
        float32 mono samples at 16 kHz, shape [n].

    Raises:
        MissingPrerequisite: The model is not there.
        UserError: It cannot be used.
        AudioError: It has nothing to say to this text, or says what is no sound.
    """
    if not text.strip():  # nothing to say: a tenth of a second of silence
        return np.zeros(SAMPLING_RATE // 10, dtype=np.float32)
    pipe = _load(voice.model, voice.kind, voice.vocoder, voice.device)
    arguments = _arguments(voice)
    with _lock, _seeded(stable_seed("speak", text, voice.name), voice.device):
        try:
            spoken = pipe(text, **arguments)
        except (ValueError, IndexError, RuntimeError) as error:
            if "out of memory" in str(error):
                raise RbaError(
                    f"hf:{voice.model} is out of memory on {voice.device}: use fewer workers"
                ) from error
            raise AudioError(f"hf:{voice.model} cannot say this text: {first_line(error)}") from error
    samples = np.asarray(spoken["audio"], dtype=np.float32)
    wave = mono(samples.T) if samples.ndim == 2 else samples.reshape(-1)
    check_samples(wave)
    return resample(wave, int(spoken["sampling_rate"]), SAMPLING_RATE)


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Random numbers of this utterance alone, and sums in one order; what torch had before is put back."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        if device == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _arguments(voice: TransformersVoice) -> dict[str, Any]:
    """What the pipeline is called with beside the text."""
    if voice.kind == "bark":
        return {"preprocess_params": {"voice_preset": voice.voice}}
    if voice.vector:
        return {"forward_params": {"speaker_embeddings": _vector(voice.vector)}}
    return {"forward_params": {"speaker_id": int(voice.voice)}} if voice.voice else {}


@lru_cache(maxsize=4096)
def _vector(path: str) -> Any:
    """A speaker vector as a tensor [1, n]. Raises UserError if the file holds none."""
    import torch
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = (
            [np.load(path, allow_pickle=False)]
            if path.endswith(VECTORS[0])
            else list(load_file(path).values())
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} holds no speaker vector: {first_line(error)}") from error
    if len(tensors) != 1 or tensors[0].squeeze().ndim != 1 or not np.isfinite(tensors[0]).all():
        raise UserError(f"{path} holds no speaker vector: want one row of finite numbers")
    return torch.from_numpy(tensors[0].squeeze().astype(np.float32))[None]


@lru_cache(maxsize=2)
def _load(model: str, kind: str, vocoder: str, device: str) -> Any:
    """The pipeline, ready to speak."""
    import torch
    from transformers import SpeechT5HifiGan, pipeline

    extras = {}
    try:
        with torch.random.fork_rng():  # building a model draws numbers
            if kind == "speecht5":
                extras["vocoder"] = SpeechT5HifiGan.from_pretrained(vocoder).to(device)
            pipe = pipeline("text-to-audio", model=model, device=device, **extras)
    except ImportError as error:
        raise MissingPrerequisite(f"hf:{model} needs a package more: {first_line(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"hf:{model} is no usable speech model: {first_line(error)}") from error
    pipe.model.eval()
    return pipe


ENGINE = SpeechEngine("transformers", engine_version, speak, {}, voice_facts)
