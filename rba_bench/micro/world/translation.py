"""Sentences of the micro world in English, German, French and Spanish, with agreement, word order and several wordings.

Two domains: `covost2` ("the small dog sees the red house today") and `fleurs` (two subjects, or the adverb first). A
sentence is a tuple of concept keys; `wordings` says it in a language. The adverb may stand late or, as a second
wording, first (German then inverts subject and verb).
"""

import random
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

W = TypeVar("W")
LANGUAGES = ("en", "de", "fr", "es")
LANGUAGE_NAMES = {"en": "english", "de": "german", "fr": "french", "es": "spanish"}
DIRECTIONS = (("en", "de"), ("de", "en"), ("fr", "en"), ("es", "en"))


def _by_language(**concepts: tuple[W, W, W, W]) -> dict[str, dict[str, W]]:
    """Concepts whose forms are written down in the order of LANGUAGES."""
    return {concept: dict(zip(LANGUAGES, forms, strict=True)) for concept, forms in concepts.items()}


# concept -> (word, gender) in each language
NOUNS = _by_language(
    dog=(("dog", ""), ("hund", "m"), ("chien", "m"), ("perro", "m")),
    cat=(("cat", ""), ("katze", "f"), ("chatte", "f"), ("gata", "f")),
    man=(("man", ""), ("mann", "m"), ("monsieur", "m"), ("hombre", "m")),
    woman=(("woman", ""), ("frau", "f"), ("femme", "f"), ("mujer", "f")),
    child=(("child", ""), ("kind", "n"), ("garçon", "m"), ("niño", "m")),
    farmer=(("farmer", ""), ("bauer", "m"), ("fermier", "m"), ("granjero", "m")),
    teacher=(("teacher", ""), ("lehrerin", "f"), ("maîtresse", "f"), ("maestra", "f")),
    girl=(("girl", ""), ("mädchen", "n"), ("fille", "f"), ("niña", "f")),
)
OBJECTS = _by_language(
    house=(("house", ""), ("haus", "n"), ("maison", "f"), ("casa", "f")),
    book=(("book", ""), ("buch", "n"), ("livre", "m"), ("libro", "m")),
    letter=(("letter", ""), ("brief", "m"), ("lettre", "f"), ("carta", "f")),
    bread=(("bread", ""), ("brot", "n"), ("pain", "m"), ("pan", "m")),
    flower=(("flower", ""), ("blume", "f"), ("fleur", "f"), ("flor", "f")),
    boat=(("boat", ""), ("boot", "n"), ("bateau", "m"), ("barco", "m")),
    ball=(("ball", ""), ("ball", "m"), ("ballon", "m"), ("balón", "m")),
    lamp=(("lamp", ""), ("lampe", "f"), ("lampe", "f"), ("lámpara", "f")),
)
# concept -> en, de stem, fr (masculine, feminine, stands before the noun), es (masculine, feminine)
ADJECTIVES: dict[str, tuple[str, str, tuple[str, str, bool], tuple[str, str]]] = {
    "small": ("small", "klein", ("petit", "petite", True), ("pequeño", "pequeña")),
    "big": ("big", "groß", ("grand", "grande", True), ("grande", "grande")),
    "young": ("young", "jung", ("jeune", "jeune", True), ("joven", "joven")),
    "red": ("red", "rot", ("rouge", "rouge", False), ("rojo", "roja")),
    "white": ("white", "weiß", ("blanc", "blanche", False), ("blanco", "blanca")),
    "new": ("new", "neu", ("nouveau", "nouvelle", True), ("nuevo", "nueva")),
}
SUBJECT_ADJECTIVES = ("small", "big", "young")
OBJECT_ADJECTIVES = ("small", "red", "white", "new")
# concept -> (singular, plural) in each language
VERBS = _by_language(
    see=(("sees", "see"), ("sieht", "sehen"), ("voit", "voient"), ("ve", "ven")),
    buy=(("buys", "buy"), ("kauft", "kaufen"), ("achète", "achètent"), ("compra", "compran")),
    find=(("finds", "find"), ("findet", "finden"), ("trouve", "trouvent"), ("encuentra", "encuentran")),
    love=(("loves", "love"), ("liebt", "lieben"), ("aime", "aiment"), ("ama", "aman")),
    bring=(("brings", "bring"), ("bringt", "bringen"), ("apporte", "apportent"), ("trae", "traen")),
    paint=(("paints", "paint"), ("malt", "malen"), ("peint", "peignent"), ("pinta", "pintan")),
    sell=(("sells", "sell"), ("verkauft", "verkaufen"), ("vend", "vendent"), ("vende", "venden")),
)
ADVERBS = _by_language(
    today=("today", "heute", "aujourd'hui", "hoy"),
    morning=("in the morning", "am morgen", "le matin", "por la mañana"),
    garden=("in the garden", "im garten", "dans le jardin", "en el jardín"),
    city=("in the city", "in der stadt", "dans la ville", "en la ciudad"),
    always=("every day", "jeden tag", "chaque jour", "cada día"),
    tomorrow=("tomorrow", "morgen", "demain", "mañana"),
)
_ARTICLES = {
    ("de", "nom"): {"m": "der", "f": "die", "n": "das"},
    ("de", "acc"): {"m": "den", "f": "die", "n": "das"},
    ("fr", "nom"): {"m": "le", "f": "la"},
    ("fr", "acc"): {"m": "le", "f": "la"},
    ("es", "nom"): {"m": "el", "f": "la"},
    ("es", "acc"): {"m": "el", "f": "la"},
}


@dataclass(frozen=True)
class Sentence:
    """Concept keys; `subject2` and the adjectives may be empty strings."""

    subject: str
    subject_adjective: str
    subject2: str
    verb: str
    object: str
    object_adjective: str
    adverb: str


def _noun_phrase(noun: tuple[str, str], adjective: str, language: str, case: str) -> str:
    word, gender = noun
    if language == "en":
        return f"the {adjective} {word}" if adjective else f"the {word}"
    article = _ARTICLES[language, case][gender]
    if not adjective:
        return f"{article} {word}"
    _, stem, (fr_m, fr_f, before), (es_m, es_f) = ADJECTIVES[adjective]
    if language == "de":
        return f"{article} {stem}{'en' if (case, gender) == ('acc', 'm') else 'e'} {word}"
    if language == "fr":
        form = fr_m if gender == "m" else fr_f
        return f"{article} {form} {word}" if before else f"{article} {word} {form}"
    return f"{article} {word} {es_m if gender == 'm' else es_f}"


def _clause(sentence: Sentence, language: str) -> tuple[str, str, str, str]:
    subject = _noun_phrase(NOUNS[sentence.subject][language], sentence.subject_adjective, language, "nom")
    if sentence.subject2:
        conjunction = {"en": "and", "de": "und", "fr": "et", "es": "y"}[language]
        subject += f" {conjunction} {_noun_phrase(NOUNS[sentence.subject2][language], '', language, 'nom')}"
    verb = VERBS[sentence.verb][language][1 if sentence.subject2 else 0]
    thing = _noun_phrase(OBJECTS[sentence.object][language], sentence.object_adjective, language, "acc")
    return subject, verb, thing, ADVERBS[sentence.adverb][language]


def wordings(sentence: Sentence, language: str) -> tuple[str, str]:
    """Two valid wordings, canonical first: the adverb late in the sentence, or in front."""
    subject, verb, thing, adverb = _clause(sentence, language)
    if language == "de":
        return f"{subject} {verb} {adverb} {thing}", f"{adverb} {verb} {subject} {thing}"
    return f"{subject} {verb} {thing} {adverb}", f"{adverb} {subject} {verb} {thing}"


def sample_sentence(rng: random.Random, domain: str) -> Sentence:
    """A random sentence of domain "covost2" (one subject with an adjective) or "fleurs" (two subjects or none)."""
    subject, subject2 = rng.sample(list(NOUNS), 2)
    pair = domain == "fleurs"
    return Sentence(
        subject,
        "" if pair else rng.choice(SUBJECT_ADJECTIVES),
        subject2 if pair else "",
        rng.choice(list(VERBS)),
        rng.choice(list(OBJECTS)),
        rng.choice(OBJECT_ADJECTIVES),
        rng.choice(list(ADVERBS)),
    )


@lru_cache(maxsize=len(LANGUAGES))
def _grammar(language: str) -> tuple[list[re.Pattern[str]], dict[str, dict[str, tuple[str, ...]]]]:
    """Patterns of both wordings of `language`, and what each matched phrase stands for."""
    heads: dict[str, tuple[str, ...]] = {}
    for noun, phrases in NOUNS.items():
        for adjective in SUBJECT_ADJECTIVES:
            heads[_noun_phrase(phrases[language], adjective, language, "nom")] = (noun, adjective, "")
        for second in NOUNS.keys() - {noun}:
            sentence = Sentence(noun, "", second, "see", "house", "red", "today")
            heads[_clause(sentence, language)[0]] = (noun, "", second)
    table: dict[str, dict[str, tuple[str, ...]]] = {
        "subject": heads,
        "verb": {form: (verb,) for verb, forms in VERBS.items() for form in forms[language]},
        "object": {
            _noun_phrase(phrases[language], adjective, language, "acc"): (noun, adjective)
            for noun, phrases in OBJECTS.items()
            for adjective in OBJECT_ADJECTIVES
        },
        "adverb": {words[language]: (adverb,) for adverb, words in ADVERBS.items()},
    }
    parts = {
        name: f"(?P<{name}>{'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})"
        for name, texts in table.items()
    }
    orders = ("subject verb object adverb", "adverb subject verb object")
    if language == "de":
        orders = ("subject verb adverb object", "adverb verb subject object")
    return [re.compile(" ".join(parts[name] for name in order.split())) for order in orders], table


def parse_sentence(text: str, language: str) -> Sentence | None:
    """The sentence whose wording in `language` is `text`; None for anything else."""
    patterns, table = _grammar(language)
    for pattern in patterns:
        match = pattern.fullmatch(text)
        if match is not None:
            (subject, adjective, second), (verb,), (thing, quality), (adverb,) = (
                table[name][match[name]] for name in ("subject", "verb", "object", "adverb")
            )
            sentence = Sentence(subject, adjective, second, verb, thing, quality, adverb)
            return sentence if text in wordings(sentence, language) else None
    return None
