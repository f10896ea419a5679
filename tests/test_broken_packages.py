"""`rba-bench doctor` where packages are missing or broken: each is named in one line, and nothing else fails."""

import subprocess
import sys
from pathlib import Path

import pytest

import rba_bench
from rba_bench import doctor

HEAVY = {
    "torch": "torch",
    "transformers": "transformers",
    "lm-eval": "lm_eval",
    "datasets": "datasets",
    "openai-whisper": "whisper",
}
BREAKING = f"""
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {tuple(HEAVY.values())!r}:
            raise OSError("libc10.so: cannot open\\nshared object file")
sys.meta_path.insert(0, Broken())
from rba_bench.cli.main import main
main(["doctor"])
"""


def test_broken_packages_are_named_one_line_each_and_nothing_else_fails() -> None:
    root = Path(rba_bench.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", BREAKING], capture_output=True, text=True, cwd=root)
    assert done.returncode == 3 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    for name in HEAVY:
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"--  {name} ")]
        assert lines[place].endswith("cannot be imported: libc10.so: cannot open shared object file")
        assert lines[place + 1].startswith("    fix: pip install -U ")
    assert [line for line in lines if line.startswith("--  hardware")]
    for name in ("numpy", "typer", "tasks", "speech"):
        assert [line for line in lines if line.startswith(f"ok  {name} ")], name


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import no_such_thing", "No module named 'no_such_thing'"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does"),
        ("raise AttributeError", "AttributeError"),
    ],
)
def test_whatever_an_import_raises_is_the_finding(
    line: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text(line + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    check = doctor._distribution("numpy", "broken_package")
    assert not check.ok and f"cannot be imported: {reason}" in check.found
    assert check.fix == "pip install -U numpy"
