"""Recordings of a human speaker, which Debian's `alsa-utils` ships: decoded, transcribed, answered."""

from pathlib import Path

import pytest

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.audio.clips import AudioRef, load_clip
from rba_bench.metrics.wer import word_statistics
from rba_bench.small.texts import REPEAT
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.recognizers import load_recognizer
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding

FOLDER = Path("/usr/share/sounds/alsa")
WHISPER, LLM = "whisper-tiny.en", "smollm2-135m-instruct"


@pytest.mark.assets
def test_recorded_words_are_transcribed_and_answered() -> None:
    """A file is named after the two words that are said in it."""
    files = [file for file in sorted(FOLDER.glob("*_*.wav")) if file.is_file()]
    if len(files) != 8 or not all(is_cached(ASSETS[name]) for name in (WHISPER, LLM)):
        pytest.skip(f"needs the recordings of alsa-utils, and `rba-bench assets fetch {WHISPER}` and `{LLM}`")
    waves = [load_clip(AudioRef.of(file.read_bytes(), file)) for file in files]
    assert all(0.5 < len(wave) / 16_000 < 3 for wave in waves)
    heard = load_recognizer(f"asset:{WHISPER}", language="en").transcribe(waves)
    said = [file.stem.replace("_", " ") for file in files]
    counts = [word_statistics(text, words) for text, words in zip(heard, said, strict=True)]
    assert sum(errors for errors, _ in counts) <= 0.25 * sum(words for _, words in counts), heard
    for name in (f"cascade:asset:{WHISPER}+asset:{LLM}", "asset:small-base"):
        model = load_speech_model(name)
        asked = [SpeechRequest(wave, prompt="Which words do I say here?") for wave in waves[:2]]
        told = [SpeechRequest(wave, prompt=REPEAT) for wave in waves]
        answers = model.generate([*asked, *told], Decoding(temperature=0.0, max_new_tokens=24))
        assert all(answer.text.strip() and answer.status in ("ok", "truncated") for answer in answers)
        repeated = [answer.text.lower() for answer in answers[2:]]
        words = [
            word.lower() in text for text, words in zip(repeated, said, strict=True) for word in words.split()
        ]
        assert sum(words) >= 0.5 * len(words), repeated
