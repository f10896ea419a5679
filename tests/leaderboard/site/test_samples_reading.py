"""Pages of samples as they are read: hostile texts, judges, the keyboard, a screen reader, paper."""

from pathlib import Path
from typing import Any

import pytest

from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scoring import summarise_metrics
from rba_bench.leaderboard.site.local_runs import LocalRuns
from rba_bench.leaderboard.site.local_site import write_site
from rba_bench.leaderboard.site.sample_sections import clip_name
from rba_bench.leaderboard.site.samples import section_files
from tests.leaderboard.board_records import qa_samples, sample, write_run
from tests.leaderboard.site.test_samples_browser import page, shown

sync_api = pytest.importorskip("playwright.sync_api")
__all__ = ["page"]  # fixtures
QA = "samples/micro_triviaqa_greedy/index.html"
TEXTS = {
    "markup": "<script>alert(1)</script></script><b onclick=x>& \" ' ` {{7*7}} ${1}",
    "separators": "a\u2028b\u2029c\x85d",
    "controls": "nul \x00 escape \x1b[31m \u202eoverride\u202c \u2066isolate\u2069",
    "megabyte": "y" * 1_000_000,
    "lines": "line\n" * 10_000,
    "unbroken": "x" * 5000,
    "emoji": "👩\u200d👩\u200d👧 🏳️\u200d🌈 😀",
    "arabic": "مرحبا بالعالم هذا نص عربي",
    "hebrew": "שלום עולם",
    "chinese": "这是一个没有空格的句子",
    "marks": "a" + "\u0301" * 500 + "b",
    "blank": " \t ",
}
LANGUAGES = {"arabic": "ar", "hebrew": "he", "chinese": "zh"}


def hostile_sample(place: int, name: str, half: bool) -> Sample:
    """Everything that a record can say is one text."""
    text, language = TEXTS[name], LANGUAGES.get(name, "en")
    short = text[:30_000]
    given = short[: len(short) // 2] if half else short
    said = ("reasoning", "error", "extra", "prompt")
    changes: dict[str, Any] = dict.fromkeys(said, text[:3000]) | {"instruction": short, "heard": given}
    changes |= {
        "response": text if half else short,
        "baseline": short,
        "group": text[:300],
        "id": f"{text[:200]}{place}",
    }
    changes |= {"target_lang": language, "source_lang": language}
    changes["judge"] = {"x": {"votes": [{"reason": short, "reply": short}]}}
    return sample(place, "s2tt", given, [short, "other"], "g").model_copy(update=changes)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 models, some with hostile names, whose answers are hostile."""
    root = tmp_path_factory.mktemp("hostile")
    names = ["n" * 180, "<script>alert(2)</script>", "نموذج", *(f"model-{place}" for place in range(17))]
    answers = [
        [hostile_sample(place, text, half) for place, text in enumerate(TEXTS)] for half in (False, True)
    ]
    for place, name in enumerate(names):
        samples = answers[place % 2]
        model = {"name": name, "spec": name, "weights_sha256": "33" * 32, "training": None}
        write_run(root / "runs", f"m{place}", samples, task="hostile_s2tt", model=model)
    return write_site([root / "runs"], root / "site").page.parent / "samples" / "hostile_s2tt" / "index.html"


@pytest.mark.parametrize("width", [400, 1000])
def test_no_text_of_a_record_breaks_the_page(page: Any, hostile: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(hostile.as_uri() + "#models=model-0,model-1")
    for place, text in enumerate(TEXTS.values()):
        page.goto(hostile.as_uri() + f"#item={place}&models=model-0,model-1")
        shown(page, f"Item {place} ")
        page.evaluate("document.querySelectorAll('#item details').forEach((each) => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == width, text[:20]
        assert page.evaluate("document.documentElement.scrollHeight") < 12_000, text[:20]
        assert page.locator("#item script, #item b[onclick]").count() == 0
        found = page.locator("#item .block .said").first.text_content()
        assert not set(found) & set("\x00\x1b\u202e\u2066\u2028")
        if text.isprintable() and len(text) < 1000 and "\u0301" not in text:
            assert found == text


def test_texts_have_their_own_direction(page: Any, hostile: Path) -> None:
    """What the page adds in English ("added: ", "the clip") does not turn a text around."""
    for place, name in enumerate(TEXTS):
        if name not in LANGUAGES:
            continue
        page.goto(hostile.as_uri() + f"#item={place}&models=model-0,model-1")
        shown(page, f"Item {place} ")
        right = name != "chinese"
        for text in page.locator("#item .said").all():
            if TEXTS[name][:5] in text.text_content():
                style = text.evaluate("(each) => getComputedStyle(each).direction")
                assert (style == "rtl") == right, text.text_content()
        words = page.locator(".reply[data-model=model-0] .words").last
        assert words.locator("del, ins").count() > 0 and "left out: " in words.text_content()
        for word in words.locator("del").all():
            assert (word.evaluate("(each) => getComputedStyle(each).direction") == "rtl") == right


def test_twenty_models_side_by_side(page: Any, hostile: Path) -> None:
    page.set_viewport_size({"width": 1600, "height": 900})
    page.goto(hostile.as_uri() + "#item=0")
    shown(page, "Item 0")
    assert page.locator(".reply").count() == 6
    page.get_by_role("button", name="All", exact=True).click()
    sync_api.expect(page.locator(".reply")).to_have_count(20)
    assert page.evaluate("document.documentElement.scrollWidth") == 1600
    cells = page.locator("#rows td").first.bounding_box()
    assert cells is not None and cells["x"] < 700  # a name of 180 letters does not push the scores away


def judged(root: Path, votes: list[dict[str, Any]], status: str = "ok", **more: Any) -> Path:
    judge = {"pairwise": {"weighted": True, "votes": votes}}
    scores = {} if status == "judge_failed" else {"win_rate": 0.625, "lc_win_rate": 0.581}
    asked = sample(0, "chat", "short", [], "g").model_copy(
        update={"judge": judge, "status": status, "scores": scores, "baseline": "the stored answer", **more}
    )
    other = asked.model_copy(
        update={"doc_id": 1, "status": "ok", "scores": {"win_rate": 1.0, "lc_win_rate": 0.9}}
    )
    metrics = summarise_metrics([asked, other], [Metric(name, signature=name) for name in other.scores])
    write_run(root / "runs", "model", [asked, other], task="judged", metrics=metrics, benchmark="alpacaeval")
    return write_site([root / "runs"], root / "site").page.parent / "samples" / "judged" / "index.html"


def test_a_vote_has_its_order_its_reason_its_reply_and_its_tokens(page: Any, tmp_path: Path) -> None:
    votes = [
        {"order": "baseline_first", "preference": 0.25, "reply": "m", "seed": 7,
         "top_logprobs": [["m", -0.287682], ["M", -1.386294]]},
        {"order": "model_first", "preference": 1.0, "reply": "M", "reason": "It is shorter.", "seed": 8},
    ]  # fmt: skip
    page.goto(judged(tmp_path, votes).as_uri() + "#item=0")
    shown(page, "Item 0")
    first, second = page.locator(".ballots > li").all()
    said = " ".join(first.inner_text().split())
    assert said == (
        "Vote 1, baseline answer first preference for this answer 0.25 Raw reply m "
        'Likeliest first tokens: "m" 75.0 %, "M" 25.0 %. Seed 7.'
    )
    said = " ".join(second.inner_text().split())
    assert said == (
        "Vote 2, this answer first preference for this answer 1 Reason It is shorter. Raw reply M Seed 8."
    )
    card = page.locator(".reply").inner_text()
    assert "win_rate 62.5" in card and "lc_win_rate 58.1" in card and "weighted" in card


def test_a_vote_that_failed_says_why(page: Any, tmp_path: Path) -> None:
    failures = ["malformed: 'As an AI I cannot say'", "refused by the content filter"]
    votes = [{"order": "baseline_first", "preference": 0.25, "reply": "m"}, {"failures": failures}]
    page.goto(
        judged(tmp_path, votes, "judge_failed", error="pairwise: refused by the content filter").as_uri()
        + "#item=0"
    )
    shown(page, "Item 0")
    failed = page.locator(".ballots > li").nth(1).inner_text()
    assert "no vote" in failed and all(each in failed for each in failures)
    card = page.locator(".reply").inner_text()
    assert "judge_failed" in card and "pairwise: refused by the content filter" in card


@pytest.mark.parametrize(
    "vote",
    [
        {"order": {"a": [1]}, "failures": {"a": 1}, "top_logprobs": {"x": 1}, "reply": ["a"], "seed": None},
        {
            "order": None,
            "failures": [{"a": 1}],
            "top_logprobs": [["a", "b"]],
            "reason": None,
            "preference": [],
        },
        {"__proto__": 1, "constructor": "x", "votes": [{}], "top_logprobs": [[None, -1.0], [{}, 0.0]]},
    ],
)
def test_a_vote_may_hold_anything(page: Any, tmp_path: Path, vote: dict[str, Any]) -> None:
    page.goto(judged(tmp_path, [vote]).as_uri() + "#item=0")
    shown(page, "Item 0")
    sync_api.expect(page.locator(".ballots > li")).to_have_count(1)


@pytest.fixture
def some_clips(tmp_path: Path) -> Path:
    """30 items of which two have a clip that plays."""
    write_run(tmp_path / "runs", "model", qa_samples(0.5, n=30))
    site = write_site([tmp_path / "runs"], tmp_path / "site").page.parent
    [section] = LocalRuns([tmp_path / "runs"]).read().sections.values()
    for name, data in section_files(section, {clip_name(section, 7), clip_name(section, 20)}).items():
        (site / name).write_bytes(data)
    return site / QA


def test_a_page_opens_at_the_first_item_with_a_clip_unless_its_address_says_otherwise(
    page: Any, some_clips: Path
) -> None:
    page.route("**/clips/*.flac", lambda route: route.fulfill(body=b"", content_type="audio/flac"))
    page.goto(some_clips.as_uri())
    shown(page, "Item 7 ")
    marked = page.locator("#list a", has=page.locator(".has-clip"))
    assert [each.locator(".n").inner_text() for each in marked.all()] == ["7", "20"]
    assert "with its clip" in marked.first.text_content()
    for address, item in (
        ("#item=0", 0),
        ("#models=model&from=0&to=100", 7),
        ("#id=item-2", 20),
        ("#id=item-1", 1),
    ):
        page.goto("about:blank")
        page.goto(some_clips.as_uri() + address)
        shown(page, f"Item {item} ")
    page.locator("[name=id]").fill("")
    page.get_by_label("only items with a clip here").check()
    sync_api.expect(page.get_by_role("status")).to_contain_text("of 2 items (of 30 in all)")


def test_an_item_without_a_clip_leaves_the_space_bar_to_the_page(page: Any, some_clips: Path) -> None:
    page.set_viewport_size({"width": 700, "height": 300})
    page.goto(some_clips.as_uri() + "#item=0")
    shown(page, "Item 0")
    assert page.get_by_role("button", name="Play").is_disabled()
    page.locator("h1").click()
    page.keyboard.press("Space")
    for _ in range(100):
        if page.evaluate("scrollY") > 50:
            break
        page.wait_for_timeout(50)
    assert page.evaluate("scrollY") > 50


def test_all_of_it_can_be_done_by_keyboard(page: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "model", qa_samples(0.5, n=30))
    page.goto((write_site([tmp_path / "runs"], tmp_path / "site").page.parent / QA).as_uri())
    shown(page, "Item 0")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    shown(page, "Item 0")
    page.locator("#list a").nth(3).focus()
    page.keyboard.press("Enter")
    shown(page, "Item 3")
    current = "document.querySelector('#list a[aria-current]:focus .n').textContent"
    assert page.evaluate(current) == "3"  # the list is made anew, and the keyboard stays in it
    page.keyboard.press("j")
    shown(page, "Item 4")
    assert page.evaluate(current) == "4"
    for name in ("id", "from", "verdict"):
        page.locator(f"[name={name}]").focus()
        for key in ("j", "r", "f", "d"):
            page.keyboard.press(key)
        page.locator("[name=id]").fill("")
        page.locator("[name=verdict]").select_option("")
    shown(page, "Item 4")
    page.locator("#item h2 a").focus()
    page.get_by_label("model").first.focus()
    page.keyboard.press("Space")  # unticks the model, and plays nothing
    sync_api.expect(page.locator(".reply")).to_have_count(0)


def test_a_search_for_what_no_item_is_says_so(page: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "model", qa_samples(2, n=5))
    page.goto((write_site([tmp_path / "runs"], tmp_path / "site").page.parent / QA).as_uri() + "#item=2")
    shown(page, "Item 2")
    for key, told in (("f", "No item is a failure."), ("d", "No item is a disagreement.")):
        page.keyboard.press(key)
        sync_api.expect(page.get_by_role("status")).to_have_text(told)
        shown(page, "Item 2")


@pytest.mark.parametrize("width", [400, 1400])
def test_a_screen_reader_finds_headings_names_and_where_it_is(page: Any, tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    write_run(tmp_path / "runs", "model", qa_samples(0.5, n=264))
    page.goto(
        (write_site([tmp_path / "runs"], tmp_path / "site", limit=None).page.parent / QA).as_uri() + "#item=2"
    )
    shown(page, "Item 2")
    status = page.get_by_role("status")
    sync_api.expect(status).to_be_visible()  # also where filters and list are folded
    assert status.inner_text() == "3 of 264 items"
    page.keyboard.press("j")
    assert status.inner_text() == "4 of 264 items"
    levels = [int(each.evaluate("(h) => h.tagName[1]")) for each in page.locator("h1, h2, h3, h4, h5").all()]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert page.get_by_role("article", name="Item 3 item-3").count() == 1
    assert page.get_by_role("group", name="Go to another item").get_by_role("button").count() == 6


def test_on_paper_long_texts_are_whole(page: Any, hostile: Path) -> None:
    place = list(TEXTS).index("unbroken")
    page.goto(hostile.as_uri() + f"#item={place}&models=model-0")
    shown(page, f"Item {place} ")
    page.emulate_media(media="print")
    for text in page.locator("#item .long").all():
        assert text.evaluate("(each) => each.scrollHeight <= each.clientHeight + 1")
    assert not page.locator(".moves, #choose").first.is_visible()
