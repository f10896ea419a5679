"""What in a task file can run Python code that is not this package's: found by reading, before lm-eval loads the file.

lm-eval imports whatever a `!function` names while it reads the YAML, looking beside the file first, and renders
templates (`doc_to_text: "{{...}}"`) without a sandbox (lm_eval 0.4.13, `tasks/_yaml_loader.py` and `utils.py`). So a
task file of somebody else is a program. What may run unasked: the functions of `rba_bench.evaluation.hooks`, unless a
file beside it takes that name, and everything in the task files that this package ships.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from rba_bench.errors import UserError
from rba_bench.evaluation.registry import tasks_dir

OWN = re.compile(r"rba_bench\.evaluation\.hooks\.[A-Za-z_]\w*")
_HOOKS = Path(__file__).with_name("hooks.py")
_BESIDE = "rba_bench/evaluation/hooks.py"  # beside a task file it would be imported in the place of ours
_TEMPLATE = re.compile(r"\{\{|\{%")
_PLAIN = "tag:yaml.org,2002:"


def refuse(path: Path) -> None:
    """Raise UserError if a task file, or one that it includes, can run code of its authors."""
    for file, what in _found(path.resolve(), ()):
        raise UserError(
            f"{file} runs code of its own ({what}): read it, then add --trust if you trust its authors"
        )


def _found(path: Path, seen: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Pairs of file and what in it runs code, included files first."""
    if path in seen or path.is_relative_to(tasks_dir()):
        return
    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot read task file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    for name in _included(tree):
        yield from _found((path.parent / name).resolve(), (*seen, path))
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


def _included(tree: yaml.Node | None) -> list[str]:
    if not isinstance(tree, yaml.MappingNode):
        return []
    entries = [value for key, value in tree.value if key.value == "include"]
    scalars = [node for entry in entries for node in _nodes(entry) if isinstance(node, yaml.ScalarNode)]
    return [str(node.value) for node in scalars]


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if node is None:
        return
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _nodes(key)
            yield from _nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _nodes(part)
