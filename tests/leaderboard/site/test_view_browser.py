"""`rba-bench view` in a real browser while its runs come, grow, end and go."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.leaderboard.board_records import write_run
from tests.leaderboard.site.answered import TASK, micro_samples
from tests.leaderboard.site.test_local_runs import append, unfinished
from tests.leaderboard.site.test_samples_browser import PAGE, page, serving, shown, until

pytest.importorskip("espeakng_loader")
sync_api = pytest.importorskip("playwright.sync_api")
__all__ = ["page", "serving"]  # fixtures
WAIT = 20_000  # milliseconds


def says(place: Any, text: str) -> None:
    sync_api.expect(place).to_contain_text(text, timeout=WAIT)


def says_not(place: Any, text: str) -> None:
    sync_api.expect(place).not_to_contain_text(text, timeout=WAIT)


@pytest.fixture
def growing(serving: tuple[str, Path]) -> Iterator[tuple[str, Path, list]]:
    """Address of a server, folder of a run in progress with three answers, and all of its answers."""
    url, runs = serving
    answers = micro_samples(8)
    yield url, unfinished(runs, "running", answers[:3]), answers


def test_the_list_of_runs_shows_what_comes_grows_ends_and_goes(
    page: Any, growing: tuple[str, Path, list]
) -> None:
    url, folder, answers = growing
    page.goto(url)
    table = page.locator("#runs")
    says(table, "running unfinished: 3 items so far")
    page.get_by_role("link", name=TASK).focus()
    append(folder, answers[3:5])
    says(table, "running unfinished: 5 items so far")
    assert page.evaluate("document.activeElement.textContent") == TASK  # the keyboard stays where it was
    shutil.rmtree(folder)
    write_run(folder.parents[1], "running", answers, task=TASK)
    says_not(table, "unfinished")
    says(table, "running")
    write_run(folder.parents[1], "later", answers, task="micro_webquestions")
    page.get_by_role("link", name="micro_webquestions").wait_for(timeout=WAIT)
    (folder / "run.json").write_text("{")
    says(page.locator("#notes"), "is not a run record")
    shutil.rmtree(folder.parents[1])
    says(page.locator("#notes"), "is no longer there")
    sync_api.expect(table.locator("tr")).to_have_count(0)


def test_a_clip_goes_on_playing_while_answers_come(page: Any, growing: tuple[str, Path, list]) -> None:
    url, folder, answers = growing
    page.goto(f"{url}{PAGE}#item=2&models=base,running")
    shown(page, "Item 2")
    audio = "document.querySelector('#item audio')"
    until(page, f"{audio}.duration > 0.3")
    page.evaluate(f"{{ {audio}.loop = true; {audio}.dataset.same = 'yes'; {audio}.play(); undefined }}")
    until(page, f"{audio}.currentTime > 0")
    again = page.locator(".reply[data-model=base] summary").last
    again.click()
    page.evaluate("document.querySelector('.reply[data-model=base] summary').focus()")
    append(folder, answers[3:6])
    says(page.locator("#models"), "unfinished: 6 items so far")
    shown(page, "Item 2")
    assert page.evaluate(f"{audio}.dataset.same === 'yes' && !{audio}.paused")
    assert page.locator(".reply[data-model=base] details").last.get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("j")
    shown(page, "Item 3")
    assert page.evaluate(f"{audio}.paused && !{audio}.dataset.same")


def test_a_page_says_that_its_run_ended_or_is_gone(page: Any, growing: tuple[str, Path, list]) -> None:
    url, folder, answers = growing
    page.goto(f"{url}{PAGE}#item=1")
    scores = page.locator("#rows")
    says(scores, "running unfinished: 3 items so far")
    facts = page.locator("#facts").inner_text()
    shutil.rmtree(folder)
    write_run(folder.parents[1], "running", answers, task=TASK)
    says_not(scores, "unfinished")
    assert "100.0 [" in page.locator("#rows tr", has_text="running").inner_text()
    assert page.locator("#headings th").count() == page.locator("#rows tr").first.locator("th, td").count()
    assert page.locator("#facts").inner_text() == facts
    runs, away = folder.parents[1], folder.parents[1].with_name("away")
    runs.rename(away)
    says(page.locator("#gone"), "The runs of this page are gone")
    shown(page, "Item 1")  # as it was
    away.rename(runs)
    sync_api.expect(page.locator("#gone")).to_be_hidden(timeout=WAIT)


def test_new_answers_are_not_read_out_and_moves_are(page: Any, growing: tuple[str, Path, list]) -> None:
    url, folder, answers = growing
    page.goto(f"{url}{PAGE}#item=1&models=running")
    shown(page, "Item 1")
    count = page.get_by_role("status")
    sync_api.expect(count).to_have_text("2 of 8 items")
    append(folder, answers[3:4])
    says(page.locator("#models"), "unfinished: 4 items so far")
    assert count.get_attribute("aria-live") == "off"
    page.keyboard.press("j")
    shown(page, "Item 2")
    assert count.get_attribute("aria-live") == "polite"
