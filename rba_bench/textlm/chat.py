"""Chat templates: rendering turns, end-of-turn tokens, template variables, and token ids safe from control strings.

**Rendering.** `render_chat` writes a conversation as the model's template does; `pre_query_template` and `stop_ids` say
where the user's words begin and which tokens end a turn.

**Variables**, such as `enable_thinking`, are given by the user, checked, and recorded with the model. A template that
does not read a variable ignores it silently; where the template's text is known, one line says so.

**Control strings.** A tokenizer reads `<|im_end|>` as the end of a turn whoever wrote it: in an answer that is judged
or learnt, or in a user's prompt, it would close the turn, open one in the judge's name, or stand for a clip.
`ContentTokenizer` makes a control token only of what the chat template writes; the same characters in content are read
as ordinary text. How: the template is rendered with a private word in the place of each control string of the content,
so that the control strings that remain are the template's own. These get another, unforgeable spelling, the content
gets its characters back, and a copy of the tokenizer that knows its control tokens by the new spelling alone reads the
text in one call: it cannot make a control token of anything else, not from its vocabulary either (WordPiece and Unigram
find `<|end|>` and `</s>` there, with `split_special_tokens` too), and pieces merge at their borders as usual. Content
without such a string is tokenised in the usual way, to the usual ids.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from jinja2 import TemplateError
from pydantic import PlainValidator

from rba_bench.errors import UserError, first_line
from rba_bench.files import read_json
from rba_bench.progress import say
from rba_bench.textlm.replies import is_turn_mark

# A word no template writes. No spaces or capitals: templates trim, and some tokenizers lower-case.
SENTINEL = "zqusertextqz"
ANSWER = "zqanswertextqz"

Scalar = bool | int | float | str | None
Variables = Mapping[str, Scalar]
THINKING = "enable_thinking"  # Qwen3, GLM, SmolLM3, Hunyuan, EXAONE, Nemotron
_NAME = re.compile(r"[A-Za-z_]\w*")
# What `apply_chat_template` takes itself, and what every template gets
_RESERVED = (
    "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize", "padding",
    "continue_final_message", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs",
    "return_assistant_tokens_mask", "processor_kwargs", "load_audio_from_video", "self",
)  # fmt: skip

Writer = Callable[[Sequence[str]], str]  # contents to text
_BARS = re.compile(r"<[|\uff5c][^\s<>]*[|\uff5c]>")  # a control token by its looks, flagged as special or not


def render_chat(speaker: Any, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """A conversation as the chat template of a tokenizer or processor writes it.

    Args:
        speaker: Has `apply_chat_template`.
        messages: Turns with `role` and `content`.
        options: `add_generation_prompt`, and variables of the template.

    Raises:
        UserError: there is no template, or it refuses the conversation (templates may `raise_exception`), or it fails.
    """
    try:
        return str(speaker.apply_chat_template(messages, tokenize=False, **options))
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = " ".join(first_line(error).split())
        model = getattr(getattr(speaker, "tokenizer", speaker), "name_or_path", "") or "this model"
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise UserError(
            f"the chat template of {model} cannot write a conversation of {roles} ({reason}): use an instruction-tuned "
            "model, or correct its chat_template.jinja"
        ) from error


def render_user_turn(tokenizer: Any, text: str, **template: Any) -> str:
    """A user turn and the header of the answer, ready for generation; special tokens are written out."""
    return render_chat(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True, **template)


def pre_query_template(tokenizer: Any, **template: Any) -> str:
    """The rendered conversation up to the user's first character (with the system turn, if there is one).

    Raises:
        UserError: the template does not show the user's words.
    """
    return _split_at(_render_probe(tokenizer, template), SENTINEL)[0]


def stop_ids(tokenizer: Any, model: Any, **template: Any) -> tuple[list[int], list[int]]:
    """Tokens that end an answer, and those that end a completion of either turn; at least one each.

    They are what the template writes behind a turn, the tokenizer's `eos_token`, and what the model's authors put
    into its generation config (Llama 3 names three), in this order. No single source is enough: base tokenizers
    keep `<|endoftext|>` as eos while the template closes turns with `<|im_end|>`. Of the template only special
    tokens count: ordinary text may occur inside an answer.

    Raises:
        UserError: no chat template, or none of the three names a token.
    """
    rendered = _render_probe(tokenizer, template)
    after_user = _split_at(rendered, SENTINEL)[1].partition(ANSWER)[0]
    after_answer = _split_at(rendered, ANSWER)[1]
    shipped = model.generation_config.eos_token_id
    eos_ids = [tokenizer.eos_token_id, *(shipped if isinstance(shipped, list) else [shipped])]
    answer = [*_leading_special(tokenizer, after_answer), *(i for i in eos_ids if i is not None)]
    if not answer:
        raise UserError(
            "no token ends a turn: the tokenizer needs an eos_token, or a template that writes one"
        )
    either = [*_leading_special(tokenizer, after_user), *answer]
    return list(dict.fromkeys(answer)), list(dict.fromkeys(either))


MOST_MARKS = 4  # stop strings that hosted servers accept


def turn_marks(tokenizer: Any, **template: Any) -> tuple[str, ...]:
    """The special tokens, as text, by which a user turn ends or another one begins: what ends it first.

    Raises:
        UserError: no chat template, or no special token in it.
    """
    rendered = _render_probe(tokenizer, template)
    behind = _split_at(rendered, SENTINEL)[1]
    special = {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(
        tokenizer.all_special_tokens
    )
    found = sorted(special & set(_within(behind, special)), key=behind.index)
    found = [
        mark for mark in [*found, str(tokenizer.eos_token or "")] if mark and mark != tokenizer.bos_token
    ]
    if not found:
        raise UserError("no special token ends a turn of this chat template: give the query template as text")
    return tuple(dict.fromkeys(found))[:MOST_MARKS]


def _within(text: str, words: Collection[str]) -> list[str]:
    return [word for word in words if word and word in text]


def _render_probe(tokenizer: Any, template: dict[str, Any]) -> str:
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template: use an instruction-tuned model, or add chat_template.jinja"
        )
    messages = [{"role": "user", "content": SENTINEL}, {"role": "assistant", "content": ANSWER}]
    return render_chat(tokenizer, messages, **template)


def _split_at(rendered: str, word: str) -> tuple[str, str]:
    before, match, after = rendered.partition(word)
    if not match:
        raise UserError("the chat template does not show the words of a turn: it cannot be used here")
    return before, after


def _leading_special(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:1]
    return [i for i in ids if i in tokenizer.all_special_ids or i in tokenizer.added_tokens_decoder]


def parse_template_variables(assignments: Sequence[str]) -> dict[str, Scalar]:
    """Variables from `key=value` texts; a value is a JSON scalar (`true`, `0.5`, `"text"`), anything else is its text.

    Raises:
        UserError: no `=`, a key that is no name, or a value that is a list or an object.
    """
    variables: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"template variable {text!r}: write key=value, such as {THINKING}=false")
        try:
            variables[key.strip()] = json.loads(value, parse_constant=str)
        except (ValueError, RecursionError):  # plain text; a number of thousands of digits too
            variables[key.strip()] = value
    return check_template_variables(variables)


def template_variables(value: Mapping[str, Any] | str | None) -> dict[str, Scalar]:
    """Variables as lm-eval's `--model_args` may hold them: a mapping, its JSON text, or `key=value;key=value`.

    Raises:
        UserError: see `parse_template_variables`.
    """
    if value is None or isinstance(value, Mapping):
        return check_template_variables(value or {})
    if value.lstrip().startswith("{"):
        try:
            return check_template_variables(json.loads(value))
        except ValueError as error:
            raise UserError(f"template {value!r} is not JSON ({error}): write key=value") from error
    return parse_template_variables([part for part in value.split(";") if part.strip()])


def check_template_variables(variables: Mapping[str, Any]) -> dict[str, Scalar]:
    """The variables as they are, checked.

    Raises:
        UserError: a key that no template can read or that is reserved, or a value that is no scalar.
    """
    for key, value in variables.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise UserError(
                f"template variable {key!r} is not a name: write key=value, such as {THINKING}=false"
            )
        if key in _RESERVED:
            raise UserError(f"template variable {key} is set by rba-bench itself: leave it out")
        if not isinstance(value, Scalar) or (isinstance(value, float) and value - value != 0):
            raise UserError(f"template variable {key}: {value!r} is not a number, text, true or false")
    return dict(variables)


def _recipe_value(value: Any) -> dict[str, Scalar]:
    """For pydantic: a mapping of scalars, nothing for null."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"give variables and their values, such as {{{THINKING}: false}}")
    try:
        return check_template_variables(value or {})
    except UserError as error:
        raise ValueError(str(error)) from error


TemplateVariables = Annotated[dict[str, Scalar], PlainValidator(_recipe_value)]  # of recipes


def template_of(holder: Any) -> str:
    """The chat template of a tokenizer or processor, "" if it has none; of several, all together."""
    return _template_text(getattr(holder, "chat_template", None))


def template_in_folder(folder: Path) -> str:
    """The chat template in a model's folder, "" if there is none; nothing else is loaded."""
    beside = sorted(folder.glob("*.jinja")) + sorted(folder.glob("additional_chat_templates/*.jinja"))
    if beside:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in beside)
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        try:
            config = read_json(folder / name) if (folder / name).is_file() else None
        except ValueError:
            continue  # loading the tokenizer says what is wrong with the file
        if isinstance(config, Mapping) and (text := _template_text(config.get("chat_template"))):
            return text
    return ""


def template_reads(template: str, variable: str) -> bool:
    """Whether a template's text names a variable."""
    return re.search(rf"(?<!\w){re.escape(variable)}(?!\w)", template) is not None


def disable_thinking(template: str, variables: Variables) -> dict[str, Scalar]:
    """The variables, with thinking switched off where the template has a switch and the user does not set it."""
    off: dict[str, Scalar] = {THINKING: False} if template_reads(template, THINKING) else {}
    return {**off, **variables}


def warn_unread_variables(template: str, variables: Variables, model: str) -> None:
    """Say which variables the template does not read, if any: they change nothing."""
    if unread := [name for name in variables if not template_reads(template, name)]:
        say(f"{model}: its chat template does not read {', '.join(unread)}, so nothing changes")


def _template_text(template: Any) -> str:
    if isinstance(template, Mapping):
        return "\n".join(str(text) for text in template.values())
    if isinstance(template, list):  # `[{"name": ..., "template": ...}]` of older files
        return "\n".join(str(entry.get("template", "")) for entry in template if isinstance(entry, Mapping))
    return template if isinstance(template, str) else ""


class ControlStringError(UserError):
    """Content holds the text of a control token, and the tokenizer is of a kind that cannot read it as text."""


class ContentTokenizer:
    """A tokenizer that keeps what a chat template writes and what somebody else wrote apart.

    Args:
        tokenizer: of transformers; those of `mistral-common` read content as text by themselves.
        also: ids that are control tokens whatever their flags say, such as the placeholder for audio.

    Attributes:
        control: control strings by id: special tokens, and others that mark turns or thinking.
    """

    def __init__(self, tokenizer: Any, also: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        table = getattr(tokenizer, "added_tokens_decoder", {})  # not every tokenizer of mistral-common has it
        added = {i: str(token) for i, token in table.items() if str(token).strip()}
        self.control: dict[int, str] = {
            i: text
            for i, text in added.items()
            if table[i].special or i in also or is_turn_mark(text) or _BARS.fullmatch(text) is not None
        }
        # An unknown word forges nothing, though its token has a name that does
        unknown = getattr(tokenizer, "unk_token_id", None)
        ends = (tokenizer.eos_token_id, tokenizer.bos_token_id)
        self._forged = frozenset(i for i in self.control if i != unknown or i in ends)
        self._quiet = {"verbose": False} if hasattr(tokenizer, "backend_tokenizer") else {}
        longest_first = sorted(self.control.values(), key=len, reverse=True)
        self._numbers = {text: i for i, text in self.control.items()}
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
        # a private word for each control string; no capitals or spaces, which templates and tokenizers may change
        number = next(
            n for n in count() if not any(f"zqmark{n}qz" in content.lower() for content in contents)
        )
        hidden: dict[str, str] = {}  # what each word stands for

        def hide(match: re.Match[str]) -> str:
            word = f"zqmark{number}qzx{len(hidden)}x"
            hidden[word] = match[0]
            return word

        masked = [self._strings.sub(hide, content) for content in contents]
        words = "|".join(map(re.escape, hidden)) or r"(?!)"
        parts = enumerate(re.split(f"({words})", write(masked)))  # odd parts are the private words
        respell = partial(self._strings.sub, lambda match: self._spelling(match[0]))
        text = "".join(hidden[part] if i % 2 else respell(part) for i, part in parts)
        return list(self._backend.encode(text, add_special_tokens=special).ids)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of content that stands alone, such as an answer, without control tokens."""
        return self.ids(lambda contents: contents[0], [text])

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Token ids and types of two contents as the tokenizer joins them (`[CLS] first [SEP] second [SEP]`)."""
        if not (self.forges(first) or self.forges(second)):
            encoded = self.tokenizer(first, second, return_token_type_ids=True, **self._quiet)
            return list(encoded["input_ids"]), list(encoded["token_type_ids"])
        encoding = self._backend.encode(first, second)
        return list(encoding.ids), list(encoding.type_ids)

    def forges(self, content: str) -> bool:
        """Whether the tokenizer would read a control token in it."""
        if not self.control or self._strings.search(content):
            return bool(self.control)
        # the tokenizer may know it by other spellings: in capitals, or as a word of its vocabulary
        ids = self.tokenizer(content, add_special_tokens=False, **self._quiet)["input_ids"]
        return not self._forged.isdisjoint(ids)

    def _spelling(self, control: str) -> str:
        """The unforgeable spelling of a control string."""
        return f"{self._nonce}{self._numbers[control]}{self._nonce}"

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
        _rename_vocabulary(settings["model"], {text: self._spelling(text) for text in self.control.values()})
        renamed = Tokenizer.from_str(json.dumps(settings))
        if any(renamed.token_to_id(self._spelling(text)) != i for i, text in self.control.items()):
            raise self._refusal()
        return renamed

    def refuse(self, content: str) -> None:
        """For tokenizing that happens elsewhere. Raises ControlStringError where `content` forges a token."""
        if self.forges(content):
            raise self._refusal()

    def _refusal(self) -> ControlStringError:
        model = getattr(self.tokenizer, "name_or_path", "") or "this model"
        return ControlStringError(
            f"the text contains a control string of {model}, and its tokenizer ({type(self.tokenizer).__name__}) "
            f"cannot read it as text; control strings are {', '.join(list(self.control.values())[:5])}: remove it"
        )


def _rename_vocabulary(model: dict[str, Any], names: dict[str, str]) -> None:
    """Give entries of a tokenizer's vocabulary other names."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(word, word): i for word, i in vocabulary.items()}
    else:  # Unigram: pieces with their scores, in the order of their ids
        model["vocab"] = [[names.get(word, word), score] for word, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        model["merges"] = [
            merge
            for merge, (first, second) in zip(model["merges"], pairs, strict=True)
            if names.keys().isdisjoint({first, second, first + second})
        ]
