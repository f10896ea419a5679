"""The thirteen constraints of Speech-IFEval: both verdicts of each; lm-eval as oracle where the rules are the same."""

import sys
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.metrics.ifeval import CHECKS, check_constraint, if_rate
from rba_bench.metrics.sentences import count_sentences
from rba_bench.metrics.spoken_checks import SPOKEN_CHECKS

# name, arguments, answers that follow, answers that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("change_case:english_capital", {}, ["HELLO, 12!", "ÇA VA"], ["Hello", "12", "HELLo"]),
    ("change_case:english_lowercase", {}, ["hello, 12!", "ça va"], ["Hello", "12"]),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "The answer is:"},
        ["The answer is: male", '"the answer is: male"', "  'THE ANSWER IS: x"],
        ["Male. The answer is:", "answer is: male"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": [1, 2]}\n```', "```\n[]\n```", "12", '```JSON {"a": null}```'],
        ["{'a': 1}", 'Here: {"a": 1}', '{"a": 1', '```python\n{"a": 1}\n```', "[" * 200_000],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 3},
        [
            "* a\n* b\n* c",
            "Points:\n- a\n  - b\n- c\nDone",
            "• a\n• b\n• c",
            "1. a\n2) b\n3 c",
            "* a\\n* b\\n* c",
        ],
        ["* a\n* b", "* a\n* b\n* c\n- d", "**a**\n**b**\n**c**", "a\nb\nc"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Joy>>", "so <<a title>> it is"],
        ["<< >>", "<Joy>", "<<Jo\ny>>", "<<>>"],
    ),
    (
        "keywords:existence",
        {"keywords": ["river", "Mrs. Horton"]},
        ["The RIVERS of mrs. horton"],
        ["the river", "Mrs Horton's river"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["sun", "sea"]},
        ["the seas under sunshine"],
        ["the Sun", "by the sea."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\ntwo", "one\n\n\ntwo", "one *** two", "one\n***\ntwo", "*** one *** two ***"],
        ["one", "one\ntwo\nthree", "one\n \ntwo\n \n three", "one *** *** two"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One. Two! Three?", "One. Two. And a third"],
        ["One. Two.", "Dr. Who met J. Smith. Fine."],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "less than"},
        ["three words only", "don't go"],  # `don't` is two words
        ["four words are here", "don't go there"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Is there anything else?"},
        ["Yes. is there anything else?", '"Yes. Is there anything else?" '],
        ["Is there anything else? No.", "Is there anything else?!"],
    ),
    ("startend:quotation", {}, ['"all of it"', '  "a" and "b"  '], ['"', '"open', "'single'", "“curly”"]),
]


def test_every_constraint_has_cases() -> None:
    assert {name for name, *_ in CASES} == set(CHECKS) - set(SPOKEN_CHECKS)


@pytest.mark.parametrize(("name", "arguments", "followed", "broken"), CASES, ids=[case[0] for case in CASES])
def test_both_verdicts(name: str, arguments: dict[str, Any], followed: list[str], broken: list[str]) -> None:
    for answer in followed:
        assert check_constraint(name, arguments, answer), answer
    for answer in [*broken, "", " \n"]:
        assert not check_constraint(name, arguments, answer), answer


def test_relations_meet_at_the_threshold() -> None:
    for relation, verdict in (("at least", True), ("less than", False)):
        for name, count in (("number_words", "num_words"), ("number_sentences", "num_sentences")):
            arguments = {count: 2, "relation": relation}
            assert check_constraint(f"length_constraints:{name}", arguments, "Go. Stop.") is verdict


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("no end mark", 1),
        ("He paid 3.50 dollars. She paid 4.", 2),
        ('He said "Stop!" Then he left.', 2),
        ("It began... and it went on. So it was…  The end.", 3),
        ("Mr. A. Smith of Acme Inc. met Mrs. B. at 5 p.m. on Jan. 3.", 1),
        ("1. First point.\n2. Second point.\n", 2),
        ("What?! Really?!", 2),
        ("So do I. Fine.", 2),
        ("**Bold.** _Italic._ (Aside.)", 3),
        ("See www.example.com for v2.0 now.", 1),
        ("(And so on.", 1),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_an_items_score_is_the_share_of_its_constraints() -> None:
    listed = [
        {"name": "change_case:english_lowercase", "arguments": {}},
        {"name": "keywords:existence", "arguments": {"keywords": ["river"]}},
    ]
    assert if_rate({"instructions": listed}, "the river") == 1.0
    assert if_rate({"instructions": listed}, "The river") == 0.5
    assert if_rate({"instructions": listed}, "") == 0.0
    assert (
        if_rate({"instructions": []}, "the river") is None
    )  # no rule speaks of it: left to a judge, never 0


def test_unknown_names_and_arguments_are_one_line() -> None:
    with pytest.raises(UserError, match="unknown instruction 'keywords:letter'"):
        check_constraint("keywords:letter", {}, "x")
    with pytest.raises(UserError, match="num_wrods"):
        check_constraint("length_constraints:number_words", {"num_wrods": 3, "relation": "at least"}, "x")
    with pytest.raises(UserError, match="unknown relation"):
        check_constraint("length_constraints:number_words", {"num_words": 3, "relation": "about"}, "x")


# Where Speech-IFEval left IFEval's rule alone, lm-eval's port of it is an oracle.
UNCHANGED = [
    "detectable_format:json_format", "detectable_format:title", "keywords:existence", "keywords:forbidden_words",
    "length_constraints:number_words", "startend:end_checker", "startend:quotation",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkers() -> dict[str, Any]:
    for package in ("langdetect", "immutabledict", "nltk"):
        pytest.importorskip(package)
    import nltk

    before = nltk.download
    nltk.download = lambda *_a, **_k: (
        False
    )  # importing lm-eval's module would go to the network for a model unused here
    try:
        from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT
    finally:
        nltk.download = before
    assert "lm_eval.tasks.ifeval.instructions" in sys.modules
    return dict(INSTRUCTION_DICT)


@pytest.mark.parametrize("name", UNCHANGED)
def test_unchanged_rules_agree_with_lm_eval(name: str, checkers: dict[str, Any]) -> None:
    every = [answer for _, _, followed, broken in CASES for answer in (*followed, *broken)]
    arguments = next(case[1] for case in CASES if case[0] == name)
    for answer in every:
        if len(answer) > 100_000:  # their JSON check has no answer to a nesting this deep
            continue
        theirs = checkers[name](name)
        theirs.build_description(**arguments)
        assert check_constraint(name, arguments, answer) == bool(theirs.check_following(answer)), answer
