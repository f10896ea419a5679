"""Sentences from which connectors of the track small learn: WordNet, templates, a teacher's instructions and answers.

WordNet's definitions and examples bring the words, its people and places the names, in questions as people ask them;
the instructions are what a SpeechLM is told, and the sentences of the answers to some of them are plain English on the
same subjects. No sentence of a test or development set is among them. WordNet is read from the files of Debian's
package `wordnet-base` (Princeton's licence: free use with notice); its text does not enter this repository.
"""

import calendar
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rba_bench.errors import MissingPrerequisite
from rba_bench.files import read_jsonl
from rba_bench.metrics.text import normalize
from rba_bench.seeding import stable_seed
from rba_bench.small.texts import SPLITS, load_items

T = TypeVar("T")

WORDNET = Path("/usr/share/wordnet")
DATA = Path(__file__).parent / "data"
INSTRUCTIONS, ALIGNMENT = DATA / "instructions.jsonl", DATA / "alignment.jsonl"
PARTS = ("noun", "verb", "adj", "adv")
WORDS, LONGEST = (3, 18), 110  # words and characters of a sentence
TOLD_WORDS, TOLD_LONGEST = (3, 30), 180  # and of an instruction
TOLD_TIMES = 3  # voices that say an instruction: it is what the model is for
NAME_TIMES = 3  # questions about a name
SHARES = {"name": 6, "word": 3, "definition": 5, "example": 7, "number": 1}
_ODD = re.compile(r"[\[\]{}<>|_=+*/\\~^#@&%]")
NAME_QUESTIONS = (
    "Who was {name}?", "What is {name} known for?", "Where is {name}?", "Tell me about {name}.",
    "What do you know about {name}?", "When was {name} born?", "Which country is {name} in?",
    "What happened to {name}?", "How old is {name}?", "Is {name} in Europe?", "How far away is {name}?",
    "What language do they speak in {name}?", "Who discovered {name}?", "Have you ever heard of {name}?",
    "What is the capital of {name}?", "Who wrote {name}?", "Who painted {name}?", "Who invented {name}?",
    "Which river flows through {name}?", "What is the currency of {name}?", "Who was the first president of {name}?",
    "In which year was {name} founded?", "Which company makes {name}?", "What did {name} discover?",
    "In which city is {name}?", "Which book did {name} write?", "What is the largest city in {name}?",
)  # fmt: skip
WORD_QUESTIONS = (
    "What does {word} mean?", "How do you spell {word}?", "Define {word}.", "Use the word {word} in a sentence.",
    "What is another word for {word}?", "Explain {word} to a child.", "Write a short poem about {word}.",
    "What is the opposite of {word}?", "Why is {word} important?", "Where does the word {word} come from?",
)  # fmt: skip
NOUN_QUESTIONS = (
    "What is {a_word}?", "Give me an example of {a_word}.", "How would you describe {a_word}?",
    "What do you need {a_word} for?", "How much does {a_word} cost?", "Where can I find {a_word}?",
    "What is the {word} made of?", "Who uses {a_word}?", "Which animal has {a_word}?", "What color is {a_word}?",
)  # fmt: skip
NOUN_DEFINITIONS = ("{a_word} is {text}.", "What do you call {text}?", "What is the name for {text}?")


@dataclass(frozen=True)
class Sentence:
    """One sentence to be spoken, and where it comes from (`name`, `word`, `definition`, `example`, `number`, ...)."""

    text: str
    kind: str


@dataclass(frozen=True)
class WordNet:
    """What is taken from WordNet: words with their part of speech, names, definitions by word, examples."""

    words: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    definitions: tuple[tuple[str, str, str], ...]
    examples: tuple[str, ...]


def read_wordnet(folder: Path = WORDNET) -> WordNet:
    """The files `data.noun`, `data.verb`, `data.adj` and `data.adv`; their layout is described in `wndb(5WN)`.

    Raises:
        MissingPrerequisite: They are not there.
    """
    words, names, definitions, examples = [], [], [], []
    for part in PARTS:
        try:
            lines = (folder / f"data.{part}").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise MissingPrerequisite(
                f"no WordNet in {folder}: install Debian's wordnet-base, or name the folder of data.noun with --wordnet"
            ) from error
        for line in lines:
            if line.startswith("  "):  # the licence stands in front
                continue
            fields, _, gloss = line.partition("|")
            head = fields.split()
            lemmas = [
                re.sub(r"\(\w+\)$", "", word).replace("_", " ")
                for word in head[4 : 4 + 2 * int(head[3], 16) : 2]
            ]
            plain = [lemma for lemma in lemmas if lemma.isascii() and not re.search(r"\d", lemma)]
            if " @i " in fields:  # an instance: a person, a place, a work
                names += plain
            else:
                words += [(lemma, part) for lemma in plain]
            examples += [text for quoted in re.findall(r'"([^"]+)"', gloss) if (text := _clean(quoted))]
            meanings = re.sub(r'"[^"]*"', "", gloss).split(";")
            definitions += [(lemmas[0], _clean(text), part) for text in meanings if len(text.split()) > 3]
    return WordNet(tuple(words), tuple(names), tuple(definitions), tuple(examples))


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\([^)]*\)", "", text)).strip(" ;:,")


def is_speakable(text: str) -> bool:
    """Whether a sentence has ordinary characters and a length that a clip of some seconds holds."""
    return _is_plain(text, WORDS, LONGEST)


def is_told(text: str) -> bool:
    """Whether an instruction has ordinary characters and a length that people say at once."""
    return _is_plain(text, TOLD_WORDS, TOLD_LONGEST)


def _is_plain(text: str, words: tuple[int, int], longest: int) -> bool:
    few, many = words
    return (
        text.isascii() and few <= len(text.split()) <= many and len(text) <= longest and not _ODD.search(text)
    )


def training_sentences(count: int, seed: int = 0, wordnet: Path = WORDNET) -> list[Sentence]:
    """`count` distinct sentences in a random order, of all kinds in fixed shares; then what is told and answered.

    Instructions and the questions of the train splits come TOLD_TIMES, to be said by as many voices.

    Raises:
        MissingPrerequisite: WordNet is not there.
    """
    rng = random.Random(stable_seed("small training texts", seed))
    net = read_wordnet(wordnet)
    taken = _held_out()
    sources = {
        "name": _names(rng, net),
        "word": _words(rng, net),
        "definition": _definitions(rng, net),
        "example": (
            example if example[-1] in ".?!" else f"{example}." for example in _shuffled(rng, net.examples)
        ),
        "number": _numbers(rng),
    }
    made: list[Sentence] = []
    kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
    while len(made) < count and kinds:
        for kind in list(kinds):
            text = next(sources[kind], None)
            if text is None:  # used up: the others fill its share
                kinds = [other for other in kinds if other != kind]
            else:
                made += _new(text[:1].upper() + text[1:], kind, taken)
    made = made[:count]
    rng.shuffle(made)
    told = [new for text in _instructions() for new in _new(text, "instruction", taken, is_told)]
    answered = [new for text in _answers() for new in _new(text, "answer", taken, is_told)]
    return made + TOLD_TIMES * told + answered


def repeated_sentences(count: int | None, seed: int = 0) -> list[Sentence]:
    """`count` sentences (None: all) of the teacher's instructions and answers, and so without WordNet."""
    taken = _held_out()
    made = [new for text in _instructions() for new in _new(text, "instruction", taken, is_told)]
    made += [new for text in _answers() for new in _new(text, "answer", taken, is_told)]
    return _shuffled(random.Random(stable_seed("small repeated texts", seed)), made)[:count]


def _held_out() -> set[str]:
    """All texts of test and development sets, normalised."""
    return {
        normalize(item.text)
        for name, splits in SPLITS.items()
        for split in splits
        if split != "train"
        for item in load_items(name, split)
    }


def _new(text: str, kind: str, taken: set[str], fits: Callable[[str], bool] = is_speakable) -> list[Sentence]:
    """The text as a sentence, if it can be said and was not taken yet."""
    key = normalize(text)
    if not key or key in taken or not fits(text):
        return []
    taken.add(key)
    return [Sentence(text, kind)]


def _shuffled(rng: random.Random, things: Sequence[T]) -> list[T]:
    return rng.sample(things, len(things))


def _instructions() -> list[str]:
    """What the teacher was told by itself (see `data/README.md`), and the train splits."""
    trained = [item.text for name in ("small_qa", "small_instruct") for item in load_items(name, "train")]
    return [row["instruction"] for row in read_jsonl(INSTRUCTIONS)] + trained


def _answers() -> Iterator[str]:
    """The sentences of the teacher's answers, without the marks of lists and of bold type."""
    for row in read_jsonl(ALIGNMENT):
        for line in row["answer"].replace("**", "").splitlines():
            yield from re.split(r"(?<=[.?!]) +", re.sub(r"^\W*(\d+[.)] *)?", "", line).strip())


def _names(rng: random.Random, net: WordNet) -> Iterator[str]:
    for _ in range(NAME_TIMES):
        for name in _shuffled(rng, net.names):
            yield rng.choice(NAME_QUESTIONS).format(name=name)


def _words(rng: random.Random, net: WordNet) -> Iterator[str]:
    for word, part in _shuffled(rng, net.words):
        if word[:1].isupper() and rng.random() < 0.7:  # mostly Latin names of species
            continue
        if part == "noun" and rng.random() < 0.5:
            yield rng.choice(NOUN_QUESTIONS).format(a_word=_with_article(word), word=word)
        else:
            yield rng.choice(WORD_QUESTIONS).format(word=word)


def _definitions(rng: random.Random, net: WordNet) -> Iterator[str]:
    for word, text, part in _shuffled(rng, net.definitions):
        whole = part == "noun" and len(text.split()) < 12 and rng.random() < 0.5
        if whole:
            yield rng.choice(NOUN_DEFINITIONS).format(a_word=_with_article(word), text=text)
        else:
            yield f"{text}."


def _with_article(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


def _numbers(rng: random.Random) -> Iterator[str]:
    """Sums, years, dates, times and amounts, as people say them."""
    forms = (
        "What is {small} plus {small2}?", "What is {small} times {small2}?", "What is {large} minus {small}?",
        "What happened in {year}?", "Who was the president in {year}?", "I was born in {year}.",
        "The meeting is on {month} {day}.", "What is special about {month} {day}?", "It is {hour} {minute} now.",
        "How many days are there in {small} weeks?", "The ticket costs {small} dollars.",
        "How many people live in a city of {large} thousand houses?", "Count from {small} to {small2}.",
        "About {large} people came on {month} {day}, {year}.", "The train leaves at {hour} {minute}.",
    )  # fmt: skip
    while True:
        yield rng.choice(forms).format(
            small=rng.randint(2, 99),
            small2=rng.randint(2, 99),
            large=rng.randint(100, 999),
            year=rng.randint(1500, 2025),
            month=rng.choice(calendar.month_name[1:]),
            day=rng.randint(1, 31),
            hour=rng.randint(1, 12),
            minute=rng.randint(10, 59),
        )
