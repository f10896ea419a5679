"""Run a notebook and store what its cells show: `python dev/make_notebook.py [docs/quickstart.ipynb]`.

The code cells run in order in one Python process, in an empty folder, so that a stored output holds no path of a
machine and no leftover of an earlier run. What a cell prints and the value of its last expression (its HTML form where
it has one) are stored, as Jupyter does. Progress on stderr is not stored.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
HEAD = """
import io, json, sys
_printed, _results = {}, {}
def _begin(number):
    sys.stdout = _printed[number] = io.StringIO()
def _shown(number, value):
    if value is not None:
        html = getattr(value, "_repr_html_", lambda: None)()
        _results[number] = {"text/plain": repr(value), **({"text/html": html} if html else {})}
"""
TAIL = """
with open(sys.argv[1], "w", encoding="utf-8") as _file:
    json.dump([(_printed[number].getvalue(), _results.get(number)) for number in _printed], _file)
"""


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that run, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def script(notebook: dict[str, Any]) -> str:
    """One program of all code cells; of each, the last expression is noted."""
    parts = [HEAD]
    for number, cell in enumerate(code_cells(notebook)):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body[-1]
        if isinstance(last, ast.Expr):
            call = ast.Call(ast.Name("_shown", ast.Load()), [ast.Constant(number), last.value], [])
            tree.body[-1] = ast.Expr(call)
        parts += [f"_begin({number})  # cell {number + 1}", ast.unparse(ast.fix_missing_locations(tree))]
    return "\n".join([*parts, TAIL])


def run(notebook: dict[str, Any], folder: Path) -> list[list[dict[str, Any]]]:
    """What each code cell shows, as the outputs of a notebook.

    Args:
        notebook: Content of the file.
        folder: Where it runs.

    Raises:
        RuntimeError: a cell failed; the message is what it wrote on stderr.
    """
    program, found = folder / "cells.py", folder / "outputs.json"
    program.write_text(script(notebook), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, program.name, found.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a cell failed:\n{done.stderr}")
    shown = json.loads(found.read_text(encoding="utf-8"))
    return [_outputs(number, *each) for number, each in enumerate(shown, start=1)]


def _outputs(number: int, printed: str, result: dict[str, str] | None) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    if printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(True)})
    if result is not None:
        data = {kind: text.splitlines(True) for kind, text in sorted(result.items())}
        shown = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        outputs.append({**shown, "data": data})
    return outputs


def main() -> None:
    """Run the notebook and write it with its outputs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path, nargs="?", default=NOTEBOOK)
    path = parser.parse_args().notebook
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        shown = run(notebook, Path(folder))
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), shown, strict=True), start=1):
        cell |= {"execution_count": number, "outputs": outputs}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
