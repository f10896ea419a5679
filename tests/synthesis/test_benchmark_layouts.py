"""Files of text benchmarks: what an entry becomes, names that stay, and mistakes in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_bytes
from rba_bench.synthesis.benchmark_layouts import TextItem, default_name, read_benchmark


def words_id(words: str) -> str:
    """Name of an item without one, in the benchmark `x`."""
    return f"x-{sha256_bytes(words.encode())[:16]}"


def written(path: Path, entries: list[Any]) -> Path:
    lines = "\n".join(json.dumps(entry) for entry in entries)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(entries))
    return path


@pytest.mark.parametrize(
    ("layout", "entry", "item"),
    [
        (
            "webquestions",
            {"qId": "wqs7", "qText": "where is it?", "answers": ["Here", "here ", "", "There"]},
            TextItem("qa", "where is it?", "wqs7", ("Here", "here", "There")),
        ),
        (
            "webquestions",
            {"utterance": "who?", "targetValue": '(list (description Ann) (description "Bo \\"B\\" (Jr.)"))'},
            TextItem("qa", "who?", words_id("who"), ("Ann", 'Bo "B" (Jr.)')),
        ),
        (
            "nq_open",
            {"question": "when was it", "answer": ["1972"]},
            TextItem("qa", "when was it", words_id("when was it"), ("1972",)),
        ),
        (
            "alpacaeval",
            {"instruction": "Sing.", "dataset": "koala", "first": "La", "second": "Lo"},
            TextItem("chat", "Sing.", words_id("sing"), (), "koala", {"first": "La", "second": "Lo"}),
        ),
        (
            "alpacaeval",
            {"instruction": "Sing.", "output": "La", "generator": "m1", "dataset": "koala", "input": ""},
            TextItem("chat", "Sing.", words_id("sing"), (), "koala", {"m1": "La"}),
        ),
        (
            "jsonl",
            {"id": 3, "question": "how many?", "answers": 4, "topic": "sums"},
            TextItem("qa", "how many?", "3", ("4",), "sums"),
        ),
        (
            "jsonl",
            {"id": "a", "instruction": "Sing.", "output": "La"},
            TextItem("chat", "Sing.", "a", (), "", {"output": "La"}),
        ),
        (
            "jsonl",
            {"id": "a", "instruction": "Name one.", "references": ["this"]},
            TextItem("qa", "Name one.", "a", ("this",)),
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_an_entry_of_each_layout(
    tmp_path: Path, layout: str, entry: dict[str, Any], item: TextItem, suffix: str
) -> None:
    read = read_benchmark(written(tmp_path / f"set.{suffix}", [entry]), layout, "x")
    assert read.items == (item,) and read.kind == item.kind
    assert read.systems == tuple(item.outputs)


def test_names_follow_from_words_and_not_from_the_order(tmp_path: Path) -> None:
    questions = [{"question": text, "answer": ["1"]} for text in ("Who is it?", "what", "who is it")]

    def named(entries: list[Any], limit: int | None = None) -> list[tuple[str, str]]:
        read = read_benchmark(written(tmp_path / "nq.json", entries), "nq_open", "nq", limit)
        assert read.in_file == 3
        return [(item.text, item.id) for item in read.items]

    first, second, third = named(questions)
    assert third[1] == f"{first[1]}-2" and second[1] != first[1]
    assert named([questions[1], questions[0], questions[2]]) == [second, first, third]
    assert named(questions, 2) == [first, second]
    assert default_name(Path("d/nq_open.dev.jsonl")) == "nq_open"


@pytest.mark.parametrize(
    ("layout", "entries", "message"),
    [
        ("nq_open", [{"qText": "who"}], "entry 1 lacks 'question': is it of another --layout than nq_open?"),
        ("webquestions", [{"qText": "who"}], "entry 1 lacks 'answers'"),
        ("jsonl", [{"instruction": "Sing."}, {"question": "who"}], "entry 2 lacks 'references or answers'"),
        ("jsonl", [{"answers": ["a"]}], "entry 1 lacks 'instruction or question'"),
        ("jsonl", [{"question": 5, "answers": ["a"]}], "entry 1 has a question that is no text"),
        ("nq_open", [{"question": "who", "answer": [["a"]]}], "entry 1 has answers that are no texts"),
        (
            "jsonl",
            [{"instruction": "a"}, {"instruction": "b", "answers": ["c"]}],
            "entry 2 has answers, unlike",
        ),
        (
            "jsonl",
            [{"id": "a", "instruction": "b"}, {"id": "a", "instruction": "c"}],
            "the id 'a' occurs twice",
        ),
        ("jsonl", [["who"]], "entry 1 is no JSON object"),
        ("nq-open", [{"question": "who"}], "unknown layout 'nq-open'; did you mean 'nq_open'?"),
        ("jsonl", [], "holds no items"),
    ],
)
def test_another_layout_is_refused_in_one_line(
    tmp_path: Path, layout: str, entries: list[Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        read_benchmark(written(tmp_path / "set.json", entries), layout, "x")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match=r"no file at .*none.json: name .* --from"):
        read_benchmark(tmp_path / "none.json", "jsonl", "x")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"instruction": "a"}\n{"instruction": \n')
    with pytest.raises(UserError, match=r"line 2, is no JSON"):
        read_benchmark(broken, "jsonl", "x")
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_benchmark(broken, "jsonl", "x")
