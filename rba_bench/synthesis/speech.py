"""Spoken clips of instructions, each voice with noise, speed and augmentation of its own, seeded by names.

    spoken form -> voice -> checks of the clip -> speed, noise, augmentation -> round trip through a recogniser

A clip that fails a check is left out with the reason; the others of its group stay.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rba_bench.audio import clips
from rba_bench.audio.augmentation import augment
from rba_bench.audio.clip_checks import REASONS as CLIP_FAULTS
from rba_bench.audio.clip_checks import clip_faults, measure_speech
from rba_bench.audio.perturbations import add_noise, change_speed
from rba_bench.audio.speech_engines import (
    VOICE_BANKS,
    Speaker,
    SpeechEngine,
    draw_speakers,
    engine_of_bank,
    find_speakers,
    speak_all,
)
from rba_bench.audio.spoken_form import spoken_form, spoken_form_version
from rba_bench.errors import AudioError
from rba_bench.files import canonical_json
from rba_bench.metrics.wer import word_statistics
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.speaking import THREADS, SpokenShard
from rba_bench.synthesis.stopwatch import Stopwatch
from rba_bench.synthesis.synthesis_recipe import RoundTripOptions, SynthesisRecipe
from rba_bench.synthesis.units import Unit

if TYPE_CHECKING:
    from rba_bench.speechlm.recognizers import Recognizer

CLIP_REASONS = {
    "not_spoken": "the speech engine cannot say the text",
    **CLIP_FAULTS,
    "too_long": "longer than max_seconds",
    "high_wer": "the recogniser's word error rate is above round_trip.max_wer",
}


def draw_voices(recipe: SynthesisRecipe, group_id: str) -> list[Any]:
    """Distinct voices of the recipe's bank for one group."""
    rng = random.Random(stable_seed("voices", recipe.seed, group_id))
    return rng.sample(VOICE_BANKS[recipe.voice_bank], recipe.voices_per_instruction)


@dataclass
class _Clip:
    """A clip on its way into its row."""

    unit: Unit
    number: int
    speaker: Speaker
    text: str
    wave: np.ndarray
    reason: str = ""


class SpokenClips:
    """Makes the rows of units by speaking their instructions, once per voice (a `RowMaker`).

    Args:
        recipe: How.
        engine: A speech engine to use instead of that of `recipe.voice_bank`.

    Attributes:
        watch: Times `speech`, `clips` (checks, speed, noise, FLAC) and `round trip`.

    Raises:
        MissingPrerequisite: an engine is not installed, or a voice is not there.
    """

    def __init__(self, recipe: SynthesisRecipe, engine: SpeechEngine | None = None) -> None:
        self.recipe, self.watch = recipe, Stopwatch()
        self._engine = engine or engine_of_bank(recipe.voice_bank)
        self.speakers = find_speakers(recipe.voices) if recipe.voices else self._bank()
        engines = {speaker.engine.name: speaker.engine.version() for speaker in self.speakers}
        self.name = ", ".join(engines)
        self.version = next(iter(engines.values())) if len(engines) == 1 else str(engines)

    def voice_names(self) -> list[str]:
        """See `RowMaker`."""
        return [speaker.name for speaker in self.speakers]

    def settings(self) -> dict[str, Any]:
        """See `RowMaker`."""
        keys = ("seed", "voices_per_instruction", "snr_db", "noise_colours", "speed", "max_seconds")
        recipe, settings = self.recipe, self.recipe.resolved()
        facts: dict[str, Any] = {
            "speaker": [self.name, self.version],
            "settings": {key: settings[key] for key in keys},
            "voices": [speaker.facts() for speaker in self.speakers],
            "drawn": "balanced" if recipe.voices else "by group",
        }
        if recipe.spoken_form:
            facts["spoken_form"] = spoken_form_version()
        if recipe.augmentation is not None:
            facts["augmentation"] = recipe.augmentation.facts()
        if recipe.clip_limits is not None:
            facts["clip_limits"] = recipe.clip_limits.resolved()
        if recipe.round_trip is not None:
            facts["round_trip"] = self.round_trip_facts()
        return facts

    def round_trip_facts(self) -> dict[str, Any] | None:
        """The recogniser and its threshold, for plans and the manifest; None without one."""
        options = self.recipe.round_trip
        if options is None:
            return None
        from rba_bench.speechlm.recognizers import recognizer_facts

        return {**recognizer_facts(options.recognizer, self._recognizer), "max_wer": options.max_wer}

    def shard(self, units: Sequence[Unit], first: int) -> SpokenShard:
        """See `RowMaker`."""
        made = [clip for number, unit in enumerate(units, start=first) for clip in self._drawn(unit, number)]
        with self.watch.timing("speech"):
            self._speak(made)
        with self.watch.timing("clips"), ThreadPoolExecutor(THREADS) as pool:
            rows = list(pool.map(self._row, made))
        with self.watch.timing("round trip"):
            self._round_trip(made, rows)
        kept = [row for clip, row in zip(made, rows, strict=True) if not clip.reason]
        dropped = [
            {"id": f"{clip.unit.group_id}-{clip.number}", "voice": clip.speaker.name, "reason": clip.reason}
            | ({"asr_wer": row["asr_wer"]} if row.get("asr_wer") is not None else {})
            for clip, row in zip(made, rows, strict=True)
            if clip.reason
        ]
        return SpokenShard(kept, dropped)

    def _bank(self) -> list[Speaker]:
        return [Speaker(self._engine, voice) for voice in VOICE_BANKS[self.recipe.voice_bank]]

    def _drawn(self, unit: Unit, number: int) -> list[_Clip]:
        """The clips of a unit, not yet spoken; with `voices`, all voices speak equally often."""
        recipe, text = self.recipe, unit.instruction
        if recipe.spoken_form:
            text = spoken_form(text, unit.source_lang)
        if recipe.voices:
            speakers = draw_speakers(self.speakers, recipe.voices_per_instruction, recipe.seed, number)
        else:
            speakers = [Speaker(self._engine, voice) for voice in draw_voices(recipe, unit.group_id)]
        silence = np.zeros(0, np.float32)
        return [_Clip(unit, place, speaker, text, silence) for place, speaker in enumerate(speakers)]

    def _speak(self, made: Sequence[_Clip]) -> None:
        """Let all clips be spoken, those of engines that take many texts together."""
        for language in dict.fromkeys(clip.unit.source_lang for clip in made):
            some = [clip for clip in made if clip.unit.source_lang == language]
            waves = speak_all([clip.text for clip in some], language, [clip.speaker for clip in some])
            for clip, wave in zip(some, waves, strict=True):
                if isinstance(wave, AudioError):
                    clip.reason = "not_spoken"
                else:
                    clip.wave = wave

    def _row(self, clip: _Clip) -> dict[str, Any]:
        """The row of a clip with the columns of `alignment_set.shard_schema()`; {} where it is left out by now."""
        recipe, unit = self.recipe, clip.unit
        if not clip.reason and recipe.clip_limits is not None:
            measures = measure_speech(clip.wave, clip.text, unit.source_lang)
            clip.reason = next(iter(clip_faults(measures, recipe.clip_limits)), "")
        if clip.reason:
            return {}
        seed = stable_seed("clip", recipe.seed, unit.group_id, clip.speaker.name)
        rng = random.Random(seed)
        speed = round(rng.uniform(*recipe.speed), 3)
        wave = change_speed(clip.wave, speed)
        snr_db, colour = None, None
        if recipe.snr_db is not None:
            snr_db, colour = round(rng.uniform(*recipe.snr_db), 2), rng.choice(recipe.noise_colours)
            wave = add_noise(wave, snr_db, np.random.default_rng(seed), colour)
        done: dict[str, Any] = {}
        if recipe.augmentation is not None:
            augment_seed = stable_seed("augment", recipe.seed, unit.group_id, clip.speaker.name)
            wave, done = augment(wave, recipe.augmentation, augment_seed)
        clip.wave = wave
        name = f"{unit.group_id}-{clip.number}"
        row = {
            "id": name,
            **vars(unit),
            "voice": clip.speaker.name,
            **clips.clip_columns(wave, name),
            "snr_db": snr_db,
            "noise_colour": colour,
            "speed": speed,
            "asr_text": None,
            "asr_wer": None,
        }
        if recipe.augmentation is not None:
            row["augmentation"] = canonical_json(done).decode()
        if recipe.max_seconds is not None and row["duration"] > recipe.max_seconds:
            clip.reason = "too_long"
        return row

    def _round_trip(self, made: Sequence[_Clip], rows: Sequence[dict[str, Any]]) -> None:
        """Transcribe the clips, and leave out those that are not understood."""
        options = self.recipe.round_trip
        if options is None:
            return
        spoken = [(clip, row) for clip, row in zip(made, rows, strict=True) if not clip.reason]
        words = self._recognizer.transcribe([clip.wave for clip, _ in spoken])
        for (clip, row), transcript in zip(spoken, words, strict=True):
            errors, n_words = word_statistics(transcript, clip.text, clip.unit.source_lang)
            row["asr_text"], row["asr_wer"] = transcript, errors / max(n_words, 1)
            if errors > options.max_wer * n_words:
                clip.reason = "high_wer"

    @property
    def _recognizer(self) -> "Recognizer":
        assert self.recipe.round_trip is not None
        return _load_recognizer(self.recipe.round_trip, self.recipe.language)


@lru_cache(maxsize=1)
def _load_recognizer(options: RoundTripOptions, language: str) -> "Recognizer":
    """One of each process; workers that need none do not load torch."""
    from rba_bench.speechlm.recognizers import load_recognizer

    return load_recognizer(
        options.recognizer,
        language=language,
        strict_language=False,
        device=options.device,
        batch_size=options.batch_size,
        # float32 is what the processor takes by itself; a GPU computes as the weights are stored
        dtype=None if options.precision == "float32" else options.precision,
    )
