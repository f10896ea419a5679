"""Which instructions and answers survive."""

import random
from collections import Counter

import pytest

from rba_bench.micro import world
from rba_bench.micro.world import core
from rba_bench.synthesis.filters import (
    ANSWER_REASONS,
    INSTRUCTION_REASONS,
    KEPT,
    InstructionFilter,
    judge_answer,
    make_tagger,
    needs_maths,
    normalise,
    tidy_lines,
    world_tags,
)
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

PLAIN = SynthesisRecipe(tagger=None, n_instructions=3, max_words=6)
LONG = PLAIN.model_copy(update={"max_words": 20})


def judge(text: str, status: str = "ok", recipe: SynthesisRecipe = PLAIN) -> str:
    return InstructionFilter(recipe).judge(text, status, make_tagger(recipe)(text))


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
    tagger = make_tagger(PLAIN)
    reasons = [filters.judge(t, "ok", tagger(t)) for t in ("Who is Ann?", "who is ann", "Who is  Bob?")]
    assert reasons == [KEPT, "duplicate", KEPT]
    assert normalise("Ｗｈｏ's THERE?!") == normalise("who s there")


def test_enough_is_enough_until_a_place_is_released() -> None:
    filters = InstructionFilter(PLAIN)
    tagger = make_tagger(PLAIN)
    texts = ("a one", "a two", "a three", "a four")
    assert [filters.judge(t, "ok", tagger(t)) for t in texts] == [KEPT, KEPT, KEPT, "surplus"]
    filters.release("instruct")
    assert filters.judge("a five", "ok", tagger("a five")) == KEPT


def test_restored_filter_judges_like_the_first() -> None:
    first, again = InstructionFilter(PLAIN), InstructionFilter(PLAIN)
    tagger = make_tagger(PLAIN)
    texts = ("a one", "a one", "a two")
    judged = [{"text": t, "kind": "instruct", "reason": first.judge(t, "ok", tagger(t))} for t in texts]
    again.restore(judged)
    for text in ("a two", "a three", "a four"):
        assert again.judge(text, "ok", tagger(text)) == first.judge(text, "ok", tagger(text))


def test_quota_by_kind() -> None:
    recipe = SynthesisRecipe(n_instructions=4, kinds={"qa": 3, "instruct": 1})
    filters, rng, kept, reasons = InstructionFilter(recipe), random.Random(0), Counter[str](), Counter[str]()
    for _ in range(200):
        text = world.sample_item(rng).user_text
        tags = world_tags(text)
        assert tags is not None
        reason = filters.judge(text, "ok", tags)
        reasons[reason] += 1
        if reason == KEPT:
            kept[tags.kind] += 1
    assert kept == {"qa": 3, "instruct": 1}
    assert reasons["quota"] > 100


def test_micro_world_usable_items_pass_and_others_do_not() -> None:
    recipe, rng = SynthesisRecipe(n_instructions=10_000), random.Random(1)
    filters = InstructionFilter(recipe)
    reasons = Counter[str]()
    for _ in range(500):
        text = world.sample_item(rng).user_text
        reasons[filters.judge(text, "ok", world_tags(text))] += 1
    assert set(reasons) == {KEPT, "duplicate"}
    spoiled = [core.sample_item(rng, usable=False).user_text for _ in range(60)]
    assert {filters.judge(text, "ok", world_tags(text)) for text in spoiled} == {"maths", "too_long"}


def test_held_out_and_foreign_texts_are_dropped() -> None:
    text = world.sample_item(random.Random(2), split="test").user_text
    tags = world_tags(text)
    assert InstructionFilter(SynthesisRecipe()).judge(text, "ok", tags) == "held_out"
    assert InstructionFilter(SynthesisRecipe(exclude_test=False)).judge(text, "ok", tags) == KEPT
    assert (
        InstructionFilter(SynthesisRecipe()).judge("no such text", "ok", world_tags("no such text"))
        == "unparsed"
    )


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
