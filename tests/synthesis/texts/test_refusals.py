"""Answers that refuse or say nothing; more of them are in the labelled sample."""

import time

import pytest

from rba_bench.synthesis.texts.refusals import judge_reply


@pytest.mark.parametrize(
    ("instruction", "answer", "reason"),
    [
        ("Sing a song.", "Unfortunately, I'm not able to sing.", "refusal"),
        ("Sing a song.", "I am sorry. I cannot help you with this request.", "refusal"),
        ("Sing a song.", "I’m sorry, but I can’t assist with that.", "refusal"),
        ("Sing a song.", "I won't be able to provide lyrics.", "refusal"),
        ("Sing a song.", "La la la, I can't stop loving you.", None),
        ("Why is it cold?", "As an artificial intelligence, I feel no cold.", "boilerplate"),
        ("What are assistants?", "As an AI language model, I answer questions.", None),
        ("Why is it cold?", "Great question! Let's dive in! I hope this helps.", "boilerplate"),
        ("Why is it cold?", "Great question! The sun is far away in winter.", None),
        ("Are you sure?", "Absolutely!", None),
        ("Name a colour.", "Absolutely!", "boilerplate"),
        ("Is it far?", "Yes.", None),
        ("Name a colour.", "Blue.", None),
        ("Cuéntame un chiste.", "Lo siento, pero no puedo ayudarte con eso.", "refusal"),
        ("Raccontami una storia.", "Mi dispiace, ma non posso aiutarti.", "refusal"),
        ("Name a colour.", "", None),
        ("Name a colour.", "...", None),
    ],
)
def test_one_answer(instruction: str, answer: str, reason: str | None) -> None:
    assert judge_reply(instruction, answer) == reason


@pytest.mark.parametrize(
    "text",
    ["i'm sorry " * 3000, "well, " * 3000, "a" * 20_000, "!" * 20_000, "i can't " * 3000, "as an ai " * 2000,
     "i understand " * 2000, "please provide " * 2000, "great " * 3000, "sure! " * 3000, "it depends on " * 2000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_hostile_text_is_judged_in_no_time(text: str) -> None:
    start = time.process_time()
    judge_reply("Name a colour.", text)
    assert time.process_time() - start < 0.5
