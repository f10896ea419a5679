"""A judge whose replies are written by the test, and samples to put before it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.textlm.judging import JudgeModel, Question, Reply

Script = Callable[[Question], Reply]
MakeAsker = Callable[[Script], "ScriptedAsker"]
MakeSample = Callable[..., Sample]


class ScriptedAsker(JudgeModel):
    """Says what `script` says to each question and remembers what it was asked."""

    def __init__(self, script: Script, **identity: Any) -> None:
        self.script = script
        self.name = "scripted"
        self.asked: list[Question] = []
        self._identity = {"kind": "text", "path": "somewhere", "weights_sha256": "00", **identity}

    def identity(self) -> dict[str, Any]:
        return self._identity

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        for position in reversed(range(len(questions))):  # in another order than asked, as servers reply
            self.asked.append(questions[position])
            yield position, self.script(questions[position])


@pytest.fixture
def scripted() -> Callable[..., ScriptedAsker]:
    def make(script: Script, **identity: Any) -> ScriptedAsker:
        asker = ScriptedAsker(script, **identity)
        assert isinstance(asker, JudgeModel)
        return asker

    return make


@pytest.fixture
def sample() -> MakeSample:
    """A sample with given fields and harmless others."""

    def make(number: int, response: str = "an answer", **fields: Any) -> Sample:
        values: dict[str, Any] = {
            "doc_id": number,
            "id": f"item{number}",
            "kind": "chat",
            "group": "all",
            "cluster": str(number),
            "audio_sha256": "0" * 64,
            "duration": 1.0,
            "prompt": "",
            "instruction": f"request {number}",
            "source_lang": "en",
            "target_lang": "en",
            "response": response,
            "extracted": response,
            "references": [],
            "baseline": "the baseline",
            "scores": {},
            "status": "ok",
            "n_tokens": 1,
            "seed": 0,
        }
        return Sample.model_validate({**values, **fields})

    return make


@pytest.fixture
def options(tmp_path: Path) -> ScorerOptions:
    return ScorerOptions(cache=tmp_path / "votes")
