"""Refusal of task files that can run Python code of others, found by reading them before lm-eval loads them.

lm-eval imports whatever a `!function` names while it reads the YAML, looking beside the file first, renders templates
(`doc_to_text: "{{...}}"`, or those of the file that `use_prompt` names) without a sandbox, and has the package
`evaluate` run the script of any metric that it does not know itself (lm_eval 0.4.13, `tasks/_yaml_loader.py`,
`utils.py`, `prompts/__init__.py`, `api/registry.py`). So a task file of somebody else is a program. Allowed without
`--trust` are the functions of `rba_bench.evaluation.hooks`, unless a file beside it takes that name, and everything in
the task files that this package ships.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from rba_bench.errors import UserError
from rba_bench.evaluation.task_registry import tasks_dir

OWN = re.compile(r"rba_bench\.evaluation\.hooks\.[A-Za-z_]\w*")
_HOOKS = Path(__file__).with_name("hooks.py")
_BESIDE = "rba_bench/evaluation/hooks.py"  # beside a task file it would be imported in the place of ours
_TEMPLATE = re.compile(r"\{\{|\{%")
_PLAIN = "tag:yaml.org,2002:"
_MERGE = f"{_PLAIN}merge"
_NO = ("false", "no", "off", "null", "~", "")


def refuse_foreign_code(path: Path) -> None:
    """Raise UserError if a task file, or one that it includes, can run code of its authors."""
    resolved = path.resolve()
    settings = _settings(resolved, ())
    if "task_list" in settings or isinstance(settings.get("task"), yaml.CollectionNode):
        raise UserError(f"{path} is not a single task: give the file of one task")
    found = list(_code_in_tags(resolved, ()))
    prompts, results = settings.get("use_prompt"), settings.get("process_results")
    if prompts is not None and prompts.tag != f"{_PLAIN}null":
        found.append((resolved, f"the prompts of {' '.join(str(prompts.value).split())[:80]}"))
    if results is None or results.tag != "!function":  # else metrics are names of what it returns
        for name in _foreign_metrics(settings):
            found.append((resolved, f"the metric {name[:80]!r} of the package `evaluate`"))
    for file, what in found:
        raise UserError(
            f"{file} runs code of its own ({what}): read it, then add --trust if you trust its authors"
        )


def _code_in_tags(path: Path, seen: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Pairs of file and what in it runs code by tag or by template, included files first."""
    if path in seen or path.is_relative_to(tasks_dir()):
        return
    tree = _tree(path)
    for other in _included(path, tree):
        yield from _code_in_tags(other, (*seen, path))
    beside = path.parent / _BESIDE
    shadowed = beside.exists() and beside.resolve() != _HOOKS.resolve()
    for node in _nodes(tree):
        if node.tag == "!function" and shadowed:
            yield path, f"{_BESIDE} beside it is imported instead of this package's"
        elif node.tag == "!function" and not OWN.fullmatch(str(node.value)):
            yield path, f"!function {node.value}"
        elif node.tag.startswith(f"{_PLAIN}python") or (node.tag[:1] == "!" and node.tag != "!function"):
            yield path, f"the tag {node.tag}"
        elif isinstance(node, yaml.ScalarNode) and _TEMPLATE.search(node.value):
            yield path, f"the template {' '.join(node.value.split())[:40]!r}"


def _foreign_metrics(settings: Mapping[str, yaml.Node]) -> Iterator[str]:
    """Names of metrics that lm-eval would look for in the package `evaluate`."""
    import lm_eval.api.metrics  # noqa: F401 - registers them
    from lm_eval.api.registry import metric_registry

    registered = set(metric_registry.keys())
    for node in _nodes(settings.get("metric_list")):
        entry = _entries(node)
        metric, elsewhere = entry.get("metric"), entry.get("hf_evaluate")
        if not isinstance(metric, yaml.ScalarNode) or metric.tag == "!function":
            continue
        is_forced = elsewhere is not None and str(elsewhere.value).lower() not in _NO
        if metric.value not in registered or is_forced:
            yield " ".join(metric.value.split())


def _settings(path: Path, seen: tuple[Path, ...]) -> dict[str, yaml.Node]:
    """What a task file sets, by name, as lm-eval puts it together: what is included first, then its own."""
    if path in seen:
        return {}
    tree = _tree(path)
    settings: dict[str, yaml.Node] = {}
    for other in _included(path, tree):
        settings |= _settings(other, (*seen, path))
    return settings | _entries(tree)


def _tree(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot read task file {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8 is a ValueError
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def _included(path: Path, tree: yaml.Node | None) -> list[Path]:
    entry = _entries(tree).get("include")
    names = [str(node.value) for node in _nodes(entry) if isinstance(node, yaml.ScalarNode)]
    return [(path.parent / name).resolve() for name in names]


def _entries(node: yaml.Node | None, above: tuple[yaml.Node, ...] = ()) -> dict[str, yaml.Node]:
    """Entries of a mapping by name, those of its merge keys (`<<`) included; {} for anything else."""
    if not isinstance(node, yaml.MappingNode) or node in above:
        return {}
    entries: dict[str, yaml.Node] = {}
    merged: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.tag != _MERGE:
            entries[str(key.value)] = value
            continue
        parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for part in reversed(parts):  # the first one counts
            merged |= _entries(part, (*above, node))
    return merged | entries


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node once, also where aliases repeat or contain it."""
    waiting, seen = [root] if root is not None else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in reversed(node.value) for part in reversed(pair)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
