"""Recipes: a YAML file and `--set key=value` in, a checked model out, one clear line when something is wrong.

    class SynthesisRecipe(Recipe):
        voices_per_group: int = Field(4, ge=1)

    recipe = load_recipe(SynthesisRecipe, Path("recipes/synth.yaml"), ["voices_per_group=2"])

Keys of nested models are set with dots (`--set lora.r=8`), values are read as YAML (`--set reward.qa=alias`,
`--set train_parts=[projector,llm]`, `--set lora=null`).
"""

import copy
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rba_bench.errors import UserError
from rba_bench.recipe_errors import Location, explain, suggest, yaml_problem

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
