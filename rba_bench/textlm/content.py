"""Token ids of conversations in which the words of others stay words.

A tokenizer reads `<|im_end|>` as the end of a turn whoever wrote it: in an answer that is judged or learnt, or in a
user's prompt, it would close the turn, open one in the judge's name, or stand for a clip. Here only what the chat
template writes becomes a control token; the same characters in content are read as the ordinary text they are.

How: the template is rendered with a private word in the place of each control string of the content, so that what is
left of such strings is the template's own. These get another, unforgeable spelling, the content gets its characters
back, and a copy of the tokenizer that knows its control tokens by the new spelling alone reads the whole in one go: it
cannot make a control token of anything else, not from its vocabulary either (WordPiece and Unigram find `<|end|>` and
`</s>` there, with `split_special_tokens` too), and pieces merge at their borders as ever. Content without such a token
takes the usual way, with the ids it always had.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

from rba_bench.errors import UserError
from rba_bench.textlm.replies import is_mark

Writer = Callable[[Sequence[str]], str]  # contents to text
_BARS = re.compile(r"<[|\uff5c][^\s<>]*[|\uff5c]>")  # a control token by its looks, flagged as special or not


class ControlStringError(UserError):
    """Content holds the text of a control token, and the tokenizer is of a kind that cannot read it as text."""


class ContentTokenizer:
    """A tokenizer that keeps what a chat template writes and what somebody else wrote apart.

    Args:
        tokenizer: of transformers; those of `mistral-common` read content as text by themselves.
        also: ids that are control tokens however they are flagged, such as the placeholder for audio.

    Attributes:
        control: control strings by id: special tokens, and others that mark turns or thinking.
    """

    def __init__(self, tokenizer: Any, also: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        known = getattr(tokenizer, "added_tokens_decoder", {})  # not every tokenizer of mistral-common has it
        added = {i: str(token) for i, token in known.items() if str(token).strip()}
        self.control: dict[int, str] = {
            i: text
            for i, text in added.items()
            if known[i].special or i in also or is_mark(text) or _BARS.fullmatch(text) is not None
        }
        # An unknown word forges nothing, though its token has a name that does
        unknown = getattr(tokenizer, "unk_token_id", None)
        ends = (tokenizer.eos_token_id, tokenizer.bos_token_id)
        self._forged = frozenset(i for i in self.control if i != unknown or i in ends)
        self._quiet = {"verbose": False} if hasattr(tokenizer, "backend_tokenizer") else {}
        longest_first = sorted(self.control.values(), key=len, reverse=True)
        self._strings = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def ids(self, write: Writer, contents: Sequence[str], special: bool = False) -> list[int]:
        """Token ids of `write(contents)`.

        Args:
            write: makes the text, by a chat template or otherwise; the contents must come out of it as they went in.
            contents: what others wrote.
            special: let the tokenizer add its own tokens around the text (`add_special_tokens`).

        Raises:
            ControlStringError: a control string in the contents cannot be read as text with this tokenizer.
        """
        if not any(map(self.forges, contents)):
            text = write(contents)
            return list(self.tokenizer(text, add_special_tokens=special, **self._quiet)["input_ids"])
        masked, hidden = self._masked(contents)
        parts = enumerate(_split(write(masked), hidden))
        text = "".join(hidden[part] if i % 2 else self._spelled(part) for i, part in parts)
        return list(self._backend.encode(text, add_special_tokens=special).ids)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of content that stands alone, such as an answer, without control tokens."""
        return self.ids(lambda told: told[0], [text])

    def pair(self, one: str, other: str) -> tuple[list[int], list[int]]:
        """Token ids and types of two contents as the tokenizer itself joins them (`[CLS] one [SEP] other [SEP]`)."""
        if not (self.forges(one) or self.forges(other)):
            found = self.tokenizer(one, other, return_token_type_ids=True, **self._quiet)
            return list(found["input_ids"]), list(found["token_type_ids"])
        encoding = self._backend.encode(one, other)
        return list(encoding.ids), list(encoding.type_ids)

    def forges(self, content: str) -> bool:
        """Whether the tokenizer would read a control token in it."""
        if not self.control or self._strings.search(content):
            return bool(self.control)
        # the tokenizer may know it by other spellings: in capitals, or as a word of its vocabulary
        found = self.tokenizer(content, add_special_tokens=False, **self._quiet)["input_ids"]
        return not self._forged.isdisjoint(found)

    def _masked(self, contents: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The contents with a word for each control string, and what each word stands for."""
        hidden: dict[str, str] = {}
        nonce = _unused(contents)

        def hide(found: re.Match[str]) -> str:
            word = f"{nonce}x{len(hidden)}x"
            hidden[word] = found[0]
            return word

        return [self._strings.sub(hide, content) for content in contents], hidden

    def _spelled(self, text: str) -> str:
        return self._strings.sub(lambda found: self._spelling(found[0]), text)

    def _spelling(self, control: str) -> str:
        return f"{self._nonce}{self._numbers[control]}{self._nonce}"

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {text: i for i, text in self.control.items()}

    @cached_property
    def _nonce(self) -> str:
        # No content can hold it; no id depends on it. Private use: no normaliser has a rule for these characters
        return "".join(chr(0xF0000 + byte) for byte in secrets.token_bytes(12))

    @cached_property
    def _backend(self) -> Any:
        """The tokenizer with its control tokens under their private spelling.

        Raises:
            ControlStringError: the tokenizer is of a kind that cannot be taken apart.
        """
        from tokenizers import Tokenizer

        original = getattr(self.tokenizer, "backend_tokenizer", None)
        if original is None:
            raise self._refusal()
        settings = json.loads(original.to_str())
        settings["truncation"] = settings["padding"] = None
        for token in settings["added_tokens"]:
            if token["id"] in self.control:
                token["content"] = self._spelling(self.control[token["id"]])
        _rename(settings["model"], {text: self._spelling(text) for text in self.control.values()})
        renamed = Tokenizer.from_str(json.dumps(settings))
        if any(renamed.token_to_id(self._spelling(text)) != i for i, text in self.control.items()):
            raise self._refusal()
        return renamed

    def refuse(self, content: str) -> None:
        """For tokenizing that happens elsewhere. Raises ControlStringError where `content` forges a token."""
        if self.forges(content):
            raise self._refusal()

    def _refusal(self) -> ControlStringError:
        whose = getattr(self.tokenizer, "name_or_path", "") or "this model"
        return ControlStringError(
            f"the text contains a control string of {whose}, and its tokenizer ({type(self.tokenizer).__name__}) "
            f"cannot read it as text; control strings are {', '.join(list(self.control.values())[:5])}: remove it"
        )


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Give entries of a tokenizer's vocabulary other names."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(word, word): i for word, i in vocabulary.items()}
    else:  # Unigram: pieces with their scores, in the order of their ids
        model["vocab"] = [[names.get(word, word), score] for word, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if names.keys().isdisjoint(_words(merge))]


def _words(merge: Sequence[str] | str) -> set[str]:
    """The two words of a merge, and what they become."""
    one, other = merge.split(" ", 1) if isinstance(merge, str) else merge
    return {one, other, one + other}


def _split(text: str, words: dict[str, str]) -> list[str]:
    """The text before, of and after each of the words, in turn."""
    return re.split(f"({'|'.join(map(re.escape, words))})", text) if words else [text]


def _unused(contents: Sequence[str]) -> str:
    """A word that is in none of the contents; no capitals or spaces, which templates and tokenizers may change."""
    number = 0
    while any(f"zqmark{number}qz" in content.lower() for content in contents):
        number += 1
    return f"zqmark{number}qz"
