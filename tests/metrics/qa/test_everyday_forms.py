"""Plurals, quantities, names with particles and everyday words, as models say them and answer lists write them."""

import pytest

from rba_bench.metrics.qa import alias_match, asserted_match


@pytest.mark.parametrize(
    ("alias", "response"),
    [
        ("dogs", "dog"),
        ("egg", "Eggs."),
        ("butterfly", "Butterflies"),
        ("mouse", "Mice live in houses."),
        ("leaves", "a leaf"),
        ("dogs", "They are pulled by dogs."),
        ("twice", "Two times."),
        ("three times", "thrice"),
        ("36", "three dozen"),
        ("half a dozen", "six"),
        ("a century", "100 years"),
        ("20 years", "two decades"),
        ("none", "zero"),
        ("0", "None."),
        ("45 minutes", "45 mins"),
        ("10 seconds", "10 sec"),
        ("1", "Just once."),
        ("1861-1865", "from 1861 to 1865"),
        ("1861 to 1865", "1861\u20131865"),
        ("$1 million", "one million US dollars"),
        ("Kesha", "Ke$ha"),
        ("P!nk", "Pink"),
        ("Procter & Gamble", "Procter + Gamble"),
        ("Node.js", "Node JS"),
        ("Lyndon B. Johnson", "Lyndon Johnson"),
        ("John Kennedy", "It was John F. Kennedy."),
    ],
)
def test_one_answer_said_in_another_form(alias: str, response: str) -> None:
    assert asserted_match(response, [alias]) == 1.0
    assert alias_match(response, [alias]) == 1.0


@pytest.mark.parametrize(
    ("alias", "response"),
    [
        ("new", "news"),
        ("Adam", "Adams"),
        ("William", "Williams."),
        ("10 seconds", "10 min"),
        ("24", "three dozen"),
        ("19th century", "a century ago"),
        ("George W. Bush", "George H. W. Bush"),
        (".NET", "a fishing net"),
    ],
)
def test_another_answer_that_looks_alike(alias: str, response: str) -> None:
    assert alias_match(response, [alias]) == 0.0


@pytest.mark.parametrize(
    ("question", "alias", "response", "right"),
    [
        ("Which month follows April?", "May", "May follows April.", 1.0),
        ("Which month has Memorial Day?", "May", "May. It is on the last Monday.", 1.0),
        ("Which month has Memorial Day?", "May", "May I look it up?", 0.0),
        ("Which novel has a clown?", "It", "It, by Stephen King, has a clown.", 1.0),
        ("Which novel has a clown?", "It", "It has a clown but I forget the name.", 0.0),
        ("Where do you fetch water?", "well", "From the well.", 1.0),
        ("Where do you fetch water?", "well", "Well, from the tap.", 0.0),
        ("Is fire hot?", "yes", "Yeah, absolutely.", 1.0),
        ("Is fire hot?", "yes", "Fire burns, so yes.", 1.0),
        ("Is fire cold?", "no", "Nah, it's hot.", 1.0),
        ("Is fire cold?", "no", "Yes, there is no doubt.", 0.0),
    ],
)
def test_everyday_words_that_are_meant(question: str, alias: str, response: str, right: float) -> None:
    assert asserted_match(response, [alias], question=question) == right


@pytest.mark.parametrize(
    ("question", "alias", "response", "right"),
    [
        ("Who painted it?", "Michelangelo", "Michelangelo... sorry, Leonardo da Vinci.", 0.0),
        ("Who painted it?", "Leonardo da Vinci", "Michelangelo... sorry, Leonardo da Vinci.", 1.0),
        ("Who painted it?", "Picasso", "Leonardo da Vinci or Picasso", 0.0),
        ("Who painted it?", "Picasso", "Picasso, Vincent van Gogh, Ludwig van Beethoven", 0.0),
        ("What is the capital?", "Ottawa", "I can't say. Ottawa and Toronto are cities in Canada.", 0.0),
        ("What is the capital?", "Ottawa", "Ottawa is the capital and Toronto is the largest city.", 1.0),
    ],
)
def test_names_with_particles_and_joint_subjects_are_candidates(
    question: str, alias: str, response: str, right: float
) -> None:
    assert asserted_match(response, [alias], question=question) == right


@pytest.mark.parametrize(
    ("question", "alias", "right"),
    [
        ("How many strings has a violin?", "4", 1.0),
        ("How many strings has a violin?", "6", 0.0),
        ("How many strings has a guitar?", "6", 1.0),
    ],
)
def test_a_contrast_tells_of_something_else(question: str, alias: str, right: float) -> None:
    response = "A violin has 4 strings, whereas a guitar has 6."
    assert asserted_match(response, [alias], question=question) == right


LIFE = "He was born in 1564 and died in 1616."
FILM = "Keanu Reeves played Neo, and Laurence Fishburne played Morpheus."
LANGUAGE = "Portuguese, although Spanish is spoken in the neighbouring countries."


@pytest.mark.parametrize(
    ("question", "response", "right", "wrong"),
    [
        ("When was he born?", LIFE, "1564", "1616"),
        ("When did he die?", LIFE, "1616", "1564"),
        ("What year did the wall fall?", "It was built in 1961 and it fell in 1989.", "1989", "1961"),
        ("When did the war end?", "It began in 1914 and ended in 1918.", "1918", "1914"),
        ("Who won the election?", "Trump lost to Biden.", "Biden", "Trump"),
        ("Who played Morpheus?", FILM, "Laurence Fishburne", "Keanu Reeves"),
        ("What language is spoken in Brazil?", LANGUAGE, "Portuguese", "Spanish"),
    ],
)
def test_what_is_said_of_another_event_is_no_answer(
    question: str, response: str, right: str, wrong: str
) -> None:
    assert asserted_match(response, [right], question=question) == 1.0
    assert asserted_match(response, [wrong], question=question) == 0.0


def test_the_unit_us_dollar_stays_where_it_is_asked_for() -> None:
    assert asserted_match("The US dollar.", ["US dollar"], question="Which currency is used?") == 1.0
    assert asserted_match("The Canadian dollar.", ["US dollar"], question="Which currency is used?") == 0.0
