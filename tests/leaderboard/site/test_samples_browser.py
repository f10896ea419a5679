"""Pages of samples in a real browser: sound, keys, addresses, live runs, and that nothing leaves the page."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rba_bench.leaderboard.site.local_runs import LocalRuns
from rba_bench.leaderboard.site.local_site import LocalSite, write_site
from rba_bench.leaderboard.site.server import SiteServer
from tests.browser import Watched
from tests.leaderboard.board_records import qa_samples, sample, write_run
from tests.leaderboard.site.answered import HOSTILE, TASK, hostile_runs, micro_runs, micro_samples
from tests.leaderboard.site.test_local_runs import append, unfinished

pytest.importorskip("espeakng_loader")
sync_api = pytest.importorskip("playwright.sync_api")
LONG = 15_000  # items of a long run
PAGE = f"samples/{TASK}/index.html"
LONG_PAGE = "samples/micro_triviaqa_greedy/index.html"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def folder(runs: Path) -> Path:
    return write_site([runs], runs.parent / "site").page.parent


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("long")
    write_run(place / "runs", "base", qa_samples(0.5, n=LONG))
    return write_site([place / "runs"], place / "site", limit=None).page.parent


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A tab; at its end, nothing was asked of another place, and the console is empty."""
    tab = Watched(chromium.new_page(viewport={"width": 1400, "height": 900}))
    yield tab.page
    tab.page.close()
    assert tab.keeps_to("file:", "data:", "http://127.0.0.1:"), (tab.asked, tab.told)


def shown(page: Any, text: str) -> None:
    sync_api.expect(page.locator("#item h2")).to_contain_text(text)


def until(page: Any, script: str) -> None:
    """Asks from here: a page that may not evaluate texts cannot be told to wait."""
    end = time.monotonic() + 60
    while not page.evaluate(script):
        assert time.monotonic() < end, script
        time.sleep(0.05)


def test_a_clip_plays_by_the_space_bar_at_the_chosen_speed(page: Any, folder: Path) -> None:
    page.goto((folder / PAGE).as_uri())
    shown(page, "Item 0")
    audio = "document.querySelector('#item audio')"
    until(page, f"{audio}.duration > 0.3")
    assert page.evaluate(f"{audio}.paused") and not page.evaluate(f"{audio}.autoplay")
    page.locator(".player select").select_option("0.75")
    page.locator("h1").click()
    page.keyboard.press("Space")
    until(page, f"{audio}.currentTime > 0")
    assert page.evaluate(f"{audio}.playbackRate") == 0.75
    page.keyboard.press("j")
    shown(page, "Item 1")
    assert page.evaluate(f"{audio}.playbackRate") == 0.75 and page.evaluate(f"{audio}.paused")


def test_the_keys_that_are_shown_go_from_item_to_item(page: Any, folder: Path) -> None:
    """base fails from item 2 on, better from item 5 on, the cascade everywhere."""
    page.goto((folder / PAGE).as_uri() + "#item=0&models=better,base")
    shown(page, "Item 0")
    assert page.locator(".moves kbd").all_inner_texts() == ["k", "j", "f", "d", "r", "space"]
    for key, item in (
        ("j", 1),
        ("k", 0),
        ("k", 7),
        ("f", 2),
        ("d", 3),
        ("d", 4),
        ("d", 2),
        ("f", 3),
        ("j", 4),
    ):
        page.keyboard.press(key)
        shown(page, f"Item {item} ")
        assert page.url.endswith(f"#item={item}&models=better,base")
    page.get_by_role("button", name="Next failure").click()
    shown(page, "Item 5")
    page.locator("[name=id]").fill("f")
    page.keyboard.press("k")  # types into the field
    shown(page, "Item 5")
    page.locator("[name=id]").fill("")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Random").click()


def test_an_address_opens_an_item_with_its_models_and_filters(page: Any, folder: Path) -> None:
    page.goto((folder / PAGE).as_uri() + "#item=3&models=better,base&verdict=differs")
    shown(page, "Item 3")
    cards = page.locator(".reply")
    assert [each.get_attribute("data-model") for each in cards.all()] == ["base", "better"]
    assert "aligned from base: ✗failure before, ✓no failure after" in cards.nth(1).text_content()
    sync_api.expect(page.locator("#count")).to_have_text("2 of 3 items (of 8 in all)")
    assert page.locator("#list a").count() == 3
    page.goto((folder / PAGE).as_uri() + "#item=999&models=nobody,%E0%A4%A&verdict=x&from=abc&group=none&zz")
    shown(page, "Item 0")
    assert page.locator(".reply").count() == 3  # what is no choice is passed over
    page.locator("#list a").nth(6).click()
    shown(page, "Item 6")
    page.go_back()
    shown(page, "Item 0")


def test_two_models_are_compared(page: Any, folder: Path) -> None:
    page.goto((folder / PAGE).as_uri() + "#item=2")
    shown(page, "Item 2")
    page.get_by_label("cascade").uncheck()
    sync_api.expect(page.locator(".reply")).to_have_count(2)
    assert page.url.endswith("#item=2&models=better,base")
    page.get_by_role("button", name="All", exact=True).click()
    sync_api.expect(page.locator(".reply")).to_have_count(3)
    page.get_by_role("link", name="better beside its base alone").click()
    sync_api.expect(page.locator(".reply")).to_have_count(2)
    signs = page.locator("#list a[aria-current] .signs").inner_text()
    assert sorted(signs) == ["✓", "✗"]


def test_filters_by_group_status_and_score(page: Any, tmp_path: Path) -> None:
    samples = qa_samples(0.5, n=40)
    samples = [each.model_copy(update={"group": f"g{each.doc_id % 4}"}) for each in samples]
    samples[7] = samples[7].model_copy(update={"status": "truncated"})
    write_run(tmp_path / "runs", "model", samples)
    page.goto((write_site([tmp_path / "runs"], tmp_path / "site").page.parent / LONG_PAGE).as_uri())
    shown(page, "Item 0")
    page.locator("[name=group]").select_option("g3")
    sync_api.expect(page.locator("#count")).to_have_text("1 of 10 items (of 40 in all)")
    page.locator("[name=status]").select_option("truncated")
    shown(page, "Item 7")
    assert (
        page.url.endswith("#item=7&group=g3&status=truncated")
        and "truncated" in page.locator(".reply").inner_text()
    )
    page.get_by_role("button", name="Show all").click()
    right = sum(each.scores["alias_match"] for each in samples)
    page.locator("[name=from]").fill("50")
    sync_api.expect(page.locator("#list a")).to_have_count(int(right))
    page.locator("[name=id]").fill("no such item")
    sync_api.expect(page.locator("#item")).to_contain_text("change the filters")
    page.keyboard.press("Tab")
    page.keyboard.press("j")  # there is nothing to go to


def test_differences_have_signs_beside_their_colours(page: Any, tmp_path: Path) -> None:
    given = sample(0, "s2tt", "the red cat is here now", ["the old red dog is here"], "de-en")
    write_run(tmp_path / "runs", "model", [given], task="micro_covost2_greedy")
    site = write_site([tmp_path / "runs"], tmp_path / "site").page.parent
    page.goto((site / "samples/micro_covost2_greedy/index.html").as_uri())
    words = page.locator(".reply .words")
    assert " ".join(words.inner_text().split()) == (
        "the − left out: old red ~ replaced: dog by: cat is here + added: now"
    )
    lines = [
        words.locator(tag).first.evaluate("each => getComputedStyle(each).textDecorationLine")
        for tag in ("del", "ins")
    ]
    assert lines == ["line-through", "underline"]


def test_a_run_of_15000_samples_opens_at_once_and_in_pieces(page: Any, long_folder: Path) -> None:
    address = (long_folder / LONG_PAGE).as_uri()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    started = time.monotonic()
    page.goto(address + f"#item={LONG - 1}")
    shown(page, f"Item {LONG - 1}")
    assert time.monotonic() - started < 2
    assert [name for name in asked if name.startswith("items-")] == ["items-0149.js"]
    assert page.locator("#list a").count() == 100
    page.keyboard.press("j")
    shown(page, "Item 0 ")
    assert [name for name in asked if name.startswith("items-")] == ["items-0149.js", "items-0000.js"]
    sync_api.expect(page.get_by_role("button", name="Earlier")).to_be_disabled()
    page.get_by_role("button", name="Later").click()
    shown(page, "Item 100 ")


def test_nothing_in_a_record_runs(page: Any, tmp_path: Path) -> None:
    site = write_site([hostile_runs(tmp_path / "runs")], tmp_path / "site").page.parent
    page.goto((site / "samples/somebodys_task/index.html").as_uri() + "#models=" + quote(HOSTILE))
    shown(page, "<script>alert(1)</script>")
    inside = page.locator("#samples")
    assert inside.locator("script, img, iframe").count() == 0
    assert inside.text_content().count("<script>alert(1)</script>") > 12
    for summary in page.locator("#item summary").all():
        summary.click()
    page.goto((site / "index.html").as_uri())
    assert page.locator("main script, main img").count() == 0
    assert "‹script›alert(1)‹/script›" in page.locator("main").text_content()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a server, and the folder of its runs."""
    micro_runs(tmp_path / "runs")
    with SiteServer(LocalSite(LocalRuns([tmp_path / "runs"])).file, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.url, tmp_path / "runs"
        server.shutdown()
        thread.join()


def test_a_run_in_progress_grows_on_the_open_page(page: Any, serving: tuple[str, Path]) -> None:
    url, runs = serving
    answers = micro_samples(8)
    folder = unfinished(runs, "running", answers[:2])
    page.goto(url)
    assert "unfinished: 2 items so far" in page.locator("main").inner_text()
    page.get_by_role("link", name=TASK).click()
    shown(page, "Item 0")
    page.goto(f"{url}{PAGE}#item=3&models=base,running")
    shown(page, "Item 3")
    card = page.locator(".reply[data-model=running]")
    sync_api.expect(card).to_contain_text("not answered (unfinished: 2 items so far)")
    append(folder, answers[2:5])
    sync_api.expect(card).to_contain_text(answers[3].extracted, timeout=20_000)
    assert page.url.endswith("#item=3&models=base,running")
    sync_api.expect(page.locator("#models")).to_contain_text("unfinished: 5 items so far")


def test_served_clips_can_be_seeked(page: Any, serving: tuple[str, Path]) -> None:
    page.goto(serving[0] + PAGE)
    audio = "document.querySelector('#item audio')"
    until(page, f"{audio}?.duration > 0.3")
    page.evaluate(f"{audio}.currentTime = {audio}.duration * 0.8")
    until(page, f"!{audio}.seeking && {audio}.currentTime > 0.7 * {audio}.duration")
    assert page.evaluate(f"{audio}.seekable.end(0)") > 0.3


def test_another_site_cannot_read_runs(chromium: Any, serving: tuple[str, Path], tmp_path: Path) -> None:
    """A page elsewhere that loads the scripts of this one gets nothing."""
    (tmp_path / "evil.html").write_text(
        "<script>window.got = []; window.rbaSummary = (each) => window.got.push(each); window.bad = 0</script>"
        f"<script src='{serving[0]}samples/{TASK}/summary.js' onerror='window.bad = 1'></script>"
    )
    tab = chromium.new_page()
    tab.goto((tmp_path / "evil.html").as_uri())
    assert tab.evaluate("window.got.length") == 0 and tab.evaluate("window.bad") == 1
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_and_is_accessible(chromium: Any, folder: Path, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    view = {"width": width, "height": 900}
    context = chromium.new_context(
        viewport=view, color_scheme=scheme, bypass_csp=True
    )  # axe is evaluated text
    page = context.new_page()
    for address in (PAGE + "#item=3", "index.html"):
        page.goto((folder / address.partition("#")[0]).as_uri() + "#" + address.partition("#")[2])
        if "item" in address:
            shown(page, "Item 3")
            page.evaluate("document.getElementById('choose').open = true")
            for summary in page.locator("#item summary").all():
                summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        found = axe.Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    assert dark == (scheme == "dark")
    context.close()
