"""Which instructions and answers survive."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from rba_bench.micro import world
from rba_bench.micro.world import core
from rba_bench.synthesis.filtering import InstructionFilter
from rba_bench.synthesis.filters import (
    ANSWER_REASONS,
    INSTRUCTION_REASONS,
    KEPT,
    judge_answer,
    judge_candidate,
    make_tagger,
    normalise,
    tidy_lines,
    world_tags,
)
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.texts.speakable import needs_maths

PLAIN = SynthesisRecipe(tagger=None, n_instructions=3, max_words=6)
LONG = PLAIN.model_copy(update={"max_words": 20})


def judge(text: str, status: str = "ok", recipe: SynthesisRecipe = PLAIN) -> str:
    return asked([text], recipe, status)[0]["reason"]


def asked(texts: Iterable[str], recipe: SynthesisRecipe, status: str = "ok") -> list[dict[str, Any]]:
    """Candidates as the stage `ask` leaves them, all answered."""
    tagger, answer = make_tagger(recipe), {"reason": KEPT, "response": "yes"}
    found = [
        judge_candidate({"index": i, "text": t, "status": status}, tagger, recipe)
        for i, t in enumerate(texts)
    ]
    return [record | ({"answer": answer} if record["reason"] == KEPT else {}) for record in found]


def reasons_of(filters: InstructionFilter, texts: Iterable[str]) -> list[str]:
    return [record["reason"] for record in filters.decide(asked(texts, filters.recipe))[0]]


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("Tell me about Paris.", "ok", KEPT),
        ("Wie heißt der Fluss?", "ok", KEPT),
        ("one two three four five six seven", "ok", "too_long"),
        ("one two three four five six", "ok", KEPT),
        ("Solve for x please", "ok", "maths"),
        ("A $5 coffee plus tip?", "ok", KEPT),
        ("Read https://example.org/news", "ok", "unspeakable"),
        ("", "ok", "empty"),
        ("", "empty", "empty"),
        ("half a sent", "truncated", "truncated"),
        ("", "error", "error"),
        ("hello <|eot_id|> there", "ok", "malformed"),
        ("?!...", "ok", "malformed"),
        ("bell \x07 rings", "ok", "malformed"),
        ("caf\ufffd", "ok", "malformed"),
    ],
)
def test_one_instruction(text: str, status: str, reason: str) -> None:
    assert judge(text, status) == reason
    assert reason == KEPT or reason in INSTRUCTION_REASONS


@pytest.mark.parametrize(
    "text",
    ["what is the derivative of a sine?", "calculate three plus four", "what is the sum of two numbers",
     "What is seven times eight?", "explain the integral of a function", "solve for x", "two plus two is how much",
     "what is the square root of nine", "prove that there is no largest prime"],
)  # fmt: skip
def test_maths(text: str) -> None:
    assert needs_maths(text) and judge(text, recipe=LONG) == "maths"


@pytest.mark.parametrize(
    "text",
    ["who won in 1998", "plan a 3-day trip", "a well-known writer", "open 24/7 shops", "the plus side of rain",
     "call me at 5 o'clock", "three times a week", "an even/odd day", "the city plus its suburbs",
     "how do I calculate a tip", "is The Matrix a good film", "what are financial derivatives",
     "an integral part of the team", "how do I prove that I live here", "a family of four plus two dogs",
     "which factors are determinants of health", "ten minus nine days of leave, how do I plan them"],
)  # fmt: skip
def test_no_maths(text: str) -> None:
    assert not needs_maths(text)


def test_each_rule_may_be_switched_off() -> None:
    formula, maths = "what is 3 + 4", "what is the square root of nine"
    assert judge(formula, recipe=LONG) == "unspeakable"
    assert judge(formula, recipe=LONG.model_copy(update={"drop_unspeakable": False})) == KEPT
    assert judge(maths, recipe=LONG) == "maths"
    assert judge(maths, recipe=LONG.model_copy(update={"drop_maths": False})) == KEPT


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one line", "one line"),
        ("  - a \n  - b\t\n", "- a\n  - b"),
        ("verse\n\n\n\nverse", "verse\n\nverse"),
        ("a\r\nb\rc\n \n \nd", "a\nb\nc\n\nd"),
        ("if x:\n    y  # two  blanks", "if x:\n    y  # two  blanks"),
        ("\n\n", ""),
    ],
)
def test_answers_keep_their_lines(text: str, lines: str) -> None:
    assert tidy_lines(text) == lines == tidy_lines(lines)


def test_answers_of_the_micro_world_are_what_they_were() -> None:
    rng = random.Random(4)
    answers = [world.sample_answer(rng, world.sample_item(rng)) for _ in range(300)]
    assert [tidy_lines(text) for text in answers] == [" ".join(text.split()) for text in answers]


def test_same_words_are_duplicates() -> None:
    filters = InstructionFilter(PLAIN)
    assert reasons_of(filters, ["Who is Ann?", "who is ann", "Who is  Bob?"]) == [KEPT, "duplicate", KEPT]
    assert reasons_of(filters, ["WHO IS BOB"]) == ["duplicate"]
    assert normalise("Ｗｈｏ's THERE?!") == normalise("who s there")


def test_enough_is_enough_until_an_answer_is_unusable() -> None:
    filters = InstructionFilter(PLAIN)
    shard = asked(["a one", "a two", "a three", "a four"], PLAIN)
    shard[1]["answer"] = {"reason": "truncated", "response": "so"}
    found, _ = filters.decide(shard)
    # whether "a two" has an answer counts from the next shard on
    assert [record["reason"] for record in found] == [KEPT, KEPT, KEPT, "surplus"]
    assert [record.get("answer") for record in found] == [KEPT, "truncated", KEPT, None]
    assert not filters.enough and reasons_of(filters, ["a five", "a six"]) == [KEPT, "surplus"]
    assert filters.enough


def test_a_restored_filter_decides_like_the_first() -> None:
    first, again = InstructionFilter(PLAIN), InstructionFilter(PLAIN)
    _, state = first.decide(asked(["a one", "a one", "a two"], PLAIN))
    again.restore(state, dict(first.kinds))
    later = ["a two", "a three", "a four"]
    assert reasons_of(again, later) == reasons_of(first, later) == ["duplicate", KEPT, "surplus"]


def test_quota_by_kind() -> None:
    recipe = SynthesisRecipe(n_instructions=4, kinds={"qa": 3, "instruct": 1})
    rng = random.Random(0)
    filters = InstructionFilter(recipe)
    found, _ = filters.decide(asked((world.sample_item(rng).user_text for _ in range(200)), recipe))
    assert Counter(record["kind"] for record in found if record["reason"] == KEPT) == {"qa": 3, "instruct": 1}
    assert Counter(record["reason"] for record in found)["quota"] > 100


def test_micro_world_usable_items_pass_and_others_do_not() -> None:
    recipe, rng = SynthesisRecipe(n_instructions=10_000), random.Random(1)
    filters = InstructionFilter(recipe)
    assert set(reasons_of(filters, [world.sample_item(rng).user_text for _ in range(500)])) == {
        KEPT,
        "duplicate",
    }
    spoiled = [core.sample_item(rng, usable=False).user_text for _ in range(60)]
    assert set(reasons_of(filters, spoiled)) == {"maths", "too_long"}


def test_held_out_and_foreign_texts_are_dropped() -> None:
    text = world.sample_item(random.Random(2), split="test").user_text
    assert judge(text, recipe=SynthesisRecipe()) == "held_out"
    assert judge(text, recipe=SynthesisRecipe(exclude_test=False)) == KEPT
    assert judge("no such text", recipe=SynthesisRecipe()) == "unparsed"


def test_translation_is_tagged_with_its_spoken_part() -> None:
    item = world.sample_item(random.Random(3), kind="s2tt")
    tags = world_tags(item.user_text)
    assert tags is not None
    assert (tags.prompt, tags.instruction) == (item.prompt, item.instruction)
    assert tags.prompt.startswith("translate") and tags.source_lang != tags.target_lang


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("yes", "ok", KEPT),
        ("", "ok", "empty"),
        ("a <|end|>", "ok", "malformed"),
        ("- one\n- two\n\n\tcode", "ok", KEPT),
        ("bell \x07 rings", "ok", "malformed"),
        ("so", "truncated", "truncated"),
    ],
)
def test_one_answer(text: str, status: str, reason: str) -> None:
    assert judge_answer(text, status) == reason
    assert reason == KEPT or reason in ANSWER_REASONS
