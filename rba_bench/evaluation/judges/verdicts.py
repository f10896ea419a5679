"""The verdict that a judge's reply states, where it says more than the bare word it was asked for.

Some servers write no fewer than sixteen tokens, some models answer in Markdown, in JSON, or with a reason. A verdict is
taken where it stands apart: alone, in a field of a JSON object, behind a label ("Score: 4"), on the first or the last
line, or, of a word, in front of a comma ("Yes, because"). Where two such places disagree there is no verdict: the vote
is asked for again, and counted as failed in the end, which is better than one misread.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import TypeVar

Value = TypeVar("Value")

VERSION = 2  # raise it when a reply may be read differently: part of the protocol
_LONGEST = 4000  # characters of a reply that are looked through
_FENCE = re.compile(r"\A\s*```\w*\s*\n?(.*?)\n?\s*(?:```\s*)?\Z", re.DOTALL)
_AROUND = " \t\r\n*_`#>\"'.!,;:()[]{}<>“”„‘’«»‹›「」『』。！．，、"
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_LABELS = (
    r"(?:final\s+)?(?:answer|verdict|rating|score|grade|choice|decision|judge?ment|result|winner|output|identifier|"
    r"model|model_identifier|correct|better(?:\s+\w+)?|preferred(?:\s+\w+)?)"
    r"|antwort|urteil|bewertung|note|réponse|verdicte?|respuesta|puntuación|veredicto|resposta|risposta|voto|punteggio"
    r"|ответ|оценка|答案|评分|分数|結論|结论|判断|評価|スコア|回答|답변|점수|판정|الإجابة|الجواب|التقييم|उत्तर|अंक"
)
_KEY = re.compile(rf"(?:{_LABELS})", re.IGNORECASE)
# a label, then a colon or "is", then what stands up to the end of the line or sentence
_LABELLED = re.compile(
    rf"(?:^|[\s*_\"'.,;(])(?:{_LABELS})[\s*_\"']*(?:[:：=]|\bis\b)[\s:]*([^\n.;,。，]{{1,24}})", re.IGNORECASE
)
_LEADING = re.compile(r"\A\W*(\w+)\s*[,.;:!–—，。、]")


def stated(text: str, parse: Callable[[str], Value | None], leading: bool = False) -> Value | None:
    """The verdict in a reply, None where there is none, or more than one.

    Args:
        text: The reply, without its thinking.
        parse: From a bare text to the verdict, None if it is none.
        leading: Whether a word in front of a comma or full stop counts.
    """
    text = unicodedata.normalize("NFKC", text[:_LONGEST]).strip()
    if (alone := _bare(text, parse)) is not None:
        return alone
    if (fenced := _FENCE.match(text)) and text.startswith("```"):
        text = fenced[1].strip()
    places = _fields(text) if text.startswith("{") else _places(text, leading)
    found = [value for place in places if (value := _bare(place, parse)) is not None]
    return found[0] if found and all(value == found[0] for value in found) else None


def _bare(text: str, parse: Callable[[str], Value | None]) -> Value | None:
    if boxed := _BOXED.search(text):
        text = boxed[1]
    return (
        parse(text.strip(_AROUND))
        if not text.lstrip(_AROUND.replace(".", "")).startswith(("-", "+"))
        else None
    )


def _fields(text: str) -> Iterator[str]:
    """The fields of a JSON object that are called like a verdict; of one that was cut off too."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = dict(re.findall(r"\"([^\"]+)\"\s*:\s*\"?([^\",}\n]+)\"?\s*[,}\n]", text))
    if not isinstance(values, dict):
        return
    named = {key: value for key, value in values.items() if _KEY.search(str(key))}
    for value in (named or values if len(values) == 1 else named).values():
        if isinstance(value, bool):
            yield "yes" if value else "no"
        elif isinstance(value, str | int):
            yield str(value)


def _places(text: str, leading: bool) -> Iterator[str]:
    """Where else a verdict may stand."""
    lines = [line for line in text.splitlines() if line.strip()]
    yield from (match[1] for match in _LABELLED.finditer(text))
    yield from lines[:1]
    yield from lines[1:][-1:]
    if leading and (word := _LEADING.match(text)):
        yield word[1]
