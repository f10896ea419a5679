"""Texts of files of four kinds."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.synthesis.texts.against import read_against

TEXTS = ["Who is Ann?", "Where is Bob, and why?"]


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(f"\ufeff{TEXTS[0]}\n\n  {TEXTS[1]}\r\n", encoding="utf-8")
    assert read_against(str(file)) == TEXTS


@pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
def test_tables(tmp_path: Path, suffix: str, comma: str) -> None:
    file = tmp_path / f"a{suffix}"
    rows = [f'{number}{comma}"{text}"' for number, text in enumerate(TEXTS)]
    file.write_text("\n".join([f"id{comma}question", *rows]), encoding="utf-8")
    assert read_against(str(file)) == read_against(f"{file}:question") == TEXTS
    assert read_against(f"{file}:id") == ["0", "1"]


def test_json_lines_of_objects_or_texts(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"answer": "x", "prompt": text, "n": 1} for text in TEXTS]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert read_against(str(file)) == TEXTS
    file.write_text("\n".join(map(json.dumps, TEXTS)), encoding="utf-8")
    assert read_against(str(file)) == TEXTS


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"number": [1, 2, 3], "what": pa.array([*TEXTS, None], pa.large_string())}), file)
    assert read_against(str(file)) == TEXTS, "the only column of texts"


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("a.csv", "one,two\na,b", "", "which column"),
        ("a.csv", "one,two\na,b", ":three", "no column three"),
        ("a.jsonl", "{broken", "", "cannot be read"),
        ("a.jsonl", "[1]\n[2]", "", "not all objects"),
        ("a.parquet", "nothing", "", "cannot be read"),
        ("a.txt", "\n\n", "", "no texts"),
        ("a.csv", "question\n", "", "which column"),
        ("a.pdf", "x", "", "what kind of file"),
        ("a.txt", b"\xff\xfe\xfd", "", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(
    tmp_path: Path, name: str, content: str | bytes, column: str, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_against(f"{tmp_path / name}{column}")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no file"):
        read_against(str(tmp_path / "none.txt"))
