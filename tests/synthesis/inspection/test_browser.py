"""The page in a real browser: filters, links, sound, and that nothing leaves it. Skipped where there is no Chromium."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from rba_bench.audio.clips import encode_flac
from rba_bench.files import sha256_bytes
from rba_bench.synthesis.inspection.page import inspect_set
from tests.audio.looked_at import CLIPS, HOSTILE, make_set, rows
from tests.browser import Watched
from tests.browser import chromium as chromium

sync_api = pytest.importorskip("playwright.sync_api")


def long_enough_to_play(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for number, row in enumerate(made):
        data = encode_flac((0.1 * np.sin(np.arange(16_000) * (number + 3) / 90)).astype(np.float32))
        row.update(audio={"bytes": data, "path": "x"}, audio_sha256=sha256_bytes(data), duration=1.0)
    return made


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("browser")
    folder = make_set(place / "set", long_enough_to_play(rows()))
    return inspect_set(folder, place / "page").page.as_uri()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A tab; at its end, nothing was asked of another place, and the console is empty."""
    tab = Watched(chromium.new_page(viewport={"width": 1400, "height": 900}))
    yield tab.page
    tab.page.close()
    assert tab.keeps_to("file:", "data:"), (tab.asked, tab.told)


def shown(page: Any) -> list[str]:
    return [str(each.get_attribute("data-id")) for each in page.locator("article").all()]


def count_is(page: Any, n: int) -> None:
    sync_api.expect(page.locator("#count")).to_have_text(f"{n} of {CLIPS} clips")


def test_all_clips_are_reached_and_texts_stay_texts(page: Any, address: str) -> None:
    page.goto(address)
    assert shown(page) == [f"c{number}" for number in range(40)]
    page.get_by_role("button", name="5 more of 5").click()
    assert shown(page) == [f"c{number}" for number in range(CLIPS)] and page.locator("#more").is_hidden()
    assert page.evaluate("document.activeElement.textContent") == "c40"
    hostile = page.locator("article[data-id=c1]")
    assert HOSTILE.replace("\u202e", "\ufffd") in hostile.text_content()
    assert page.locator("article img, article script").count() == 0


def test_filters_narrow_the_list_and_stand_in_the_address(page: Any, address: str) -> None:
    page.goto(address)
    page.locator("[name=voice]").select_option("=cem")
    count_is(page, 15)
    page.locator("[name=topic]").select_option("=")
    count_is(page, 5)
    page.locator("[name=from]").fill("50")
    count_is(page, 2)
    assert page.url.partition("#")[2] == "voice=cem&topic=&from=50"
    page.locator("[name=sort]").select_option("worst")
    sync_api.expect(page.locator("article").first).to_have_attribute("data-id", "c44")
    page.get_by_role("button", name="Show all").click()
    count_is(page, CLIPS)
    assert "#" not in page.url
    page.locator("[name=q]").fill("NUMBER 14")
    count_is(page, 3)


def test_an_address_gives_the_same_view_again(page: Any, address: str) -> None:
    page.goto(f"{address}#voice=cem&from=20&to=40&sort=best&q=number")
    assert (
        page.locator("[name=voice]").input_value() == "=cem"
        and page.locator("[name=q]").input_value() == "number"
    )
    expected = [row for row in rows() if row["voice"] == "cem" and 0.2 <= row["asr_wer"] <= 0.4]
    assert shown(page) == [row["id"] for row in sorted(expected, key=lambda row: row["asr_wer"])]
    page.goto(f"{address}#voice={quote(HOSTILE)}&sort=nothing&x=1&from=abc")
    count_is(page, CLIPS)  # what is no choice is passed over
    page.get_by_role("link", name="c7", exact=True).click()
    count_is(page, 1)
    page.get_by_role("link", name="with 2 other clips of this instruction").click()
    count_is(page, 3)
    assert shown(page) == ["c6", "c7", "c8"]
    page.go_back()
    count_is(page, 1)


def until_it_plays(page: Any, number: int) -> None:
    """Asks from here: a page that may not evaluate texts cannot be told to wait."""
    until = time.monotonic() + 60
    while not page.evaluate(f"document.querySelectorAll('audio')[{number}].currentTime > 0"):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_clips_play_one_at_a_time(page: Any, address: str) -> None:
    page.goto(address)
    page.evaluate("document.querySelectorAll('audio')[0].play()")
    until_it_plays(page, 0)
    assert abs(page.evaluate("document.querySelectorAll('audio')[0].duration") - 1.0) < 0.05
    page.evaluate("document.querySelectorAll('audio')[1].play()")
    until_it_plays(page, 1)
    assert page.evaluate("document.querySelectorAll('audio')[0].paused")


def test_differences_are_marked_by_more_than_colour(page: Any, address: str) -> None:
    page.goto(f"{address}#clip=c44")
    words = page.locator("article .words")
    assert " ".join(words.inner_text().split()) == (
        "said: please tell me number understood: oops oops oops oops 14"
    )
    decorations = [
        words.locator(tag).first.evaluate("each => getComputedStyle(each).textDecorationLine")
        for tag in ("del", "ins")
    ]
    assert decorations == ["line-through", "underline"]


def test_the_keyboard_reaches_everything(page: Any, address: str) -> None:
    page.goto(address)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(document.activeElement.name || document.activeElement.textContent || '').slice(0, 20)"
            )
        )
    for name in (
        "Skip to the clips",
        "Numbers",
        "q",
        "voice",
        "topic",
        "from",
        "to",
        "sort",
        "Show all",
        "c0",
    ):
        assert name in reached, reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_narrow_and_wide_windows_in_both_schemes(
    chromium: Any, address: str, width: int, scheme: str
) -> None:
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    image = page.locator("img").first
    image.evaluate("each => each.decode()")
    assert ("-dark.png" in image.evaluate("each => each.currentSrc")) == (scheme == "dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 22, 28)" if scheme == "dark" else "rgb(246, 247, 249)")
    page.close()
