"""The query template of a chat model: the raw text that makes it write a user turn, and the strings that end that turn.

Magpie (Xu et al. 2024, arXiv 2406.08464) feeds an aligned model nothing but the opening of a user turn. Three ways to
get it:

    template   what the chat template writes before the user's first word, with the system turn that it adds by itself.
               Models that were aligned with one (Qwen2.5: "You are Qwen, created by Alibaba Cloud ...") write fragments
               without it (magpie-align/magpie, issue 28).
    bare       the opening of the turn alone, behind the token that begins a text: what Magpie and the RBA paper print
               for Llama 3.1, whose template would add a system turn with a date.
    text       given by the user, for a server whose tokenizer is not at hand

In a dialogue it is fed the conversation so far and the opening of the next user turn (`DialogueTemplate`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rba_bench.errors import UserError
from rba_bench.textlm.chat import (
    SENTINEL,
    ContentTokenizer,
    Variables,
    pre_query_template,
    render_chat,
    turn_marks,
)

TEMPLATE, BARE = "template", "bare"
FIRST = "zqfirsttextqz"  # a word no template writes, as SENTINEL is


@dataclass(frozen=True)
class QueryTemplate:
    """Raw text before a user turn, special tokens written out, and the strings that end it."""

    text: str
    stops: tuple[str, ...]

    def cut(self, text: str) -> str:
        """What was written, up to the first of the stops: some servers leave it in the text."""
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text


def derive_query_template(tokenizer: Any, kind: str, template: Variables) -> QueryTemplate:
    """The query template of a tokenizer with a chat template.

    Args:
        tokenizer: Of transformers.
        kind: `template` or `bare`.
        template: Variables of the chat template.

    Raises:
        UserError: there is no chat template, or it does not show where a turn begins.
    """
    stops = turn_marks(tokenizer, **template)
    if kind == TEMPLATE:
        return QueryTemplate(pre_query_template(tokenizer, **template), stops)
    return QueryTemplate(_beginning(tokenizer, template) + _later_opening(tokenizer, stops, template), stops)


def _beginning(tokenizer: Any, template: Variables) -> str:
    """The token that begins a text, where the chat template writes one."""
    first = str(tokenizer.bos_token or "")
    return first if first and pre_query_template(tokenizer, **template).startswith(first) else ""


def _later_opening(tokenizer: Any, stops: tuple[str, ...], template: Variables) -> str:
    """The opening of a second user turn, which no template puts a system turn before."""
    words = ("FIRSTQUESTION", "FIRSTANSWER", "SECONDQUESTION")
    messages = [
        {"role": role, "content": word}
        for role, word in zip(("user", "assistant", "user"), words, strict=True)
    ]
    _, found, rest = render_chat(tokenizer, messages, **template).partition(words[1])
    opening, second, _ = rest.partition(words[2])
    if not found or not second:
        raise UserError(
            "the chat template does not show where a user turn begins: give the query template as text"
        )
    for stop in sorted(stops, key=len, reverse=True):
        opening = opening.removeprefix(stop)
    return opening.lstrip("\n")


@dataclass(frozen=True)
class DialogueTemplate:
    """Writes a conversation up to where the user's next words begin: continued, it makes the model ask further.

    That is how Magpie-MT makes dialogues (Xu et al. 2024, arXiv 2406.08464).

    Attributes:
        tokenizer: Of transformers, with a chat template.
        template: Variables of the chat template.
        system: System turn of the conversation; None for none but what the chat template adds by itself.
        opening: Text before the user's first words, where it is not the chat template's.
    """

    tokenizer: Any
    template: Variables
    system: str | None = None
    opening: str | None = None

    def text(self, exchanges: Sequence[tuple[str, str]]) -> str:
        """Raw text up to the user's next words, special tokens written out.

        Args:
            exchanges: What user and assistant said in turn; nothing that `forges` finds.

        Raises:
            UserError: the chat template does not write conversations of several turns.
        """
        (first, answer), *later = exchanges
        rendered = self._render([(FIRST, answer), *later])
        head, found, rest = rendered.partition(FIRST)
        history, shown, _ = rest.partition(SENTINEL)
        if not found or not shown:
            raise UserError("the chat template does not show the words of earlier turns: set turns to 1")
        if self.system is None and self.opening is not None:
            head = self.opening
        return head + first + history

    def forges(self, text: str) -> bool:
        """Whether words hold what the tokenizer reads as a control token, so that they would end their own turn."""
        return self._content.forges(text)

    @cached_property
    def _content(self) -> ContentTokenizer:
        return ContentTokenizer(self.tokenizer)

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template writes a system turn; some refuse it (Gemma 2), some leave it out."""
        probe = [{"role": "system", "content": FIRST}, {"role": "user", "content": SENTINEL}]
        try:
            return FIRST in render_chat(self.tokenizer, probe, **self.template)
        except UserError:
            return False

    def _render(self, exchanges: Sequence[tuple[str, str]]) -> str:
        messages = [
            {"role": role, "content": text}
            for exchange in exchanges
            for role, text in zip(("user", "assistant"), exchange, strict=True)
        ]
        if self.system is not None and self._takes_system:
            messages.insert(0, {"role": "system", "content": self.system})
        elif self.system is not None:
            messages[0]["content"] = f"{self.system}\n\n{messages[0]['content']}"
        return render_chat(
            self.tokenizer, [*messages, {"role": "user", "content": SENTINEL}], **self.template
        )
