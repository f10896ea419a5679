"""The shape of the house: imports run downwards only, and `--help` loads nothing heavy."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import rba_bench

PACKAGE = Path(rba_bench.__file__).parent

# Top to bottom. A module may import from its own part and from lower lines, never from a neighbour on its line
# (the last line, small files without dependencies, is open to all).
LAYERS = (
    ("cli", "api", "micro", "small"),  # found by name through assets.py: nobody imports micro or small
    ("quickstart", "study", "doctor", "hub"),
    ("stages",),
    ("leaderboard",),
    ("evaluation", "training", "synthesis"),
    ("speechlm",),
    ("textlm",),
    ("metrics", "audio"),
    ("recipes", "outputs", "cards", "revisions", "html_pages"),
    (
        "assets",
        "errors",
        "faults",
        "files",
        "installing",
        "machine",
        "processes",
        "progress",
        "seeding",
        "untrusted",
    ),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ROOT = "rba_bench"
HEAVY = {
    "torch",
    "transformers",
    "lm_eval",
    "datasets",
    "whisper",
    "pandas",
    "pyarrow",
    "plotly",
    "matplotlib",
    "numpy",
    "openai",
    "sacrebleu",
    "sklearn",
}


def _part(module: str) -> str:
    """`rba_bench.metrics.bleu` -> `metrics`; the package itself -> ``."""
    return (module.split(".") + [""])[1]


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """`(line, module)` of every import of ours, inside functions too, because order matters there as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: None if is_package and node.level == 1 else -node.level or None]
            target = ".".join([*(base if node.level else []), *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{target}.{alias.name}") for alias in node.names)


def _violations(source: str, module: str, is_package: bool = False) -> list[str]:
    mine = _part(module)
    found = []
    for line, target in _imports(ast.parse(source), module, is_package):
        theirs = _part(target)
        if not target.startswith(ROOT + ".") or theirs == mine or theirs not in LEVEL:
            continue
        open_to_all = theirs in LAYERS[-1]
        if mine in LEVEL and LEVEL[theirs] <= LEVEL[mine] and not open_to_all:
            found.append(f"{module}:{line} imports {target}")
    return found


def test_imports_run_downwards_only() -> None:
    found = [
        violation
        for path in sorted(PACKAGE.rglob("*.py"))
        for violation in _violations(path.read_text(), _module_name(path), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rba_bench.metrics.bleu", "import rba_bench.evaluation.runner"),
        ("rba_bench.training.training_run", "from rba_bench import synthesis"),
        ("rba_bench.training.training_run", "from rba_bench.evaluation.runner import evaluate"),
        ("rba_bench.micro.world", "def f():\n    from rba_bench.cli import main"),
        ("rba_bench.cli.micro", "def f():\n    from rba_bench.micro.build import stages"),
        ("rba_bench.evaluation.scoring", "from rba_bench.micro import world"),
        ("rba_bench.textlm.local", "from ..speechlm import base"),
        ("rba_bench.audio.clips", "from rba_bench.metrics.bleu import CorpusBleu"),
    ],
)
def test_upward_and_sideways_imports_are_found(module: str, source: str) -> None:
    assert len(_violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rba_bench.cli.train", "from rba_bench.training.training_run import train"),
        ("rba_bench.training.training_run", "from rba_bench.training import pairs\nfrom . import rollout"),
        ("rba_bench.evaluation.harness", "import torch\nfrom rba_bench.errors import UserError"),
    ],
)
def test_downward_imports_are_allowed(module: str, source: str) -> None:
    assert _violations(source, module) == []


def test_every_part_of_the_package_has_a_layer() -> None:
    parts = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    known = {"__init__", "__main__", "__pycache__", "py", *LEVEL}
    assert {part for part in parts if not part.startswith((".", "_"))} - known == set()


# Import names that are not the name of the distribution.
DISTRIBUTION = {
    "whisper": "openai-whisper",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "piper": "piper-tts",
    "lingua": "lingua-language-detector",
}
# Parts of the interface of transformers and datasets.
BROUGHT_ALONG = {"huggingface-hub", "pandas", "tokenizers", "tqdm"}


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    declared = {re.split(r"[<>=;[ ]", line)[0].lower() for line in lines}
    undeclared = {
        f"{_module_name(path)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for _, target in _imports(ast.parse(path.read_text()), _module_name(path), path.name == "__init__.py")
        if (name := target.split(".")[0]) not in {*sys.stdlib_module_names, "_ctypes", ROOT}
        and DISTRIBUTION.get(name, name.replace("_", "-")).lower() not in declared | BROUGHT_ALONG
    }
    assert undeclared == set()


def _loaded_after(code: str) -> set[str]:
    """Heavy top-level modules that a fresh interpreter has loaded after running `code`."""
    script = (
        f"{code}\nimport json, sys\nprint('\\n' + json.dumps([name.split('.')[0] for name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return HEAVY & set(json.loads(done.stdout.splitlines()[-1]))


COMMANDS = [
    "",
    "quickstart",
    "synth",
    "compose",
    "train",
    "eval",
    "compare",
    "view",
    "leaderboard build",
    "tasks list",
    "tasks show",
]
COMMANDS += ["synth export", "synth import", "synth inspect"]
COMMANDS += ["assets list", "assets fetch", "assets verify", "assets where"]
COMMANDS += ["train connector", "train report", "train server"]
COMMANDS += [
    "micro build",
    "study micro",
    "study small",
    "study report",
    "doctor",
    "push",
    "leaderboard card",
    "judge transfer",
]


def test_help_of_every_command_loads_nothing_heavy() -> None:
    code = (
        "from rba_bench.cli.main import main\n"
        f"for words in {COMMANDS!r}:\n"
        "    try:\n        main([*words.split(), '--help'])\n"
        "    except SystemExit as end:\n        assert end.code == 0, words\n"
    )
    assert _loaded_after(code) == set()


def test_listing_tasks_loads_no_model_library() -> None:
    code = (
        "from rba_bench.cli.main import main\n"
        "try:\n    main(['tasks', 'list', '--json'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
    )
    assert _loaded_after(code) & {"torch", "transformers", "lm_eval", "datasets"} == set()


def test_package_inits_are_light() -> None:
    names = sorted(_module_name(path) for path in PACKAGE.rglob("__init__.py") if "build" not in path.parts)
    light = [name for name in names if name.count(".") <= 1]
    assert (
        _loaded_after(f"import {', '.join(light)}") & {"torch", "transformers", "lm_eval", "datasets"}
        == set()
    )
