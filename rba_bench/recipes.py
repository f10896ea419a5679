"""Recipes: a YAML file and `--set key=value` in, a checked model out, and one clear line when something is wrong.

    recipe = load_recipe(SynthesisRecipe, recipe_file("synth-micro"), ["voices_per_instruction=2"])

Keys of nested models are set with dots (`--set lora.r=8`), values are read as YAML (`--set reward.qa=alias`,
`--set train_parts=[projector,llm]`, `--set lora=null`). A message names the file, the line and the key, and what to
write instead.
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
Problem = Mapping[str, Any]  # one of `ValidationError.errors()`
R = TypeVar("R", bound=BaseModel)
TRUST = "trust_remote_code"
KEYS_SHOWN = 6  # of a section
PROBLEMS_SHOWN = 3  # a recipe of another command has dozens


class Recipe(BaseModel):
    """Base of all recipes: unknown keys are errors, NaN and infinity are not numbers, values never change.

    Where a key takes a list, a single value stands for a list of one (`--set report_to=wandb`).
    """

    # names that other tools have for keys, which a user may try
    other_names: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _wrap_single_values(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        lists = {name for name, field in cls.model_fields.items() if _is_list(field.annotation)}
        single = {name for name in lists & data.keys() if isinstance(data[name], str | int | float)}
        return {name: [value] if name in single else value for name, value in data.items()}

    def resolved(self) -> dict[str, Any]:
        """Every key with the value in force, as JSON values (what artefacts store)."""
        return self.model_dump(mode="json")


def load_recipe(
    model: type[R],
    path: Path | str | None = None,
    overrides: Sequence[str] = (),
    trust: bool = False,
    values: Mapping[str, Any] | None = None,
    option: str = "--set",
) -> R:
    """Read a recipe file, apply overrides in order, check the result.

    Args:
        model: the recipe class.
        path: a YAML file; None starts from the defaults.
        overrides: `key=value` strings, dots for nested keys.
        trust: the user lets models run Python code of their own (`--trust`): sets every `trust_remote_code`. A recipe
            may be somebody else's file, so it cannot switch this on by itself.
        values: what to start from instead of a file.
        option: of the command line, which the overrides come from; for messages.

    Raises:
        UserError: unreadable file, bad YAML, unknown key (with the nearest valid one), wrong value; the
            message names the file, the line and the key. Or the recipe asks for `trust_remote_code` without `trust`.
    """
    data: dict[str, Any] = copy.deepcopy(dict(values or {}))
    origins: dict[Location, str] = {}
    if path is not None:
        data, origins = _read_yaml(Path(path))
    for override in overrides:
        location, value = parse_override(override)
        _assign_override(data, location, value, override)
        origins = {key: text for key, text in origins.items() if key[: len(location)] != location}
        origins[location] = f"{option} {override}"
    where = str(path) if path is not None else "recipe"
    try:
        recipe = model.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain_errors(model, error.errors(), origins, where)) from error
    if trust:
        return _with_trust(recipe)
    for location in _trust_requests(recipe.model_dump()):
        raise UserError(
            f"{origins.get(location, where)}: {'.'.join(map(str, location))} lets a model run Python code of its own: "
            "add --trust if you trust the authors of that model"
        )
    return recipe


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
        raise UserError(f"--set {override}: the value is not YAML ({_yaml_problem(error)})") from error


def recipes_dir() -> Path:
    """Folder of the shipped recipes: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_file(name: Path | str) -> Path:
    """Path of a recipe: a file, else the shipped recipe of that name (`sft`, `small/sft`), with or without `.yaml`.

    Raises:
        UserError: neither a file nor a shipped recipe.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise UserError(f"{name} is a folder: name the YAML file in it")
    shipped = {path.stem: path for path in sorted(recipes_dir().glob("*.yaml"))}
    for folder in ("small", "full"):
        shipped |= {f"{folder}/{path.stem}": path for path in sorted(recipes_dir().glob(f"{folder}/*.yaml"))}
    path = shipped.get(str(name).removesuffix(".yaml"))
    names = ", ".join(shipped)
    if path is None and Path(name).name != str(name):
        raise UserError(f"no file {name}: check the path, or name a shipped recipe ({names})")
    if path is None:
        raise UserError(f"no recipe {name}: neither a file nor one of {names or '(none shipped)'}")
    return path


def suggest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest valid name, whatever its case, else the list of valid ones."""
    names = {text.lower(): text for text in sorted(valid)}
    matches = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=1, cutoff=0.5)
    matches = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5) or matches
    return f"; did you mean '{names[matches[0]]}'?" if matches else f"; valid: {', '.join(names.values())}"


def _with_trust(recipe: R) -> R:
    """The recipe with every `trust_remote_code` that it knows set."""
    changes: dict[str, Any] = {}
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if name == TRUST:
            changes[name] = True
        elif isinstance(value, BaseModel):
            changes[name] = _with_trust(value)
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


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Location, str]]:
    """Content of a recipe file, and `file:line` of every key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read recipe {path}: {reason}") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {_yaml_problem(error)}") from error
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "plain text" if isinstance(data, str) else "one value"
        raise UserError(f"{path} must hold `key: value` lines, not {kind}")
    origins: dict[Location, str] = {}
    _note_origins(tree, (), path, origins)
    return data, origins


def _note_origins(
    node: yaml.Node | None, location: Location, path: Path, origins: dict[Location, str]
) -> None:
    """Write `file:line` of every key into `origins`; a key given twice is an error (YAML would keep the last)."""
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            origin = f"{path}:{key.start_mark.line + 1}"
            if name in names:
                raise UserError(f"{origin}: key '{name}' is given twice")
            names.add(name)
            origins[(*location, name)] = origin
            _note_origins(value, (*location, name), path, origins)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            origins[(*location, index)] = f"{path}:{value.start_mark.line + 1}"
            _note_origins(value, (*location, index), path, origins)


def _assign_override(data: dict[str, Any], location: Location, value: Any, override: str) -> None:
    section = data
    for part in location[:-1]:
        if section.get(str(part)) is None:  # `lora: null` in the file, `--set lora.r=8` on top of it
            section[str(part)] = {}
        section = section[str(part)]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: '{part}' is a single value, it has no keys")
    section[str(location[-1])] = value


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What the parser could not read, and in which line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    tab = "; indent with spaces, not with tabs" if "\\t" in problem else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{tab}"


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


# The names that pydantic 2 puts into a location for the branches of a union; no key can stand there.
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


def _explain_errors(
    model: type[BaseModel], problems: Sequence[Problem], origins: Mapping[Location, str], where: str
) -> str:
    """One line for all problems; `where` is named for a key that has neither a line nor an override in `origins`."""
    lines = [_explain_problem(model, problem, origins, where) for problem in _one_branch(problems)]
    if len(lines) <= PROBLEMS_SHOWN:
        return "; ".join(lines)
    unknown = sum("unknown key" in line for line in lines)
    hint = " (is it a recipe of another command?)" if unknown > PROBLEMS_SHOWN else ""
    return f"{'; '.join(lines[:PROBLEMS_SHOWN])}; and {len(lines) - PROBLEMS_SHOWN} more{hint}"


def _one_branch(problems: Sequence[Problem]) -> list[Problem]:
    """The problems with every union reduced to the branch that was meant, and no names of branches in locations."""
    reduced: list[Problem] = []
    unions: dict[Location, dict[str, list[Problem]]] = {}
    for problem in problems:
        location: Location = tuple(problem["loc"])
        place = next((n for n in range(len(location)) if _is_branch(problem, n)), None)
        if place is None:
            reduced.append(problem)
            continue
        inner = {**problem, "loc": location[:place] + location[place + 1 :]}
        unions.setdefault(location[:place], {}).setdefault(str(location[place]), []).append(inner)
    for location, branches in unions.items():
        of_form = [
            b for b in branches.values() if not any(_is_other_form(problem, location) for problem in b)
        ]
        if of_form:
            reduced += _one_branch(of_form[0])
            continue
        forms = dict.fromkeys(
            _KINDS[problem["type"]]
            for branch in branches.values()
            for problem in branch
            if _is_other_form(problem, location)
        )
        first = next(iter(branches.values()))[0]
        reduced.append({**first, "loc": location, "type": "union", "msg": f"must be {' or '.join(forms)}"})
    return reduced


def _is_branch(problem: Problem, place: int) -> bool:
    """Whether a part of a location names a branch of a union, and not a key."""
    part = problem["loc"][place]
    is_key = problem["type"] in ("extra_forbidden", "missing") and place == len(problem["loc"]) - 1
    return isinstance(part, str) and not is_key and _TAG.fullmatch(part) is not None


def _is_other_form(problem: Problem, location: Location) -> bool:
    """Whether the value is of another form altogether, such as text instead of a mapping."""
    return tuple(problem["loc"]) == location and problem["type"] in _KINDS


def _explain_problem(
    model: type[BaseModel], problem: Problem, origins: Mapping[Location, str], where: str
) -> str:
    location: Location = tuple(problem["loc"])
    key = ".".join(str(part) for part in location)
    # where the key was written, else the nearest section that holds it, else anything below it
    above = (origins[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origins)
    below = (text for place, text in origins.items() if location and place[: len(location)] == location)
    origin = next(above, None) or next(below, where)
    if problem["type"] == "extra_forbidden":
        return f"{origin}: unknown key '{key}'{_suggest_key(model, location)}"
    if problem["type"] == "missing":
        return f"{origin}: key '{key}' is required"
    value = "" if isinstance(problem["input"], dict) or not key else f" (given: {problem['input']!r})"
    return f"{origin}: {key + ': ' if key else ''}{_explain_value(model, problem, key)}{value}"


def _suggest_key(model: type[BaseModel], location: Location) -> str:
    """What an unknown key may be meant as."""
    name, valid = str(location[-1]), _keys_at(model, location[:-1])
    section, dot, inner = name.partition(".")
    if dot and section in valid:
        return f"; in a file write `{inner}` below `{section}:` (dots are for --set)"
    meant = None
    if len(location) == 1:
        nested = [path for path in _key_paths(model) if path.rpartition(".")[2] == name and "." in path]
        other_names = model.other_names if issubclass(model, Recipe) else {}
        meant = other_names.get(name.lower()) or (nested[0] if nested else None)
    return f"; did you mean '{meant}'?" if meant else suggest(name, valid)


def _explain_value(model: type[BaseModel], problem: Problem, key: str) -> str:
    """What the value of a key must be."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "model_type":
        inner = _keys_at(model, tuple(problem["loc"]))
        listed = ", ".join(inner[:KEYS_SHOWN]) + (", ..." if len(inner) > KEYS_SHOWN else "")
        return f"has keys of its own ({listed}): write them below it, or --set {key}.{inner[0]}=..."
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", context["expected"])
        several = isinstance(value, str) and "," in value and isinstance(problem["loc"][-1], int)
        matches = difflib.get_close_matches(str(value).lower(), valid, 1, 0.5)
        hint = f"; did you mean '{matches[0]}'?" if matches else ""
        return f"must be {context['expected']}" + (f"; write a list: [{value}]" if several else hint)
    if kind == "invalid_key":
        return "keys must be words"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")


def _key_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys of a recipe, with dots."""
    paths = []
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        paths += [f"{prefix}{name}"] if inner is None else _key_paths(inner, f"{prefix}{name}.")
    return paths


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Valid keys of the nested model that `location` leads to."""
    for part in location:
        field = model.model_fields.get(str(part))
        nested = _model_in(field.annotation) if field is not None else None
        if nested is not None:  # list positions lead no deeper
            model = nested
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is or holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(part) for part in typing.get_args(annotation))
    return next((model for model in models if model is not None), None)
