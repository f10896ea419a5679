"""From the rules of the micro world, on the published records, to a model that follows the same rules when asked."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rba_bench.assets import load_world
from rba_bench.errors import UserError
from rba_bench.leaderboard.judge_transfer.preparing import TransferRequest
from rba_bench.leaderboard.judge_transfer.transfer import transfer_judge
from rba_bench.textlm.judging import JudgeModel, Question, Reply
from tests.published import published_run

PUBLISHED = Path(__file__).parents[3] / "leaderboards" / "micro" / "records"
_REQUEST = re.compile(r'"instruction": (".*")')
_OUTPUTS = re.compile(r'"output": (".*")\}')


class RuleFollower(JudgeModel):
    """Grades both answers by the rules; of two equal ones it prefers none."""

    name = "rule-follower"

    def identity(self) -> dict[str, Any]:
        return {"kind": "text", "weights_sha256": "ab" * 32}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        world = load_world("grammar")
        for position, question in enumerate(questions):
            text = question.messages[-1].content
            [request] = _REQUEST.findall(text)
            instruction = world.parse(json.loads(request))
            first, second = (
                world.grade(instruction, json.loads(one)).score for one in _OUTPUTS.findall(text)
            )
            odds = {1: (-0.01, -5.0), 0: (-0.7, -0.7), -1: (-5.0, -0.01)}[(first > second) - (first < second)]
            yield position, Reply("m", (("m", odds[0]), ("M", odds[1])))


@pytest.fixture(autouse=True)
def _follower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rba_bench.evaluation.scorers.judge._loaded", lambda *_: RuleFollower())


def runs(*models: str) -> list[Path]:
    return [published_run(model, "micro_alpacaeval") for model in models]


def test_one_rule_asked_in_two_ways_agrees_on_every_pair(tmp_path: Path) -> None:
    records = runs("base", "sft", "rba-group")
    data = transfer_judge(TransferRequest(records, "rules", "follower", pairs=90, out=tmp_path / "out")).data
    [section] = data["sections"]
    effects = section["effects"]
    assert effects["agreement"]["raw"]["value"] == effects["agreement"]["kappa"]["value"] == 1.0
    assert effects["order_of_models"]["reversed"] == [] and effects["order_of_models"]["tau"]["value"] == 1.0
    assert "a" not in effects["votes"] and effects["votes"]["b"]["position_bias"]["value"] == pytest.approx(
        0.0
    )
    assert section["a_judge"]["label"] == "rba_bench.micro.world.grade 1"
    assert section["counts"]["by_rule"] + effects["agreement"]["n"] == 90


def test_rules_do_not_retire(tmp_path: Path) -> None:
    request = TransferRequest(runs("base"), "rules", "follower", pairs=5, out=tmp_path / "out", reanchor=True)
    with pytest.raises(UserError, match="rules belong to their task"):
        transfer_judge(request)
    assert not (tmp_path / "out").exists()
