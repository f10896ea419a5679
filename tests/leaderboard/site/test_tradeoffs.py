"""Score against speed and size: who has a place, what the legend says, and the switch, with and without scripts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.site.axes import log_axis
from rba_bench.leaderboard.site.facts import Setting, models_of, parts_of, setting_data, size_of
from rba_bench.leaderboard.site.tradeoffs import Tradeoffs, size_text, tradeoffs_of
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.site_boards import load_settings

sync_api = pytest.importorskip("playwright.sync_api")
CASCADE = {"kind": "cascade", "n_parameters": 172_275_264, "text": {"n_parameters": 134_515_008}}


def write_sized(root: Path) -> Path:
    """Two models of one size, a larger and better one, a cascade, and a constant answer without parameters."""
    models: dict[str, tuple[float, dict[str, Any]]] = {
        "sft": (0.5, {"n_parameters": 10**9}),
        "other": (0.4, {"n_parameters": 10**9}),
        "large": (0.8, {"n_parameters": 7 * 10**9}),
        "cascade": (0.45, CASCADE),
        "constant": (-1, {"kind": "constant", "n_parameters": 0}),
    }
    for place, (name, (skill, facts)) in enumerate(models.items()):
        model = {"name": name, "spec": name, "weights_sha256": f"{place:064x}", "training": None, **facts}
        write_run(root, name, qa_samples(skill, 60, place), "micro_triviaqa", model=model)
    return root


def drawn(root: Path) -> tuple[list[Setting], Tradeoffs]:
    settings = load_settings(write_sized(root))
    return settings, tradeoffs_of(settings, models_of(settings))


def test_sizes_are_drawn_beside_speeds_and_the_constant_answer_is_a_level(tmp_path: Path) -> None:
    _, found = drawn(tmp_path)
    for [panel] in (found.speeds, found.sizes):
        tree = ElementTree.fromstring(panel.picture)
        marks = [each.get("class") for each in tree.iter() if each.tag in ("circle", "polygon", "rect")]
        assert marks.count("model") == 3 and marks.count("cascade") == 1
        levels = [each for each in tree.iter("line") if each.get("class") == "level"]
        assert len(levels) == 1 and levels[0].get("y1") == levels[0].get("y2")
        assert "constant: 0.0 [" in str(tree.findtext("desc"))
    assert "at 7 B parameters" in found.sizes[0].picture and "at 90 RTFx" in found.speeds[0].picture


def test_systems_of_equal_size_stand_side_by_side(tmp_path: Path) -> None:
    _, found = drawn(tmp_path)
    circles = ElementTree.fromstring(found.sizes[0].picture).iter("circle")
    places = [float(str(each.get("cx"))) for each in circles]
    assert all(abs(a - b) > 7 for i, a in enumerate(places) for b in places[:i]), places


def test_no_smaller_system_beats_those_that_the_line_joins(tmp_path: Path) -> None:
    _, found = drawn(tmp_path)
    [front] = ElementTree.fromstring(found.sizes[0].picture).iter("polyline")
    corners = [tuple(map(float, pair.split(","))) for pair in str(front.get("points")).split()]
    assert len(corners) == 5  # cascade, sft, large: level to the larger one, then up to it
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in zip(corners, corners[1:], strict=False))
    assert [a[1] == b[1] for a, b in zip(corners, corners[1:], strict=False)] == [True, False, True, False]


def test_the_legend_tells_the_parts_that_a_record_tells(tmp_path: Path) -> None:
    settings, found = drawn(tmp_path)
    sizes = {entry.label: entry.size for entry in found.legend}
    assert sizes["cascade"] == "172 M parameters (recogniser 37.8 M + LLM 135 M)"
    assert sizes["large"] == "7 B parameters" and sizes["constant"] == ""
    rows = {row["model"]: row for row in setting_data(settings[0], models_of(settings))["rows"]}
    cascade = rows[next(i for i, model in enumerate(models_of(settings)) if model.label == "cascade")]
    assert cascade["size"] == 172_275_264
    assert cascade["parts"] == [("recogniser", 37_760_256), ("LLM", 134_515_008)]


@pytest.mark.parametrize("number", [None, "7B", True, -3, 0, 1.5, 10**30, [1], float("nan")])
def test_a_size_of_another_form_is_none(tmp_path: Path, number: object) -> None:
    record = load_settings(write_sized(tmp_path))[0].group.runs[0].record
    record.model["n_parameters"] = number
    assert size_of(record) is None and parts_of(record) == []
    record.model |= {"kind": "cascade", "n_parameters": 5, "text": {"n_parameters": number}}
    assert parts_of(record) == []
    record.model["text"] = {"n_parameters": 9}  # more than the whole
    assert parts_of(record) == []


def test_sizes_are_written_short() -> None:
    texts = [size_text(number) for number in (999, 1_119_600, 134_515_008, 999_999_999, 7.04e9, 70e9)]
    assert texts == ["999", "1.12 M", "135 M", "1 B", "7.04 B", "70 B"]


@pytest.mark.parametrize("value", [1.0, 3.4, 173.0, 3.5e6, 7.1e9])
def test_an_axis_of_one_value_has_a_number(value: float) -> None:
    axis = log_axis([value])
    assert axis.ticks and all(axis.low <= tick <= axis.high for tick in axis.ticks)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0, 3.0, 10.0, 30.0, 1e4])
def test_numbers_of_a_logarithmic_axis_have_room(ratio: float) -> None:
    for tenth in range(100, 1000, 7):
        axis = log_axis([tenth, tenth * ratio])
        places = [axis.share(tick) for tick in axis.ticks]
        assert len(places) < 8
        assert (
            min((b - a for a, b in zip(places, places[1:], strict=False)), default=1.0) > 0.11
        )  # of 230 units


@pytest.mark.parametrize("scripts", [True, False])
def test_the_switch_works_with_and_without_scripts(
    tmp_path: Path, open_page: Callable[..., Any], scripts: bool
) -> None:
    out = build_board([write_sized(tmp_path / "runs")], tmp_path / "board").out
    page = open_page((out / "index.html").as_uri(), java_script_enabled=scripts)
    speed, size = page.locator(".panels.by-speed"), page.locator(".panels.by-size")
    sync_api.expect(speed).to_be_visible()
    sync_api.expect(size).to_be_hidden()
    page.get_by_role("radio", name="speed").focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(size).to_be_visible()
    sync_api.expect(speed).to_be_hidden()
    sync_api.expect(page.locator(".legend .by-size").first).to_be_visible()


def test_the_table_shows_sizes_and_sorts_them(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    out = build_board([write_sized(tmp_path / "runs")], tmp_path / "board").out
    page = open_page((out / "index.html").as_uri())
    page.get_by_role("button", name="parameters", exact=True).click()
    sync_api.expect(page.locator("th[aria-sort=ascending]")).to_contain_text("parameters")
    rows = page.locator("#board tbody tr")
    sync_api.expect(rows.first).to_contain_text("recogniser 37.8\u00a0M + LLM 135\u00a0M")
    assert "constant" in rows.last.text_content()  # without a size
