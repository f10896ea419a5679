"""A transfer between two judges that are real: SmolLM2 on this machine, and the same weights behind llama.cpp's server.

So small a model judges badly; what is tried is that both are asked, read, kept and told apart.
"""

import json
from pathlib import Path

import pytest

from rba_bench.evaluation.records import read_record
from rba_bench.leaderboard.judge_transfer.preparing import TransferRequest
from rba_bench.leaderboard.judge_transfer.transfer import estimate_transfer, transfer_judge
from tests.evaluation import conftest as tiny
from tests.leaderboard.judge_transfer.conftest import ITEMS, Bench
from tests.textlm.misbehaving_server import free_port
from tests.textlm.real_server import NAME, missing, real_serving

LOCAL = "asset:smollm2-135m-instruct"
pytestmark = [
    pytest.mark.assets,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all there"),
]


def test_from_a_local_judge_to_a_served_one_and_the_board_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.setenv("RBA_ENDPOINT_TIMEOUT", "300")
    monkeypatch.setitem(tiny.ITEMS, "alpacaeval", ITEMS[:2])
    monkeypatch.setitem(tiny.KINDS, "alpacaeval", "chat")
    bench = Bench(tmp_path, {}, top_logprobs=20)
    records = bench.evaluate(LOCAL, models=("gamma-1", "delta-2"))
    with real_serving(free_port()) as server:
        request = TransferRequest(
            [records], LOCAL, server.spec, pairs=8, out=tmp_path / "out", reanchor=True, task=bench.task
        )
        [cost] = estimate_transfer(request)
        assert cost.cost.calls == 16 and cost.cost.dollars is None
        data = transfer_judge(request).data
    [section] = data["sections"]
    counts = section["counts"]
    assert counts["a_stored"] == 8 == section["effects"]["agreement"]["n"] + counts["b_failed"]
    assert section["a_judge"]["label"].startswith(f"{LOCAL}, weights ") and data["b"] == NAME
    assert section["effects"]["self_preference"]["b"]["models"] == []
    verdicts = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert len(verdicts) == 8 and {line["b"]["source"] for line in verdicts} == {"asked"}
    for line in verdicts:
        for judge in (each for each in (line["a"], line["b"]) if each["value"] is not None):
            assert judge["value"] == pytest.approx(sum(judge["parts"]) / 2)
            assert len(judge["votes"]["votes"]) == 2 and all(
                "reply" in vote for vote in judge["votes"]["votes"]
            )
    files = list((tmp_path / "out" / "records").rglob("run.json"))
    assert len(files) == 2
    for file in files:
        [entry] = read_record(file).protocol_spec["finish"]
        assert entry["judge"]["kind"] == "endpoint" and entry["judge"]["model"] == NAME
    page = (tmp_path / "out" / "board" / "index.md").read_text()
    assert f"(judge: {NAME})" in page and "weights are not known" in page
