"""Whole transfers of ratings and judged accuracies between judges whose taste is known."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rba_bench as rba
from rba_bench.errors import UserError
from rba_bench.evaluation.records import Sample, read_record
from rba_bench.leaderboard.judge_transfer import kinds
from rba_bench.leaderboard.judge_transfer.preparing import TransferRequest
from rba_bench.leaderboard.judge_transfer.transfer import transfer_judge
from rba_bench.leaderboard.verify import verify_records
from tests.evaluation import conftest as tiny
from tests.leaderboard.judge_transfer.conftest import ITEMS, MODELS, Bench, TastefulJudge

JUDGES = (
    TastefulJudge("old-judge"),
    TastefulJudge("twin-judge", noise=0.35),
    TastefulJudge("kind-judge", generosity=0.8),
    TastefulJudge("turned-judge", turned=True),
    TastefulJudge("delta-judge", family="delta", favour=1.0),
    TastefulJudge("shy-judge", silent="gamma"),
    TastefulJudge("mute-judge", silent="says"),
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Records of four models, each answer rated in three votes and found right or wrong in three others."""
    judges = {judge.name: judge for judge in JUDGES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rba_bench.evaluation.scorers.judge._loaded", lambda spec, *_: judges[spec])
        patch.setattr("rba_bench.evaluation.scorers.judge.Judge.give_up", None)
        patch.setitem(tiny.ITEMS, "alpacaeval", ITEMS[:12])
        patch.setitem(tiny.KINDS, "alpacaeval", "chat")
        finish = ({"name": "rating", "votes": 3}, {"name": "yesno", "votes": 3})
        made = Bench(tmp_path_factory.mktemp("graded"), judges, *finish)
        made.evaluate("old-judge")
        yield made


def transferred(bench: Bench, new: str, out: Path, **changes: Any) -> dict[str, Any]:
    """The sections of a transfer by metric."""
    values = {"records": [bench.folder / "eval"], "old": "old-judge", "pairs": 96, **changes}
    data = transfer_judge(TransferRequest(new=new, out=out, **values)).data
    return {section["metric"]: {**data, **section} for section in data["sections"]}


def test_ratings_and_judged_accuracies_are_compared_with_scores_of_the_records(graded, tmp_path):
    found = transferred(graded, "twin-judge", tmp_path / "out")
    assert list(found) == ["rating", "judge_accuracy"] and found["rating"]["left_out"] == []
    for metric, section in found.items():
        effects = section["effects"]
        assert section["counts"]["compared"] == section["counts"]["a_stored"] == 96
        assert [row["model"] for row in effects["scores"]] == list(MODELS)
        for row in effects["scores"]:
            [file] = (graded.folder / "eval" / row["model"]).glob("*/run.json")
            recorded = read_record(file).metrics[metric]
            assert row["a"]["value"] == pytest.approx(recorded.value) and row["n"] == recorded.n
            assert row["difference"]["value"] == pytest.approx(row["b"]["value"] - row["a"]["value"])
        assert effects["agreement"]["weighted_kappa"]["low"] > 0.3
        assert (
            "position_bias" not in effects["votes"]["b"] and "longer_preferred" not in effects["length"]["b"]
        )
    rating = found["rating"]["effects"]
    assert all(1 <= row["a"]["low"] < row["a"]["high"] <= 5 for row in rating["scores"])
    assert rating["agreement"]["spearman"]["low"] > 0.3 and "kappa" not in rating["agreement"]
    table = found["judge_accuracy"]["effects"]["agreement"]["table"]
    assert set(table) == {"wrong", "undecided", "right"} and table["right"]["right"] > 8
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## tiny_alpacaeval rating" in page and "## tiny_alpacaeval judge_accuracy" in page
    assert "rating under A" in page and "judged accuracy % under A" in page and "answer in front" not in page


def test_a_generous_judge_agrees_in_order_and_not_in_level(graded, tmp_path):
    effects = transferred(graded, "kind-judge", tmp_path / "out")["rating"]["effects"]
    agreement = effects["agreement"]
    assert agreement["mean_difference"]["low"] > 0.4 and agreement["mean_difference"]["high"] < 1.1
    assert agreement["pearson"]["value"] - agreement["weighted_kappa"]["value"] > 0.05
    assert agreement["within_one"]["value"] > 0.8 > agreement["raw"]["value"]
    assert effects["order_of_models"]["tau"]["value"] == 1.0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Ratings under A and B must not share a column: those of 4 of 4 models differ" in text


def test_a_judge_of_the_opposite_taste_and_one_that_favours_its_family(graded, tmp_path):
    for section in transferred(graded, "turned-judge", tmp_path / "turned").values():
        assert "cannot take the place" in section["verdict"][0]
    effects = transferred(graded, "delta-judge", tmp_path / "delta")["rating"]["effects"]
    kin = effects["self_preference"]["b"]
    assert (
        kin["models"] == ["delta-1", "delta-2"] and 0.3 < kin["gain"]["low"] < 1.0 < kin["gain"]["high"] < 1.6
    )


def test_a_judge_that_is_silent_about_good_answers_is_seen_through(graded, tmp_path):
    found = transferred(graded, "shy-judge", tmp_path / "out")["rating"]
    assert found["counts"]["b_failed"] == 48 and found["counts"]["compared"] == 48
    missing = found["effects"]["missing"]
    assert missing["n"] == 48 and missing["a_difference"]["low"] > 0.5
    assert any(
        "50 % of the answers" in sentence and "not at random" in sentence for sentence in found["verdict"]
    )
    assert [row["model"] for row in found["effects"]["scores"]] == ["delta-1", "delta-2"]


def test_a_judge_without_any_verdict_is_one_line(graded, tmp_path):
    with pytest.raises(UserError, match="tiny_alpacaeval rating: no answer has a verdict of both judges"):
        transferred(graded, "mute-judge", tmp_path / "out")


def test_the_same_judge_again_shows_its_own_noise(graded, tmp_path):
    section = transferred(graded, "old-judge", tmp_path / "out")["rating"]
    assert any("A and B are one judge" in reason for reason in section["left_out"])
    assert section["effects"]["agreement"]["raw"]["value"] == 1.0, "its votes follow from the seeds"


def test_the_board_under_the_new_judge(graded, tmp_path):
    out = tmp_path / "out"
    found = transferred(graded, "kind-judge", out, pairs=20, reanchor=True, task=graded.task)
    assert verify_records([out / "records"]).ok
    page = (out / "board" / "index.md").read_text()
    assert "judge: kind-judge, weights " in page and "old-judge" not in page
    rows = found["rating"]["reanchored"]["rows"]
    assert {(row["metric"], row["a"]["n"]) for row in rows} == {("rating", 24), ("judge_accuracy", 24)}
    assert all(row["b"]["value"] > row["a"]["value"] for row in rows if row["metric"] == "rating")


def test_the_python_interface_gives_the_same(graded, tmp_path):
    moved = rba.transfer_judge(
        "old-judge", "twin-judge", graded.folder / "eval", pairs=40, out=tmp_path / "out"
    )
    assert moved.to_dict() == json.loads((tmp_path / "out" / "transfer.json").read_text())
    table = moved.to_pandas()
    assert len(table) == 8 and set(table["metric"]) == {"rating", "judge_accuracy"}
    assert list(moved.verdicts) == ["tiny_alpacaeval rating", "tiny_alpacaeval judge_accuracy"]
    assert moved.summary().startswith("tiny_alpacaeval rating\n- ") and moved.path == tmp_path / "out"
    assert "<table>" in moved._repr_html_() and moved.left_out == []
    with pytest.raises(UserError, match="nothing in these records was judged by 'nobody'"):
        rba.transfer_judge("nobody", "twin-judge", graded.folder / "eval", out=tmp_path / "none")


def test_only_answers_that_a_judge_scores_are_chosen():
    def sample(**changes: Any) -> Sample:
        values = {"references": ["x"], "instruction": "say x", "status": "ok", "extra": "{}", "prompt": ""}
        return Sample.model_construct(response="x", extracted="x", baseline="", **{**values, **changes})

    assert kinds.RIGHT.can_judge(sample(), "") and not kinds.RIGHT.can_judge(sample(references=[]), "")
    assert kinds.RATING.can_judge(sample(references=[]), "") and not kinds.RATING.can_judge(
        sample(instruction=""), ""
    )
    assert not kinds.RATING.can_judge(sample(status="no_reply"), "") and not kinds.PAIRS.can_judge(
        sample(), ""
    )
    by_rule = json.dumps({"instructions": [{"name": "keywords:existence", "arguments": {"keywords": ["x"]}}]})
    assert not kinds.REASONING.can_judge(sample(extra=by_rule), "")
    assert kinds.REASONING.can_judge(sample(extra=json.dumps({"instructions": []})), "")


def test_what_follows_from_another_metric_is_no_kind_of_its_own():
    assert kinds.kind_of("win_rate_vs_sft", "pairwise_vs_sft") is kinds.PAIRS
    assert kinds.kind_of("lc_win_rate", "pairwise") is None
    assert kinds.kind_of("answer_overlap", "consistency") is None
