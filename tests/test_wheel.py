"""The wheel: built from this checkout, installed beside nothing of it, used from another folder."""

import json
import os
import site
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rba_bench import __version__
from rba_bench.assets import WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
MAX_MB = 25.0  # the models of the micro world are at most 16


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the tools already installed, so nothing is downloaded."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a clean environment that holds the wheel; its dependencies are borrowed from this environment.

    A folder named in a .pth file is searched for modules, but its own .pth files (the editable install) are not read.
    """
    home = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (inside / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return home / "bin"


def _run(installed: Path, cwd: Path, *words: str) -> Any:
    """Parsed stdout of a command of the clean environment, run far from the checkout."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    program, *rest = words
    done = subprocess.run(
        [str(installed / program), *rest], capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_wheel_holds_package_tasks_recipes_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"rba_bench", f"rba_bench-{__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "rba_bench").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    shipped = {str(path.relative_to(ROOT / "tasks")) for path in (ROOT / "tasks").rglob("*.yaml")}
    assert shipped and shipped == {
        name.removeprefix("rba_bench/_tasks/")
        for name in names
        if name.startswith("rba_bench/_tasks/") and name.endswith(".yaml")
    }
    recipes = {str(p.relative_to(ROOT / "recipes")) for p in (ROOT / "recipes").rglob("*") if p.is_file()}
    assert "sft.yaml" in recipes and recipes == {
        name.removeprefix("rba_bench/_recipes/") for name in names if name.startswith("rba_bench/_recipes/")
    }
    assert not [name for name in names if "__pycache__" in name]
    assert wheel.stat().st_size / 2**20 < MAX_MB


def test_licence_travels_with_the_wheel(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f"rba_bench-{__version__}.dist-info"
    assert "License-Expression: Apache-2.0" in archive.read(f"{info}/METADATA").decode()
    assert b"Apache License" in archive.read(f"{info}/licenses/LICENSE")


def test_installed_wheel_lists_all_tasks(installed: Path, tmp_path: Path) -> None:
    from rba_bench.evaluation.task_registry import list_tasks

    listed = _run(installed, tmp_path, "rba-bench", "tasks", "list", "--json")
    assert [task["name"] for task in listed] == [spec.name for spec in list_tasks()]


def test_installed_wheel_finds_its_own_weights_and_recipes(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json, rba_bench\n"
        "from rba_bench.assets import weights_folder\n"
        "from rba_bench.installing import extra\n"
        "from rba_bench.recipes import recipes_dir\n"
        f"tracks = {list(WEIGHTS)}\n"
        "folders = {track: weights_folder(track) for track in tracks}\n"
        "weights = {t: sorted({f.parent.name for f in d.rglob('*.safetensors')}) for t, d in folders.items()}\n"
        "recipes = sorted(f.name for f in recipes_dir().iterdir())\n"
        "print(json.dumps([rba_bench.__file__, weights, recipes, extra('tts')]))\n"
    )
    origin, weights, recipes, hint = _run(installed, tmp_path, "python", "-c", code)
    assert Path(origin).is_relative_to(installed.parent)
    assert weights == {track: sorted(shipped.roles) for track, shipped in WEIGHTS.items()}
    assert "synth-micro.yaml" in recipes
    assert hint == "pip install 'rba-bench[tts]'"
