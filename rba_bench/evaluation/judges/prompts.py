"""What judges are asked, word for word. Any change here changes the protocol hash; raise VERSION with it.

Texts under judgement go in as JSON strings, so that quotes or headings inside an answer cannot end its block.
"""

import json
from collections.abc import Sequence

from rba_bench.files import sha256_json
from rba_bench.textlm.asking import Message

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


def compare(request: str, first: str, second: str) -> tuple[Message, ...]:
    """Which of two answers is better: the first is `m`, the second `M`."""
    block = json.dumps({"instruction": request}, ensure_ascii=False, indent=4)
    text = COMPARE.format(request=block, first=_quoted(first), second=_quoted(second))
    return Message("system", COMPARE_SYSTEM), Message("user", text)


def rate(request: str, answer: str) -> tuple[Message, ...]:
    """How good an answer is, from 1 to 5."""
    return (Message("user", RATE.format(request=_quoted(request), answer=_quoted(answer))),)


def verify(request: str, references: Sequence[str], answer: str) -> tuple[Message, ...]:
    """Whether an answer is one of the references in other words."""
    known = json.dumps(list(references), ensure_ascii=False)
    text = VERIFY.format(request=_quoted(request), references=known, answer=_quoted(answer))
    return (Message("user", text),)


def fingerprint(*templates: str) -> dict[str, str | int]:
    """Version and hash of the templates: part of the protocol."""
    return {"version": VERSION, "sha256": sha256_json(list(templates))}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
