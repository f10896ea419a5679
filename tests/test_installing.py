"""Every line that says how to install something comes from one place, and is right where it is read."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rba_bench
from rba_bench import installing

PACKAGE = Path(rba_bench.__file__).parent
EXTRAS = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_in_a_checkout_the_line_installs_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(PACKAGE.parent)
    assert installing.extra("tts") == "pip install -e '.[tts]'"
    assert installing.extra("tts", "train") == "pip install -e '.[tts,train]'"
    monkeypatch.chdir(tmp_path)
    assert installing.extra("tts") == f"pip install -e '{PACKAGE.parent}[tts]'"


def test_an_installed_package_names_itself(tmp_path: Path) -> None:
    """Modules of this package copied to where no checkout is, as a wheel puts them."""
    (tmp_path / "rba_bench").mkdir()
    (tmp_path / "rba_bench" / "__init__.py").touch()
    shutil.copy(PACKAGE / "installing.py", tmp_path / "rba_bench")
    code = "from rba_bench import installing; print(installing.extra('tts'), installing.package('av'), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "pip install 'rba-bench[tts]'\npip install av\n", done.stderr


def _literals(tree: ast.AST) -> list[str]:
    """All text in a module but its docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def test_no_other_module_writes_such_a_line() -> None:
    marks = ("pip install", f"{installing.PROJECT}[")
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "installing.py"}
    found = [
        f"{path.relative_to(PACKAGE)}: {text}"
        for path, source in sources.items()
        if any(mark in source for mark in marks)
        for text in _literals(ast.parse(source))
        if any(mark in text for mark in marks)
    ]
    assert found == []


def test_every_extra_that_is_named_exists_and_every_extra_is_named() -> None:
    calls = re.findall(r"\bextra\(([^)]*)\)", "\n".join(path.read_text() for path in PACKAGE.rglob("*.py")))
    named = {name for call in calls for name in re.findall(r"[\"'](\w+)[\"']", call)}
    from rba_bench.doctor import EXTRAS as checked

    assert {"tts", "train", "voxtral"} <= named <= set(EXTRAS)
    by_variable = {
        "ja",
        "ko",
        "tensorboard",
        "wandb",
    }  # BLEU's tokenizers and `report_to` name theirs at run time
    elsewhere = {"all", "deepspeed"}  # a collection; named by accelerate itself
    assert named | set(checked) | by_variable | elsewhere == set(EXTRAS)
