"""What remains of scores without the speech, on the front page."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.evaluation.plan import protocol_hash
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.site.facts import front_data, models_of, setting_data
from rba_bench.leaderboard.site.findings import findings_of
from rba_bench.leaderboard.site.without_speech import without_speech
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.site_boards import load_settings, settings

sync_api = pytest.importorskip("playwright.sync_api")
LEVEL = re.compile(r'class="level" x1="([\d.]+%)"')
SPEC: dict[str, Any] = {"task": "micro_triviaqa"}


def write_controlled(root: Path) -> Path:
    """One model that loses half of its score in silence, and one that was not tried."""
    for name, control, skill in (("sft", "", 0.8), ("sft", "silence", 0.4), ("other", "", 0.6)):
        spec = {**SPEC, "audio": {"text": control, "version": 1}} if control else SPEC
        folder = root / (control or "full")
        write_run(
            folder,
            name,
            qa_samples(skill, 80),
            "micro_triviaqa",
            protocol_hash=protocol_hash(spec),
            protocol_spec=spec,
        )
    return root


def test_the_share_stands_beside_the_score_and_the_control_is_no_row(tmp_path: Path) -> None:
    [setting] = load_settings(write_controlled(tmp_path))
    models = models_of([setting])
    rows = {row["model"]: row for row in setting_data(setting, models)["rows"]}
    labels = [model.label for model in models]
    share = next(row for row in setting.group.rows if row.label == "sft").retained["silence"][
        setting.group.primary
    ]
    shown = rows[labels.index("sft")]["retained"]["silence"]
    assert labels == ["other", "sft"] and rows[labels.index("other")]["retained"] == {}
    assert (
        shown == [round(100 * end, 1) for end in (share.value, share.low, share.high)] and 40 < shown[0] < 60
    )


def write_with_constant(root: Path) -> Path:
    """The same with a constant answer, and with an error rate of all of them."""
    write_controlled(root)
    constant = {"name": "constant", "spec": "constant", "kind": "constant", "weights_sha256": "55" * 32}
    write_run(
        root / "full",
        "constant",
        qa_samples(0.1, 80),
        "micro_triviaqa",
        protocol_hash=protocol_hash(SPEC),
        protocol_spec=SPEC,
        model={**constant, "training": None},
    )
    return root


def test_each_score_stands_above_its_scores_without_the_speech_and_beside_the_constant_answer(
    tmp_path: Path,
) -> None:
    [setting] = load_settings(write_with_constant(tmp_path))
    picture = without_speech([setting])
    assert picture is not None
    [block] = picture.blocks
    assert [(row.label, row.control) for row in block.rows] == [
        ("sft", ""),
        ("sft", "silence"),
        ("constant (ref)", ""),
    ]
    full, silent, constant = block.rows
    row = next(row for row in setting.group.rows if row.label == "sft")
    value = row.controls["silence"].record.metrics[setting.group.primary]
    assert silent.score == f"{100 * value.value:.1f}"
    assert silent.ends == f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    share = row.retained["silence"][setting.group.primary]
    assert (
        silent.retained.startswith(f"{100 * share.value:.1f} % [")
        and full.retained == constant.retained == ""
    )
    levels = [LEVEL.search(each.mark) for each in block.rows]
    assert all(level and level[1] == f"{float(constant.score):.1f}%" for level in levels), levels
    assert all("beyond" not in each.mark for each in block.rows)
    place = next(i for i, model in enumerate(models_of([setting])) if model.label == "sft")
    assert front_data([setting], models_of([setting]), set())["settings"][0]["speechless"] == {
        place: float(silent.score)
    }


def test_of_an_error_rate_what_is_not_wrong_is_drawn(tmp_path: Path) -> None:
    write_with_constant(tmp_path)
    for file in tmp_path.rglob("run.json"):
        file.write_text(file.read_text().replace('"higher_is_better": true', '"higher_is_better": false'))
    [setting] = load_settings(tmp_path)
    picture = without_speech([setting])
    assert picture is not None and picture.blocks[0].mirrored
    for row in picture.blocks[0].rows:
        spot = re.search(r'cx="([\d.]+)%"', row.mark)
        assert spot and float(spot[1]) == pytest.approx(100 - float(row.score), abs=0.11)


def test_a_finding_says_what_is_kept(tmp_path: Path) -> None:
    made = load_settings(write_controlled(tmp_path))
    share = next(row for row in made[0].group.rows if row.label == "sft").retained["silence"]
    kept = f"{100 * share[made[0].group.primary].value:.0f}"
    assert findings_of(made) == [f"Without the speech, sft keeps {kept} % of its score on micro_triviaqa."]


def test_the_first_second_is_speech_and_counts_for_no_score_without_it(tmp_path: Path) -> None:
    root = write_controlled(tmp_path)
    before = load_settings(root)
    said, shown = (
        findings_of(before),
        front_data(before, models_of(before), set())["settings"][0]["speechless"],
    )
    spec = {**SPEC, "audio": {"text": "first=1s", "version": 1}}
    write_run(
        root / "first", "sft", qa_samples(0.7, 80), "micro_triviaqa", protocol_hash=protocol_hash(spec),
        protocol_spec=spec,
    )  # fmt: skip
    [setting] = load_settings(root)
    assert set(setting.group.controls) == {"silence", "first=1s"}
    assert findings_of([setting]) == said != []
    assert front_data([setting], models_of([setting]), set())["settings"][0]["speechless"] == shown != {}


def test_without_controls_nothing_is_said_or_drawn(tmp_path: Path) -> None:
    made = settings(tmp_path, {"sft": 0.5, "a": 0.6}, n=24)
    assert without_speech(made) is None and findings_of(made) == []


def test_the_text_ceiling_is_compared_with_the_best_model(tmp_path: Path) -> None:
    made = settings(tmp_path / "a", {"sft": 0.3, "rba": 0.5, "text": 1.2}, tasks=2, n=60)
    assert findings_of(made) == [
        "The LLM that reads the transcript (text ceiling) is better than the best model on all of 2 tasks."
    ]
    equal = settings(tmp_path / "b", {"sft": 0.3, "rba": 0.9, "text": 0.9}, n=60)
    assert findings_of(equal) == [
        "The LLM that reads the transcript (text ceiling) cannot be told apart from the best model on the one task "
        "with both."
    ]


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_shows_it_at_first_sight_and_in_the_table(
    tmp_path: Path, open_page: Callable[..., Any], width: int
) -> None:
    write_with_constant(tmp_path / "runs")
    for skill, task in ((0.7, "micro_webquestions"), (0.6, "micro_other")):  # more settings, without controls
        write_run(
            tmp_path / "runs", "sft", qa_samples(skill, 24), task, protocol_hash=task[-2:].encode().hex() * 16
        )
    out = build_board([tmp_path / "runs"], tmp_path / "board").out
    page = open_page((out / "index.html").as_uri(), viewport={"width": width, "height": 900})
    assert "Without the speech, sft keeps" in page.locator("#answer").text_content()
    table = page.get_by_role("region", name="Table: scores without the speech")
    picture = table.locator("tbody svg").first.bounding_box()
    assert picture["width"] > 60 and page.evaluate("document.documentElement.scrollWidth") == width
    assert table.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1")
    sync_api.expect(table.get_by_role("columnheader", name="retained")).to_be_visible()
    row = page.locator("#board tbody tr", has_text="sft")
    sync_api.expect(row).to_contain_text("no speech: ")
    page.locator("[name=show]").select_option("retained silence")
    sync_api.expect(row).to_contain_text(" %[")


def test_the_page_has_a_column_per_control(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    out = build_board([write_controlled(tmp_path / "runs")], tmp_path / "board").out
    page = open_page((out / "index.html").as_uri())
    heading = page.get_by_role("button", name="retained, silence")
    sync_api.expect(heading).to_be_visible()
    row = page.locator("#board tbody tr", has_text="sft")
    assert " %" in row.locator("td").nth(4).text_content()
    assert "as a share of its score" in page.locator("dl").text_content()
