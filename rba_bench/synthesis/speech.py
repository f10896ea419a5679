"""Spoken clips of instructions, each voice with noise and speed of its own, seeded by names."""

import random
from dataclasses import asdict
from typing import Any

import numpy as np

from rba_bench.audio import clips
from rba_bench.audio.perturbations import add_noise, change_speed
from rba_bench.audio.speech_engines import VOICE_BANKS, SpeechEngine
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.units import Unit


def draw_voices(recipe: SynthesisRecipe, group_id: str) -> list[Any]:
    """Distinct voices of the recipe's bank for one group."""
    rng = random.Random(stable_seed("voices", recipe.seed, group_id))
    return rng.sample(VOICE_BANKS[recipe.voice_bank], recipe.voices_per_instruction)


class SpokenClips:
    """Makes the rows of a unit by speaking its instruction, once per voice (a `RowMaker`).

    Raises:
        MissingPrerequisite: the engine is not installed.
    """

    def __init__(self, recipe: SynthesisRecipe, engine: SpeechEngine) -> None:
        self.recipe = recipe
        self.engine = engine
        self.name, self.version = engine.name, engine.version()

    def voice_names(self) -> list[str]:
        """See `RowMaker`."""
        return [voice.name for voice in VOICE_BANKS[self.recipe.voice_bank]]

    def settings(self) -> dict[str, Any]:
        """See `RowMaker`."""
        keys = ("seed", "voice_bank", "voices_per_instruction", "snr_db", "noise_colours", "speed")
        settings = self.recipe.resolved()
        return {
            "speaker": [self.name, self.version],
            "settings": {key: settings[key] for key in keys},
            "voices": [asdict(voice) for voice in VOICE_BANKS[self.recipe.voice_bank]],
        }

    def rows(self, unit: Unit) -> list[dict[str, Any]]:
        """Rows of one unit, one per voice, with the columns of `alignment_set.shard_schema()`."""
        recipe, rows = self.recipe, []
        for number, voice in enumerate(draw_voices(recipe, unit.group_id)):
            seed = stable_seed("clip", recipe.seed, unit.group_id, voice.name)
            rng = random.Random(seed)
            speed = round(rng.uniform(*recipe.speed), 3)
            wave = change_speed(self.engine.speak(unit.instruction, unit.source_lang, voice), speed)
            snr_db, colour = None, None
            if recipe.snr_db is not None:
                snr_db, colour = round(rng.uniform(*recipe.snr_db), 2), rng.choice(recipe.noise_colours)
                wave = add_noise(wave, snr_db, np.random.default_rng(seed), colour)
            name = f"{unit.group_id}-{number}"
            row = {
                "id": name,
                **vars(unit),
                "voice": voice.name,
                **clips.clip_columns(wave, name),
                "snr_db": snr_db,
                "noise_colour": colour,
                "speed": speed,
                "asr_text": None,  # the round trip through a recogniser is not done
                "asr_wer": None,
            }
            rows.append(row)
        return rows
