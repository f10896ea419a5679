"""Items of test sets are found, and their set is named."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("datasketch")

from rba_bench.errors import UserError
from rba_bench.synthesis.texts import decontamination
from rba_bench.synthesis.texts.decontamination import BenchmarkIndex, NamedTexts, build_benchmark_index
from rba_bench.synthesis.texts.near_duplicates import NearDuplicateOptions

LONG = "In which country do people drive on the left side of the road although all of its neighbours do not?"
SETS: list[NamedTexts] = [
    ("rivers", ["Which river flows through Vienna and Budapest?", "Stop!", LONG], ""),
    ("again", [LONG, "一番高い山は何という名前の山ですか"], ""),
    ("far_away", [], "cannot get it from the Hub"),
    ("empty", [], ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_benchmark_index(SETS, root=tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("which RIVER flows through Vienna and Budapest", "rivers (same words)"),
        ("stop", "rivers (same words)"),
        ("Which river flows through Vienna and Budapest, please?", "rivers (near duplicate)"),
        (f"My uncle asked: {LONG.lower()} He did not know, nor did my aunt or anybody else that we asked in this "
         "long and rainy summer at the lake.", "rivers (13 words in a row)"),
        ("一番高い山は何という山ですか", "again (near duplicate)"),
        ("Which river flows through Paris and Rouen?", None),
        ("On the left side of the road there is a house", None),
        ("Stop it!", None),
        ("?", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_repeats_an_item(folder: Path, text: str, hit: str | None) -> None:
    found = BenchmarkIndex(folder).find(text)
    assert (None if found is None else str(found)) == hit


def test_twelve_words_in_a_row_are_no_repetition(folder: Path) -> None:
    index, tokens = BenchmarkIndex(folder), LONG.split()
    around = "aa bb cc dd ee ff gg hh ii jj kk ll mm nn oo pp qq rr ss tt uu vv ww xx yy zz"
    assert index.find(f"{around} {' '.join(tokens[2:14])} {around}") is None
    hit = index.find(f"{around} {' '.join(tokens[2:15])} {around}")
    assert hit is not None and hit.how == "13 words in a row"


def test_what_was_checked_and_what_was_not_is_told(folder: Path) -> None:
    index = BenchmarkIndex(folder)
    assert index.checked == {"rivers": 3, "again": 2}
    assert index.not_checked == {"far_away": "cannot get it from the Hub", "empty": "it holds no texts"}
    assert len(index.content_sha256) == 64


def test_the_index_is_made_once_for_the_same_texts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(decontamination, "_index_arrays", lambda *_: pytest.fail("made again"))
        assert build_benchmark_index(SETS, root=folder.parent) == folder
    changed = [("rivers", ["Which river flows through Vienna and Bratislava?"], ""), *SETS[1:]]
    assert build_benchmark_index(changed, root=folder.parent) != folder
    looser = NearDuplicateOptions(threshold=0.4)
    assert build_benchmark_index(SETS, looser, root=folder.parent) != folder


def test_an_unfinished_index_is_made_again(tmp_path: Path) -> None:
    folder = build_benchmark_index(SETS, root=tmp_path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "index.json").unlink()
    (folder / "values.npy").write_bytes(b"half")
    assert build_benchmark_index(SETS, root=tmp_path) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no index of test sets"):
        BenchmarkIndex(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"version": 0}), encoding="utf-8")
    for file in folder.glob("*.npy"):
        np.save(tmp_path / file.name, np.load(file))
    with pytest.raises(UserError, match="another version"):
        BenchmarkIndex(tmp_path)


def test_no_set_at_all_finds_nothing(tmp_path: Path) -> None:
    index = BenchmarkIndex(build_benchmark_index([("x", [], "gone")], root=tmp_path))
    assert index.find("Who is Ann?") is None and index.not_checked == {"x": "gone"}


def test_sets_without_long_texts_have_no_runs(tmp_path: Path) -> None:
    index = BenchmarkIndex(build_benchmark_index([("x", ["a b c", "?"], "")], root=tmp_path))
    assert index.find(LONG) is None and str(index.find("A, b; c.")) == "x (same words)"
