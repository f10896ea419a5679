"""What counts as asserting an answer, kind by kind, with wordings that are in no labelled pair."""

import pytest

from rba_bench.metrics.qa import alias_match, asserted_match, exact_match

ASKED = "Which city is the seat of the Dutch parliament?"
RIGHT = ["The Hague", "Den Haag"]


@pytest.mark.parametrize(
    "answer",
    [
        "The Hague",
        "the hague.",
        "Hague",
        "It's Den Haag.",
        "The Dutch parliament sits in The Hague, not in Amsterdam.",
        "It isn't Amsterdam, it's The Hague.",
        "Not Amsterdam but Den Haag",
        "Amsterdam? No, The Hague.",
        "Amsterdam, sorry, I meant The Hague.",
        "You might think it's Amsterdam, but the seat is The Hague.",
        "No doubt: The Hague.",
        "None other than The Hague!",
        "I'm not sure, but perhaps The Hague?",
        "Candidates are Amsterdam, Rotterdam and The Hague. The answer is The Hague.",
        "The Hague, Netherlands",
        "Den Haag, or The Hague.",
        "The Hague. Amsterdam is the capital.",
        "(The Hague)",
        "**The Hague**",
        "Which city is the seat of the Dutch parliament? The Hague.",
    ],
)
def test_an_answer_that_is_asserted_is_right(answer):
    assert asserted_match(answer, RIGHT, question=ASKED) == alias_match(answer, RIGHT) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "It is not The Hague.",
        "It isn't Den Haag.",
        "The Hague? No, Amsterdam.",
        "The Hague is not the seat.",
        "The Hague would be wrong.",
        "Amsterdam rather than The Hague.",
        "I doubt that it is The Hague.",
        "Neither The Hague nor Rotterdam.",
        "Anywhere but The Hague.",
        "You might think The Hague, but it is Amsterdam.",
        "The Hague. No wait, Amsterdam.",
        "The Hague, or rather Amsterdam.",
        "The Hague or Amsterdam",
        "Either Amsterdam or The Hague.",
        "Amsterdam, Rotterdam, The Hague, Utrecht",
        "Amsterdam and The Hague",
        "- Amsterdam\n- The Hague\n- Utrecht",
        "It is Amsterdam. It is The Hague. It is Utrecht.",
        "Amsterdam / The Hague / Utrecht",
        "Some town near The Hague.",
        "Do you mean The Hague?",
        "The Hague is bigger, but the seat is Amsterdam.",
    ],
)
def test_an_answer_that_is_named_and_not_asserted_is_wrong(answer):
    assert asserted_match(answer, RIGHT, question=ASKED) == 0.0
    assert alias_match(answer, RIGHT) == 1.0  # the loose match does not read


@pytest.mark.parametrize("answer", ["", " ", "...", "?", "\u200b", "I don't know.", ASKED])
def test_nothing_said_is_nothing_asserted(answer):
    assert asserted_match(answer, RIGHT, question=ASKED) == 0.0


@pytest.mark.parametrize(
    ("question", "aliases", "echo", "answer"),
    [
        ("Is oak or pine harder?", ["oak"], "Is oak or pine harder?", "Oak is harder."),
        ("Who won, Ajax or Inter?", ["Ajax"], "Ajax or Inter", "Ajax won."),
        ("In which town is the Museum of York?", ["York"], "The Museum of York is in Leeds.", "In York."),
    ],
)
def test_words_of_the_question_assert_nothing_by_themselves(question, aliases, echo, answer):
    assert asserted_match(echo, aliases, question=question) == 0.0
    assert asserted_match(answer, aliases, question=question) == 1.0


@pytest.mark.parametrize(
    ("aliases", "answer", "right"),
    [
        (["red", "green"], "Red and green.", 1),
        (["red", "green", "gold"], "red, green and gold", 1),
        (["red", "green"], "red, blue, black, white", 0),
        (["salt and pepper"], "It's salt and pepper.", 1),
        (["The Good, the Bad and the Ugly"], "It is The Good, the Bad and the Ugly.", 1),
        (["No Country for Old Men"], "The film is No Country for Old Men.", 1),
        (["Nothing Else Matters"], "I think it's Nothing Else Matters.", 1),
        (["Either/Or"], "That is Either/Or.", 1),
    ],
)
def test_words_of_the_answer_itself_are_no_list_and_no_denial(aliases, answer, right):
    assert asserted_match(answer, aliases) == right


@pytest.mark.parametrize(
    ("alias", "inside", "meant"),
    [
        ("I", "I think so", "The letter is I."),
        ("A", "A bird in the hand", "He got an A."),
        ("US", "they told us", "in the US"),
        ("US", "they told us", "The U.S."),
        ("IT", "it works", "She works in IT."),
        ("WHO", "the people who know", "It was the WHO."),
        ("May", "that may be", "In May."),
        ("He", "he went home", "The symbol is He."),
        ("Or", "this or that", "Or"),
        ("Um", "Um, let me see", "um"),
        ("no", "no idea", "No, it did not."),
        ("The Who", "a man who sings", "the who"),
    ],
)
def test_everyday_words_are_answers_only_where_they_are_meant(alias, inside, meant):
    assert alias_match(inside, [alias]) == asserted_match(inside, [alias]) == 0.0
    assert alias_match(meant, [alias]) == asserted_match(meant, [alias]) == 1.0


def test_a_longer_name_is_another_name():
    assert asserted_match("Victoria Beckham", ["Victoria"]) == 0.0
    assert asserted_match("Queen Victoria", ["Victoria"]) == 1.0


@pytest.mark.parametrize(
    ("lang", "alias", "right", "wrong"),
    [
        ("de", "Wien", "Es ist Wien.", "Es ist nicht Wien."),
        ("de", "Wien", "Wien", "Wien oder Graz"),
        ("fr", "Lyon", "C’est Lyon.", "Lyon, Nice, Lille, Metz"),
        ("es", "Lima", "La capital es Lima.", "No es Lima."),
        ("zh", "北京", "首都是北京。", "不是北京。"),
        ("ja", "東京", "東京です。", "東京、大阪、京都、奈良"),
        ("hi", "दिल्ली", "राजधानी दिल्ली है।", "दिल्ली नहीं।"),
    ],
)
def test_other_languages_have_the_careful_rule(lang, alias, right, wrong):
    assert asserted_match(right, [alias], lang) == 1.0
    assert asserted_match(wrong, [alias], lang) == 0.0
    assert exact_match(f"\u200b{alias}", [alias], lang) == 1.0


def test_aliases_must_be_a_list():
    with pytest.raises(ValueError, match="non-empty list"):
        asserted_match("Lima", "Lima")
