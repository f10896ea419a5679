"""Families of audio LLMs: which adapter belongs to which `config.model_type`; adapters are imported when needed.

A new family touches three files: a module with a subclass of `adapter.AudioFamily` (of `whisper_type.WhisperType` where
the encoder is of Whisper's kind) that writes `n_tokens`, `features`, `encode_audio` and `project`, and overrides
`encoder`, `parts` and `unused` where its modules have other names than most; an `Entry` below; and its tests, a tiny
random checkpoint that passes `tests/speechlm/audiolm/contract.py` and `test_training_families.py`. Set
`allows_true_length` only for encoders whose states do not depend on padding to 30 s.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rba_bench.speechlm.audiolm.families.adapter import AudioFamily


@dataclass(frozen=True)
class Entry:
    """Where an adapter is and what is known about it.

    Attributes:
        module: module of this package.
        name: its class.
        example: a checkpoint on the Hub of this type.
        verified: whether tests hold it to the stock forward pass, on random checkpoints built from its config class.
        note: what differs from the other families, in a few words.
    """

    module: str
    name: str
    example: str
    verified: bool = True
    note: str = ""


VERIFIED_WITH = "5.23"  # transformers that the tests of `verified` families ran against

FAMILIES: dict[str, Entry] = {
    "rba_composite": Entry("composite", "Composite", "", note="any encoder and LLM: `rba-bench compose`"),
    "qwen2_audio": Entry(
        "whisper_type", "Qwen2Audio", "Qwen/Qwen2-Audio-7B-Instruct", note="takes 30 s of audio"
    ),
    "voxtral": Entry(
        "whisper_type",
        "Voxtral",
        "mistralai/Voxtral-Mini-3B-2507",
        note="padded to 30 s; needs mistral-common",
    ),
    "audioflamingo3": Entry(
        "whisper_type", "AudioFlamingo3", "nvidia/audio-flamingo-3-hf", note="takes 10 minutes"
    ),
    "glmasr": Entry(
        "whisper_type", "GlmAsr", "zai-org/GLM-ASR-Nano-2512", note="padded to 30 s; takes 10 minutes"
    ),
    "granite_speech": Entry(
        "granite_speech",
        "GraniteSpeech",
        "ibm-granite/granite-speech-3.3-2b",
        note="LoRA for audio: needs peft",
    ),
    "qwen2_5_omni": Entry(
        "qwen2_5_omni", "Qwen25Omni", "Qwen/Qwen2.5-Omni-7B", note="the Thinker; takes 5 minutes"
    ),
    "qwen2_5_omni_thinker": Entry("qwen2_5_omni", "Qwen25Omni", "", note="the Thinker alone"),
    "phi4_multimodal": Entry(
        "phi4_multimodal",
        "Phi4Multimodal",
        "microsoft/Phi-4-multimodal-instruct",
        note="of refs/pr/70; LoRA: needs peft",
    ),
}


def family_class(model_type: str) -> "type[AudioFamily]":
    """The adapter of a model type; `families.generic.Generic` for one that is not in `FAMILIES`."""
    entry = FAMILIES.get(model_type, Entry("generic", "Generic", "", verified=False))
    family: type[AudioFamily] = getattr(import_module(f"{__name__}.{entry.module}"), entry.name)
    return family
