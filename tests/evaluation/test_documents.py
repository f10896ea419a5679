"""What all test sets share: names, references and clusters of their items."""

from pathlib import Path

import pytest

from rba_bench.evaluation import documents
from rba_bench.evaluation.answering import unscored_sample
from rba_bench.evaluation.sources import source
from rba_bench.evaluation.sources.source import LoadedSet, Place
from rba_bench.evaluation.sources.tables import Clip

CLIP = Clip("ab" * 32, 16_000, 1.0, "/nowhere.wav")


def doc(name: str = "a", said: str = "words", **changes):
    fields = {"kind": "s2tt", "references": ["Wörter"], "target_lang": "de", "cluster": name, **changes}
    return documents.make_document(id=name, clip=CLIP, instruction=said, **fields)


def names(docs):
    return [each["id"] for each in docs]


def test_names_that_occur_twice_are_told_apart():
    assert names(documents.unique_ids([doc("a"), doc("b"), doc("a"), doc("a")])) == ["a", "b", "a-2", "a-3"]
    taken = documents.unique_ids([doc("a"), doc("a"), doc("a-2"), doc("a-2")])
    assert names(taken) == ["a", "a-3", "a-2", "a-2-2"]
    again = documents.unique_ids(taken)
    assert names(again) == names(taken)


@pytest.mark.parametrize("blank", ["", " ", "\n", "\u3000", "\u200b\u200d", "\u00ad"])
@pytest.mark.parametrize("kind", documents.REFERENCED)
def test_items_without_anything_to_compare_with_are_left_out_and_told(kind, blank, capsys):
    kept, left_out = documents.with_references(
        [doc("a", kind=kind), doc("b", kind=kind, references=[blank])], "set"
    )
    assert names(kept) == ["a"] and left_out == 1
    assert capsys.readouterr().err.count("set: 1 of 2 items have no reference") == 1


def test_a_blank_alias_is_no_alias_and_answers_that_are_judged_need_none(capsys):
    kept, left_out = documents.with_references(
        [
            doc("a", kind="qa", references=["Paris", " ", "paris, france"]),
            doc("b", kind="chat", references=[]),
        ],
        "set",
    )
    assert kept[0]["references"] == ["Paris", "paris, france"] and left_out == 0
    assert capsys.readouterr().err == ""


def test_items_that_say_the_same_share_all_their_clusters():
    docs = [
        doc("a", "Good morning.", cluster="one"),
        doc("b", "A second sentence", cluster="one"),
        doc("c", "good  morning", cluster="two"),
        doc("d", "A third sentence", cluster="two"),
        doc("e", "Good morning.", cluster="three", target_lang="fr"),
        doc("f", "", cluster="four"),
        doc("g", "...", cluster="five"),
        doc("h", "a THIRD sentence!", cluster="six"),
    ]
    joined = [each["cluster"] for each in documents.joined_by_text(docs)]
    assert joined == ["one", "one", "one", "one", "three", "four", "five", "one"]


def test_vowels_that_are_marks_tell_words_apart():
    assert documents.same_words("की") != documents.same_words("का")
    assert documents.same_words("don’t stop") == documents.same_words("Don't stop!")


def test_every_source_is_checked(monkeypatch, capsys):
    """However it makes its documents: two of one name, one with nothing to compare with."""
    from rba_bench.evaluation.sources import spoken_alpaca

    made = [doc("a"), doc("a", "others"), doc("b", references=[" "])]
    monkeypatch.setattr(
        spoken_alpaca, "load_voicebench", lambda options, place: LoadedSet(made, {"repo": "x"})
    )
    loaded = source.load_source("voicebench", {}, Place())
    assert names(loaded.documents) == ["a", "a-2"] and loaded.origin == {"repo": "x", "without_reference": 1}
    assert "voicebench: 1 of 3 items" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("response", "status"), [(" \n", "empty"), ("\u200b", "empty"), ("\u3000", "empty"), (".", "ok")]
)
def test_an_answer_of_blanks_alone_is_empty(response, status):
    assert unscored_sample(0, doc(), response, "").status == status


def test_a_file_with_one_name_twice_gives_two_items(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = dict.fromkeys(documents.COLUMNS, "x") | {
        "kind": "qa",
        "references": ["x"],
        "sampling_rate": 1,
        "duration": 1.0,
    }
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "test.parquet")
    assert names(documents.read_documents(tmp_path)) == ["x", "x-2"]
