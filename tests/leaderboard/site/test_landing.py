"""`rba-bench leaderboard index`: one page for several leaderboards."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import RECORDS
from rba_bench.leaderboard.landing import STUDY, build_index
from rba_bench.study import report
from tests.leaderboard.site.site_boards import HOSTILE, write_board_records
from tests.published import BOARDS

SHOWN = HOSTILE.translate(str.maketrans({"<": "‹", ">": "›", "\u202e": "\ufffd"}))
INPUTS = ("micro/records.json", "micro/study/study.json", "small/records.json", "small/study/study.json")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """What the index reads of the published leaderboards."""
    for name in (*INPUTS, *(f"paper/{path.name}" for path in (BOARDS / "paper").glob("*.yaml"))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BOARDS / name, tmp_path / name)
    shutil.copy(BOARDS / "paper" / "index.html", tmp_path / "paper")
    return tmp_path


def changed(file: Path, **values: Any) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | values), encoding="utf-8")


def test_the_published_page_is_made_of_the_published_boards(published: Path) -> None:
    result = build_index(published)
    assert result.boards == ("micro", "micro/study", "small", "small/study", "paper")  # measured ones first
    for file in result.files:
        assert file.read_bytes() == (BOARDS / file.relative_to(published)).read_bytes()


def test_each_board_has_its_answer_and_its_counts(tmp_path: Path) -> None:
    built = build_board([write_board_records(tmp_path / "runs")], tmp_path / "all" / "micro")
    page = build_index(tmp_path / "all").page.read_text(encoding="utf-8")
    assert built.data["answer"]["sentence"] in page
    assert built.data["answer"]["sentence"] in (built.out / "index.html").read_text(encoding="utf-8")
    assert "5 models, 2 references, 2 tasks, runs of " in page
    assert 'href="micro/index.html"' in page


def test_a_study_has_its_answer(published: Path) -> None:
    answer = json.loads((published / "small" / "study" / STUDY).read_text(encoding="utf-8"))["answer"]
    page = build_index(published).page.read_text(encoding="utf-8")
    assert answer["sentence"] in page and answer["caution"] in page


def test_a_study_names_its_facts_as_the_index_reads_them() -> None:
    assert STUDY == report.FACTS


def test_texts_of_a_board_stay_texts(published: Path, open_page: Callable[..., Any]) -> None:
    changed(published / "small" / RECORDS, track=HOSTILE, answer={"sentence": HOSTILE, "caution": HOSTILE})
    strange = published / "it's #1 & more"
    (published / "small").rename(strange)
    page = open_page(build_index(published).page.as_uri())
    assert page.locator("main").inner_text().count(SHOWN) == 3
    assert page.title() == "Leaderboards · rba-bench"
    assert page.locator("h2 a").first.evaluate("link => link.href") == (strange / "index.html").as_uri()


@pytest.mark.parametrize("text", ["{", "[]", '{"track": "small"}', '{"track": "small", "sections": []}'])
def test_a_damaged_board_is_named(published: Path, text: str) -> None:
    (published / "small" / RECORDS).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"small.records\.json is not of a leaderboard"):
        build_index(published)


def test_folders_that_hold_no_leaderboards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no leaderboard in"):
        build_index(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        build_index(tmp_path / "absent")
    with pytest.raises(UserError, match="itself a leaderboard"):
        build_index(BOARDS / "small")


def test_links_out_of_the_folder_are_not_followed(published: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (published / "small").rename(outside / "small")
    (published / "link").symlink_to(outside / "small")
    assert build_index(published).boards == ("micro", "micro/study", "paper")


def test_the_command_prints_the_page(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["leaderboard", "index", str(published)])
    assert not end.value.code
    assert capsys.readouterr().out.strip() == str(published / "index.html")
