"""Whether an answer is in the language that was asked for, by its function words.

A trained detector would be another dependency of 1 to 100 MB, says nothing certain about five words, and `langdetect`
draws at random. Function words are a third to a half of any sentence, and four languages are all that is asked for.
"""

from rba_bench.errors import UserError
from rba_bench.metrics.qa.words import word_set
from rba_bench.metrics.sentences import words_of

# The commonest function words and greetings; a word of two languages counts for both
_COMMON = {
    "English": word_set(
        "the of and to in is it you that he was for on are with as i his they be at one have this from or had by not "
        "but what all were we when your can said there use an each which she do how their if will up other about out "
        "many then them these so some her would make like him into has more my a here sure yes no hello thank good"
    ),
    "Spanish": word_set(
        "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ya este sí "
        "porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos uno les ni ese eso yo "
        "tú mi te tu está son soy era fue ser tengo tiene hola gracias buenos buenas días noches cómo qué favor adiós "
        "bien"
    ),
    "French": word_set(
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec son je "
        "vous nous tu elle mais ou si leur y dont aux cette ses mon ma mes ton ta votre notre être avoir c'est j'ai "
        "d'un d'une l'on n'est très bien bonjour merci bonne suis avez ont fait aussi comme où oui non salut s'il "
        "plaît"
    ),
    "German": word_set(
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er "
        "hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur "
        "bis mehr durch man ich du wir ihr mein dein mir dir mich dich guten morgen tag danke bitte hallo gut sehr ja "
        "nein was"
    ),
}


def is_in_language(text: str, language: str) -> bool:
    """Whether most function words of `text` are of `language`, few are English, and one word in six is one.

    An answer of single words without a function word is in no language.

    Raises:
        UserError: a language without a list of words.
    """
    if language not in _COMMON:
        raise UserError(f"unknown language {language!r}: known are {', '.join(_COMMON)}")
    words = words_of(text)
    hits = {name: sum(word in common for word in words) for name, common in _COMMON.items()}
    mine = hits.pop(language)
    return mine > max(hits.values()) and mine > 2 * hits.get("English", 0) and 6 * mine >= len(words)
