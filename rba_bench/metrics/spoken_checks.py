"""Constraints as people say them aloud, checked by rules: a part of `rba_bench.metrics.ifeval.CHECKS`.

Where IFEval (Zhou et al., 2023) has a constraint of the same meaning, its name is used. The rules judge what was asked
and nothing else: somebody who says "name three fruits" did not say whether they shall stand in lines, behind bullets or
in a sentence, so all three are read (`list_items`), and a first line such as "Sure! Here are three fruits:" is no
fruit. Case and punctuation make no difference where words are compared, for both cannot be said. Every rule refuses an
answer without words.
"""

import re
from collections.abc import Callable, Sequence

from rba_bench.metrics.qa.words import word_set
from rba_bench.metrics.response_language import is_in_language
from rba_bench.metrics.sentences import count_sentences, split_sentences, words_of

_MARKER = re.compile(r"\s*(?:(\d{1,2})[.):]|[-*•])\s*(?=\S)")
LONGEST_LINE = 12  # words of a line that counts as an entry of a list without bullets
LONGEST_PIECE = 5  # words between two commas that count as one; the first may begin with "Three fruits are"
ECHO_WORDS = 5  # an answer shorter than this is no repetition of the instruction
ECHO_SHARE = 0.7

_NUMBER_WORDS = word_set(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million and a"
)


def list_items(text: str) -> list[str]:
    """The different entries of a list, in lower case, in whatever form it is written.

    Lines with bullets or numbers; else short lines without commas; else the pieces of the sentence with most commas.
    """
    lines = [line for line in text.splitlines() if words_of(line)]
    entries = [line[marker.end() :] for line in lines if (marker := _MARKER.match(line))]
    if len(entries) < 2:
        entries = lines[1:] if lines and lines[0].rstrip(" *").endswith(":") else lines
        if len(entries) < 2 or any(len(words_of(e)) > LONGEST_LINE or len(_pieces(e)) > 2 for e in entries):
            sentences = [sentence.rpartition(":")[2] for sentence in split_sentences(text)]
            entries = max(map(_pieces, sentences), key=len, default=[])
            if any(len(words_of(entry)) > LONGEST_PIECE for entry in entries[1:]):
                entries = []  # a comma of prose
    return list(dict.fromkeys(" ".join(words) for entry in entries if (words := words_of(entry))))


def _pieces(sentence: str) -> list[str]:
    """What commas, semicolons, `and` and `or` part."""
    return [piece for piece in re.split(r"[,;&]|\band\b|\bor\b", sentence) if words_of(piece)]


def says_nothing(response: str, instruction: str, about: Sequence[str] = ()) -> bool:
    """Whether `response` cannot follow `instruction`, whatever its form.

    It has no words, or little more than the words of the instruction again, or it speaks of something else.

    Args:
        response: The whole answer.
        instruction: The words of the instruction.
        about: Beginnings of words of which every fitting answer has one; without any, all topics are fitting.
    """
    asked, said = words_of(instruction), words_of(response)
    if not said or (about and not any(word.startswith(tuple(about)) for word in said)):
        return True
    if len(said) < ECHO_WORDS:
        return False
    known = set(zip(asked, asked[1:], asked[2:], strict=False))
    triples = list(zip(said, said[1:], said[2:], strict=False))
    return sum(triple in known for triple in triples) >= ECHO_SHARE * len(triples)


def _frequency(text: str, keyword: str, frequency: int) -> bool:
    words, wanted = words_of(text), words_of(keyword)
    places = range(len(words) - len(wanted) + 1)
    return sum(words[place : place + len(wanted)] == wanted for place in places) >= frequency


def _numbered(text: str, num_items: int) -> bool:
    """Lines numbered 1, 2, 3 ..., each with words of its own; lines without a number may stand around them."""
    numbered = [
        (int(m[1]), line[m.end() :]) for line in text.splitlines() if (m := _MARKER.match(line)) and m[1]
    ]
    bodies = {" ".join(words_of(body)) for _, body in numbered} - {""}
    return [number for number, _ in numbered] == list(range(1, num_items + 1)) and len(bodies) == num_items


def _questions(text: str, num_questions: int) -> bool:
    """So many different sentences with a question mark at the end, and no other but a first line with a colon."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].rstrip(" *").endswith(":"):
        lines = lines[1:]
    bodies = [line[m.end() :] if (m := _MARKER.match(line)) else line for line in lines]
    sentences = [sentence for body in bodies for sentence in split_sentences(body)]
    asked = {tuple(words_of(sentence)) for sentence in sentences} - {()}
    return len(asked) == num_questions and all(each.rstrip("\"'”’*) ").endswith("?") for each in sentences)


def _no_list(text: str) -> bool:
    return bool(words_of(text)) and not any(_MARKER.match(line) for line in text.splitlines())


def _only_number(text: str) -> bool:
    if re.fullmatch(r"[*\"']*-?\d[\d,]*(?:\.\d+)?[*\"'.]*", text.strip()):
        return True
    words = words_of(text.replace("-", " "))
    return bool(words) and set(words) <= _NUMBER_WORDS and words[-1] not in ("and", "a")


def _last_words(text: str, phrase: str) -> bool:
    """The phrase stands last, and something before it."""
    words, wanted = words_of(text), words_of(phrase)
    return len(words) > len(wanted) and words[-len(wanted) :] == wanted


def _first_words(text: str, phrase: str) -> bool:
    """The phrase stands first, and something after it."""
    words, wanted = words_of(text), words_of(phrase)
    return len(words) > len(wanted) and words[: len(wanted)] == wanted


SPOKEN_CHECKS: dict[str, Callable[..., bool]] = {
    "detectable_content:no_digits": lambda text: bool(words_of(text)) and not re.search(r"\d", text),
    "detectable_format:item_count": lambda text, num_items: len(list_items(text)) == num_items,
    "detectable_format:no_list": _no_list,
    "detectable_format:number_only": _only_number,
    "detectable_format:numbered_list": _numbered,
    "detectable_format:one_line": lambda text: bool(words_of(text)) and "\n" not in text.strip(),
    "detectable_format:questions": _questions,
    "detectable_format:yes_or_no": lambda text: words_of(text) in (["yes"], ["no"]),
    "keywords:frequency": _frequency,
    "language:response_language": is_in_language,
    "length_constraints:sentence_range": lambda text, minimum, maximum: (
        bool(words_of(text)) and minimum <= count_sentences(text) <= maximum
    ),
    "length_constraints:word_range": lambda text, minimum, maximum: minimum <= len(words_of(text)) <= maximum,
    "startend:first_words": _first_words,
    "startend:last_words": _last_words,
}
