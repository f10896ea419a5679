"""Later turns of a dialogue that ask nothing new, and answers that come again."""

import pytest

from rba_bench.synthesis.texts.follow_ups import judge_follow_up, judge_next_answer

EARLIER = [
    (
        "Can you provide a detailed explanation of how a smartphone's microphone works?",
        "A microphone turns sound into a current. A thin membrane moves with the air, and the chip measures it.",
    )
]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Thank you!", "closing"),
        ("Thanks, that's very helpful.", "closing"),
        ("Thank you so much for your help! I will definitely try that.", "closing"),
        ("Ok.", "closing"),
        ("You're welcome! Have a great day!", "closing"),
        ("Goodbye, and take care.", "closing"),
        ("Great idea!", "closing"),
        ("Can you explain more about how a smartphone's microphone works?", "repeated"),
        ("can you provide a detailed explanation of how a smartphone’s microphone works", "repeated"),
        ("A thin membrane moves with the air, and the chip measures it.", "repeated"),
        ("Thanks! Can you tell me more?", None),
        ("That's great, write me a poem.", None),
        ("Great. And in winter?", None),
        ("Yes, please.", None),
        ("Why?", None),
        ("Can you tell me more about that?", None),
        ("Great Britain has how many cities?", None),
        ("Great Britain is an island.", None),
        ("I appreciate it. I also like cooking pasta.", None),
        ("Can you provide a detailed explanation of how a smartphone's camera works?", None),
        ("How thin is the membrane?", None),
    ],
)
def test_a_turn_that_asks_nothing_new(text: str, reason: str | None) -> None:
    drop = judge_follow_up(text, EARLIER)
    assert (drop and drop.reason) == reason


def test_a_first_turn_repeats_nothing() -> None:
    assert judge_follow_up("Thank you!", []) is None


def test_a_turn_may_repeat_any_earlier_one() -> None:
    said = [*EARLIER, ("And who built the first one?", "Emile Berliner did, in 1877.")]
    assert judge_follow_up("And who built the first one?", said) == ("repeated", "question")
    assert judge_follow_up("And who built the last one?", said) is None


def test_an_answer_that_comes_again() -> None:
    again = EARLIER[0][1].replace("thin", "very thin")
    assert judge_next_answer(again, EARLIER) == ("repeated", "answer")
    assert judge_next_answer("The membrane is a few micrometres thin.", EARLIER) is None
    assert judge_next_answer(again, []) is None
