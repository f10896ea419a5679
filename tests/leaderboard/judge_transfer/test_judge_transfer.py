"""Whole transfers of records that the evaluation made, between judges whose taste is known."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation.records import read_record
from rba_bench.leaderboard.judge_transfer.preparing import TransferRequest
from rba_bench.leaderboard.judge_transfer.transfer import estimate_transfer, transfer_judge
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard.judge_transfer.conftest import MODELS, Bench

PAIRS = 240


def transferred(bench: Bench, new: str, out: Path, **changes: Any) -> dict[str, Any]:
    """The only section of a transfer from the old judge, and what stands beside it."""
    values = {"records": [bench.folder / "eval"], "old": "old-judge", "pairs": PAIRS, **changes}
    data = transfer_judge(TransferRequest(new=new, out=out, **values)).data
    [section] = data["sections"]
    return {**data, **section}


def test_a_judge_of_the_same_taste_keeps_the_order(bench, tmp_path):
    found = transferred(bench, "twin-judge", tmp_path / "out")
    effects = found["effects"]
    assert effects["agreement"]["raw"]["value"] > 0.85 and effects["agreement"]["kappa"]["low"] > 0.5
    assert effects["order_of_models"]["tau"]["value"] == 1.0 and not effects["order_of_models"]["reversed"]
    assert [row["model"] for row in effects["scores"]] == list(MODELS)
    assert found["verdict"][0].startswith("B finds ") and "cannot" not in found["verdict"][0]
    counts = found["counts"]
    assert (counts["pairs"], counts["items"], counts["a_stored"], counts["a_asked"]) == (240, 60, 240, 0)


def test_win_rates_are_those_of_the_records(bench, tmp_path):
    """All items are chosen, so under A the win rates are the board's."""
    rows = transferred(bench, "twin-judge", tmp_path / "out")["effects"]["scores"]
    for row in rows:
        [file] = (bench.folder / "eval" / row["model"]).glob("*/run.json")
        recorded = read_record(file).metrics["win_rate"]
        assert row["a"]["value"] == pytest.approx(recorded.value) and row["n"] == recorded.n
        assert row["difference"]["value"] == pytest.approx(row["b"]["value"] - row["a"]["value"])


def test_a_judge_of_the_opposite_taste_is_refused_in_words(bench, tmp_path):
    found = transferred(bench, "turned-judge", tmp_path / "out")
    assert found["effects"]["order_of_models"]["tau"]["value"] == -1.0
    assert found["effects"]["agreement"]["kappa"]["high"] < 0
    assert "cannot take the place" in found["verdict"][0] and "no more than by chance" in found["verdict"][0]
    reversed_pairs = found["effects"]["order_of_models"]["reversed"]
    assert ["gamma-1", "delta-2"] in reversed_pairs and ["delta-2", "gamma-1"] not in reversed_pairs


def test_a_bias_for_the_answer_in_front_is_measured(bench, tmp_path):
    found = transferred(bench, "front-judge", tmp_path / "out")
    order = found["effects"]["votes"]
    assert order["b"]["position_bias"]["low"] > 0.2 and abs(order["a"]["position_bias"]["value"]) < 0.02
    assert order["b"]["consistency"]["value"] < 0.5 < order["a"]["consistency"]["low"]
    assert "in both orders in only" in found["verdict"][0]
    assert any("prefers the answer in front" in sentence for sentence in found["verdict"])


def test_length_and_family_are_told_apart_from_taste(bench, tmp_path):
    effects = transferred(bench, "delta-judge", tmp_path / "out")["effects"]
    assert effects["length"]["difference"]["slope"]["low"] > 0.02
    assert abs(effects["length"]["a"]["slope"]["value"]) < 0.03
    kin = effects["self_preference"]["b"]
    assert kin["models"] == ["delta-1", "delta-2"] and kin["gain"]["low"] > 0.02
    assert effects["self_preference"]["a"]["models"] == []


def test_the_set_is_fixed_by_seed_and_records_and_balanced(bench, tmp_path):
    one = transferred(bench, "twin-judge", tmp_path / "one", pairs=83)
    other = transferred(bench, "front-judge", tmp_path / "two", pairs=83)
    third = transferred(bench, "twin-judge", tmp_path / "three", pairs=83, seed=1)
    assert one["pairs_sha256"] == other["pairs_sha256"] != third["pairs_sha256"]
    lines = [json.loads(line) for line in (tmp_path / "one" / "pairs.jsonl").read_text().splitlines()]
    assert len(lines) == 80 and {line["model"] for line in lines} == set(MODELS)
    items = {line["item"] for line in lines}
    assert len(items) == 20 and all(sum(line["item"] == item for line in lines) == 4 for item in items)
    assert len({item.rpartition("-")[0] for item in items}) == 20, "no instruction in a second voice yet"


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(bench, tmp_path):
    transferred(bench, "twin-judge", tmp_path / "out", pairs=40)
    files = ("pairs.jsonl", "verdicts.jsonl", "transfer.json", "report.md")
    before, asked = (
        [(tmp_path / "out" / name).read_bytes() for name in files],
        bench.judges["twin-judge"].asked,
    )
    transferred(bench, "twin-judge", tmp_path / "out", pairs=40)
    assert bench.judges["twin-judge"].asked == asked
    assert [(tmp_path / "out" / name).read_bytes() for name in files] == before
    with pytest.raises(UserError, match="another judge run"):
        transferred(bench, "front-judge", tmp_path / "out", pairs=40)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program catches it."""


def test_a_kill_loses_no_vote(bench, tmp_path, monkeypatch):
    judge = bench.judges["front-judge"]
    real = type(judge).ask
    with monkeypatch.context() as once:

        def dying(self, questions):
            for number, reply in enumerate(real(self, questions)):
                if number == 25:
                    raise Killed
                yield reply

        once.setattr(type(judge), "ask", dying)
        with pytest.raises(Killed):
            transferred(bench, "front-judge", tmp_path / "out", pairs=40)
    assert not (tmp_path / "out" / "transfer.json").exists()
    before = judge.asked
    found = transferred(bench, "front-judge", tmp_path / "out", pairs=40)
    assert judge.asked - before == 80 - 25 and found["counts"]["compared"] == 40


def test_the_cost_is_known_before_anything_is_asked(bench, tmp_path):
    asked = {name: judge.asked for name, judge in bench.judges.items()}
    request = TransferRequest(
        [bench.folder / "eval"], "old-judge", "twin-judge", pairs=40, out=tmp_path / "out"
    )
    pairs, rest = estimate_transfer(request)
    assert (pairs.judge, pairs.pairs, pairs.cost.calls) == ("B", 40, 80)
    assert "--reanchor" in rest.judge and rest.cost.calls == 2 * (240 - 40)
    assert {name: judge.asked for name, judge in bench.judges.items()} == asked
    assert not (tmp_path / "out").exists()


def test_the_board_under_the_new_judge_names_it_alone_and_verifies(bench, tmp_path):
    out = tmp_path / "out"
    found = transferred(bench, "twin-judge", out, pairs=40, reanchor=True, task=bench.task)
    assert verify_records([out / "records"]).ok
    page = (out / "board" / "index.md").read_text()
    assert "(judge: twin-judge, weights " in page and "old-judge" not in page
    rows = found["reanchored"]["rows"]
    assert {row["model"] for row in rows} == set(MODELS) and all(
        row["a"]["n"] == row["b"]["n"] == 60 for row in rows
    )
    asked = bench.judges["twin-judge"].asked
    transferred(bench, "twin-judge", out, pairs=40, reanchor=True, task=bench.task)
    assert bench.judges["twin-judge"].asked == asked


def test_records_of_two_judges_stand_in_two_tables_and_the_other_judge_is_left_out(bench, tmp_path):
    from rba_bench.leaderboard.board import build_board

    both = bench.evaluate("front-judge", out="two")
    shutil.copytree(bench.folder / "eval", tmp_path / "old")
    board = build_board([both, tmp_path / "old"], tmp_path / "board", baseline_row="gamma-1")
    judges = [
        {row["judge"].partition(",")[0] for row in section["rows"]} for section in board.data["sections"]
    ]
    assert sorted(judges, key=str) == [{"front-judge"}, {"old-judge"}]
    found = transferred(bench, "twin-judge", tmp_path / "out", records=[both, tmp_path / "old"], pairs=40)
    assert found["counts"]["models"] == 4
    assert any("front-judge" in reason for reason in found["left_out"])
    with pytest.raises(
        UserError, match=r"nothing .* judged by 'nobody'; their judges: front-judge.*old-judge"
    ):
        transferred(bench, "twin-judge", tmp_path / "none", records=[both, tmp_path / "old"], old="nobody")


def test_a_control_without_the_speech_is_no_model_that_a_judge_ranks(bench, tmp_path):
    silent = bench.evaluate("old-judge", models=["gamma-1"], out="silent", audio="silence")
    records = [bench.folder / "eval", silent]
    found = transferred(bench, "twin-judge", tmp_path / "out", records=records, pairs=40)
    assert found["counts"]["models"] == 4
    assert [each for each in found["left_out"] if "gamma-1" in each] == [
        f"gamma-1 on {bench.task.stem}: a control without the speech"
    ]


def test_without_stored_verdicts_the_old_judge_is_asked_on_request_only(bench, tmp_path):
    folder = bench.evaluate("front-judge", out="two")
    with pytest.raises(UserError, match="--ask-a"):
        transferred(bench, "twin-judge", tmp_path / "out", records=[folder], old="old-judge", pairs=40)
    found = transferred(
        bench, "twin-judge", tmp_path / "out", records=[folder], old="old-judge", pairs=40, ask_a=True
    )
    assert (found["counts"]["a_asked"], found["counts"]["a_stored"]) == (40, 0)
    stored = transferred(bench, "twin-judge", tmp_path / "stored", pairs=40)
    assert found["effects"]["agreement"]["raw"] == stored["effects"]["agreement"]["raw"]


def test_the_command_prints_the_answer(bench, tmp_path, capsys):
    words = ["judge", "transfer", str(bench.folder / "eval"), "--from", "old-judge", "--to", "twin-judge"]
    words += ["--pairs", "40", "--out", str(tmp_path / "out")]
    for more, code in (([], 0), (["--json"], 0), (["--dry-run"], 0), (["--pairs", "3"], 2)):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert int(ended.value.code or 0) == code
        shown = capsys.readouterr()
        if more == ["--json"]:
            assert json.loads(shown.out)["transfer"]["n_pairs"] == 40
        elif more == ["--dry-run"]:
            assert " 80 " in shown.out, "none is left to ask, all are stored"
        elif code:
            assert "one item for each of the 4 runs" in shown.err and "Traceback" not in shown.err
        else:
            assert shown.out.splitlines()[1].startswith("- ") and str(tmp_path) in shown.out
