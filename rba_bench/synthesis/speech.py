"""Spoken clips of instructions, each voice with noise, speed and augmentation of its own, seeded by names.

    spoken form -> voice -> checks of the clip -> speed, noise, augmentation -> round trip through a recogniser

A clip that fails a check is left out with the reason; the others of its group stay. Of a dialogue one voice speaks all
turns, with the same speed, level of noise and augmentation; if the clip of one turn fails, the whole row is left out.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
from rba_bench.audio.turns import TURNS
from rba_bench.errors import AudioError, UserError
from rba_bench.files import canonical_json
from rba_bench.metrics.wer import word_statistics
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.speaking import THREADS, SpokenShard
from rba_bench.synthesis.stopwatch import Stopwatch
from rba_bench.synthesis.synthesis_recipe import RoundTripOptions, SynthesisRecipe
from rba_bench.synthesis.units import Dialogue, Unit

if TYPE_CHECKING:
    from rba_bench.speechlm.recognizers import RecognizerByPieces

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
class _Utterance:
    """What is said in one turn."""

    text: str
    language: str
    speaker: Speaker
    wave: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    fault: str = ""


@dataclass
class _Clip:
    """A clip on its way into its row, with those of earlier turns of its dialogue before it."""

    unit: Unit
    number: int
    speaker: Speaker
    said: list[_Utterance]
    reason: str = ""
    failed: dict[str, Any] = field(default_factory=dict)  # what else is known of the utterance that failed
    earlier_seconds: float = 0.0

    def fail(self, turn: int, reason: str, **facts: Any) -> None:
        """Leave the clip out for what is wrong with a turn, counted from 0."""
        self.reason = reason
        self.failed = facts | ({"turn": turn + 1} if len(self.said) > 1 else {})


class SpokenClips:
    """Makes the rows of units by speaking their instructions, once per voice (a `RowMaker`).

    Args:
        recipe: How.
        engine: A speech engine to use instead of that of `recipe.voice_bank`.

    Attributes:
        watch: Times `speech`, `clips` (checks, speed, noise, FLAC) and `round trip`.

    Raises:
        MissingPrerequisite: an engine is not installed, or a voice is not there.
        UserError: there are too few voices.
    """

    def __init__(self, recipe: SynthesisRecipe, engine: SpeechEngine | None = None) -> None:
        self.recipe, self.watch = recipe, Stopwatch()
        self._engine = engine or engine_of_bank(recipe.voice_bank)
        self.speakers = find_speakers(recipe.voices) if recipe.voices else self._bank()
        if len(self.speakers) < recipe.voices_per_instruction:
            raise UserError(
                f"voices_per_instruction is {recipe.voices_per_instruction}, and `voices` names {len(self.speakers)}: "
                "lower it, or name more voices"
            )
        engines = {speaker.engine.name: speaker.engine.version() for speaker in self.speakers}
        self.name = ", ".join(engines)
        self.version = next(iter(engines.values())) if len(engines) == 1 else str(engines)

    def try_engines(self) -> None:
        """Let a voice of each engine say a word in the recipe's language.

        Raises:
            RbaError: an engine does not speak it, or does not work, such as a server that cannot be reached.
        """
        for name, speaker in {speaker.engine.name: speaker for speaker in self.speakers}.items():
            if name != "transformers":  # which has one language, and would stay in the memory of this process
                speak_all(["1"], self.recipe.language, [speaker])

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
            self._speak([utterance for clip in made for utterance in clip.said])
        with self.watch.timing("clips"), ThreadPoolExecutor(THREADS) as pool:
            rows = list(pool.map(self._row, made))
        with self.watch.timing("round trip"):
            self._round_trip(made, rows)
        kept = [row for clip, row in zip(made, rows, strict=True) if not clip.reason]
        dropped = [
            {"id": f"{clip.unit.group_id}-{clip.number}", "voice": clip.speaker.name, "reason": clip.reason}
            | clip.failed
            for clip in made
            if clip.reason
        ]
        return SpokenShard(kept, dropped, sum(clip.earlier_seconds for clip in made if not clip.reason))

    def _bank(self) -> list[Speaker]:
        return [Speaker(self._engine, voice) for voice in VOICE_BANKS[self.recipe.voice_bank]]

    def _drawn(self, unit: Unit, number: int) -> list[_Clip]:
        """The clips of a unit, not yet spoken; with `voices`, all voices speak equally often."""
        recipe = self.recipe
        texts = [turn.instruction for turn in unit.turns] if isinstance(unit, Dialogue) else []
        texts.append(unit.instruction)
        if recipe.spoken_form:
            texts = [spoken_form(text, unit.source_lang) for text in texts]
        if recipe.voices:
            speakers = draw_speakers(self.speakers, recipe.voices_per_instruction, recipe.seed, number)
        else:
            speakers = [Speaker(self._engine, voice) for voice in draw_voices(recipe, unit.group_id)]
        return [
            _Clip(unit, place, speaker, [_Utterance(text, unit.source_lang, speaker) for text in texts])
            for place, speaker in enumerate(speakers)
        ]

    def _speak(self, said: Sequence[_Utterance]) -> None:
        """Let everything be spoken, by engines that take many texts together."""
        for language in dict.fromkeys(one.language for one in said):
            some = [one for one in said if one.language == language]
            waves = speak_all([one.text for one in some], language, [one.speaker for one in some])
            for one, wave in zip(some, waves, strict=True):
                if isinstance(wave, AudioError):
                    one.fault = "not_spoken"
                else:
                    one.wave = wave

    def _check_speech(self, clip: _Clip) -> None:
        """Leave a clip out whose speech has a fault before anything is done to it."""
        limits = self.recipe.clip_limits
        for turn, one in enumerate(clip.said):
            if not one.fault and limits is not None:
                measures = measure_speech(one.wave, one.text, one.language)
                one.fault = next(iter(clip_faults(measures, limits)), "")
            if one.fault:
                clip.fail(turn, one.fault)
                return

    def _row(self, clip: _Clip) -> dict[str, Any]:
        """The row of a clip with the columns of `alignment_set.shard_schema()`; {} where it is left out by now."""
        self._check_speech(clip)
        if clip.reason:
            return {}
        unit, name = clip.unit, f"{clip.unit.group_id}-{clip.number}"
        facts = self._place(clip)
        names = [*(f"{name}-turn{turn}" for turn in range(len(clip.said) - 1)), name]
        columns = [clips.clip_columns(one.wave, part) for one, part in zip(clip.said, names, strict=True)]
        for turn, found in enumerate(columns):
            if self.recipe.max_seconds is not None and found["duration"] > self.recipe.max_seconds:
                clip.fail(turn, "too_long")
                return {}
        clip.earlier_seconds = sum(found["duration"] for found in columns[:-1])
        row = {"id": name, **vars(unit), "voice": clip.speaker.name, **columns[-1], **facts}
        row |= {"asr_text": None, "asr_wer": None}
        if isinstance(unit, Dialogue):
            row[TURNS] = [
                {"instruction": turn.instruction, "response": turn.response, "audio": found["audio"]}
                for turn, found in zip(unit.turns, columns[:-1], strict=True)
            ]
        return row

    def _place(self, clip: _Clip) -> dict[str, Any]:
        """Give a clip its speed and surroundings, the same in all its turns; returns the columns that tell of them."""
        recipe, of_clip = self.recipe, (self.recipe.seed, clip.unit.group_id, clip.speaker.name)
        seed = stable_seed("clip", *of_clip)
        rng = random.Random(seed)
        speed = round(rng.uniform(*recipe.speed), 3)
        snr_db, colour = None, ""
        if recipe.snr_db is not None:
            snr_db, colour = round(rng.uniform(*recipe.snr_db), 2), rng.choice(recipe.noise_colours)
        done: dict[str, Any] = {}
        last = len(clip.said) - 1
        for turn, one in enumerate(clip.said):
            one.wave = change_speed(one.wave, speed)
            if snr_db is not None:  # noise goes on, and does not begin anew with each turn
                of_turn = seed if turn == last else stable_seed("turn", seed, turn)
                one.wave = add_noise(one.wave, snr_db, np.random.default_rng(of_turn), colour)
            if recipe.augmentation is not None:
                one.wave, done = augment(one.wave, recipe.augmentation, stable_seed("augment", *of_clip))
        facts: dict[str, Any] = {"snr_db": snr_db, "noise_colour": colour or None, "speed": speed}
        if recipe.augmentation is not None:
            facts["augmentation"] = canonical_json(done).decode()
        return facts

    def _round_trip(self, made: Sequence[_Clip], rows: Sequence[dict[str, Any]]) -> None:
        """Transcribe the clips, and leave out those of which a turn is not understood.

        The columns hold what was understood of the last turn, which is the row's own.
        """
        options = self.recipe.round_trip
        if options is None:
            return
        spoken = [(clip, row) for clip, row in zip(made, rows, strict=True) if not clip.reason]
        transcripts = iter(self._transcripts([one for clip, _ in spoken for one in clip.said], options))
        for clip, row in spoken:
            for turn, one in enumerate(clip.said):
                transcript = next(transcripts)
                errors, n_words = word_statistics(transcript, one.text, one.language)
                row["asr_text"], row["asr_wer"] = transcript, errors / max(n_words, 1)
                if errors > options.max_wer * n_words and not clip.reason:
                    clip.fail(turn, "high_wer", asr_wer=row["asr_wer"])

    def _transcripts(self, said: Sequence[_Utterance], options: RoundTripOptions) -> list[str]:
        """The recogniser's words; what it does not understand in a short window it gets again in a whole one."""
        recognizer = self._recognizer
        transcripts = recognizer.transcribe([one.wave for one in said])
        if options.silence_s is None:
            return transcripts
        again = []
        for number, one in enumerate(said):
            errors, n_words = word_statistics(transcripts[number], one.text, one.language)
            again += [number] if errors > options.max_wer * n_words else []
        whole = recognizer.in_whole_windows().transcribe([said[number].wave for number in again])
        for number, transcript in zip(again, whole, strict=True):
            transcripts[number] = transcript
        return transcripts

    @property
    def _recognizer(self) -> "RecognizerByPieces":
        assert self.recipe.round_trip is not None
        return _load_recognizer(self.recipe.round_trip, self.recipe.language)


@lru_cache(maxsize=1)
def _load_recognizer(options: RoundTripOptions, language: str) -> "RecognizerByPieces":
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
        silence_s=options.silence_s,
    )
