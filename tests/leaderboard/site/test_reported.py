"""Reported numbers on a board of the same benchmarks: in tables of their own, and only where the tables say so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import board_differences
from rba_bench.leaderboard.paper import excerpts_from, load_paper_table, tables_beside
from rba_bench.leaderboard.site.build import site_files
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.site_boards import settings

sync_api = pytest.importorskip("playwright.sync_api")
PAPER = Path(__file__).parents[3] / "leaderboards" / "paper"
PAGE = "../paper/index.html"


def write_full(root: Path, benchmarks: tuple[str, ...], track: str = "full") -> Path:
    for benchmark in benchmarks:
        for seed, name in enumerate(("sft", "rba")):
            answers = qa_samples(0.5 + seed / 5, 40, seed)
            write_run(root, name, answers, benchmark, track=track, benchmark=benchmark)
    return root


def page_beside_the_paper(place: Path, benchmarks: tuple[str, ...], track: str = "full") -> Path:
    shutil.copytree(PAPER, place / "paper")
    runs = write_full(place / "runs", benchmarks, track)
    return build_board([runs], place / "board", reported_page=PAGE).out


def section_of(board: Path) -> str:
    page = (board / "index.html").read_text()
    return page[page.index('<h2 id="reported">') : page.index('<h2 id="downloads">')]


def test_the_numbers_of_the_boards_benchmarks_stand_in_their_own_tables(tmp_path: Path) -> None:
    out = page_beside_the_paper(tmp_path, ("triviaqa", "webquestions"))
    section = section_of(out)
    assert "<h3>v1, Table 3: Spoken question answering" in section and "<h3>v2, Headline numbers" in section
    assert section.count('<span class="badge">reported</span>') == 2
    assert ">WebQuestions</th>" in section and ">TriviaQA</th>" in section
    assert ">Llama-Questions</th>" not in section and "FLEURS test" not in section  # of no task of the board
    assert "<td>55.1</td>" in section and '<a href="https://arxiv.org/html/2509.03526v1"' in section
    assert f'<a href="{PAGE}" rel="noreferrer">' in section and "never ranked" in section
    data = (out / "site/board.js").read_text()
    assert '"scores":[[' in data and "RBA-S" not in data and "Moshi" not in data  # nothing to sort or to rank
    assert list(board_differences(out)) == []


def test_they_stay_when_the_board_is_made_again_without_the_paper(tmp_path: Path) -> None:
    out = page_beside_the_paper(tmp_path, ("triviaqa",))
    before = section_of(out)
    shutil.rmtree(tmp_path / "paper")
    assert section_of(build_board([out], out).out) == before and "SpeechGPT" in before
    assert list(board_differences(out)) == []
    build_board([out], out, reported_page="../other/index.html")
    assert "SpeechGPT" not in section_of(out)


@pytest.mark.parametrize(
    ("benchmarks", "track"), [(("covost2",), "full"), (("triviaqa",), "micro"), (("small",), "small")]
)
def test_other_test_sets_get_a_link_and_a_sentence(
    tmp_path: Path, benchmarks: tuple[str, ...], track: str
) -> None:
    section = section_of(page_beside_the_paper(tmp_path, benchmarks, track))
    assert "none of them is of a test set of this board" in section and "<table>" not in section
    assert f'<a href="{PAGE}" rel="noreferrer">' in section


def test_of_a_page_elsewhere_nothing_is_known(tmp_path: Path) -> None:
    runs = write_full(tmp_path / "runs", ("triviaqa",))
    section = section_of(
        build_board([runs], tmp_path / "board", reported_page="https://example.org/reported").out
    )
    assert "none of them" not in section and 'href="https://example.org/reported"' in section


def test_a_table_names_the_columns_or_rows_of_a_benchmark(tmp_path: Path) -> None:
    table = load_paper_table(PAPER / "v1-table3.yaml")
    cut = table.excerpt({"triviaqa"})
    assert cut is not None and cut.columns == ("TriviaQA",)
    assert [row.name for row in cut.rows] == [row.name for row in table.rows if row.values[2] is not None]
    assert table.excerpt({"mustc"}) is None
    headline = load_paper_table(PAPER / "v2-headline.yaml").excerpt({"fleurs"})
    assert headline is not None and [row.name for row in headline.rows] == ["FLEURS test, average"]
    unnamed = load_paper_table(PAPER / "v1-table6.yaml")  # the paper does not name its test set
    assert unnamed.benchmarks == {} and unnamed.excerpt({"fleurs", "covost2"}) is None
    broken = (PAPER / "v1-table3.yaml").read_text().replace("{WebQuestions:", "{WebQuestion:")
    (tmp_path / "table.yaml").write_text(broken)
    with pytest.raises(UserError, match="WebQuestion.*no column and no row"):
        load_paper_table(tmp_path / "table.yaml")


def test_other_files_beside_the_page_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").write_text("a: [1")
    assert tables_beside(tmp_path / "index.html", {"triviaqa"}) is None
    shutil.copy(PAPER / "v1-table3.yaml", tmp_path / "numbers.yaml")
    assert list(tables_beside(tmp_path / "index.html", {"triviaqa"}) or ()) == ["numbers"]


def test_a_forged_table_is_refused_and_a_hostile_one_is_text(tmp_path: Path) -> None:
    out = page_beside_the_paper(tmp_path, ("triviaqa",))
    stored = json.loads((out / "records.json").read_text())["options"]["reported_tables"]
    for forged in ([], "x", {"t": 1}, {"t": {**stored["v1-table3"], "columns": []}}):
        with pytest.raises(UserError, match="reported"):
            excerpts_from(forged)
    javascript = json.loads(json.dumps(stored["v1-table3"]))
    javascript["source"]["url"] = "javascript:alert(1)"
    with pytest.raises(UserError, match="reported"):
        excerpts_from({"t": javascript})
    hostile = json.loads(json.dumps(stored["v1-table3"]))
    hostile["title"] = hostile["rows"][0]["name"] = "</table><script>alert(1)</script>"
    tables = excerpts_from({"t": hostile})
    group = settings(tmp_path / "own", {"sft": 0.5, "a": 0.6}, n=24)[0].group
    page = site_files({"s": group}, [], ["s.csv"], PAGE, reported_tables=tables)["index.html"].decode()
    assert "<script>alert" not in page and "&lt;/table&gt;" in page


def test_filters_and_sorting_do_not_touch_them(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    out = page_beside_the_paper(tmp_path, ("triviaqa", "webquestions"))
    page = open_page((out / "index.html").as_uri(), viewport={"width": 400, "height": 900})
    reported = page.get_by_role("region", name="reported: Table 3")
    before = reported.text_content()
    page.locator("[name=q]").fill("rba")
    page.locator("#board button.sort").last.click()
    sync_api.expect(page.locator("th[aria-sort]")).to_have_count(1)
    assert reported.text_content() == before and reported.locator("button").count() == 0
    assert page.locator("#board").get_by_text("RBA-S").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 400
