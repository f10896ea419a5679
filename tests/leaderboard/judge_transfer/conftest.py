"""Answers of four models to sixty spoken instructions, and judges whose taste is known."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.files import sha256_json
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.judging import JudgeModel, Question, Reply
from tests.evaluation import conftest as tiny

_OUTPUTS = re.compile(r'"model_identifier": "[mM]", "output": "([^"]*)"')
_ALONE = re.compile(r"\w+ says -?\d+ a*")
_QUALITY = re.compile(r"(\w+) says (-?\d+)")
MODELS = {"gamma-1": 60, "gamma-2": 35, "delta-1": 10, "delta-2": -25}
ITEMS = [
    {"instruction": f"please tell me about number {n}", "baseline": f"base says 0 {'b' * 20}"}
    for n in range(30)
]


class TastefulJudge(JudgeModel):
    """Prefers the answer of higher quality, as every answer says its own; with weaknesses of a known size.

    Args:
        name: Of the judge.
        front: Log-odds for the answer in front.
        length: Log-odds for each doubling of the length.
        family: Models whose name begins so get `favour` log-odds.
        favour: See `family`.
        turned: Whether it prefers the worse answer.
        noise: Spread of its taste from pair to pair, in log-odds.
        generosity: What it adds to every grade, and to the log-odds that an answer is right.
        silent: It gives no vote on single answers with this text.
    """

    def __init__(
        self, name: str, front: float = 0.0, length: float = 0.0, family: str = "", favour: float = 0.0,
        turned: bool = False, noise: float = 0.3, generosity: float = 0.0, silent: str = "",
    ) -> None:  # fmt: skip
        self.name, self.front, self.length, self.family, self.favour = name, front, length, family, favour
        self.sign, self.noise = -1.0 if turned else 1.0, noise
        self.generosity, self.silent = generosity, silent
        self.asked = 0

    def identity(self) -> dict[str, Any]:
        return {"kind": "text", "path": f"/somewhere/{self.name}", "weights_sha256": sha256_json(self.name)}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        for position, question in enumerate(questions):
            self.asked += 1
            if (
                "Candidate answer" in question.messages[-1].content
                or "from 1 to 5" in question.messages[-1].content
            ):
                yield position, self.ask_about_one(question)
                continue
            first, second = _OUTPUTS.findall(question.messages[-1].content)
            odds = self.front + self.taste(first) - self.taste(second)
            p = min(max(1 / (1 + math.exp(-odds)), 1e-6), 1 - 1e-6)
            yield position, Reply("m" if p > 0.5 else "M", (("m", math.log(p)), ("M", math.log(1 - p))))

    def ask_about_one(self, question: Question) -> Reply:
        """A grade from 1 to 5, or Yes or No, for one answer; seeds of single votes differ by `noise`."""
        text = question.messages[-1].content
        answer = _ALONE.findall(text)[-1]
        drawn = (stable_seed(self.name, answer, question.seed) % 10_001) / 5_000 - 1
        odds = self.taste(answer) + self.noise * drawn
        if self.silent and self.silent in answer:
            return Reply("I would rather not say.")
        grade = min(max(round(3 + self.generosity + odds), 1), 5)
        return Reply(str(grade) if "from 1 to 5" in text else ("Yes" if odds + self.generosity > 0 else "No"))

    def taste(self, answer: str) -> float:
        """Log-odds of an answer, whatever it is compared with."""
        found = _QUALITY.search(answer)
        assert found is not None, answer
        drawn = (stable_seed(self.name, answer) % 10_001) / 5_000 - 1
        favour = self.favour if self.family and found[1].startswith(self.family) else 0.0
        quality = self.sign * int(found[2]) / 40
        return quality + self.length * math.log2(len(answer)) + favour + self.noise * drawn


class SayingModel(tiny.ScriptedModel):
    """Says how good its answer is: `gamma says 63 aaa`. Its name and its weights are its own."""

    def __init__(self, name: str) -> None:
        super().__init__(self.say)
        self.name = name

    def say(self, request: SpeechRequest) -> str:
        drawn = stable_seed(self.name, request.key)
        quality = MODELS[self.name] + drawn % 81 - 40
        return f"{self.name.partition('-')[0]} says {quality} {'a' * (5 + drawn // 97 % 60)}"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "weights_sha256": sha256_json(self.name)}


class Bench:
    """Judges by name, and a task with records of the four models judged by any of them."""

    def __init__(
        self, folder: Path, judges: dict[str, TastefulJudge], *more: dict[str, Any], **options: Any
    ) -> None:
        self.folder, self.judges = folder, judges
        finish = more or ({"name": "pairwise", "lc": "none", **options},)
        metadata = {
            "version": 1, "benchmark": "alpacaeval", "track": "micro", "finish": list(finish),
        }  # fmt: skip
        self.task = tiny.write_task(folder / "task", "alpacaeval", metadata=metadata, metric_list=[])

    def evaluate(
        self, judge: str, models: Sequence[str] = tuple(MODELS), out: str = "eval", **changes: Any
    ) -> Path:
        """The folder of the records."""
        for name in models:
            with pytest.MonkeyPatch.context() as patch:
                model = SayingModel(name)
                patch.setattr(
                    "rba_bench.speechlm.model_names.load_speech_model", lambda spec, model=model, **_: model
                )
                request = EvalRequest((str(self.task),), name, out=self.folder / out, judge=judge, **changes)
                evaluate(request)
        return self.folder / out


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    judges = {
        judge.name: judge
        for judge in (
            TastefulJudge("old-judge"),
            TastefulJudge("twin-judge", noise=0.35),
            TastefulJudge("front-judge", front=2.5),
            TastefulJudge("turned-judge", turned=True),
            TastefulJudge("delta-judge", length=0.8, family="delta", favour=1.5),
        )
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rba_bench.evaluation.scorers.judge._loaded", lambda spec, *_: judges[spec])
        patch.setitem(tiny.ITEMS, "alpacaeval", ITEMS)
        patch.setitem(tiny.KINDS, "alpacaeval", "chat")
        made = Bench(tmp_path_factory.mktemp("bench"), judges)
        made.evaluate("old-judge")
        yield made
