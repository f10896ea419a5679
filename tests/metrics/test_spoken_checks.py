"""The constraints of spoken instructions: both verdicts of each, on what small models really write."""

from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.metrics.ifeval import check_constraint, if_rate
from rba_bench.metrics.spoken_checks import SPOKEN_CHECKS, list_items, says_nothing

# name, arguments, answers that follow, answers that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "detectable_content:no_digits",
        {},
        ["Nineteen sixty-nine.", "in the year two thousand\n", "Çok güzel!"],
        ["1969", "There are 7 days.", "1. Red\n2. Blue", "...!"],
    ),
    (
        "detectable_format:item_count",
        {"num_items": 3},
        [
            "Sure! Here are three fruits:\n\n1. Apples\n2. Bananas\n3. Cherries\n",
            "Apples, bananas, and cherries.",
            "The three fruits are apples, bananas and cherries. All of them are healthy.",
            "Here are three fruits: apples, bananas and cherries",
            "- Apples\n- Bananas\n- Cherries\n\nI hope that helps, and enjoy them!",
            "Apples\nBananas\nCherries\n",
            "Apples, bananas, and cherries.\n\nEnjoy them!",
            "1. A long entry that says of apples more than anybody asked for, and then some\n2. Pears\n3. Figs",
            "1) **Apples**: sweet, red and round\n2) **Pears**: soft\n3) **Plums**: blue",
            "Apples; bananas; cherries",
            "* Apples\n* Bananas\n* Cherries",
            "Fruits:\nApples\nBananas\nCherries",
        ],
        [
            "Apples and bananas.",
            "1. Apples\n2. Bananas\n3. Cherries\n4. Plums",
            "Apples, apples, apples",
            "1. Apples\n2. Apples\n3. Apples",
            "There are many fruits.",
            "Sure! Here are three fruits:",
            "The best fruit is the apple, which is red, and nobody has ever said that it is bad for you.",
            ", , ,",
        ],
    ),
    (
        "detectable_format:no_list",
        {},
        ["Put it in. Wait.", "First bread, then heat - and done.\n\nEnjoy.", "In 1969. It was great."],
        ["1. Bread\n2. Heat", "Here:\n- bread", "* bread\n* heat", "Steps:\n  1) bread", "• bread", "..."],
    ),
    (
        "detectable_format:number_only",
        {},
        ["7", "Seven.", "twenty-four\n", "1,000", "**42**", "one hundred and five", "-3", '"3.5"'],
        ["There are 7.", "7 days", "1 2 3 go", "Seven days.", "a", "1 + 1 = 2", "and"],
    ),
    (
        "detectable_format:numbered_list",
        {"num_items": 3},
        [
            "1. Red\n2. Yellow\n3. Blue",
            "Sure! Here are three:\n\n1. Red\n\n2. Yellow\n\n3. Blue\n\nEnjoy!\n",
            "1) Red\n2) Yellow\n3) Blue\n",
            "1: Red\n2: Yellow\n3: Blue",
            " 1. **Red**\n   - a warm one\n 2. **Yellow**\n 3. **Blue**",
        ],
        [
            "1. Red\n2. Yellow",
            "1. Red\n2. Yellow\n3. Blue\n4. Green",
            "- Red\n- Yellow\n- Blue",
            "1. Red\n1. Yellow\n1. Blue",
            "1. Red\n2. Red\n3. Red",
            "2. Red\n3. Yellow\n4. Blue",
            "1.\n2.\n3.",
            "1. Red 2. Yellow 3. Blue",
        ],
    ),
    (
        "detectable_format:one_line",
        {},
        ["Red, yellow, blue", "Red and blue.\n", "\n It is a tree. It is old. "],
        ["Red\nblue", "Sure!\n\nRed, blue", "1. Red\n2. Blue", "..."],
    ),
    (
        "detectable_format:questions",
        {"num_questions": 2},
        [
            "Is it raining? Are you cold?",
            "1. Is it raining?\n2. Are you cold?\n",
            "Sure! Here are two questions:\n- Is it raining?\n- Are you cold?",
            '"Is it raining?" "Are you cold?"',
            "Is it raining?\n\nAre you cold?",
        ],
        [
            "Is it raining?",
            "Is it raining? Are you cold? Are you sad?",
            "Is it raining? Are you cold? I hope not.",
            "Is it raining? Is it raining?",
            "I like rain. Do you? Are you cold?",
            "? ?",
        ],
    ),
    (
        "detectable_format:yes_or_no",
        {},
        ["Yes.", "no", " No!\n", "**Yes**", '"Yes"', "YES"],
        ["Yes, it is.", "Yes or no", "Maybe", "Nope", "The answer is no.", "Yes. Yes."],
    ),
    (
        "keywords:frequency",
        {"keyword": "tiny house", "frequency": 2},
        [
            "A tiny house by a Tiny House.",
            "tiny house, tiny house!",
            "The tiny house\nis a tiny house; tiny house.",
        ],
        ["A tiny house.", "tiny houses, tiny houses", "A house is tiny. tiny house", "tiny house tinyhouse"],
    ),
    (
        "language:response_language",
        {"language": "Spanish"},
        [
            "El cielo es azul.",
            "¡Hola! ¿Cómo está usted?",
            "Tengo dos hermanos y una hermana.\n",
            "Me gusta el sol porque hace calor.",
            "Buenos días, señora.",
        ],
        [
            "The sky is blue.",
            "In Spanish, you say that the sky is blue: azul.",
            "Le ciel est bleu et il est beau.",
            "Der Himmel ist blau und schön.",
            "Azul.",
            "Sure! Here is your answer in Spanish: el cielo",
        ],
    ),
    (
        "length_constraints:sentence_range",
        {"minimum": 2, "maximum": 3},
        ["It rains. It snows.", "Go! Why? Now.\n", "Dr. Lee is in. She is well"],
        ["It rains.", "One. Two. Three. Four.", "It costs 3.50 dollars.", ". . ."],
    ),
    (
        "length_constraints:word_range",
        {"minimum": 2, "maximum": 4},
        ["Two words", "Don't go there, twenty-one!", "**one** - two\n"],
        ["One", "this is one too many", "... !", "- -"],
    ),
    (
        "startend:first_words",
        {"phrase": "Well then"},
        ["Well then, it is.", '"Well then! Go."', "**Well** then we go", "\nwell, then yes"],
        ["Well, it is.", "Wellthen it is", "It is, well then.", "Sure! Well then, it is.", "Well then."],
    ),
    (
        "startend:last_words",
        {"phrase": "good luck"},
        ["Try it. Good luck!", '"And so, good luck."\n', "Be calm, and good luck"],
        ["Good luck to you.", "Good luck", "much luck", "Try it. Good luck! Bye.", "very goodluck"],
    ),
]


def test_every_spoken_check_has_cases_of_both_verdicts_and_six_at_least() -> None:
    assert {name for name, *_ in CASES} == set(SPOKEN_CHECKS)
    assert all(followed and broken and len(followed) + len(broken) >= 6 for *_, followed, broken in CASES)


@pytest.mark.parametrize(("name", "arguments", "followed", "broken"), CASES, ids=[case[0] for case in CASES])
def test_both_verdicts(name: str, arguments: dict[str, Any], followed: list[str], broken: list[str]) -> None:
    for answer in followed:
        assert check_constraint(name, arguments, answer), answer
    for answer in [*broken, "", " \n", "?!"]:
        assert not check_constraint(name, arguments, answer), answer


@pytest.mark.parametrize(
    ("language", "code", "answers"),
    [
        (
            "Spanish",
            "es",
            ["La playa está muy cerca de mi casa y me gusta.", "¿Dónde está el baño, por favor?"],
        ),
        (
            "French",
            "fr",
            ["Le chat dort sur la chaise de mon père.", "Je vous souhaite une très bonne nuit."],
        ),
        (
            "German",
            "de",
            ["Wir gehen heute auf den Markt.", "Meine Mutter ist Lehrerin und mein Vater ist Koch."],
        ),
        ("English", "en", ["The cat is sleeping on the chair.", "I wish you a very good night, my friend."]),
    ],
)
def test_languages_are_told_apart_as_a_trained_detector_does(
    language: str, code: str, answers: list[str]
) -> None:
    langdetect = pytest.importorskip("langdetect")
    langdetect.DetectorFactory.seed = 0
    for answer in answers:
        assert langdetect.detect(answer) == code
        for other in ("Spanish", "French", "German", "English"):
            assert check_constraint("language:response_language", {"language": other}, answer) is (
                other == language
            )


def test_an_unknown_language_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="unknown language 'Latin': known are English, Spanish"):
        check_constraint("language:response_language", {"language": "Latin"}, "Veni, vidi, vici.")


def test_entries_keep_their_words_and_lose_what_is_around_them() -> None:
    text = "Sure! Here are some tips:\n\n1. **Sleep** well, and long\n2. Don't smoke\n\nStay healthy!"
    assert list_items(text) == ["sleep well and long", "don't smoke"]
    assert list_items("Bread, milk or eggs") == ["bread", "milk", "eggs"]


INSTRUCTION = "Write a sentence about a farm with the word barn in it, please."


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (INSTRUCTION, True),
        (f"Sure! {INSTRUCTION}", True),
        ("Write a sentence about a farm with the word barn.", True),
        (INSTRUCTION * 3, True),
        ("The farm has a red barn with many cows.", False),
        (f"{INSTRUCTION} The red barn of our farm stood alone on the hill for a hundred years.", False),
        ("barn", False),
        ("", True),
        ("...", True),
    ],
)
def test_an_answer_that_only_repeats_the_instruction_follows_nothing(response: str, verdict: bool) -> None:
    assert says_nothing(response, INSTRUCTION) is verdict
    constraints = {"instructions": [{"name": "keywords:existence", "arguments": {"keywords": ["barn"]}}]}
    assert if_rate({**constraints, "instruction": INSTRUCTION, "about": []}, response) == float(
        "barn" in response and not verdict
    )
    assert if_rate(constraints, response) == float("barn" in response)


@pytest.mark.parametrize(
    ("response", "rate"),
    [
        ("A place to borrow books.", 1.0),
        ("Libraries.", 1.0),
        ("It is a place.", 0.0),
        ("OK.", 0.0),
        ("A bookcase. Or.", 0.0),
    ],
)
def test_an_answer_about_something_else_follows_nothing(response: str, rate: float) -> None:
    constraints = [{"name": "length_constraints:sentence_range", "arguments": {"minimum": 1, "maximum": 1}}]
    extra = {
        "instructions": constraints,
        "instruction": "What is a library? One sentence.",
        "about": ["librar", "book"],
    }
    assert if_rate(extra, response) == rate
