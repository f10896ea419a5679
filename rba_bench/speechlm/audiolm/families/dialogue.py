"""Dialogues that end with speech: the earlier turns stand in the chat as text, only the last turn is a clip.

Most audio LLMs take several clips in one chat by their template, but what training and evaluation share here (one
placeholder, one clip a row, states cached by clip) takes one. The words of the earlier turns are known, and a chat
template writes them as it writes any text; so the model reads what was said before, and takes the last turn as audio.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rba_bench.audio.turns import Turn
from rba_bench.errors import UserError

Messages = list[dict[str, Any]]
Turns = tuple[Turn, ...]


def turn_texts(turns: Turns) -> list[str]:
    """What was said in turn by user and assistant."""
    return [text for turn in turns for text in (turn.instruction, turn.response)]


def pair_texts(texts: Sequence[str]) -> Turns:
    """The inverse of `turn_texts`."""
    return tuple(Turn(said, answer) for said, answer in zip(texts[::2], texts[1::2], strict=True))


def history(turns: Turns, as_parts: bool = False) -> Messages:
    """Earlier turns as messages.

    Args:
        turns: In order.
        as_parts: Contents as lists of parts, for templates that take no plain strings.
    """
    roles = ("user", "assistant") * len(turns)
    texts = turn_texts(turns)
    contents: list[Any] = [[{"type": "text", "text": text}] for text in texts] if as_parts else list(texts)
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def render_dialogue(render: Callable[[Messages], str], turns: Turns, last: Messages) -> str:
    """A chat that begins with earlier turns.

    Args:
        render: Writes messages by the chat template.
        turns: In order; without any the chat is `last` alone.
        last: The system turn, if there is one, and the user's last turn.

    Raises:
        UserError: The template fails, or does not show the words of the earlier turns.
    """
    if not turns:
        return render(last)
    *system, user = last
    fault = ""
    for as_parts in (False, True):
        try:
            text = render([*system, *history(turns, as_parts), user])
        except UserError as error:
            fault = f": {error}"
            continue
        if shows(text, turn_texts(turns)):
            return text
    raise UserError(
        "the chat template does not write earlier turns as text, so this model cannot train on dialogues: use a set "
        f"without the column `turns`{fault}"
    )


def shows(text: str, words: Sequence[str]) -> bool:
    """Whether all `words` stand in `text` one behind the other; templates may cut blanks off their ends."""
    place = 0
    for word in words:
        found = text.find(word.strip(), place)
        if found < 0:
            return False
        place = found + len(word.strip())
    return True
