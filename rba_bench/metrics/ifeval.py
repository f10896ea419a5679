"""Whether an answer keeps to its constraints, checked by rules: Speech-IFEval's thirteen and those of `spoken_checks`.

The names are those of IFEval (Zhou et al., 2023); the rules are as Speech-IFEval (Lu et al., 2025) relaxed them.
Bullets may be `*`, `-`, a dot or a number; paragraphs end at any line break; what must stand first may stand in quotes;
upper and lower case are checked without asking for a language. So the checkers of lm-eval's `ifeval` task give other
rates. An empty answer follows nothing.

Speech-IFEval counts sentences with NLTK's trained Punkt model, which is a download. Here the fixed rule of
`rba_bench.metrics.sentences` stands in. Of the 2,666 answers whose verdicts the authors publish (two models, all
thirteen constraints) this module judges 2,665 as they do; the other one hangs on an ellipsis.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rba_bench.errors import UserError
from rba_bench.metrics.sentences import count_sentences
from rba_bench.metrics.spoken_checks import SPOKEN_CHECKS, says_nothing

VERSION = 1
BULLETS = ("-", "•")


def check_constraint(name: str, arguments: Mapping[str, Any], response: str) -> bool:
    """Whether `response` follows one constraint.

    Args:
        name: Key of CHECKS, such as `keywords:existence`.
        arguments: Its arguments, such as `{"keywords": ["river"]}`.
        response: The whole answer.

    Raises:
        UserError: unknown constraint, or arguments it does not have.
    """
    if name not in CHECKS:
        raise UserError(f"unknown instruction {name!r}; known: {', '.join(CHECKS)}")
    if not response.strip():
        return False
    try:
        return CHECKS[name](response, **arguments)
    except TypeError as error:
        raise UserError(f"instruction {name} with {dict(arguments)}: {error}") from error


def if_rate(extra: Mapping[str, Any], response: str) -> float | None:
    """Share of an item's constraints that `response` follows, None if none of them is checked by rule.

    Args:
        extra: `instructions`: list of `{"name": ..., "arguments": {...}}`. Of spoken instructions also `instruction`,
            its words, and `about`: an answer that says nothing (`spoken_checks.says_nothing`) follows nothing.
        response: The whole answer.
    """
    followed = [check_constraint(item["name"], item["arguments"], response) for item in extra["instructions"]]
    if followed and "instruction" in extra and says_nothing(response, extra["instruction"], extra["about"]):
        return 0.0
    return sum(followed) / len(followed) if followed else None


def _relation(count: int, relation: str, threshold: int) -> bool:
    if relation not in ("less than", "at least"):
        raise UserError(f"unknown relation {relation!r}: known are `less than` and `at least`")
    return count < threshold if relation == "less than" else count >= threshold


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    """Pieces between line breaks or `***`; an empty piece between two others is a fault."""
    pieces = [piece.strip() for piece in re.split(r"\s*\*\*\*\s*|\n+", text.strip())]
    inner = pieces[1:-1]
    return all(inner) and sum(map(bool, pieces)) == num_paragraphs


def _bullets(text: str, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in text.replace("\\n", "\n").split("\n")]
    starred = [line for line in lines if line.startswith("*") and line[1:2] not in ("", "*")]
    others = [line for line in lines if line.startswith(BULLETS) or line[:1].isdecimal()]
    return len(starred) + len(others) == num_bullets


def _no_words(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(
        re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in forbidden_words
    )


def _json(text: str) -> bool:
    inside = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inside = inside.removeprefix(fence)
    try:
        json.loads(inside.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _quoted(text: str) -> bool:
    inside = text.strip()
    return len(inside) > 1 and inside.startswith('"') and inside.endswith('"')


CHECKS: dict[str, Callable[..., bool]] = {
    "change_case:english_capital": lambda text: text.isupper(),
    "change_case:english_lowercase": lambda text: text.islower(),
    "combination:repeat_prompt": lambda text, prompt_to_repeat: (
        text.strip().lower().strip("\"'").startswith(prompt_to_repeat.strip().lower())
    ),
    "detectable_format:json_format": _json,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:title": lambda text: any(
        title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", text)
    ),
    "keywords:existence": lambda text, keywords: all(keyword.lower() in text.lower() for keyword in keywords),
    "keywords:forbidden_words": _no_words,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_sentences": lambda text, num_sentences, relation: _relation(
        count_sentences(text), relation, num_sentences
    ),
    "length_constraints:number_words": lambda text, num_words, relation: _relation(
        len(re.findall(r"\w+", text)), relation, num_words
    ),
    "startend:end_checker": lambda text, end_phrase: (
        text.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
    "startend:quotation": _quoted,
    **SPOKEN_CHECKS,
}
