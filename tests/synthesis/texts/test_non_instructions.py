"""Sampled turns that are no instruction; more of them are in the labelled sample."""

import time

import pytest

from rba_bench.synthesis.texts.non_instructions import KINDS, judge_request


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Hi, how may I assist you today?", "assistant"),
        ("Welcome! I am your personal assistant.", "assistant"),
        ("Sure, here is a list of three rivers: Rhine, Elbe, Danube.", "answer"),
        ("The fox lives in the forest. It eats mice and berries.", "answer"),
        ("Question: Where is Rome? Answer: In Italy.", "two_turns"),
        ("Where is Rome? Rome is the capital of Italy.", "two_turns"),
        ("You are a polite chatbot that books tables.", "system_prompt"),
        ("Here is a conversation between a user and an assistant.", "system_prompt"),
        ("Sure, but why is the sky blue?", None),
        ("The fox lives in the forest. What does it eat?", None),
        ("The fox lives in the forest. Write a song about it.", None),
        ("You are an expert on bees. Explain how they find home.", None),
        ("Where is Rome? I want to go there.", None),
        ("How many legs has a spider? Eight.", "two_turns"),
        ("Which directions are on a compass? List them.", None),
        (
            "Which directions are on a compass? Count all.",
            "two_turns",
        ),  # an imperative that the rule does not know
        ("How do I stop hiccups? Quickly!", None),
        ("It is raining.", None),
        ("Note to self: buy milk. Answer: which milk keeps longest?", None),
        ("Wie hoch ist der Eiffelturm?", None),
        ("", None),
    ],
)
def test_one_text(text: str, kind: str | None) -> None:
    assert judge_request(text) == kind
    assert kind is None or kind in KINDS


@pytest.mark.parametrize(
    "text",
    ["user: " * 3000, "you are a " * 2000, "sure! " * 3000, "? " * 5000, "a " * 8000, "the " * 5000 + ". x.",
     "i am your " * 2000, "dear " * 4000, "as an ai " * 2000, "you are an x " * 1000 + "your task is"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_hostile_text_is_judged_in_no_time(text: str) -> None:
    start = time.process_time()
    judge_request(text)
    assert time.process_time() - start < 0.5
