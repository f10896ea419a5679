"""The keys of a training recipe, explained: type, default, what each method sets, and why.

The reasons come from `training_recipe.py` and `nested_options.py`: the comment behind a key, or the lines right above
it where there is none behind.
"""

import ast
import inspect
import io
import json
import textwrap
import tokenize
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rba_bench.errors import UserError
from rba_bench.training.options.presets import METHODS, PRESETS
from rba_bench.training.training_recipe import TrainingRecipe

_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_PLAIN = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    types.NoneType: "null",
    dict: "mapping",
}


@dataclass(frozen=True)
class RecipeKey:
    """One key of a recipe.

    Attributes:
        name: with dots where it is nested.
        type: the values that it takes, in words.
        default: its value where neither recipe nor method set one.
        value: its value in the recipe that is explained.
        reason: what it is for, and why it has this default.
        by_method: values of the methods that have another than the default.
        fixed: methods that allow no other value than theirs.
    """

    name: str
    type: str
    default: Any
    value: Any
    reason: str
    by_method: Mapping[str, Any] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()


def explain_keys(key: str = "", recipe: TrainingRecipe | None = None) -> list[RecipeKey]:
    """The keys of a training recipe.

    Args:
        key: only this one, with all keys under it; all where empty.
        recipe: the recipe that `value` comes from; by default the defaults.

    Raises:
        UserError: there is no such key; the nearest is named.
    """
    values = None if recipe is None else flatten_keys(recipe.resolved())
    keys = [_explain_key(*field, _method_values(), values) for field in _fields(TrainingRecipe)]
    chosen = [entry for entry in keys if not key or entry.name == key or entry.name.startswith(f"{key}.")]
    if not chosen:
        names = [entry.name for entry in keys]
        # by the whole name or by its last part
        endings = {name.rpartition(".")[2]: name for name in reversed(names)}
        whole = get_close_matches(key, names, 1, 0.6)
        ending = get_close_matches(key.rpartition(".")[2], endings, 1, 0.6)
        near = endings.get(key) or next(iter(whole), None) or (endings[ending[0]] if ending else None)
        hint = f"did you mean '{near}'?" if near else "`rba-bench train --explain` lists all"
        raise UserError(f"no key {key!r} in a training recipe; {hint}")
    return chosen


def key_lines(key: RecipeKey, width: int | None, with_value: bool) -> list[str]:
    """A key as lines of text.

    Args:
        key: from `explain_keys`.
        width: columns to wrap at; None wraps nothing, for `grep`.
        with_value: whether to show `value` (of a recipe or method) instead of the default.
    """
    shown = key.value if with_value else key.default
    mark = f" (default {value_text(key.default)})" if with_value and key.value != key.default else ""
    head = f"{key.name} = {value_text(shown)}{mark}  [{key.type}]"
    if key.type == "keys of its own":
        head = f"{key.name}  [{key.type}]"
    notes = [key.reason]
    values: dict[str, list[str]] = {}
    for method, value in key.by_method.items():
        values.setdefault(value_text(value), []).append(method)
    if values and not with_value and key.type != "keys of its own":
        by_value = (f"{value} for {', '.join(names)}" for value, names in values.items())
        notes.append(f"by method: {'; '.join(by_value)}")
    if key.fixed and not with_value:
        notes.append(f"cannot be changed with {', '.join(key.fixed)}")
    if width is None:
        return [head + "".join(f"  # {line}" for line in notes if line)]
    lines = [head]
    for note in notes:
        lines += textwrap.wrap(note, width, initial_indent="    ", subsequent_indent="    ")
    return lines


def value_text(value: Any) -> str:
    """A value as people read it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def method_recipe(method: str) -> TrainingRecipe:
    """The recipe that sets nothing but its method."""
    return TrainingRecipe.model_validate({"method": method})


def flatten_keys(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by key with dots; a mapping is there itself too."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat[prefix + name] = value
        if isinstance(value, Mapping):
            flat |= flatten_keys(value, f"{prefix}{name}.")
    return flat


def key_comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment of every key of a recipe class, by the key's name; an empty text without a comment."""
    source = textwrap.dedent(inspect.getsource(model))
    notes = {
        token.start: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    at_line = {line: text for (line, _), text in notes.items()}
    alone = {line for line, _ in notes if source.splitlines()[line - 1].lstrip().startswith("#")}
    (class_node,) = ast.parse(source).body
    assert isinstance(class_node, ast.ClassDef)
    comments = {}
    for node in class_node.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        last = node.end_lineno or node.lineno
        comment_lines = [line for line in range(node.lineno, last + 1) if line in at_line]
        above = node.lineno
        while not comment_lines and above - 1 in alone:
            above -= 1
        comment_lines = comment_lines or list(range(above, node.lineno))
        comments[node.target.id] = " ".join(at_line[line] for line in comment_lines)
    return comments


def type_name(annotation: Any, limits: tuple[Any, ...] = ()) -> str:
    """The values that a key takes, in words.

    Args:
        annotation: its type.
        limits: what pydantic knows beside it.
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner = [limit for part in parts[1:] for limit in getattr(part, "metadata", [part])]
        return type_name(parts[0], (*inner, *limits))
    if origin is typing.Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(part, limits) for part in parts)
    if origin is tuple:
        inside = type_name(parts[0])
        return f"list of ({inside})" if " | " in inside or " or " in inside else f"list of {inside}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys of its own"
    name = _PLAIN.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))
    if (origin or annotation) not in (int, float):
        return name
    bounds = [f"{sign} {bound}" for limit in limits for attribute, sign in _SIGNS.items()
              if (bound := getattr(limit, attribute, None)) is not None]  # fmt: skip
    return " ".join([name, " and ".join(bounds)]).rstrip()


@cache
def _fields(model: type[BaseModel], prefix: str = "") -> tuple[tuple[str, FieldInfo, str], ...]:
    """Name with dots, pydantic's field and comment of every key, nested keys behind their section."""
    fields: list[tuple[str, FieldInfo, str]] = []
    comments = key_comments(model)
    for name, info in model.model_fields.items():
        fields.append((prefix + name, info, comments.get(name, "")))
        if (nested := _nested_model(info.annotation)) is not None:
            fields.extend(_fields(nested, f"{prefix}{name}."))
    return tuple(fields)


@cache
def _method_values() -> dict[str, dict[str, Any]]:
    """Values of the recipe that sets only its method, by method."""
    return {method: flatten_keys(method_recipe(method).resolved()) for method in METHODS}


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_nested_model, typing.get_args(annotation))), None)


def _explain_key(
    name: str,
    info: FieldInfo,
    reason: str,
    methods: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Any] | None,
) -> RecipeKey:
    default = "(required)" if info.is_required() else info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    elif isinstance(default, tuple):
        default = list(default)
    by_method = {
        method: values_of_method[name]
        for method, values_of_method in methods.items()
        if name != "method" and name in values_of_method and values_of_method[name] != default
    }
    fixed = tuple(method for method in METHODS if name in PRESETS[method].fixed)
    value = default if values is None else values.get(name, default)  # absent where its section is null
    kind = type_name(info.annotation, tuple(info.metadata))
    return RecipeKey(name, kind, default, value, reason, by_method, fixed)
