"""The front page in a real browser: filters, sorting, comparing, links, both schemes, narrow windows, hostile names."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.paper import build_paper_tables
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.site_boards import HOSTILE, write_board_records

sync_api = pytest.importorskip("playwright.sync_api")
SHOWN = HOSTILE.translate(str.maketrans({"<": "‹", ">": "›", "\u202e": "\ufffd"}))
ROWS = "#board tbody tr"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    return build_board([write_board_records(place / "runs")], place / "board").out


@pytest.fixture
def page(board: Path, open_page: Callable[..., Any]) -> Any:
    opened = open_page((board / "index.html").as_uri())
    drawn(opened, 7)
    return opened


def drawn(page: Any, rows: int) -> None:
    sync_api.expect(page.locator("#count")).to_contain_text(f"{rows} of 7 rows")


def labels(page: Any) -> list[str]:
    return [str(each.text_content()) for each in page.locator(f"{ROWS} .label").all()]


def fragment(page: Any) -> str:
    return str(page.url.partition("#")[2])


def test_the_answer_stands_before_any_table(page: Any) -> None:
    answer = page.locator(".answer")
    assert answer.text_content().startswith("Of 4 models, 2 are better than sft")
    order = page.evaluate(
        "[...document.querySelectorAll('.answer, svg.figure, #board')].map((each) => each.id || each.classList[0])"
    )
    assert order[0] == "answer" and order.index("board") > order.index("figure")


def test_search_and_filters_narrow_the_rows_and_stand_in_the_address(page: Any) -> None:
    page.locator("[name=q]").fill("RBA")
    drawn(page, 2)
    assert labels(page) == ["rba", "rba-again"] and fragment(page) == "q=RBA"
    page.locator("[name=q]").fill("")
    page.locator("[name=type]").select_option("cascade")
    drawn(page, 1)
    page.locator("[name=type]").select_option("")
    page.locator("[name=provenance]").select_option("reproduced")
    drawn(page, 2)  # a row stays for one score of the kind
    page.locator("[name=decoding]").select_option("sampled")
    sync_api.expect(page.locator("#count")).to_contain_text("1 of 3 columns")
    page.get_by_role("button", name="Reset").click()
    drawn(page, 7)
    assert fragment(page) == ""


def test_a_click_sorts_the_best_first_and_a_second_one_turns_it_round(page: Any) -> None:
    head = page.locator("th", has=page.get_by_role("button", name="micro_triviaqa", exact=True))
    head.get_by_role("button").click()
    sync_api.expect(head).to_have_attribute("aria-sort", "descending")
    assert labels(page)[0] == "text" and fragment(page).endswith("&order=descending")
    assert page.evaluate("document.activeElement.dataset.sort").startswith("micro_triviaqa")
    page.keyboard.press("Enter")
    sync_api.expect(head).to_have_attribute("aria-sort", "ascending")
    assert labels(page)[-1] == "text" and labels(page)[0] == SHOWN


def test_where_lower_is_better_the_lowest_comes_first(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    for model, skill in {"sft": 0.5, "good": 0.2, "bad": 0.8}.items():
        folder = write_run(tmp_path / "runs", model, qa_samples(skill, 30))
        record = (
            (folder / "run.json").read_text().replace('"higher_is_better": true', '"higher_is_better": false')
        )
        (folder / "run.json").write_text(record)
    out = build_board([tmp_path / "runs"], tmp_path / "board").out
    page = open_page((out / "index.html").as_uri())
    page.get_by_role("button", name="score", exact=True).click()
    head = page.locator("th[aria-sort]")
    sync_api.expect(head).to_have_attribute("aria-sort", "ascending")
    assert labels(page) == ["good", "sft", "bad"]
    assert page.locator(".forest").first.locator("tbody tr").nth(1).text_content().endswith("better")
    for label in ("good", "bad"):
        page.get_by_label(f"Compare {label}", exact=True).check()
    sync_api.expect(page.locator("#comparison h3")).to_have_text("good minus bad")
    point = page.locator("#comparison circle").get_attribute("cx")
    assert float(point.rstrip("%")) > 50, "right of the line, the first is better"


def test_rows_without_a_number_come_last_either_way(page: Any) -> None:
    page.locator("[name=show]").select_option("gaps")
    page.locator("button[data-sort^=micro_triviaqa]").first.click()
    sync_api.expect(page.locator("th[aria-sort]")).to_have_count(1)
    assert labels(page)[-1] == "text"
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("th[aria-sort=descending], th[aria-sort=ascending]")).to_have_count(1)
    assert labels(page)[-1] == "text"


def test_one_setting_shows_everything_about_its_rows(page: Any) -> None:
    page.locator("[name=setting]").select_option("micro_covost2")
    heads = page.locator("#board thead button")
    sync_api.expect(heads).to_have_count(12)
    assert [each.text_content() for each in heads.all()][1:] == [
        "score", "n", "against sft", "gap to the text ceiling", "not ok", "RTFx", "parameters", "judge", "provenance",
        "date",
        "weights",
    ]  # fmt: skip
    row = page.locator(ROWS, has_text="rba-again")
    assert "44444444" in row.text_content() and "2026-11-" in row.text_content()
    address = row.get_by_role("link").last.get_attribute("href")
    assert address.startswith("records/rba-again/") and address.endswith("/run.json")
    page.locator("[name=setting]").select_option("")
    page.locator("[name=show]").select_option("speed")
    sync_api.expect(page.locator(ROWS, has_text="cascade")).to_contain_text("90")


def badges(page: Any, label: str) -> list[str]:
    """Provenance of a row, then of the scores that have another one."""
    row = page.locator(ROWS).filter(has=page.get_by_label(f"Compare {label}", exact=True))
    return [str(each.text_content()) for each in row.locator(".badge").all()][1:]  # the first is the type


def test_a_row_shows_its_weakest_provenance_and_each_score_what_differs(page: Any) -> None:
    assert badges(page, "rba") == ["reproduced"] and badges(page, "rba-again") == ["measured here"]
    assert badges(page, "base") == ["submitted", "measured here", "reproduced"]
    row = page.locator(ROWS).filter(has=page.get_by_label("Compare base", exact=True))
    titles = [each.get_attribute("title") for each in row.locator(".badge[title]").all()]
    assert titles[0].startswith("1 of 3 scores: sent in by somebody else")
    assert "5 of 5 items answered again with the same answers, 2026-11-29" in titles[2]
    page.locator("[name=setting]").select_option("micro_covost2")
    sync_api.expect(page.locator("#board thead button")).to_have_count(12)
    assert badges(page, "base") == ["reproduced"]  # of what is shown


def test_the_provenance_filter_leaves_only_scores_of_its_kind(page: Any) -> None:
    choices = page.locator("[name=provenance] option").all_text_contents()
    assert choices == ["all", "measured here", "reproduced", "submitted"]
    page.locator("[name=provenance]").select_option("reproduced")
    drawn(page, 2)
    row = page.locator(ROWS).filter(has=page.get_by_label("Compare base", exact=True))
    assert [each.text_content() == "\u2013" for each in row.locator("td").all()].count(True) == 2
    assert badges(page, "base") == ["reproduced"]
    page.locator("[name=show]").select_option("differences")
    sync_api.expect(row.locator("td.none")).to_have_count(2)
    page.locator("[name=setting]").select_option("micro_triviaqa")
    drawn(page, 1)
    page.locator("[name=provenance]").select_option("submitted")
    sync_api.expect(page.locator("#count")).to_contain_text("0 of 7 rows")


def test_the_facts_of_a_score_stand_in_its_setting_with_a_link(page: Any) -> None:
    page.locator("[name=setting]").select_option("micro_covost2")
    sync_api.expect(page.locator("#board thead button")).to_have_count(12)
    row = page.locator(ROWS).filter(has=page.get_by_label("Compare rba", exact=True))
    assert (
        "5 of 5 items answered again with the same answers, 2026-11-29, by The maintainers"
        in row.text_content()
    )
    address = row.get_by_role("link", name="reproduced").get_attribute("href")
    assert address.startswith("records/rba/micro_covost2-") and address.endswith("/attestation.json")
    row = page.locator(ROWS).filter(has=page.get_by_label("Compare base", exact=True))
    assert (
        "by \u2039img src=x onerror=" in row.text_content()
    )  # somebody's name is text, and the page is whole
    assert page.locator("main img").count() == 0 and page.title() == "Leaderboard, micro track · rba-bench"
    page.locator("button[data-sort=provenance]").click()
    sync_api.expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    assert set(labels(page)[:2]) == {"rba", "base"}  # the best first


def test_two_models_are_compared_by_their_paired_differences(page: Any, board: Path) -> None:
    page.get_by_label("Compare rba", exact=True).check()
    assert page.locator("#comparison").is_hidden()
    page.get_by_label("Compare base", exact=True).check()
    panel = page.locator("#comparison")
    sync_api.expect(panel).to_contain_text("rba minus base")
    row = panel.locator("tbody tr").first
    assert "better" in row.text_content() and row.locator("svg.interval").count() == 1
    assert "rba-bench compare records/rba records/base" in panel.text_content()
    assert fragment(page) == "compare=rba&compare=base"
    page.get_by_label("Compare text", exact=True).check()  # the third takes the place of the first
    sync_api.expect(panel).to_contain_text("base minus text")
    assert not page.get_by_label("Compare rba", exact=True).is_checked()
    sync_api.expect(panel.locator("tbody tr").first).to_contain_text("worse")
    page.get_by_label("Compare base", exact=True).uncheck()
    sync_api.expect(panel).to_be_hidden()


def test_an_address_gives_the_same_view_again(board: Path, open_page: Callable[..., Any]) -> None:
    asked = f"show=speed&sort=model&order=descending&compare=rba&compare={quote(SHOWN)}&q=a"
    page = open_page(f"{(board / 'index.html').as_uri()}#{asked}")
    sync_api.expect(page.locator("#comparison")).to_contain_text(f"rba minus {SHOWN}")
    assert page.locator("[name=show]").input_value() == "speed" and labels(page)[0] == SHOWN
    page.goto(
        f"{(board / 'index.html').as_uri()}#show=nothing&type={quote(HOSTILE)}&sort=none&order=x&compare=nobody"
    )
    drawn(page, 7)
    page.get_by_role("link", name="How to read").click()
    drawn(page, 7)  # a place on the page is no filter


def test_more_rows_than_a_screen_holds_come_in_steps(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    for place in range(60):
        write_run(
            tmp_path / "runs", f"m{place:02d}" if place else "sft", qa_samples(0.3 + place / 150, 12, place)
        )
    page = open_page((build_board([tmp_path / "runs"], tmp_path / "board").out / "index.html").as_uri())
    sync_api.expect(page.locator(ROWS)).to_have_count(50)
    page.get_by_role("button", name="Show 10 more of 60 rows").click()
    sync_api.expect(page.locator(ROWS)).to_have_count(60)
    assert page.locator("#more").is_hidden()
    assert page.evaluate("document.activeElement.ariaLabel") == f"Compare {labels(page)[50]}"
    for label in ("m03", "m04"):  # too many for the pairs to stand on the page
        page.get_by_label(f"Compare {label}").check()
    sync_api.expect(page.locator("#comparison")).to_contain_text("rba-bench compare records/m03 records/m04")
    sync_api.expect(page.locator("#comparison tbody")).to_contain_text("not known here")
    page.get_by_label("Compare sft").check()
    sync_api.expect(page.locator("#comparison")).to_contain_text("m04 minus sft")
    assert "not known here" not in page.locator("#comparison tbody").text_content()


def test_a_hostile_name_runs_nothing(page: Any) -> None:
    assert SHOWN in labels(page) and page.title() == "Leaderboard, micro track · rba-bench"
    assert page.locator("main img").count() == 0


def test_the_policy_stops_what_a_hole_in_the_page_would_let_in(
    board: Path, chromium: Any, served: Callable[[Path], str]
) -> None:
    for address in ((board / "index.html").as_uri(), served(board) + "/index.html"):
        page = chromium.new_page()
        blocked: list[str] = []
        page.on("console", lambda message, blocked=blocked: blocked.append(message.text))
        page.goto(address)
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', "
            '\'<img src=http://127.0.0.1:9/x onerror="document.title=1"><b style="color:red">x</b>\')'
        )
        page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'document.title = 2'; document.body.append(s)"
        )
        page.evaluate("fetch('https://127.0.0.1:9/').catch(() => 0)")
        page.wait_for_timeout(200)
        assert page.title() == "Leaderboard, micro track · rba-bench"
        assert sum("Content Security Policy" in text for text in blocked) >= 4, blocked
        page.close()


def test_a_page_without_its_scores_says_where_all_numbers_are(
    board: Path, tmp_path: Path, chromium: Any
) -> None:
    shutil.copytree(board, tmp_path / "board", ignore=shutil.ignore_patterns("records", "board.js"))
    page = chromium.new_page()
    page.goto((tmp_path / "board/index.html").as_uri())
    sync_api.expect(page.locator("#count")).to_contain_text("lacks its file, site/board.js")
    assert page.locator(ROWS).count() == 0 and page.locator(".answer").is_visible()
    page.close()


def test_the_scores_are_not_in_the_page(board: Path) -> None:
    page, scores = (board / "index.html").read_text(), (board / "site/board.js").read_text()
    assert len(page) < 500_000 and "rbaBoard" not in page and 'type="application/json"' not in page
    assert page.count('src="site/board.js"') == 1 and scores.count('"scores":[[') == 3


def test_from_a_server_it_is_the_same_page(
    board: Path, open_page: Callable[..., Any], served: Callable[[Path], str]
) -> None:
    page = open_page(served(board) + "/index.html#show=differences")
    drawn(page, 7)
    sync_api.expect(page.locator(ROWS, has_text="rba-again").locator(".told").first).to_be_visible()


def test_the_reader_chooses_light_or_dark_and_it_is_kept(
    board: Path, open_page: Callable[..., Any], served: Callable[[Path], str]
) -> None:
    light, dark = "rgb(255, 255, 255)", "rgb(21, 24, 28)"

    def ground(page: Any) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page = open_page(served(board) + "/index.html", color_scheme="dark")
    assert ground(page) == dark
    page.get_by_label("Colours").select_option("light")
    assert ground(page) == light
    page.reload()
    assert ground(page) == light and page.get_by_label("Colours").input_value() == "light"
    page.get_by_label("Colours").select_option("")
    assert ground(page) == dark


def test_the_keyboard_reaches_everything(page: Any) -> None:
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "((e) => e.name || e.ariaLabel || e.id || e.textContent.slice(0, 24))(document.activeElement)"
            )
        )
    for name in (
        "Skip to the content",
        "theme",
        "q",
        "setting",
        "show",
        "Table of scores",
        "model",
        "Compare rba",
        "Compare text",
    ):
        assert name in reached, reached


@pytest.mark.parametrize("width", [400, 700, 1600])
def test_it_fits_narrow_and_wide_windows(board: Path, open_page: Callable[..., Any], width: int) -> None:
    page = open_page(
        (board / "index.html").as_uri() + "#compare=rba&compare=text",
        viewport={"width": width, "height": 900},
    )
    sync_api.expect(page.locator("#comparison")).to_contain_text("rba minus text")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#comparison tbody th").first.bounding_box()["width"] > 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(board: Path, open_page: Callable[..., Any], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = open_page((board / "index.html").as_uri() + "#compare=rba&compare=text", color_scheme=scheme)
    sync_api.expect(page.locator("#comparison")).to_contain_text("rba minus text")
    found = (
        axe.Axe().run(page, options={"preload": False}).response["violations"]
    )  # it would fetch the styles
    assert [(each["id"], [node["target"] for node in each["nodes"]][:3]) for each in found] == []


def test_pages_of_papers_keep_to_the_same_rules(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    build_paper_tables(Path(__file__).parents[3] / "leaderboards" / "paper", tmp_path)
    for width, scheme in ((400, "dark"), (1600, "light")):
        page = open_page(
            (tmp_path / "index.html").as_uri(), viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        assert "rba-bench measured none of them" in page.locator("main").text_content()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        assert [(each["id"], each["nodes"][0]["target"]) for each in found] == []
