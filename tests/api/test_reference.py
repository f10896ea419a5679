"""`docs/api.md` is true: its examples run, its signatures are those of the functions, and it names what is public."""

import inspect
import re
import runpy
from pathlib import Path

import pytest

import rba_bench as rba
from rba_bench.api import boards

PAGE = (Path(rba.__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
SIGNATURE = re.compile(r"^(\w+\(.*?\) -> \w+)", re.M | re.S)


def _signatures() -> list[str]:
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    return [" ".join(found.split()) for block in blocks for found in SIGNATURE.findall(block)]


def _written(name: str) -> str:
    function = boards.leaderboard if name == "leaderboard" else getattr(rba, name)
    signature = inspect.signature(function)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    returned = str(signature.return_annotation).split(".")[-1].removesuffix("'>")
    plain = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    return f"{name}{plain} -> {returned}"


def test_signatures_are_those_of_the_code() -> None:
    functions = [name for name in rba.__all__ if inspect.isfunction(getattr(rba, name))] + ["leaderboard"]
    assert sorted(_signatures()) == sorted(map(_written, functions))


def test_every_public_name_and_member_is_on_the_page() -> None:
    named = set(re.findall(r"`(?:rba\.)?(\w+)[`(]", PAGE)) | set(re.findall(r"`(\w+)`, `", PAGE))
    assert not set(rba.__all__) - named - {"__version__"}
    classes = (
        "AlignmentSet",
        "Checkpoint",
        "Comparison",
        "JudgeTransfer",
        "Leaderboard",
        "Run",
        "Samples",
        "Score",
    )
    for name in classes:
        members = {each for each in dir(getattr(rba, name)) if not each.startswith("_")}
        assert members <= named, (name, members - named)


def test_examples_run_in_the_order_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(examples) > 10
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "examples.py"
    script.write_text("\n".join(examples), encoding="utf-8")
    left = runpy.run_path(str(script))
    assert type(left["model"]).__name__ == "CompositeModel" and left["best"] in ("base", "mine")
    assert list(left["responses"].columns) == ["instruction", "response", "score.bleu"]
