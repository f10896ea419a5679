"""What pydantic found wrong with a recipe, in one line that says where and what to write instead."""

import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

Location = tuple[str | int, ...]
Problem = Mapping[str, Any]
KEYS_SHOWN = 6  # of a section
SHOWN = 3  # problems told; a recipe of another command has dozens
# what pydantic (2) puts into a location for the branches of a union, where a key could not stand
_TAG = re.compile(
    r"(str|int|float|bool|none|constrained-\w+|function-.+|(tuple|list|dict|set|union|nullable)\[.+|[A-Z]\w*)"
)
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list, such as [a, b]"),
    "string_type": "text",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}


def explain(
    model: type[BaseModel], problems: Sequence[Problem], origins: Mapping[Location, str], where: str
) -> str:
    """The line.

    Args:
        model: the recipe class; its `other_names` maps names of other tools to keys.
        problems: from `ValidationError.errors()`.
        origins: `file:line` or override that each key came from.
        where: what to name where nothing is known.
    """
    found = [_explain(model, problem, origins, where) for problem in _chosen(problems)]
    if len(found) <= SHOWN:
        return "; ".join(found)
    unknown = sum("unknown key" in line for line in found)
    other = " (is it a recipe of another command?)" if unknown > SHOWN else ""
    return f"{'; '.join(found[:SHOWN])}; and {len(found) - SHOWN} more{other}"


def suggest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest valid name, whatever its case, else the list of valid ones."""
    names = {one.lower(): one for one in sorted(valid)}
    near = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=1, cutoff=0.5)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5) or near
    return f"; did you mean '{names[near[0]]}'?" if near else f"; valid: {', '.join(names.values())}"


def yaml_problem(error: yaml.YAMLError) -> str:
    """What the parser stumbled over and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    tab = "; indent with spaces, not with tabs" if "\\t" in problem else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{tab}"


def _is_tag(problem: Problem, place: int) -> bool:
    part = problem["loc"][place]
    named = problem["type"] in ("extra_forbidden", "missing") and place == len(problem["loc"]) - 1
    return isinstance(part, str) and not named and _TAG.fullmatch(part) is not None


def _chosen(problems: Sequence[Problem]) -> list[Problem]:
    """Of every union the problems of the form that was meant, their locations without the names of forms."""
    told: list[Problem] = []
    unions: dict[Location, dict[str, list[Problem]]] = {}
    for problem in problems:
        location: Location = tuple(problem["loc"])
        place = next((n for n in range(len(location)) if _is_tag(problem, n)), None)
        if place is None:
            told.append(problem)
            continue
        inside = {**problem, "loc": location[:place] + location[place + 1 :]}
        unions.setdefault(location[:place], {}).setdefault(str(location[place]), []).append(inside)
    for location, forms in unions.items():
        meant = [found for found in forms.values() if not any(_mismatch(one, location) for one in found)]
        if meant:
            told += _chosen(meant[0])
        else:
            kinds = dict.fromkeys(
                _KINDS[one["type"]] for found in forms.values() for one in found if _mismatch(one, location)
            )
            first = next(iter(forms.values()))[0]
            told.append({**first, "loc": location, "type": "union", "msg": f"must be {' or '.join(kinds)}"})
    return told


def _mismatch(problem: Problem, location: Location) -> bool:
    """Whether the value is of another form altogether."""
    return tuple(problem["loc"]) == location and problem["type"] in _KINDS


def _explain(model: type[BaseModel], problem: Problem, origins: Mapping[Location, str], where: str) -> str:
    location: Location = tuple(problem["loc"])
    origin, key = _origin(location, origins, where), ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{origin}: unknown key '{key}'{_other_key(model, location)}"
    if problem["type"] == "missing":
        return f"{origin}: key '{key}' is required"
    given = "" if isinstance(problem["input"], dict) or not key else f" (given: {problem['input']!r})"
    return f"{origin}: {key + ': ' if key else ''}{_message(model, problem, key)}{given}"


def _origin(location: Location, origins: Mapping[Location, str], where: str) -> str:
    """Where the key, the section that holds it, or what is below it was written."""
    holding = (location[:n] for n in range(len(location), 0, -1))
    found = next((origins[one] for one in holding if one in origins), None)
    below = (text for one, text in origins.items() if location and one[: len(location)] == location)
    return found or next(below, where)


def _other_key(model: type[BaseModel], location: Location) -> str:
    name, valid = str(location[-1]), keys_at(model, location[:-1])
    section, dot, inner = name.partition(".")
    if dot and section in valid:
        return f"; in a file write `{inner}` below `{section}:` (dots are for --set)"
    known = getattr(model, "other_names", {}).get(name.lower()) if len(location) == 1 else None
    nested = [path for path in _paths(model) if path.rpartition(".")[2] == name and "." in path]
    meant = known or (nested[0] if nested and len(location) == 1 else None)
    return f"; did you mean '{meant}'?" if meant else suggest(name, valid)


def _message(model: type[BaseModel], problem: Problem, key: str) -> str:
    kind, context, given = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "model_type":
        inner = keys_at(model, tuple(problem["loc"]))
        listed = ", ".join(inner[:KEYS_SHOWN]) + (", ..." if len(inner) > KEYS_SHOWN else "")
        return f"has keys of its own ({listed}): write them below it, or --set {key}.{inner[0]}=..."
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        several = isinstance(given, str) and "," in given and isinstance(problem["loc"][-1], int)
        near = difflib.get_close_matches(str(given).lower(), known, 1, 0.5)
        hint = f"; write a list: [{given}]" if several else f"; did you mean '{near[0]}'?" if near else ""
        return f"must be {context['expected']}{hint}"
    if kind == "invalid_key":
        return "keys must be words"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys of a recipe, with dots."""
    found = []
    for name, about in model.model_fields.items():
        inner = model_in(about.annotation)
        found += [f"{prefix}{name}"] if inner is None else _paths(inner, f"{prefix}{name}.")
    return found


def keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Valid keys of the nested model that `location` leads to."""
    for part in location:
        field = model.model_fields.get(str(part))
        nested = model_in(field.annotation) if field is not None else None
        if nested is not None:  # list positions lead no deeper
            model = nested
    return list(model.model_fields)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (found for part in typing.get_args(annotation) if (found := model_in(part)) is not None), None
    )
