"""Variables of chat templates, such as `enable_thinking`: given by the user, checked, and recorded with the model.

A template that does not know a variable ignores it, so that a slip of the pen changes nothing and says nothing; where
the template can be read, that is said in one line.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.progress import say

Scalar = bool | int | float | str | None
Variables = Mapping[str, Scalar]
THINKING = "enable_thinking"  # Qwen3, GLM, SmolLM3, Hunyuan, EXAONE, Nemotron
_NAME = re.compile(r"[A-Za-z_]\w*")
# What `apply_chat_template` takes itself, and what every template gets
_TAKEN = (
    "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize", "padding",
    "continue_final_message", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs",
    "return_assistant_tokens_mask", "processor_kwargs", "load_audio_from_video", "self",
)  # fmt: skip


def parse(assignments: Sequence[str]) -> dict[str, Scalar]:
    """Variables from `key=value` texts; a value is a JSON scalar (`true`, `0.5`, `"text"`), anything else is its text.

    Raises:
        UserError: no `=`, a key that is no name, or a value that is a list or an object.
    """
    found: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"template variable {text!r}: write key=value, such as {THINKING}=false")
        try:
            found[key.strip()] = json.loads(value, parse_constant=str)
        except (ValueError, RecursionError):  # plain text; a number of thousands of digits too
            found[key.strip()] = value
    return checked(found)


def given(value: Mapping[str, Any] | str | None) -> dict[str, Scalar]:
    """Variables as lm-eval's `--model_args` may hold them: a mapping, its JSON text, or `key=value;key=value`.

    Raises:
        UserError: see `parse`.
    """
    if value is None or isinstance(value, Mapping):
        return checked(value or {})
    if value.lstrip().startswith("{"):
        try:
            return checked(json.loads(value))
        except ValueError as error:
            raise UserError(f"template {value!r} is not JSON ({error}): write key=value") from error
    return parse([part for part in value.split(";") if part.strip()])


def checked(variables: Mapping[str, Any]) -> dict[str, Scalar]:
    """The same variables.

    Raises:
        UserError: a key that no template can read or that is taken, or a value that is no scalar.
    """
    for key, value in variables.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise UserError(
                f"template variable {key!r} is no name: write key=value, such as {THINKING}=false"
            )
        if key in _TAKEN:
            raise UserError(f"template variable {key} is set by rba-bench itself: leave it out")
        if not isinstance(value, Scalar) or (isinstance(value, float) and value - value != 0):
            raise UserError(f"template variable {key}: {value!r} is no number, text, true or false")
    return dict(variables)


def _recipe_value(value: Any) -> dict[str, Scalar]:
    """For pydantic: a mapping of scalars, nothing for null."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"give variables and their values, such as {{{THINKING}: false}}")
    try:
        return checked(value or {})
    except UserError as error:
        raise ValueError(str(error)) from error


TemplateVariables = Annotated[dict[str, Scalar], PlainValidator(_recipe_value)]  # of recipes


def text_of(holder: Any) -> str:
    """The chat template of a tokenizer or processor, "" if it has none; of several, all together."""
    template = getattr(holder, "chat_template", None)
    return _joined(template)


def text_in(folder: Path) -> str:
    """The chat template in a model's folder, "" if there is none; nothing else is loaded."""
    beside = sorted(folder.glob("*.jinja")) + sorted(folder.glob("additional_chat_templates/*.jinja"))
    if beside:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in beside)
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        try:
            config = read_json(folder / name) if (folder / name).is_file() else None
        except ValueError:
            continue  # loading the tokenizer says what is wrong with the file
        if isinstance(config, Mapping) and (found := _joined(config.get("chat_template"))):
            return found
    return ""


def knows(template: str, variable: str) -> bool:
    """Whether a template's text names a variable."""
    return re.search(rf"(?<!\w){re.escape(variable)}(?!\w)", template) is not None


def quiet(template: str, variables: Variables) -> dict[str, Scalar]:
    """The variables, and thinking switched off where the template knows how and the user does not say otherwise."""
    off: dict[str, Scalar] = {THINKING: False} if knows(template, THINKING) else {}
    return {**off, **variables}


def note_unknown(template: str, variables: Variables, model: str) -> None:
    """Say which variables the template does not know, if any: they change nothing."""
    strange = [name for name in variables if not knows(template, name)]
    if strange:
        say(f"{model}: its chat template does not know {', '.join(strange)}, so nothing changes")


def _joined(template: Any) -> str:
    if isinstance(template, Mapping):
        return "\n".join(str(text) for text in template.values())
    if isinstance(template, list):  # `[{"name": ..., "template": ...}]` of older files
        return "\n".join(str(one.get("template", "")) for one in template if isinstance(one, Mapping))
    return template if isinstance(template, str) else ""
