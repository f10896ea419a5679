"""The shipped base under conditions nobody prepared it for: it runs, and its scores fall rather than the program."""

import numpy as np
import pytest

from rba_bench.assets import weights_folder
from rba_bench.audio import espeak, perturbations
from rba_bench.audio.espeak import Voice
from rba_bench.evaluation import scoring
from rba_bench.micro import world
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding

pytest.importorskip("espeakng_loader")
TEXTS = (
    "tell me about the fox",
    "give me three ideas for a rainy day",
    "how can i save money",
    "what is the capital of jorland",
    "repeat the words apple river and candle",
    "pretend you are a baker and greet anna",
)
OUTSIDE = (
    "the quarterly report was late again",
    "北京 is a city",
    "colourless green ideas sleep furiously",
    "",
)


@pytest.fixture(scope="module")
def base():
    if not (weights_folder() / "base").is_dir():
        pytest.skip("no shipped weights in this checkout")
    return load_speech_model("base")


def answers(base, texts: tuple[str, ...], snr_db: float | None, voice: Voice) -> list:
    waves = [espeak.speak(text, "en", voice) for text in texts]
    if snr_db is not None:
        waves = [
            perturbations.add_noise(w, snr_db, np.random.default_rng(i), "pink") for i, w in enumerate(waves)
        ]
    return base.generate([SpeechRequest(wave) for wave in waves], Decoding(max_new_tokens=32))


def test_scores_fall_with_noise_and_do_not_crash(base) -> None:
    known, items = Voice("m3", 45, 160), [world.parse(text) for text in TEXTS]
    scores = []
    for snr_db in (None, -10.0):
        replies = answers(base, TEXTS, snr_db, known)
        assert {r.status for r in replies} <= {"ok", "truncated", "empty"}
        scores.append(sum(world.grade(item, r.text).score for item, r in zip(items, replies, strict=True)))
    assert scores[0] > scores[1] + 1, "six clean clips in a known voice must beat six drowned ones"


def test_a_new_voice_and_text_outside_the_grammar_still_get_answers(base) -> None:
    replies = answers(base, OUTSIDE, None, Voice("whisper", 70, 200, "en-gb-scotland"))
    assert len(replies) == len(OUTSIDE)
    assert {r.status for r in replies} <= {"ok", "truncated", "empty"}


def test_the_judge_says_when_it_does_not_know_an_instruction() -> None:
    doc = {"kind": "instruct", "id": "x", "prompt": "", "instruction": OUTSIDE[0], "baseline": "the fox"}
    scored = scoring.score_item(doc, "the report is here")
    assert "does not know" in scored.failure
    assert scored.scores == {}
