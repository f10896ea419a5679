"""One clip of a spoken benchmark: spoken, checked, transcribed by a recogniser, kept or dropped with a reason.

A clip that a recogniser does not understand may be the fault of the voice or of the recogniser. So the threshold is
meant for clips that nobody could understand; what it drops is counted by voice, and the rates of all clips, the dropped
ones included, stay in the manifest.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from rba_bench.audio import clips
from rba_bench.audio.samples import is_silent
from rba_bench.audio.speech_engines import Speaker, speak_all
from rba_bench.errors import AudioError
from rba_bench.metrics.text import normalize
from rba_bench.metrics.wer import word_statistics
from rba_bench.speechlm.recognizers import Recognizer
from rba_bench.synthesis.benchmark_layouts import TextItem
from rba_bench.synthesis.filters import KEPT, tidy
from rba_bench.synthesis.texts.speakable import unspeakable

REASONS = {
    "no_text": "no words to say",
    "no_reference": "no answer to compare with",
    "unspeakable": "formulas, code, markup, tables, addresses, paths, long numbers",
    "too_long": "longer than max_seconds",
    "silent": "no sound",
    "high_wer": "the recogniser's word error rate is above max_wer",
}
WORDS_A_SECOND = 8  # nobody speaks so fast: longer texts are not tried


@dataclass(frozen=True)
class Verdict:
    """What became of a text in one voice.

    Attributes:
        id: Of the row.
        text_id: Of the text.
        voice: Who spoke, "" where the text was not spoken.
        reason: KEPT or a key of REASONS.
        detail: Kind of what cannot be said.
        seconds: Length of the clip.
        errors: Word errors of the recogniser.
        words: Words of the text, as error rates count them; 0 where no recogniser transcribed the clip.
        transcript: The recogniser's words.
    """

    id: str
    text_id: str
    voice: str = ""
    reason: str = KEPT
    detail: str = ""
    seconds: float = 0.0
    errors: int = 0
    words: int = 0
    transcript: str = ""


@dataclass(frozen=True)
class ClipRules:
    """Settings that decide which clips are kept; see `rba_bench.synthesis.speak.SpeakOptions`."""

    language: str
    max_seconds: float
    max_wer: float


def judge_text(item: TextItem, rules: ClipRules) -> tuple[str, str]:
    """KEPT or a key of REASONS, and a detail, of a text that has not been spoken."""
    if not any(character.isalnum() for character in normalize(item.text, rules.language)):
        return "no_text", ""
    if item.kind == "qa" and not item.references:
        return "no_reference", ""
    if kind := unspeakable(item.text):
        return "unspeakable", kind
    too_long = len(item.text.split()) > WORDS_A_SECOND * rules.max_seconds
    return ("too_long" if too_long else KEPT), ""


@dataclass
class Clock:
    """Seconds spent on speaking and on recognising."""

    speaking: float = 0.0
    recognising: float = 0.0


@dataclass
class RoundTrip:
    """Makes the rows of texts, each in its voices.

    Attributes:
        rules: Which clips are kept.
        recognizer: Transcribes the clips; None keeps every clip with sound.
        batch_size: Clips that are handed to the recogniser together.
        clock: Time spent so far.
    """

    rules: ClipRules
    recognizer: Recognizer | None
    batch_size: int = 16
    clock: Clock = field(default_factory=Clock)

    def rows(
        self, texts: Sequence[tuple[TextItem, Sequence[Speaker]]], advance: Callable[[int], None]
    ) -> tuple[list[dict[str, Any]], list[Verdict]]:
        """Rows of the clips that are kept, with the columns of `benchmark_schema()`, and the verdicts on all clips.

        Args:
            texts: Each with the voices that say it.
            advance: Is told the number of finished clips.

        Raises:
            MissingPrerequisite: A speech engine, or its voice, is not there.
            UserError: A voice does not speak the language.
        """
        spoken = list(self._speak(texts))
        rows: list[dict[str, Any]] = []
        verdicts: list[Verdict] = []
        for start in range(0, len(spoken), self.batch_size):
            batch = spoken[start : start + self.batch_size]
            transcripts = iter(self._transcribe([row for row, reason in batch if reason == KEPT]))
            for row, reason in batch:
                verdict = Verdict(row["id"], row["group_id"], row["voice"], reason, "", row["duration"])
                if reason == KEPT:
                    row, verdict = self._compare(row, verdict, next(transcripts))
                verdicts.append(verdict)
                rows += [row] if verdict.reason == KEPT else []
            advance(len(batch))
        return rows, verdicts

    def _speak(
        self, texts: Sequence[tuple[TextItem, Sequence[Speaker]]]
    ) -> Iterator[tuple[dict[str, Any], str]]:
        """Rows, each with KEPT or the reason why it need not be transcribed."""
        started = perf_counter()
        clips_to_make = [(tidy(item.text), speaker) for item, speakers in texts for speaker in speakers]
        words, voices = [text for text, _ in clips_to_make], [speaker for _, speaker in clips_to_make]
        waves = iter(speak_all(words, self.rules.language, voices))  # servers are asked for many at once
        for item, speakers in texts:
            text = tidy(item.text)
            for number, speaker in enumerate(speakers):
                wave = next(waves)
                if isinstance(wave, AudioError):  # refused by the engine: a clip without sound
                    wave = np.zeros(clips.SAMPLING_RATE // 10, np.float32)
                name = item.id if len(speakers) == 1 else f"{item.id}-{number}"
                row = {
                    "id": name,
                    "group_id": item.id,
                    "kind": item.kind,
                    "topic": item.topic,
                    "instruction": text,
                    "prompt": "",
                    "references": list(item.references),
                    "source_lang": self.rules.language,
                    "target_lang": self.rules.language,
                    "baseline": next(iter(item.outputs.values()), ""),
                    "voice": speaker.name,
                    **clips.clip_columns(wave, name),
                    "asr_text": None,
                    "asr_wer": None,
                }
                too_long = row["duration"] > self.rules.max_seconds
                yield row, "too_long" if too_long else "silent" if is_silent(wave) else KEPT
        self.clock.speaking += perf_counter() - started

    def _transcribe(self, rows: Sequence[dict[str, Any]]) -> list[str | None]:
        """The recogniser's words of the stored clips; None without a recogniser."""
        if self.recognizer is None or not rows:
            return [None] * len(rows)
        started = perf_counter()
        words = self.recognizer.transcribe([clips.decode_clip(row["audio"]["bytes"]) for row in rows])
        self.clock.recognising += perf_counter() - started
        return list(words)

    def _compare(
        self, row: dict[str, Any], verdict: Verdict, transcript: str | None
    ) -> tuple[dict[str, Any], Verdict]:
        """The row with its transcript, and whether it is kept."""
        if transcript is None:
            return row, verdict
        errors, words = word_statistics(transcript, row["instruction"], self.rules.language)
        reason = KEPT if errors <= self.rules.max_wer * words else "high_wer"
        verdict = replace(verdict, reason=reason, errors=errors, words=words, transcript=transcript)
        return row | {"asr_text": transcript, "asr_wer": errors / words}, verdict


def count_verdicts(unspoken: Sequence[Verdict], spoken: Sequence[Verdict], per_text: int) -> dict[str, Any]:
    """Numbers of a finished benchmark.

    Args:
        unspoken: Verdicts on texts that were not spoken; each stands for `per_text` clips.
        spoken: Verdicts on clips.
        per_text: Voices of each text.

    Returns:
        `texts`, `texts_kept`, `clips`, `hours`; `dropped`, the number of clips, their share and reasons;
        `unspeakable`, texts by what cannot be said in them; `wer` of the kept and of all transcribed clips;
        `voices`, with the clips, those kept, and the word error rate of all clips of each voice.
    """
    kept = [verdict for verdict in spoken if verdict.reason == KEPT]
    n, total = len(kept), len(spoken) + per_text * len(unspoken)
    reasons = Counter(verdict.reason for verdict in spoken)
    for verdict in unspoken:
        reasons[verdict.reason] += per_text
    by_voice: dict[str, list[Verdict]] = {}
    for verdict in spoken:
        by_voice.setdefault(verdict.voice, []).append(verdict)
    return {
        "texts": len({verdict.text_id for verdict in [*unspoken, *spoken]}),
        "texts_kept": len({verdict.text_id for verdict in kept}),
        "clips": n,
        "hours": round(sum(verdict.seconds for verdict in kept) / 3600, 4),
        "dropped": {
            "n": total - n,
            "share": round((total - n) / total, 4),
            "reasons": {reason: {"n": reasons[reason], "meaning": text} for reason, text in REASONS.items()},
        },
        "unspeakable": dict(sorted(Counter(one.detail for one in unspoken if one.detail).items())),
        "wer": {"kept": error_rate(kept), "all": error_rate(spoken)},
        "voices": {
            voice: {
                "clips": len(said),
                "kept": sum(verdict.reason == KEPT for verdict in said),
                "wer": error_rate(said),
            }
            for voice, said in sorted(by_voice.items())
        },
    }


def error_rate(verdicts: Sequence[Verdict]) -> float | None:
    """Word errors over words of all transcribed clips; None without any."""
    words = sum(verdict.words for verdict in verdicts)
    return round(sum(verdict.errors for verdict in verdicts) / words, 4) if words else None
