"""What pydantic found wrong with a recipe, in one line that says where and what to write instead.

Recipes: a YAML file and `--set key=value` in, a checked model out, one clear line when something is wrong.

    class SynthesisRecipe(Recipe):
        voices_per_group: int = Field(4, ge=1)

    recipe = load_recipe(SynthesisRecipe, Path("recipes/synth.yaml"), ["voices_per_group=2"])

Keys of nested models are set with dots (`--set lora.r=8`), values are read as YAML (`--set reward.qa=alias`,
`--set train_parts=[projector,llm]`, `--set lora=null`).

Recipes that come with rba-bench, by name.
"""

import copy
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rba_bench.errors import UserError

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


__all__ = ["Recipe", "load_recipe", "parse_override", "suggest"]


class Recipe(BaseModel):
    """Base of all recipes: unknown keys are errors, NaN and infinity are not numbers, values never change.

    Where a list is wanted, one value stands for a list of one (`--set report_to=wandb`).
    """

    # names that other tools have for keys, which a user may try
    other_names: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_of_one(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        lists = {name for name, about in cls.model_fields.items() if _is_list(about.annotation)}
        single = {name for name in lists & data.keys() if isinstance(data[name], str | int | float)}
        return {name: [value] if name in single else value for name, value in data.items()}

    def resolved(self) -> dict[str, Any]:
        """Every key with the value in force, as JSON values (what artefacts store)."""
        return self.model_dump(mode="json")


R = TypeVar("R", bound=BaseModel)
TRUST = "trust_remote_code"


def load_recipe(
    model: type[R],
    path: Path | str | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
    values: Mapping[str, Any] | None = None,
) -> R:
    """Read a recipe file, apply overrides in order, check the result.

    Args:
        model: the recipe class.
        path: a YAML file; None starts from the defaults.
        overrides: `key=value` strings, dots for nested keys.
        trust: the user lets models run Python code of their own (`--trust`): sets every `trust_remote_code`. A recipe
            may be somebody else's file, so it cannot switch this on by itself.
        values: what to start from instead of a file.

    Raises:
        UserError: unreadable file, bad YAML, unknown key (with the nearest valid one), wrong value; the
            message names the file, the line and the key. Or the recipe asks for `trust_remote_code` without `trust`.
    """
    data: dict[str, Any] = copy.deepcopy(dict(values or {}))
    origins: dict[Location, str] = {}
    if path is not None:
        data, origins = _read(Path(path))
    for override in overrides:
        location, value = parse_override(override)
        _assign(data, location, value, override)
        origins = {known: text for known, text in origins.items() if known[: len(location)] != location}
        origins[location] = f"--set {override}"
    where = str(path) if path is not None else "recipe"
    try:
        recipe = model.model_validate(data)
    except ValidationError as error:
        raise UserError(explain(model, error.errors(), origins, where)) from error
    if trust:
        return _trusting(recipe)
    for location in _trust_requests(recipe.model_dump()):
        raise UserError(
            f"{origins.get(location, where)}: {'.'.join(map(str, location))} lets a model run Python code of its own: "
            "add --trust if you trust the authors of that model"
        )
    return recipe


def _trusting(recipe: R) -> R:
    """The recipe with every `trust_remote_code` that it knows set."""
    changes: dict[str, Any] = {}
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if name == TRUST:
            changes[name] = True
        elif isinstance(value, BaseModel):
            changes[name] = _trusting(value)
    return recipe.model_copy(update=changes)


def _trust_requests(values: Any, location: Location = ()) -> Iterator[Location]:
    """Where `trust_remote_code` is switched on, at any depth; keys with dots count by their last part."""
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(values, dict):
        pairs = values.items()
    elif isinstance(values, (list, tuple)):
        pairs = enumerate(values)
    for key, value in pairs:
        if str(key).rpartition(".")[2] == TRUST and value:
            yield (*location, key)
        yield from _trust_requests(value, (*location, key))


def parse_override(override: str) -> tuple[Location, Any]:
    """Split `a.b=value` into `(("a", "b"), value)`, the value read as YAML.

    Raises:
        UserError: no `=`, an empty key, or a value that is not YAML.
    """
    key, equals, text = override.partition("=")
    location = tuple(part.strip() for part in key.split("."))
    if not equals or not all(location):
        raise UserError(f"--set {override}: write --set key=value (dots for nested keys)")
    try:
        return location, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not YAML ({yaml_problem(error)})") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[Location, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read recipe {path}: {reason}") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {yaml_problem(error)}") from error
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "plain text" if isinstance(data, str) else "one value"
        raise UserError(f"{path} must hold `key: value` lines, not {kind}")
    origins: dict[Location, str] = {}
    _locate(tree, (), path, origins)
    return data, origins


def _locate(node: yaml.Node | None, location: Location, path: Path, origins: dict[Location, str]) -> None:
    """Note `file:line` of every key; a key given twice is an error (YAML would silently keep the last)."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            origin = f"{path}:{key.start_mark.line + 1}"
            if name in seen:
                raise UserError(f"{origin}: key '{name}' is given twice")
            seen.add(name)
            origins[(*location, name)] = origin
            _locate(value, (*location, name), path, origins)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            origins[(*location, index)] = f"{path}:{value.start_mark.line + 1}"
            _locate(value, (*location, index), path, origins)


def _assign(data: dict[str, Any], location: Location, value: Any, override: str) -> None:
    here = data
    for part in location[:-1]:
        if here.get(str(part)) is None:  # `lora: null` in the file, `--set lora.r=8` on top of it
            here[str(part)] = {}
        here = here[str(part)]
        if not isinstance(here, dict):
            raise UserError(f"--set {override}: '{part}' is a single value, it has no keys")
    here[str(location[-1])] = value


def _is_list(annotation: Any) -> bool:
    """Whether a key takes nothing but a list of any length, or null."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        return parts[-1:] == (Ellipsis,)
    return (
        bool(parts)
        and typing.get_origin(annotation) in (typing.Union, types.UnionType)
        and all(part is type(None) or _is_list(part) for part in parts)
    )


def recipes_dir() -> Path:
    """Folder of the shipped recipes: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_file(name: Path | str) -> Path:
    """Path of a recipe: a file, else the shipped recipe of that name (`sft`, `full/sft`), with or without `.yaml`.

    Raises:
        UserError: neither a file nor a shipped recipe.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise UserError(f"{name} is a folder: name the YAML file in it")
    shipped = {path.stem: path for path in sorted(recipes_dir().glob("*.yaml"))}
    shipped |= {f"full/{path.stem}": path for path in sorted(recipes_dir().glob("full/*.yaml"))}
    found = shipped.get(str(name).removesuffix(".yaml"))
    if found is None and Path(name).name != str(name):
        raise UserError(f"no file {name}: check the path, or name a shipped recipe ({', '.join(shipped)})")
    if found is None:
        raise UserError(
            f"no recipe {name}: neither a file nor one of {', '.join(shipped) or '(none shipped)'}"
        )
    return found
