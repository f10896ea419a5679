"""The front page in all its forms: without scripts, printed, narrow, with names of any length, one or many models."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.site import forest, front
from rba_bench.leaderboard.site.facts import models_of
from rba_bench.leaderboard.site.forest import OPEN_ROWS, Differences, draw_forest
from rba_bench.leaderboard.site.front import front_files
from tests.leaderboard.board_records import qa_samples, translation_samples, write_run
from tests.leaderboard.site.site_boards import settings, write_board_records

sync_api = pytest.importorskip("playwright.sync_api")
NAMES = {
    "sft": 0.5,
    "模型" * 40: 0.6,
    "نموذج-كبير": 0.7,
    "\U0001f642" * 30: 0.4,
    "a" * 200: 0.8,
    "text": 1.2,
    "constant": -1,
}


def write_odd(root: Path) -> Path:
    """Odd names on tasks with long ones; scores of 0 and 100; a partial run; trainings; sizes."""
    for place, (name, skill) in enumerate(NAMES.items()):
        for task in ("micro_triviaqa", "micro_" + "task" * 20):
            history = [[0, 3.0], [50, 2.5 - place / 10], [100, 2.0 - place / 8]]
            training = {"method": "sft", "validations": {"metric": "loss", "history": history}}
            model = {"name": name, "spec": name, "weights_sha256": f"{place:064x}", "training": training}
            changes = {"partial": True, "limit": 30} if name == "sft" else {}
            write_run(
                root / str(place),
                "model",
                qa_samples(skill, 30, place),
                task,
                model={**model, "n_parameters": 10 ** (6 + place)},
                **changes,
            )
    return root


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("forms")
    write_run(place / "one", "only", qa_samples(0.5, 30), "micro_triviaqa")
    write_run(place / "references", "text", qa_samples(1.2, 30), "micro_triviaqa")
    write_run(place / "references", "constant", qa_samples(-1, 30), "micro_triviaqa")
    for name, damage in (("sft", 0.0), ("failed", 1.0)):
        write_run(place / "extremes", name, translation_samples(damage, 30), "micro_covost2")
        write_run(place / "extremes", name, qa_samples(3 * (1 - damage) - 1, 30), "micro_triviaqa")
    write_odd(place / "odd")
    write_board_records(place / "usual")
    names = ("one", "references", "extremes", "odd", "usual")
    return {
        name: build_board([place / name], place / "boards" / name, allow_partial=True, clips=0).out
        for name in names
    }


FORMS = ("one", "references", "extremes", "odd", "usual")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1600, "light")])
def test_every_form_fits_and_axe_finds_nothing(
    boards: dict[str, Path], open_page: Callable[..., Any], form: str, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page(
        (boards[form] / "index.html").as_uri(),
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
    )
    sync_api.expect(page.locator("#board tbody tr").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found] == []


@pytest.mark.parametrize("width", [700, 1000])
def test_names_of_any_length_fit_between(
    boards: dict[str, Path], open_page: Callable[..., Any], width: int
) -> None:
    page = open_page((boards["odd"] / "index.html").as_uri(), viewport={"width": width, "height": 900})
    sync_api.expect(page.locator("#board tbody tr").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    heights = page.evaluate("[...document.querySelectorAll('.clamped')].map((each) => each.clientHeight)")
    assert len(heights) >= 8 and max(heights) < 75  # three lines
    assert (
        page.locator(".clamped", has_text="text").count() == 0
    )  # a short name is whole, however narrow its column
    label = page.locator("#board .label", has_text="aaaa")
    assert label.get_attribute("title") == "a" * 200
    assert page.locator(".legend").first.get_by_text("a" * 200).is_visible()  # as a whole


def test_without_scripts_answer_pictures_and_table_are_there(
    boards: dict[str, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page((boards["usual"] / "index.html").as_uri(), java_script_enabled=False)
    assert page.locator(".answer").is_visible() and page.locator("svg.figure").first.is_visible()
    table = page.get_by_role("region", name="Table: scores", exact=True)
    rows = table.locator("tbody tr")
    assert rows.count() == 7 and rows.last.text_content().startswith("cascade")
    assert re.search(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", rows.first.text_content())
    assert page.locator("#controls").is_hidden() and page.locator("label.theme").is_hidden()


def test_of_many_scores_a_page_without_scripts_holds_some_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "STATIC_CELLS", 6)
    made = settings(tmp_path, {"sft": 0.5, **{f"m{i}": 0.4 for i in range(8)}}, tasks=2, n=12)
    page = front_files({each.section: each.group for each in made}, [], ["s.csv"], set())[
        "index.html"
    ].decode()
    static = page[page.index("<noscript>") : page.index("</noscript>")]
    assert static.count("<tr>") == 1 + 3 and len(models_of(made)) == 9
    assert "Of 9 rows and 2 tasks, 3 rows and 2 tasks stand here. All numbers" in static


def test_a_printed_page_is_light_and_cuts_nothing(
    boards: dict[str, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page(
        (boards["usual"] / "index.html").as_uri(), viewport={"width": 700, "height": 900}, color_scheme="dark"
    )
    sync_api.expect(page.locator("#board tbody tr")).to_have_count(7)
    page.locator("#theme").select_option("dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 29, 33)"
    cut = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((each) => getComputedStyle(each).overflow !== 'visible' || "
        "each.scrollWidth > each.clientWidth + 1).map((each) => each.ariaLabel)"
    )
    assert cut == []
    assert page.locator("#controls").is_hidden() and page.locator(".switch").count() == 0


def test_a_table_that_goes_on_shows_a_shadow(boards: dict[str, Path], open_page: Callable[..., Any]) -> None:
    page = open_page((boards["usual"] / "index.html").as_uri(), viewport={"width": 400, "height": 900})
    sync_api.expect(page.locator("#board tbody tr")).to_have_count(7)
    board = page.locator("#board")
    assert board.evaluate("(e) => e.scrollWidth > e.clientWidth")
    assert board.evaluate("(e) => getComputedStyle(e).backgroundAttachment") == "local, local, scroll, scroll"
    board.focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(board).not_to_have_js_property("scrollLeft", 0)


def test_where_one_setting_is_shown_the_best_model_comes_first(
    boards: dict[str, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page((boards["usual"] / "index.html").as_uri())
    page.locator("[name=setting]").select_option("micro_covost2")
    sync_api.expect(page.locator("#count")).to_contain_text("1 of 3 columns")
    labels = page.locator("#board .label").all_text_contents()
    assert labels[0] == "rba" and labels[-2:] == ["text", "cascade"]
    assert page.locator("[name=show]").is_hidden()  # all of it is shown


def test_choices_without_an_alternative_are_hidden(
    boards: dict[str, Path], open_page: Callable[..., Any]
) -> None:
    page = open_page((boards["one"] / "index.html").as_uri())
    sync_api.expect(page.locator("#count")).to_have_text("1 of 1 rows, 1 of 1 columns of scores.")
    for name in ("track", "setting", "decoding", "type", "provenance", "show"):
        assert page.locator(f"[name={name}]").is_hidden()


def test_nothing_moves_for_readers_who_asked_for_that() -> None:
    styles = (Path(front.__file__).parent / "site.css").read_text()
    assert not re.search(r"transition|animation|scroll-behavior|@keyframes", styles)


def test_a_board_of_many_settings_draws_the_first_and_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forest, "MOST_BLOCKS", 2)
    made = settings(tmp_path, {"sft": 0.5, "a": 0.6, "text": 1.2}, tasks=5, n=12)
    page = front_files({each.section: each.group for each in made}, [], ["s.csv"], set())[
        "index.html"
    ].decode()
    assert page.count("3 more tasks: in the table of scores.") == 2  # differences and gaps
    drawn = forest.difference_forest(made)
    assert drawn is not None and [block.title for block in drawn.blocks] == [each.title for each in made[:2]]


def test_many_settings_unfold() -> None:
    rows = [(f"m{i}", [0.5, -2.0, 3.0, 0]) for i in range(6)]
    drawn = draw_forest([Differences(f"t{i}", "x", 1, False, rows) for i in range(12)])
    assert drawn is not None
    shown, rest = drawn.parts()
    assert rest is not None and sum(len(block.rows) for block in shown.blocks) <= OPEN_ROWS
    assert [block.title for block in (*shown.blocks, *rest.blocks)] == [f"t{i}" for i in range(12)]
    whole = draw_forest([Differences("t", "x", 1, False, rows * 20)])
    assert whole is not None and whole.parts() == (whole, None)
