"""`import rba_bench` is enough for transformers' Auto classes, in whatever order things are imported."""

import subprocess
import sys
from pathlib import Path

import pytest

import rba_bench
from rba_bench.speechlm.composite import auto

ROOT = Path(rba_bench.__file__).parent.parent
LOADED = """
base = "rba_bench/micro/weights/base"
assert type(AutoConfig.from_pretrained(base)).__name__ == "CompositeConfig"
assert type(AutoModel.from_pretrained(base)).__name__ == "CompositeModel"
assert type(AutoProcessor.from_pretrained(base)).__name__ == "CompositeProcessor"
assert type(AutoModelForMultimodalLM.from_pretrained(base)).__name__ == "CompositeForConditionalGeneration"
import sys
assert not [finder for finder in sys.meta_path if "rba_bench" in type(finder).__module__]
"""
NAMES = "AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor"
ORDERS = {
    "rba_bench first": f"import rba_bench\nfrom transformers import {NAMES}\n{LOADED}",
    "transformers first": f"from transformers import {NAMES}\nimport rba_bench\n{LOADED}",
    # Whisper's code imports the Auto classes while it is being imported itself
    "Whisper between": f"import rba_bench\nfrom transformers import WhisperModel, {NAMES}\n{LOADED}",
    "a configuration before AutoModel": (
        "import rba_bench\nfrom transformers import AutoConfig\n"
        "config = AutoConfig.from_pretrained('rba_bench/micro/weights/base')\n"
        "from transformers import AutoModel\n"
        "assert type(AutoModel.from_config(config)).__name__ == 'CompositeModel'\n"
    ),
}


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow  # 6 s each: a fresh interpreter imports torch and transformers
@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_the_composite(order: str) -> None:
    _run(ORDERS[order])


def test_a_module_that_was_waited_for_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a module of our own in the place of one of transformers."""
    (tmp_path / "waited_for.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    told: list[object] = []
    monkeypatch.setitem(auto._waiting, "waited_for", lambda: told.append(sys.modules["waited_for"].value))
    monkeypatch.setattr(sys, "meta_path", [auto._ImportFinder(), *sys.meta_path])
    import waited_for

    assert told == [1] and waited_for.__spec__.origin == str(tmp_path / "waited_for.py")
    assert type(waited_for.__loader__).__name__ == "SourceFileLoader"
    assert "waited_for" not in auto._waiting


@pytest.mark.parametrize("error", [ImportError("no torch"), OSError("libtorch.so")])
def test_a_broken_library_does_not_break_the_import_of_another(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "healthy.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def broken() -> None:
        raise error

    monkeypatch.setitem(auto._waiting, "healthy", broken)
    monkeypatch.setattr(sys, "meta_path", [auto._ImportFinder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "healthy", raising=False)
    import healthy

    assert healthy.value == 1
