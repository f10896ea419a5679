"""The front page as bytes: what is in its data, its pictures and its texts."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rba_bench.errors import UserError
from rba_bench.html_pages import script_json
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import board_differences
from rba_bench.leaderboard.site.axes import linear_axis, log_axis
from rba_bench.leaderboard.site.build import page_address, site_files
from rba_bench.leaderboard.site.facts import front_data, models_of, setting_data, settings_of
from rba_bench.leaderboard.site.forest import Differences, draw_forest, gap_forest
from rba_bench.leaderboard.site.pictures import robustness_charts, training_charts
from rba_bench.leaderboard.site.scatter import Axes, Point, scatter
from rba_bench.leaderboard.site.shell import POLICY, call_script
from rba_bench.leaderboard.site.tradeoffs import tradeoffs_of
from tests.leaderboard.site.site_boards import HOSTILE, load_settings, settings, write_board_records


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("front")
    return build_board([write_board_records(place / "runs")], place / "board").out


def data_of(board: Path) -> Any:
    script = (board / "site/board.js").read_text(encoding="ascii")
    found = re.fullmatch(r"rbaBoard\(([^<>&]*)\);\n", script)
    assert found
    return json.loads(found[1])


def test_the_site_is_part_of_the_board_and_is_made_again_byte_for_byte(board: Path) -> None:
    listed = json.loads((board / "records.json").read_text())["files"]
    assert {"index.html", "site/site.css", "site/theme.js", "site/front.js", "site/board.js"} < set(listed)
    assert [name for name in listed if name.startswith("site/settings/")] and all(
        (board / name).is_file() for name in listed
    )
    assert list(board_differences(board)) == []
    page = (board / "index.html").read_text()
    (board / "index.html").write_text(page.replace("told apart", "told from each other"))
    assert [fault for fault in board_differences(board) if fault.startswith("index.html is not what")]
    (board / "index.html").write_text(page)


def test_files_of_an_earlier_site_are_removed_and_no_others(tmp_path: Path) -> None:
    runs, out = write_board_records(tmp_path / "runs"), tmp_path / "board"
    build_board([runs], out)
    facts = json.loads((out / "records.json").read_text())
    stale = [
        "site/settings/old.js",
        "samples/old/index.html",
        "clips/0123abcd.flac",
        "site/../../precious.js",
        "notes.html",
    ]
    for name in stale:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    facts["files"] += stale
    (out / "records.json").write_text(json.dumps(facts))
    build_board([runs], out)
    assert [(out / name).exists() for name in stale] == [False, False, False, True, True]


def test_pages_hold_no_inline_script_or_style(board: Path) -> None:
    page = (board / "index.html").read_text()
    tags = re.findall(r"<script[^>]*>", page)
    assert len(tags) >= 3, "data, colours, table"
    for tag in tags:
        assert "src=" in tag or 'type="application/json"' in tag
    assert "<style" not in page and not re.search(r"<[^>]*\s(style|on\w+)=", page)
    assert "unsafe" not in POLICY and f'content="{POLICY}"'.replace("'", "&#39;") in page


def test_hostile_names_are_text_everywhere(board: Path) -> None:
    for file in [board / "index.html", board / "site/board.js", *(board / "site/settings").iterdir()]:
        assert "<img" not in file.read_text() and "\u202e" not in file.read_text()
    [label] = [model["label"] for model in data_of(board)["models"] if "img" in model["label"]]
    assert label.startswith("‹img") and "\ufffd" in label and HOSTILE not in label


def test_the_data_are_the_numbers_of_the_records(tmp_path: Path) -> None:
    made = load_settings(write_board_records(tmp_path))
    models = models_of(made)
    data = front_data(made, models, {"section1"})
    assert [setting["samples"] for setting in data["settings"]] == [False, True, False]
    place = next(i for i, model in enumerate(models) if model.label == "rba")
    row = next(row for row in made[0].group.rows if row.label == "rba")
    value = row.run.record.metrics[made[0].group.primary]
    scores = next(each for each in data["settings"][0]["scores"] if each[0] == place)
    assert scores[1:4] == [round(100 * each, 1) for each in (value.value, value.low, value.high)]
    assert scores[4:] == [row.bands[made[0].group.primary].best, row.bands[made[0].group.primary].worst]
    detail = setting_data(made[0], models)
    found = next(each for each in detail["rows"] if each["model"] == place)
    gap = row.versus[made[0].group.primary]
    assert found["versus"] == [*(round(100 * each, 1) for each in (gap.value, gap.low, gap.high)), 1]
    n = len(made[0].group.runs)
    assert len(detail["pairs"]) == n * (n - 1) // 2
    assert [model.kind for model in models][-2:] == ["ceiling", "cascade"]


def origins_of(data: Any, label: str) -> list[tuple[str, str]]:
    """Label and facts of each score of a model, by setting."""
    place = next(i for i, model in enumerate(data["models"]) if model["label"] == label)
    found = []
    for setting in data["settings"]:
        for row, origin in zip(setting["scores"], setting["provenance"], strict=True):
            found += [tuple(data["provenances"][origin])] if row[0] == place else []
    return found


def test_each_score_has_its_provenance_and_a_copied_record_earns_none(tmp_path: Path) -> None:
    made = load_settings(write_board_records(tmp_path))
    data = front_data(made, models_of(made), set())
    facts = "measured here; 5 of 5 items answered again with the same answers, 2026-11-29, by The maintainers"
    assert origins_of(data, "rba") == [("reproduced", facts)] * 3
    # the same weights and answers under another name and at another moment
    assert origins_of(data, "rba-again") == [("measured here", "run by those who publish this board")] * 3
    by_task = dict(
        zip([setting["title"] for setting in data["settings"]], origins_of(data, "base"), strict=True)
    )
    labels = {title: origin[0] for title, origin in by_task.items()}
    assert labels == {
        "micro_triviaqa": "measured here", "micro_triviaqa, noise=10dB": "submitted", "micro_covost2": "reproduced",
    }  # fmt: skip
    assert data["trust"] == ["submitted", "measured here", "reproduced"]
    shown = by_task["micro_covost2"][1]
    assert "‹img src=x" in shown and "<" not in shown and "\u202e" not in shown


def test_the_attestation_is_linked_where_there_is_one(tmp_path: Path) -> None:
    made = load_settings(write_board_records(tmp_path))
    models = models_of(made)
    rows = {models[row["model"]].label: row["attestation"] for row in setting_data(made[0], models)["rows"]}
    assert rows["rba"].startswith("records/rba/micro_triviaqa-") and rows["rba"].endswith("/attestation.json")
    assert rows["rba-again"] == rows["base"] == ""


def test_a_page_of_many_models_holds_no_pair_but_those_with_the_baseline(tmp_path: Path) -> None:
    made = settings(tmp_path, {"sft": 0.5, **{f"m{i}": 0.4 + i / 50 for i in range(14)}}, n=30)
    detail = setting_data(made[0], models_of(made))
    assert detail["pairs"] == [] and sum(row["versus"] is not None for row in detail["rows"]) == 14


def test_settings_that_share_a_task_have_titles_of_their_own(tmp_path: Path) -> None:
    titles = [setting.title for setting in load_settings(write_board_records(tmp_path))]
    assert titles[:2] == ["micro_triviaqa", "micro_triviaqa, noise=10dB"] and len(set(titles)) == 3
    group = load_settings(tmp_path)[0].group
    twice = settings_of({"micro_triviaqa.aa.bb": group, "micro_triviaqa.aa.cc": group})
    assert [setting.title for setting in twice] == ["micro_triviaqa.aa.bb", "micro_triviaqa.aa.cc"]


def test_pictures_are_drawn_from_the_records_that_have_them(tmp_path: Path) -> None:
    made = load_settings(write_board_records(tmp_path))
    [robust] = robustness_charts(made)
    assert "unchanged" in robust.picture and "noise=10dB" in robust.picture
    [training] = training_charts(made)
    assert ("sft", "50", "1.7") in training.rows and training.title.startswith("loss")
    drawn = tradeoffs_of(made, models_of(made))
    assert len(drawn.speeds) == 3 and drawn.sizes == [] and len(drawn.legend) == 7
    gaps = gap_forest(made)
    assert gaps and {row.label for row in gaps.blocks[0].rows} >= {"sft", "cascade (ref)"}
    for picture in [robust.picture, training.picture, *(panel.picture for panel in drawn.speeds)]:
        tree = ElementTree.fromstring(picture)
        assert tree[0].tag == "title" and tree[1].tag == "desc" and tree[1].text


def test_pictures_are_left_out_where_the_records_have_none(tmp_path: Path) -> None:
    made = settings(tmp_path, {"sft": 0.5, "a": 0.6})
    assert robustness_charts(made) == training_charts(made) == [] and gap_forest(made) is None
    page = site_files({"s": made[0].group}, ["a warning"], ["s.csv"])["index.html"].decode()
    assert 'id="gap"' not in page and 'id="training"' not in page and "a warning." in page
    many = [f"warning {number}" for number in range(60)]  # such as a partial run each
    page = site_files({"s": made[0].group}, many, ["s.csv"])["index.html"].decode()
    assert "<summary>60 warnings, such as: warning 0</summary>" in page and "<p>warning 59.</p>" in page


@pytest.mark.parametrize(
    "history",
    [None, {}, [[0, "x"], [1, 2]], [[0, float("1e300")], [1, 2.0]], "no", [[1]], [[True, 1], [2, 3]]],
)
def test_a_history_of_another_form_draws_nothing(tmp_path: Path, history: object) -> None:
    made = settings(tmp_path, {"sft": 0.5})
    curve = (
        {"step": [row[0] for row in history if row], "loss": history}
        if isinstance(history, list)
        else history
    )
    made[0].group.runs[0].record.model["training"] = {
        **{"validations": {"metric": "loss", "history": history}, "curve": curve}
    }
    assert training_charts(made) == []


def test_the_log_of_a_training_is_drawn_from_its_record(tmp_path: Path) -> None:
    made = settings(tmp_path, {"sft": 0.5, "rba": 0.6})
    runs = {run.record.model["name"]: run.record.model for run in made[0].group.runs}
    runs["sft"]["training"] = {"curve": {"step": [0, 1, 2], "loss": [None, 2.0, 1.0]}}
    runs["rba"]["training"] = {"curve": {"step": [1, 2], "loss": [3.0, 2.5], "accuracy": [0.5, 1.0]}}
    loss, accuracy = training_charts(made)
    assert loss.title.startswith("loss in training") and accuracy.title.startswith("reward accuracy")
    assert set(loss.rows) == {("sft", "1", "2"), ("sft", "2", "1"), ("rba", "1", "3"), ("rba", "2", "2.5")}
    assert accuracy.rows == [("rba", "1", "0.5"), ("rba", "2", "1")]


def test_axes_have_round_numbers_and_hold_all_values() -> None:
    axis = linear_axis([-3.2, 11.0], count=3)
    assert axis.ticks == (-5.0, 0.0, 5.0, 10.0, 15.0)
    assert (axis.share(-5), axis.share(5), axis.share(99)) == (0.0, 0.5, 1.0)
    assert linear_axis([7.0, 7.0]).low < 7 < linear_axis([7.0, 7.0]).high
    reverse = linear_axis([0.0, 10.0], reverse=True)
    assert reverse.share(10) == 0.0
    log = log_axis([5.0, 2000.0])
    assert log.ticks == (10.0, 100.0, 1000.0) and log.low < 5 < 2000 < log.high


def test_texts_in_pictures_are_escaped() -> None:
    points = [Point("<b>", "a & b", "model", x, 1.0, 0.5, 2.0) for x in (1.0, 10.0)]
    drawn = scatter(points, Axes("<x>", "y"), "</svg>", "\"'")
    texts = [each.text for each in ElementTree.fromstring(drawn).iter() if each.text]
    assert "<b>" in texts and "<x>" in texts and "</svg>" in texts and "a & b" in texts


def test_data_scripts_hold_nothing_but_a_call() -> None:
    assert (
        call_script("f", "</script>\u2028", [float("nan")]) == b'f("\\u003c/script\\u003e\\u2028",[null]);\n'
    )
    assert script_json({"a": 1}) == '{"a":1}'


def test_reported_numbers_are_linked_and_the_link_is_made_again(tmp_path: Path) -> None:
    runs = write_board_records(tmp_path / "runs")
    out = build_board([runs], tmp_path / "board", reported_page="../paper/index.html").out
    page = (out / "index.html").read_text()
    link = '<a href="../paper/index.html" rel="noreferrer">'
    assert (
        link in page and link not in (build_board([runs], tmp_path / "other").out / "index.html").read_text()
    )
    assert list(board_differences(out)) == []


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "data:text/html,x", "//evil", "file:///etc", 'https://a"b', "a b", "x:y"],
)
def test_what_no_page_may_link_to_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="cannot be linked to"):
        page_address(address)
    assert (
        page_address("https://example.org/a?b=c#d")
        and page_address("../paper/index.html")
        and page_address("") == ""
    )


def test_one_interval_far_out_does_not_flatten_the_others() -> None:
    rows = [(f"m{i}", [0.5, -2.0, 3.0, 0]) for i in range(20)]
    usual = draw_forest([Differences("t", "x", 1, False, rows)])
    far = draw_forest([Differences("t", "x", 1, False, [*rows, ("far", [-250.0, -300.0, -200.0, -1])])])
    assert usual and far and not usual.clipped and far.clipped and "\u2212300" not in far.axis
    last = far.blocks[0].rows[-1]
    assert (
        last.text == "\u2212250.0 [\u2212300.0, \u2212200.0]"
        and "\u2039" in last.mark
        and last.verdict == "worse"
    )
    assert "\u2039" not in far.blocks[0].rows[0].mark
    mirrored = draw_forest([Differences("t", "wer", 1, True, [("a", [-5.0, -9.0, -1.0, 1])])])
    assert (
        mirrored
        and 'cx="50.0%"' in mirrored.blocks[0].rows[0].mark
        and "better" in mirrored.blocks[0].rows[0].mark
    )
    assert draw_forest([]) is draw_forest([Differences("t", "x", 1, False, [])]) is None
