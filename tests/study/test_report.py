"""Tables, marks, claims and words from invented scores; a report makes itself again."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.study import report, scores
from rba_bench.study.analysis import Analysis, StudyData
from rba_bench.study.study_answer import answer_sentence, method_sentence, outcome_grids, reading
from rba_bench.study.study_recipe import StudyRecipe
from rba_bench.study.study_tables import cost_rows
from tests.study.invented import system

N = 200


def recipe() -> StudyRecipe:
    claims = [
        {"text": "A is better", "method": "rba-group", "tasks": ["instruct"]},
        {"text": "B is better", "method": "rba-single", "tasks": ["instruct"]},
        {"text": "C is better", "method": "dpo", "tasks": ["instruct"]},
    ]
    tasks = {"instruct": "valid_rate", "s2tt": "bleu"}
    return StudyRecipe.model_validate(
        {
            "methods": ["sft", "rba-single", "rba-group", "dpo"],
            "tasks": tasks,
            "claims": claims,
            "references": ["base"],
        }
    )


def answers(share: float, seed: int) -> np.ndarray:
    """Right answers to items whose difficulty all systems share."""
    difficulty = np.random.default_rng(0).random(N)
    return (difficulty + np.random.default_rng(seed).normal(0, 0.1, N) < share).astype(float)


def words(share: float, seed: int) -> np.ndarray:
    """BLEU statistics of sentences of 8 words, of which about `share` is right."""
    hits = np.random.default_rng(seed).binomial(8, share, N)
    orders = np.stack([np.maximum(hits - order, 0) for order in range(4)], axis=1)
    return np.hstack([np.full((N, 2), 8), orders, np.tile([8, 7, 6, 5], (N, 1))])


@pytest.fixture(scope="module")
def data() -> StudyData:
    shares = {"sft": (0.5, 0.7), "rba-single": (0.5, 0.7), "rba-group": (0.65, 0.8), "dpo": (0.3, 0.6)}
    systems = [
        system(method, seed, answers(share, number * 10 + seed), part, words(right, number * 10 + seed))
        for part in ("steps", "time")
        for number, (method, (share, right)) in enumerate(shares.items())
        for seed in (1, 2, 3)
    ]
    systems.append(
        system("base", 0, answers(0.4, 99), "reference", words(0.65, 99)).model_copy(update={"cost": {}})
    )
    return StudyData(recipe(), tuple(systems), {"seconds": 7.0, "like": "sft", "methods": {}})


def test_better_equal_and_worse_are_told_apart(data: StudyData) -> None:
    analysis = Analysis(data)
    words_by_claim = {(v.text, v.budget): v.word for v in analysis.verdicts}
    for budget in ("steps", "time"):
        assert words_by_claim["A is better", budget] == "supported"
        assert words_by_claim["B is better", budget] == "not supported"
        assert words_by_claim["C is better", budget] == "contradicted"
    found = {(row.part, row.method, row.task): row for row in analysis.rows}
    group = found["steps", "rba-group", "instruct"]
    assert group.versus is not None and group.versus.value == pytest.approx(0.15, abs=0.04)
    assert group.versus.low < 0.15 < group.versus.high and len(group.versus.by_seed) == 3
    assert found["steps", "rba-group", "s2tt"].better == 1 and found["steps", "dpo", "s2tt"].better == -1
    assert found["steps", "sft", "instruct"].versus is None
    assert found["reference", "base", "instruct"].versus_seeds == (1, 2, 3)


def test_bleu_is_the_mean_over_seeds_of_corpus_scores(data: StudyData) -> None:
    from rba_bench.metrics.aggregate import MacroScore, macro_rows, score_function

    row = next(r for r in Analysis(data).rows if (r.part, r.method, r.task) == ("steps", "sft", "s2tt"))
    score = MacroScore(score_function("bleu"), 10)
    alone = [score(macro_rows(words(0.7, seed), np.arange(N) % 2).sum(axis=0).tolist()) for seed in (1, 2, 3)]
    assert row.score.by_seed == pytest.approx(alone)
    assert row.score.value == pytest.approx(np.mean(alone))


def test_the_answer_counts_marks_beside_chance_and_names_who_is_better(data: StudyData) -> None:
    analysis = Analysis(data)
    assert answer_sentence(analysis) == (
        "`rba-group` is better than `sft` on some tasks: of 12 paired comparisons, 4 come out better and 4 worse, "
        "where chance alone would make about 0.3 of each if all methods were equal; of 6 tests of published claims, 2 "
        "support its claim and 2 contradict it."
    )
    lost = method_sentence(analysis, "dpo")
    assert lost.startswith("`dpo`: worse on instruct at equal steps (-") and "better on" not in lost
    assert lost.endswith("not told apart in 0 of 4 comparisons.")


def test_marks_that_chance_explains_make_no_method_better(data: StudyData) -> None:
    alike = [one for one in data.systems if one.method in ("sft", "rba-single", "base")]
    analysis = Analysis(StudyData(data.study, tuple(alike), data.time))
    assert answer_sentence(analysis).startswith(
        "No method is shown to be better than `sft`: of 4 paired comparisons, 0 come out better and 0 worse, where "
        "chance alone would make about 0.1 of each"
    )
    assert answer_sentence(analysis).endswith("; of 2 tests of published claims, none supports its claim.")
    alone = [one for one in data.systems if one.method != "sft"]
    assert "no finished run" in answer_sentence(Analysis(StudyData(data.study, tuple(alone))))


def test_the_grid_has_every_difference_once_and_counts_the_trained_ones(data: StudyData) -> None:
    analysis = Analysis(data)
    steps, time = outcome_grids(analysis)
    assert (
        [row.method for row in steps.methods]
        == ["rba-single", "rba-group", "dpo"]
        == [row.method for row in time.methods]
    )
    assert [row.method for row in steps.untrained] == ["base"] and not time.untrained
    summaries = {row.method: row.summary for row in steps.methods}
    assert summaries == {"rba-single": "none of 2", "rba-group": "2 better of 2", "dpo": "2 worse of 2"}
    assert {row.seeds for grid in (steps, time) for row in grid.methods} == {"3"}
    cells = [cell.row for grid in (steps, time) for row in grid.methods for cell in row.cells if cell]
    assert sorted(map(id, cells)) == sorted(map(id, analysis.compared))
    assert all(float(reach.removeprefix("±")) > 0 for reach in steps.reach)


def test_only_common_seeds_are_paired(data: StudyData) -> None:
    fewer = [one for one in data.systems if (one.method, one.seed) != ("sft", 3)]
    rows = Analysis(StudyData(data.study, tuple(fewer))).rows
    row = next(r for r in rows if (r.part, r.method, r.task) == ("steps", "rba-group", "instruct"))
    assert row.seeds == (1, 2, 3) and row.versus_seeds == (1, 2)
    assert "one training seed" not in reading(Analysis(StudyData(data.study, tuple(fewer))))
    one_seed = [
        one for one in data.systems if one.seed == 1 or (one.method in ("sft", "dpo") and one.part == "steps")
    ]
    analysis = Analysis(StudyData(data.study, tuple(one_seed)))
    assert (
        "10 of the 12 comparisons are of one training seed: their intervals cover the test items"
        in reading(analysis)
    )
    steps, _ = outcome_grids(analysis)
    assert {row.method: row.seeds for row in steps.methods} == {
        "rba-single": "1",
        "rba-group": "1",
        "dpo": "3",
    }
    alone = [one for one in data.systems if one.method != "sft"]
    assert all(row.versus is None for row in Analysis(StudyData(data.study, tuple(alone))).rows)


def test_items_without_a_score_are_left_out_for_all(data: StudyData) -> None:
    damaged = data.systems[0].model_copy(deep=True)
    damaged.tasks["instruct"].metrics["valid_rate"].rows[:4] = [None] * 4
    rows = Analysis(StudyData(data.study, (damaged, *data.systems[1:]))).rows
    assert {(row.n, row.n_left_out) for row in rows if row.task == "instruct"} == {(N - 4, 4)}


def test_other_test_sets_never_share_a_table(data: StudyData) -> None:
    other = data.systems[1].model_copy(deep=True)
    other.tasks["s2tt"].items = "00"
    with pytest.raises(UserError, match="s2tt: .*other test sets or protocols"):
        Analysis(StudyData(data.study, (data.systems[0], other))).rows  # noqa: B018 - computed on first use


def save(data: StudyData, folder: Path) -> report.StudyReport:
    for one in data.systems:
        one.save(folder / report.SCORES)
    return report.write_study_report(data, folder)


def test_a_published_report_makes_itself_again(data: StudyData, tmp_path: Path) -> None:
    made = save(data, tmp_path / "report")
    published = report.publish_study_report(made, tmp_path / "published")
    before = {
        file.relative_to(published): file.read_bytes() for file in published.rglob("*") if file.is_file()
    }
    again = report.write_study_report(report.load_study(published), published)
    assert again.data == made.data == read_json(published / "study.json")
    assert before == {
        file.relative_to(published): file.read_bytes() for file in published.rglob("*") if file.is_file()
    }
    page = (published / "index.md").read_text()
    for part in (
        "A is better",
        "Cost of training",
        "Scores, equal time, greedy decoding",
        "12 paired comparisons",
        "| rba-group | 3 | 2 better of 2 | +1",
        "±",
    ):
        assert part in page
    assert page.index("paired comparisons") < page.index("|") < page.index("## Conditions")
    html = (published / "index.html").read_text()
    for part in (
        "12 paired comparisons",
        "Cost of training",
        "not told apart",
        'href="scores.csv"',
        "Equal time, greedy decoding",
    ):
        assert part in html
    assert "not resolved" not in html + page  # one word for one thing, on both pages
    assert "<style" not in html and html.count("<script") == 2 and html.count("<script src=") == 2
    (published / "old.csv").write_text("x")
    assert not (report.publish_study_report(made, published) / "old.csv").exists()


def test_a_foreign_folder_is_not_replaced(data: StudyData, tmp_path: Path) -> None:
    made = save(data, tmp_path / "report")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="something else"):
        report.publish_study_report(made, tmp_path / "mine")
    with pytest.raises(UserError, match="no study report"):
        report.load_study(tmp_path / "mine")


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run of this study is finished"):
        report.write_study_report(StudyData(recipe(), ()), tmp_path)


def test_damaged_scores_name_their_file(data: StudyData, tmp_path: Path) -> None:
    data.systems[0].save(tmp_path)
    (file,) = tmp_path.rglob("*.json.gz")
    assert scores.load_scores(file) == data.systems[0]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="seed1.json.gz is damaged"):
        scores.load_all_scores(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"part": "../../x"},
        {"method": "a/b"},
        {"method": "rba-group"},
        {"seed": 99},
        {"seed": "1"},
        {"eval_s": float("nan")},
    ],
    ids=["part", "method", "another method", "another seed", "text", "nan"],
)
def test_scores_of_others_are_what_their_file_is_called(
    data: StudyData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    data.systems[0].save(tmp_path)
    (file,) = tmp_path.rglob("*.json.gz")
    text = json.dumps({**data.systems[0].model_dump(mode="json"), **changes})
    file.write_bytes(gzip.compress(text.encode(), mtime=0))
    with pytest.raises(UserError, match="json.gz"):
        scores.load_all_scores(tmp_path)


def test_cost_is_the_mean_over_seeds(data: StudyData) -> None:
    row = cost_rows(data)[0]
    assert (row["budget"], row["method"], row["seeds"], row["wall_time_s"]) == ("steps", "sft", 3, 7.0)
    assert row["seconds_per_step"] == pytest.approx(0.7) and row["peak_memory_mb"] is None


def test_another_baseline_changes_signs_and_no_file(
    data: StudyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(data, tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    other = report.with_baseline(report.load_study(tmp_path), "rba-group")

    def difference(study: StudyData, method: str) -> float:
        rows = Analysis(study).rows
        row = next(r for r in rows if (r.part, r.method, r.task) == ("steps", method, "instruct"))
        assert row.versus is not None
        return row.versus.value

    assert difference(other, "sft") == pytest.approx(-difference(data, "rba-group"))
    assert difference(other, "sft") != 0 and not other.study.claims
    with pytest.raises(SystemExit) as ended:
        main(["study", "report", str(tmp_path), "--baseline", "rba-group"])
    assert ended.value.code == 0
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    capsys.readouterr()
    for options, place in (([], {"out": str(tmp_path)}), (["--baseline", "rba-group"], {})):
        with pytest.raises(SystemExit):
            main(["study", "report", str(tmp_path), "--json", *options])
        shown = json.loads(capsys.readouterr().out)
        assert (
            shown["schema_version"]
            and {key: shown[key] for key in ("out", "folder") if key in shown} == place
        )
    with pytest.raises(UserError, match="no run of 'rba-groop'; did you mean 'rba-group'"):
        report.with_baseline(data, "rba-groop")
