"""Sentences and words of a text by fixed rules: no trained model, no download.

A sentence ends at `.`, `!` or `?` (and closing quotes), unless the full stop belongs to an abbreviation or an initial,
to the number of a list, or to an ellipsis within a sentence.
"""

import re

ABBREVIATIONS = frozenset({
    "mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "mt", "vs", "etc", "fig", "no", "vol", "pp", "inc", "ltd", "co",
    "corp", "e.g", "i.e", "a.m", "p.m", "u.s", "u.k", "ph.d", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept",
    "sep", "oct", "nov", "dec", "gen", "col", "capt", "lt", "sgt", "rev", "hon",
})  # fmt: skip
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_END = re.compile(r"(\S*?)([.!?…]+)([\"'”’)\]*_]*)(?=\s|$)")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; `don't` and `well-known` are one word each."""
    return [word.replace("’", "'").lower() for word in _WORD.findall(text)]


def split_sentences(text: str) -> list[str]:
    """The sentences by the rule above, without outer white space; text without an end mark is one."""
    sentences, start = [], 0
    for match in _END.finditer(text):
        if text[start : match.start(2)].strip() and not _within(match, text):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def count_sentences(text: str) -> int:
    """Number of sentences by the rule above; text without an end mark is one."""
    return len(split_sentences(text))


def _within(match: re.Match[str], text: str) -> bool:
    """Whether the sentence goes on after this mark."""
    word, mark, rest = match[1].lstrip("\"'“‘(["), match[2], text[match.end() :].lstrip()
    if mark.endswith(("..", "…")):
        return rest[:1].islower()
    if mark != "." or not rest:
        return False
    initial = len(word) == 1 and word.isupper() and word != "I"
    listed = word.isdigit() and not text[: match.start(1)].rpartition("\n")[2].strip()  # `1.` of a list
    return initial or listed or word.lower() in ABBREVIATIONS
