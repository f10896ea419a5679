"""From an instruction to its clips: voices of the bank, each with its own noise and speed, seeded by name."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rba_bench.audio import clips, espeak
from rba_bench.audio.espeak import BANKS, Voice
from rba_bench.audio.perturbations import add_noise, change_speed
from rba_bench.files import sha256_bytes
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.collection import Unit
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

SAMPLING_RATE = espeak.SAMPLING_RATE  # Hz


@dataclass(frozen=True)
class Speaker:
    """A synthesiser; `say(text, language, voice)` gives float32 mono at 16 kHz, equal for equal arguments."""

    name: str
    version: str
    say: Callable[[str, str, Voice], np.ndarray]


def espeak_speaker() -> Speaker:
    """espeak-ng. Raises MissingPrerequisite without the extra `tts`."""
    return Speaker("espeak-ng", espeak.espeak_version(), espeak.speak)


def pick_voices(recipe: SynthesisRecipe, group_id: str) -> list[Voice]:
    """Distinct voices of the recipe's bank for one group."""
    rng = random.Random(stable_seed("voices", recipe.seed, group_id))
    return rng.sample(BANKS[recipe.voice_bank], recipe.voices_per_instruction)


def speak_unit(unit: Unit, recipe: SynthesisRecipe, speaker: Speaker) -> list[dict[str, Any]]:
    """Rows of one group, one per voice, with the columns of `alignment_set.shard_schema()`."""
    voices = pick_voices(recipe, unit.group_id)
    return [_clip(unit, number, voice, recipe, speaker) for number, voice in enumerate(voices)]


class Spoken:
    """Makes the rows of units by speaking them."""

    def __init__(self, recipe: SynthesisRecipe, speaker: Speaker) -> None:
        self.recipe = recipe
        self.speaker = speaker
        self.name, self.version = speaker.name, speaker.version

    def plan(self, units: Sequence[Unit]) -> dict[str, Any]:
        """What decides the rows beside the units."""
        keys = ("seed", "voice_bank", "voices_per_instruction", "snr_db", "noise_colours", "speed")
        settings = self.recipe.resolved()
        return {
            "speaker": [self.name, self.version],
            "settings": {key: settings[key] for key in keys},
            "voices": [
                [asdict(voice) for voice in pick_voices(self.recipe, unit.group_id)] for unit in units
            ],
        }

    def rows(self, unit: Unit) -> list[dict[str, Any]]:
        """Rows of one unit, one per voice."""
        return speak_unit(unit, self.recipe, self.speaker)


def _clip(unit: Unit, number: int, voice: Voice, recipe: SynthesisRecipe, speaker: Speaker) -> dict[str, Any]:
    seed = stable_seed("clip", recipe.seed, unit.group_id, voice.name)
    rng = random.Random(seed)
    speed = round(rng.uniform(*recipe.speed), 3)
    wave = change_speed(speaker.say(unit.instruction, unit.source_lang, voice), speed)
    snr_db, colour = None, None
    if recipe.snr_db is not None:
        snr_db, colour = round(rng.uniform(*recipe.snr_db), 2), rng.choice(recipe.noise_colours)
        wave = add_noise(wave, snr_db, np.random.default_rng(seed), colour)
    data = clips.encode_flac(wave, SAMPLING_RATE)
    name = f"{unit.group_id}-{number}"
    return {
        "id": name,
        **vars(unit),
        "voice": voice.name,
        "audio": {"bytes": data, "path": f"{name}.flac"},
        "audio_sha256": sha256_bytes(data),
        "sampling_rate": SAMPLING_RATE,
        "duration": len(wave) / SAMPLING_RATE,
        "snr_db": snr_db,
        "noise_colour": colour,
        "speed": speed,
        "asr_text": None,  # no round-trip recognition in this version
        "asr_wer": None,
    }
