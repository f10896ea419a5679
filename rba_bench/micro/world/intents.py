"""Spoken instructions of the micro world: eight topics with the paper's names, and short questions with alias lists.

An intent holds several ways to ask and several valid ways to answer. `fill` gives the words allowed in the answer's own
slots; slots that share a base (`tip1`, `tip2`) must differ. So validity is decided by matching, never by one reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rba_bench.micro.world import lexicon as lex

Slots = Mapping[str, str]
Choices = dict[str, tuple[str, ...]]
TOPICS = (
    "information seeking",
    "advice",
    "creative writing",
    "planning",
    "reasoning",
    "brainstorming",
    "role playing",
    "others",
)


@dataclass(frozen=True)
class Intent:
    """One thing people ask: `asks` and `answers` are templates over `slots` and over what `fill` adds."""

    name: str
    topic: str
    asks: tuple[str, ...]
    answers: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    fill: Callable[[Slots], Choices] = field(default=lambda slots: {})
    kind: str = "instruct"
    source: str = ""  # which question set a qa intent belongs to
    usable: bool = True  # False: what the synthesis filters exist to drop (maths, overlong)


def _animal_facts(slots: Slots) -> Choices:
    choices: Choices = {}
    for key, animal in slots.items():
        number = key.removeprefix("animal")
        for name, value in zip(("size", "colour", "home", "food"), lex.ANIMALS[animal], strict=True):
            choices[name + number] = (value,)
    return choices


def _two(name: str, values: tuple[str, ...]) -> Choices:
    return {f"{name}1": values, f"{name}2": values}


_ANIMALS = tuple(lex.ANIMALS)
_PAIR = {"animal1": _ANIMALS, "animal2": _ANIMALS}
_TRIO = {"person1": lex.PEOPLE, "person2": lex.PEOPLE, "person3": lex.PEOPLE, "cmp": tuple(lex.COMPARISONS)}

INSTRUCTIONS: tuple[Intent, ...] = (
    Intent(
        "describe_animal",
        "information seeking",
        (
            "tell me about the {animal}",
            "what do you know about the {animal}",
            "please describe the {animal}",
            "give me some facts about the {animal}",
            "i would like to know more about the {animal}",
        ),
        (
            "the {animal} is a {size} {colour} animal that lives in the {home} and eats {food}",
            "the {animal} is {size} and {colour} it lives in the {home} and eats {food}",
            "living in the {home} the {size} {colour} {animal} likes to eat {food}",
            "the {size} {colour} {animal} eats {food} and lives in the {home}",
        ),
        {"animal": _ANIMALS},
        _animal_facts,
    ),
    Intent(
        "compare_animals",
        "information seeking",
        (
            "what is the difference between the {animal1} and the {animal2}",
            "compare the {animal1} and the {animal2}",
            "how does the {animal1} differ from the {animal2}",
        ),
        (
            "the {animal1} is {colour1} and eats {food1} but the {animal2} is {colour2} and eats {food2}",
            "the {animal1} lives in the {home1} and eats {food1} but the {animal2} lives in the {home2} "
            "and eats {food2}",
            "while the {animal1} is {size1} and eats {food1} the {animal2} is {size2} and eats {food2}",
        ),
        _PAIR,
        _animal_facts,
    ),
    Intent(
        "advice_self",
        "advice",
        (
            "how can i {goal}",
            "what should i do to {goal}",
            "i want to {goal} what can i do",
            "please help me to {goal}",
        ),
        (
            "you should {tip1} and {tip2}",
            "try to {tip1} and do not forget to {tip2}",
            "it often helps to {tip1} and to {tip2}",
            "my advice is to {tip1} and then {tip2}",
        ),
        {"goal": tuple(lex.GOALS)},
        lambda s: _two("tip", lex.GOALS[s["goal"]]),
    ),
    Intent(
        "advice_friend",
        "advice",
        (
            "my friend {person} wants to {goal} what should {person} do",
            "how can {person} {goal}",
            "what do you advise {person} who wants to {goal}",
        ),
        (
            "{person} should {tip1} and {tip2}",
            "tell {person} to {tip1} and to {tip2}",
            "{person} could {tip1} or maybe {tip2}",
            "to {goal} {person} has to {tip1} and {tip2}",
        ),
        {"person": lex.PEOPLE, "goal": tuple(lex.GOALS)},
        lambda s: _two("tip", lex.GOALS[s["goal"]]),
    ),
    Intent(
        "story",
        "creative writing",
        (
            "write a short story about a {mood} {animal} and a {job}",
            "tell me a story about a {mood} {animal} and a {job}",
            "invent a tale of a {mood} {animal} who meets a {job}",
        ),
        (
            "once a {mood} {animal} met a {job} and they {ending}",
            "there was a {mood} {animal} who met a {job} one day and they {ending}",
            "one day a {job} found a {mood} {animal} and together they {ending}",
            "long ago a {mood} {animal} and a {job} {ending}",
        ),
        {"mood": lex.MOODS, "animal": _ANIMALS, "job": tuple(lex.JOBS)},
        lambda s: {"ending": lex.ENDINGS},
    ),
    Intent(
        "plan",
        "planning",
        (
            "plan a {time} at the {place} for {person}",
            "make a plan for a {time} at the {place} with {person}",
            "what can {person} do at the {place} for a {time}",
        ),
        (
            "for a {time} at the {place} {person} can first {act1} and then {act2}",
            "first {person} can {act1} at the {place} and later {act2} before the {time} is over",
            "start the {time} at the {place} with {person} then {act1} and finally {act2}",
        ),
        {"time": lex.TIMES, "place": tuple(lex.PLACES), "person": lex.PEOPLE},
        lambda s: _two("act", lex.PLACES[s["place"]]),
    ),
    Intent(
        "compare_people",
        "reasoning",
        (
            "if {person1} is {cmp} than {person2} and {person2} is {cmp} than {person3} who is the {sup}",
            "{person1} is {cmp} than {person2} and {person2} is {cmp} than {person3} so who is the {sup}",
        ),
        (
            "{person1} is the {sup} because {person1} is {cmp} than {person2} and {person3}",
            "the {sup} is {person1} since {person2} is {cmp} than {person3} but {person1} is {cmp} than {person2}",
            "it must be {person1} who is {cmp} than {person2} and also {cmp} than {person3}",
        ),
        _TRIO,
        lambda s: {"sup": (lex.COMPARISONS[s["cmp"]],)},
    ),
    Intent(
        "ideas",
        "brainstorming",
        (
            "give me three ideas for {occasion}",
            "what could we do for {occasion}",
            "{person} needs ideas for {occasion}",
            "help {person} find ideas for {occasion}",
        ),
        (
            "you could {idea1} or {idea2} or {idea3}",
            "here are three ideas {idea1} {idea2} and {idea3}",
            "for {occasion} you can {idea1} then {idea2} and {idea3}",
            "maybe {idea1} or {idea2} and if there is time {idea3}",
        ),
        {"occasion": tuple(lex.OCCASIONS), "person": lex.PEOPLE},
        lambda s: {f"idea{i}": lex.OCCASIONS[s["occasion"]] for i in (1, 2, 3)},
    ),
    Intent(
        "role",
        "role playing",
        (
            "pretend you are a {job} and greet {person}",
            "you are a {job} say hello to {person}",
            "act as a {job} who meets {person}",
            "speak like a {job} to {person}",
        ),
        (
            "hello {person} i am a {job} and i {duty}",
            "good day {person} i am the {job} and i {duty} every day",
            "welcome {person} as a {job} i {duty}",
            "nice to meet you {person} i am a {job} i {duty}",
        ),
        {"job": tuple(lex.JOBS), "person": lex.PEOPLE},
        lambda s: {"duty": lex.JOBS[s["job"]]},
    ),
    Intent(
        "echo",
        "others",
        (
            "repeat the words {word1} {word2} and {word3}",
            "say {word1} {word2} and {word3}",
            "please list the words {word1} {word2} and {word3}",
        ),
        (
            "{word1} {word2} and {word3}",
            "the words are {word1} {word2} and {word3}",
            "i say {word1} {word2} and {word3}",
        ),
        {f"word{i}": lex.ECHO_WORDS for i in (1, 2, 3)},
    ),
)

_DIGITS = ("one", "two", "three", "four", "five")
_SUMS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
UNUSABLE: tuple[Intent, ...] = (
    Intent(
        "sum",
        "reasoning",
        ("calculate {digit_a} plus {digit_b}", "what is the sum of {digit_a} plus {digit_b}"),
        ("{digit_a} plus {digit_b} is {total}", "the sum is {total}"),
        {"digit_a": _DIGITS, "digit_b": _DIGITS},
        lambda s: {"total": (_SUMS[_DIGITS.index(s["digit_a"]) + _DIGITS.index(s["digit_b"])],)},
        usable=False,
    ),
    Intent(
        "too_long",
        "others",
        (
            "tell me about the {animal1} and the {animal2} and then help {person1} to {goal} and after that "
            "say hello to {person2} and to {person3}",
        ),
        ("that is too much for one answer please ask me one thing at a time",),
        {**_PAIR, **{f"person{i}": lex.PEOPLE for i in (1, 2, 3)}, "goal": tuple(lex.GOALS)},
        usable=False,
    ),
)


def aliases(name: str) -> tuple[str, ...]:
    """Accepted short answers, the canonical one first: full name, without article, and a person's family name."""
    return tuple(dict.fromkeys((name, name.removeprefix("the "))))


def _question(
    name: str, source: str, asks: tuple[str, ...], slot: str, known: Mapping[str, tuple[str, ...]]
) -> Intent:
    """A question about one of the things in `known`, which has the valid answers to each.

    Each way to ask stands as it is and, where it starts with a question word, behind three openings.
    """
    openings = ("", "do you know ", "can you tell me ", "i want to know ")
    polite = tuple(
        o + ask for ask in asks for o in openings if not o or ask.split()[0] in ("what", "which", "who")
    )
    answers = ("{answer}", "it is {answer}", "the answer is {answer}")

    def fill(slots: Slots) -> Choices:
        return {"answer": known[slots[slot]]}

    return Intent(name, TOPICS[0], polite, answers, {slot: tuple(known)}, fill, kind="qa", source=source)


def _web(name: str, index: int, *asks: str) -> Intent:
    known = {country: aliases(facts[index]) for country, facts in lex.COUNTRIES.items()}
    return _question(name, "webquestions", asks, "country", known)


def _trivia(verb: str, thing: str) -> Intent:
    asks = (
        f"who {verb} the {thing} {{title}}",
        f"which person {verb} the {thing} called {{title}}",
        f"{{title}} is a {thing} but who {verb} it",
        f"tell me the name of the one who {verb} the {thing} {{title}}",
    )
    known = {title: (maker, maker.split()[1]) for v, _, title, maker in lex.WORKS if v == verb}
    return _question(f"who_{verb}", "triviaqa", asks, "title", known)


QUESTIONS: tuple[Intent, ...] = (
    _web(
        "capital",
        0,
        "what is the capital of {country}",
        "which city is the capital of {country}",
        "name the capital city of {country}",
        "{country} has which capital",
    ),
    _web(
        "language",
        1,
        "what language do people speak in {country}",
        "which language is spoken in {country}",
        "name the language of {country}",
    ),
    _web(
        "river",
        2,
        "which river runs through {country}",
        "what is the biggest river in {country}",
        "name the longest river of {country}",
    ),
    _web(
        "currency",
        3,
        "what money do people use in {country}",
        "which currency is used in {country}",
        "name the currency of {country}",
    ),
    *(_trivia(verb, thing) for verb, thing in {v: k for v, k, _, _ in lex.WORKS}.items()),
)
