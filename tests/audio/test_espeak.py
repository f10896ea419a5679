"""Synthetic speech: the same every time, different by voice, in four languages."""

import numpy as np
import pytest

from rba_bench.audio import espeak
from rba_bench.audio.espeak import BANKS, Voice
from rba_bench.errors import UserError

pytest.importorskip("espeakng_loader")
VOICE = BANKS["test"][0]


def test_the_same_words_give_the_same_samples_whatever_was_said_before() -> None:
    first = espeak.speak("the fox lives in the forest", "en", VOICE)
    espeak.speak("der hund", "de", BANKS["train"][4])
    again = espeak.speak("the fox lives in the forest", "en", VOICE)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert 1.0 < len(first) / espeak.SAMPLING_RATE < 4.0


def test_voices_and_languages_differ() -> None:
    waves = [espeak.speak("la maison", language, VOICE) for language in ("en", "de", "fr", "es")]
    waves += [espeak.speak("la maison", "fr", voice) for voice in BANKS["test"][1:]]
    assert len({w.tobytes() for w in waves}) == len(waves)


def test_every_voice_of_every_bank_speaks() -> None:
    tracks = [
        {name: bank for name, bank in BANKS.items() if name.startswith("clear-") is clear}
        for clear in (True, False)
    ]
    for banks in tracks:  # what is trained and tested together
        shapes = [voice.shape for bank in banks.values() for voice in bank]
        assert len(set(shapes)) == len(shapes), "a voice of one bank must be unseen in the others"
    for bank in BANKS.values():
        for voice in bank:
            assert np.abs(espeak.speak("hello", "en", voice)).max() > 0.05, voice.name


def test_nothing_to_say_is_silence_and_an_unknown_voice_is_named() -> None:
    assert not espeak.speak("", "en", VOICE).any()
    with pytest.raises(UserError, match="xx-none"):
        espeak.speak("hello", "en", Voice("m1", accent="xx-none"))
