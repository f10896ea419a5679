"""The prompts of judges, word for word, and how the verdict in a judge's reply is read.

Any change of a prompt changes the protocol hash; raise VERSION with it. Texts under judgement go in as JSON strings, so
that quotes or headings inside an answer cannot end its block.

A reply may say more than the bare word it was asked for: some servers write no fewer than sixteen tokens, some models
answer in Markdown, in JSON, or with a reason. A verdict is accepted where it stands apart: alone, in a field of a JSON
object, behind a label ("Score: 4"), on the first or the last line, or, of a word, in front of a comma ("Yes, because").
Where two such places disagree there is no verdict: the vote is asked for again, and counted as failed in the end, which
is better than a vote that was misread.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from rba_bench.files import sha256_json
from rba_bench.textlm.judging import Message, quote_json

VERSION = 1
FIRST, SECOND = "m", "M"  # identifiers of the two answers, as in AlpacaEval

COMPARE_SYSTEM = (
    "You compare the answers of language models to the same request. You decide as a careful human reader would, and "
    "your decisions become a ranking of the models."
)
COMPARE = """Two language models answered the same request. Decide which of the two answers people would prefer.

## Request

{request}

## Answers

The answers stand in no particular order. Each is given with the identifier of the model that wrote it.

[
    {{"model_identifier": "m", "output": {first}}},
    {{"model_identifier": "M", "output": {second}}}
]

## Task

Weigh how good and how fitting each answer is, and choose the better one. Reply with the identifier of the model that \
wrote it, m or M, and nothing else: no quotes, no spaces, no explanation.

## Identifier of the better model
"""

RATE = """Rate the answer of a voice assistant to what a user said. The user's words were transcribed.

## User

{request}

## Answer

{answer}

## Scale

1: The answer misses the request: it is mostly irrelevant, wrong, or says nothing of use.
2: The answer touches the request, but much of it is inaccurate, incomplete or beside the point.
3: The answer is relevant and mostly accurate, but it leaves something out, or says more than was wanted.
4: The answer is relevant, accurate and concise, and serves the user without detours.
5: The answer is exceptionally relevant, accurate and to the point; nothing could be better in it.

Output the score only: one integer from 1 to 5.
"""

VERIFY = """Decide whether a candidate answer to a question is correct, given the answers that are known to be correct.

## Question

{request}

## Known answers

{references}

## Candidate answer

{answer}

## Task

The candidate is correct if it states the same as at least one of the known answers, in whatever words, and does not \
contradict it. More text around it does no harm. Reply with one word, Yes or No, and nothing else.
"""


@lru_cache(maxsize=2048)  # the votes of a record are looked up by them, and then counted
def compare_prompt(request: str, first: str, second: str) -> tuple[Message, ...]:
    """Which of two answers is better: the first is `m`, the second `M`."""
    text = COMPARE.format(request=_block(request), first=quote_json(first), second=quote_json(second))
    return Message("system", COMPARE_SYSTEM), Message("user", text)


@lru_cache(maxsize=1024)  # the answers of many models to one request are compared
def _block(request: str) -> str:
    return json.dumps({"instruction": request}, ensure_ascii=False, indent=4)


def rating_prompt(request: str, answer: str) -> tuple[Message, ...]:
    """How good an answer is, from 1 to 5."""
    return (Message("user", RATE.format(request=quote_json(request), answer=quote_json(answer))),)


def correctness_prompt(request: str, references: Sequence[str], answer: str) -> tuple[Message, ...]:
    """Whether an answer is one of the references in other words."""
    listed = json.dumps(list(references), ensure_ascii=False)
    text = VERIFY.format(request=quote_json(request), references=listed, answer=quote_json(answer))
    return (Message("user", text),)


def prompt_fingerprint(*templates: str) -> dict[str, str | int]:
    """Version and hash of the templates: part of the protocol."""
    return {"version": VERSION, "sha256": sha256_json(list(templates))}


Value = TypeVar("Value")

VERDICTS_VERSION = 2  # raise it when a reply may be read differently: part of the protocol
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


def parse_verdict(text: str, parse: Callable[[str], Value | None], leading: bool = False) -> Value | None:
    """The verdict in a reply, None where there is none, or more than one.

    Args:
        text: The reply, without its thinking.
        parse: From a bare text to the verdict, None if it is none.
        leading: Whether a word in front of a comma or full stop counts.
    """
    text = unicodedata.normalize("NFKC", text[:_LONGEST]).strip()
    if (verdict := _bare_verdict(text, parse)) is not None:
        return verdict
    if text.startswith("```") and (fenced := _FENCE.match(text)):
        text = fenced[1].strip()
    if text.startswith("{"):
        places = list(_fields(text))
    else:
        lines = [line for line in text.splitlines() if line.strip()]
        places = [*(match[1] for match in _LABELLED.finditer(text)), *lines[:1], *lines[1:][-1:]]
        if leading and (word := _LEADING.match(text)):
            places.append(word[1])
    verdicts = [verdict for place in places if (verdict := _bare_verdict(place, parse)) is not None]
    return verdicts[0] if verdicts and all(verdict == verdicts[0] for verdict in verdicts) else None


def _bare_verdict(text: str, parse: Callable[[str], Value | None]) -> Value | None:
    """The verdict that a text is, quotes and brackets aside; a number with a sign is none."""
    if boxed := _BOXED.search(text):
        text = boxed[1]
    if text.lstrip(_AROUND.replace(".", "")).startswith(("-", "+")):
        return None
    return parse(text.strip(_AROUND))


def _fields(text: str) -> Iterator[str]:
    """The fields of a JSON object whose names are labels of verdicts, also of an object that was cut off."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = dict(re.findall(r"\"([^\"]+)\"\s*:\s*\"?([^\",}\n]+)\"?\s*[,}\n]", text))
    if not isinstance(values, dict):
        return
    labelled = {key: value for key, value in values.items() if _KEY.search(str(key))}
    for value in (labelled or values if len(values) == 1 else labelled).values():
        if isinstance(value, bool):
            yield "yes" if value else "no"
        elif isinstance(value, str | int):
            yield str(value)
