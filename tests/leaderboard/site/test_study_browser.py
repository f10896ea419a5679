"""The page of a study in a real browser: answer, sorting, search, curves; with and without script, narrow and wide."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.study.analysis import StudyData
from rba_bench.study.curves import Curve
from rba_bench.study.report import load_study, write_study_report
from rba_bench.study.study_recipe import StudyRecipe
from rba_bench.training.step_curve import thin_log
from tests.study.invented import system

sync_api = pytest.importorskip("playwright.sync_api")
PUBLISHED = Path(__file__).parents[3] / "leaderboards"
METHODS = {"sft": 0.5, "rba-single": 0.5, "rba-group": 0.8, "dpo": 0.1}
CLAIM = '<img src=x onerror="document.title=1"> is better'


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods, two seeds, both budgets, curves, and a hostile claim."""
    folder = tmp_path_factory.mktemp("study")
    rng, systems, curves = np.random.default_rng(0), [], []
    for part in ("steps", "time"):
        for method, share in METHODS.items():
            for seed in (1, 2):
                made = system(method, seed, rng.random(120) < share, part)
                systems.append(made)
                rows = [
                    {
                        **{"step": step, "loss": share + 1 / step, "elapsed_s": 3.0 * step},
                        **({} if method == "sft" else {"accuracy": 1 - 0.5 / step}),
                    }
                    for step in range(1, 41 if part == "steps" else 61)
                ]
                curves.append(Curve(part, method, seed, made.weights[:12], thin_log(rows)))
    systems.append(system("base", 0, rng.random(120) < 0.4, "reference").model_copy(update={"cost": {}}))
    recipe = StudyRecipe.model_validate(
        {
            "methods": list(METHODS),
            "tasks": {"instruct": "valid_rate"},
            "claims": [{"text": CLAIM, "method": "dpo", "tasks": ["instruct"]}],
            "references": ["base"],
        }
    )
    write_study_report(StudyData(recipe, tuple(systems), curves=tuple(curves)), folder)
    return folder


@pytest.fixture
def page(study: Path, open_page: Callable[..., Any]) -> Any:
    return open_page((study / "index.html").as_uri())


def names(page: Any, table: str) -> list[str]:
    return [
        str(each.text_content()) for each in page.locator(f"{table} tbody").first.locator("th:visible").all()
    ]


def test_answer_grid_claims_and_plots_come_in_this_order(page: Any) -> None:
    answer = page.locator(".answer").text_content()
    assert answer.startswith(
        "rba-group is better than sft on some tasks: of 6 paired comparisons, 2 come out better"
    )
    order = page.evaluate("[...document.querySelectorAll('.answer, h2')].map((each) => each.id || 'answer')")
    assert order == [
        "answer", "methods", "claims", "differences", "cost", "training", "tables", "downloads", "conditions",
    ]  # fmt: skip
    row = page.locator(".grid").first.locator("tr", has_text="rba-group")
    assert "1 better of 1" in row.text_content() and row.locator(".outcome.better").count() == 1
    claims = page.locator(".claims").text_content()
    assert "contradicted" in claims and CLAIM in claims
    assert page.title() != "1" and page.locator("img").count() == 0


def test_a_column_sorts_both_ways_and_by_keyboard(page: Any) -> None:
    head = page.locator(".grid").first.locator("thead th", has_text="instruct")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page, ".grid") == ["rba-group", "rba-single", "dpo"]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page, ".grid") == ["dpo", "rba-single", "rba-group"]
    table = page.locator("#tables ~ details table.sortable").first
    table.locator("thead button", has_text="instruct").click()
    first, *_, last = [str(each.text_content()) for each in table.locator("tbody th").all()]
    assert (first, last) == ("rba-group", "dpo")


def test_one_search_narrows_tables_plots_and_curves(page: Any) -> None:
    page.get_by_label("Show methods").fill("group, dpo")
    assert names(page, ".grid") == ["rba-group", "dpo"]
    assert page.locator("#curves figure:visible").count() == 2
    shown = page.locator(".forest tbody tr:visible th[scope=row]").all_text_contents()
    assert set(shown) == {"rba-group", "dpo"}
    sync_api.expect(page.locator("#count")).to_have_text("2 of 4 rows")
    page.get_by_label("Show methods").fill("")
    assert page.locator("#curves figure:visible").count() == 4


def test_curves_show_the_chosen_figure_against_step_or_time(page: Any) -> None:
    panels = page.locator("#curves figure")
    assert panels.count() == 4 and panels.first.locator("polyline").count() == 2  # a line per seed
    assert "loss by training step" in panels.first.locator("svg > title").text_content()
    page.locator("[name=figure]").select_option("accuracy")
    assert panels.locator("figcaption").all_text_contents() == ["rba-single", "rba-group", "dpo"]
    page.locator("[name=against]").select_option("seconds")
    assert "training time, s" in panels.first.text_content()
    page.locator("[name=budget]").select_option("time")
    description = panels.first.locator("desc").text_content()
    assert description.startswith("seed 1: ") and description.endswith(" at 180")  # 60 steps of 3 s
    page.get_by_text("Numbers of these curves").click()
    numbers = page.locator("#curve-numbers")
    assert "equal time" in numbers.locator("caption").text_content()
    assert numbers.locator("tbody tr").count() == 6 and numbers.locator("tbody td").first.text_content()


def points(page: Any) -> list[float]:
    """All places of all curves."""
    lines = [str(each.get_attribute("points")) for each in page.locator("#curves polyline.curve").all()]
    return [float(number) for line in lines for number in line.replace(",", " ").split()]


def test_the_first_view_of_the_curves_is_that_of_the_script(
    study: Path, open_page: Callable[..., Any]
) -> None:
    page, still = (
        open_page((study / "index.html").as_uri(), java_script_enabled=enabled) for enabled in (True, False)
    )
    assert page.locator("#curve-controls").is_visible() and not still.locator("#curve-controls").is_visible()
    assert "Drawn without scripts" in still.locator("noscript").text_content()
    texts, places = (
        [read(tab) for tab in (page, still)]
        for read in (lambda tab: tab.locator("#curves text").all_text_contents(), points)
    )
    assert texts[0] == texts[1] and len(texts[0]) > 8
    assert places[0] == pytest.approx(places[1], abs=0.11) and len(places[0]) > 8  # the last digit is rounded
    assert (
        page.locator("#curve-numbers tbody").inner_text()
        == still.locator("#curve-numbers tbody").inner_text()
    )


def test_a_wide_interval_lies_over_nothing(study: Path, open_page: Callable[..., Any]) -> None:
    published = PUBLISHED / "small" / "study" / "index.html"
    for width in (400, 700, 1400):
        page = open_page(published.as_uri(), viewport={"width": width, "height": 900})
        overlaps = page.evaluate(
            """[...document.querySelectorAll('.forest td.difference')].filter((cell) => cell.checkVisibility())
            .filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.textContent)"""
        )
        assert overlaps == []


@pytest.mark.parametrize("track", ["small", "micro"])
def test_published_studies_fit_and_are_light(
    track: str, tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    write_study_report(load_study(PUBLISHED / track / "study"), tmp_path)
    assert (tmp_path / "index.html").stat().st_size < 500_000
    page = open_page((tmp_path / "index.html").as_uri(), viewport={"width": 400, "height": 900})
    assert "paired comparisons" in page.locator(".answer").text_content()
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_axe_finds_nothing(study: Path, width: int, scheme: str, open_page: Callable[..., Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(
        (study / "index.html").as_uri(), viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page.locator(".grid thead button").first.click()
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(each["id"], each["nodes"][0]["target"]) for each in found] == []
