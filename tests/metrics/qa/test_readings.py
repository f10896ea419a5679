"""Spellings that are one answer, and those that are not."""

import pytest

from rba_bench.metrics.qa import exact_match

SAME = [
    ("Henry VIII", "Henry the Eighth", "Henry 8", "henry viii"),
    ("World War II", "World War Two", "the Second World War", "WWII", "WW2"),
    ("J. R. R. Tolkien", "JRR Tolkien", "J.R.R. Tolkien", "j r r tolkien"),
    ("U.S.A.", "USA", "the United States", "U S A"),
    ("Washington, D.C.", "Washington DC"),
    ("The Beatles", "Beatles"),
    ("Marks & Spencer", "Marks and Spencer"),
    ("rock 'n' roll", "rock and roll", "Rock & Roll"),
    ("4 July 1776", "July 4, 1776", "July 4th 1776", "1776-07-04", "the fourth of July, 1776"),
    ("25 December", "December 25th", "the twenty-fifth of December"),
    ("44 BC", "44 B.C.", "44 BCE"),
    ("AD 79", "79 AD", "79 CE"),
    ("1000", "1,000", "one thousand", "a thousand"),
    ("3.5", "3½", "3 1/2", "three and a half", "three point five"),
    ("1/2", "½", "one half", "0.5"),
    ("2,500,000", "2.5 million", "two and a half million"),
    ("1945", "nineteen forty-five"),
    ("007", "double oh seven"),
    ("1st", "first"),
    ("21st century", "twenty-first century"),
    ("1970s", "the seventies", "1970's"),
    ("-5", "minus five", "\u22125"),
    ("50%", "50 percent", "fifty per cent"),
    ("$5 million", "five million dollars", "$5,000,000"),
    ("100 °C", "100 degrees Celsius", "one hundred degrees centigrade"),
    ("42 km", "42 kilometres", "42 kilometers", "42km"),
    ("C++", "C plus plus"),
    ("C#", "C sharp", "C♯"),
    (".NET", "dot net"),
    ("O-", "O negative"),
    ("A+", "A plus"),
    ("Beyoncé", "Beyonce", "Beyonce\u0301"),
    ("St. Louis", "Saint Louis"),
    ("Mt. Everest", "Mount Everest"),
    ("Dr. No", "Doctor No"),
    ("Halley's Comet", "Halley’s Comet", "Halleys Comet"),
    ("Spider-Man", "Spiderman", "Spider Man", "Spider\u2011Man"),
    ("grey", "gray"),
    ("[Oslo]", "(Oslo)", "<Oslo>", "Oslo"),
    ("Don't Stop", "Don’t stop", "dont stop"),
    ("um", "Um."),
]
DIFFERENT = [
    ("C#", "C++"),
    ("C", "C++"),
    ("F#", "C#"),
    ("7", "007"),
    ("5", "-5"),
    ("A+", "A"),
    ("A+", "A-"),
    ("O-", "O+"),
    (".NET", "net"),
    ("$5", "€5"),
    ("50%", "50 dollars"),
    ("100 °C", "100 °F"),
    ("3.5", "35"),
    ("1/2", "12"),
    ("10²", "102"),
    ("44 BC", "44 AD"),
    ("44 BC", "44"),
    ("Henry VIII", "Henry VII"),
    ("World War II", "World War I"),
    ("Louis XIV", "Louis XVI"),
    ("4 July 1776", "July 14, 1776"),
    ("July 4, 1776", "July 1776"),
    ("second", "2"),
    ("IV", "4"),
    ("Rome", "Romeo"),
    ("1,000", "1,000,000"),
]


def pairs(groups):
    return [(a, b) for group in groups for a in group for b in group if a != b]


@pytest.mark.parametrize(("alias", "answer"), pairs(SAME))
def test_one_answer_in_several_spellings(alias, answer):
    assert exact_match(answer, [alias]) == 1.0


ONE_WAY = {("July 1776", "July 4, 1776"), ("4", "IV")}  # a more exact date or a numeral does answer


@pytest.mark.parametrize(("alias", "answer"), [*DIFFERENT, *sorted({(b, a) for a, b in DIFFERENT} - ONE_WAY)])
def test_signs_that_carry_meaning_make_another_answer(alias, answer):
    assert exact_match(answer, [alias]) == 0.0


def test_a_date_answers_a_less_exact_question():
    for alias in ("1776", "July 1776", "July 4", "July"):
        assert exact_match("July 4, 1776", [alias]) == 1.0


def test_a_long_number_is_compared_as_written():
    assert exact_match("9" * 5000, ["9" * 5000]) == 1.0
    assert exact_match("9" * 5000, ["9" * 4999]) == 0.0
