"""Spoken question sets in their published layouts."""

import csv

import pytest
import yaml

from rba_bench.audio import clips
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input, task_registry
from rba_bench.evaluation.sources import spoken_qa
from rba_bench.evaluation.sources.source import Place, load_source
from rba_bench.evaluation.sources.spoken_qa import SETS, split_answers
from tests.evaluation.sources.speech import audio_cell, encoded, write_parquet

QUESTIONS = ("Who wrote Hamlet?", "Which river runs through Paris?")
OPEN_AUDIO_BENCH = {
    "trivia_qa": [
        {
            "question": QUESTIONS[0],
            "answer_normalized_value": "william shakespeare",
            "answer_normalized_aliases": "william shakespeare,shakespeare, bard of avon",
            "audio_filename": "trivia_qa_0.mp3",
        },
        {
            "question": QUESTIONS[1],
            "answer_normalized_value": "seine",
            "answer_normalized_aliases": "['river seine', \"seine's\"]",
            "audio_filename": "trivia_qa_1.mp3",
        },
    ],
    "web_questions": [
        {"question": QUESTIONS[0], "answers": "William Shakespeare", "audio_filename": "web_questions_0.mp3"},
        {"question": QUESTIONS[1], "answers": "Seine;La Seine", "audio_filename": "web_questions_1.mp3"},
    ],
    "llama_questions": [
        {
            "Questions": QUESTIONS[0],
            "Answer": "Shakespeare, William",
            "audio_filename": "llama_questions_0.mp3",
        },
        {"Questions": QUESTIONS[1], "Answer": "Seine", "audio_filename": "llama_questions_1.mp3"},
    ],
}


def write_open_audio_bench(root, name, rows, broken=()):
    """`eval_datas/<name>/<name>.csv` beside `audios/*.mp3`, as `baichuan-inc/OpenAudioBench` has them."""
    folder = root / "eval_datas" / name
    (folder / "audios").mkdir(parents=True)
    with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        text = row.get("question") or row["Questions"]
        file = row["audio_filename"]
        data = b"ID3 torn" if file in broken else encoded(text, "MP3")
        (folder / "audios" / file).write_bytes(data)
    return folder


@pytest.fixture
def data_dir(tmp_path):
    root = tmp_path / "baichuan-inc" / "OpenAudioBench"
    for name, rows in OPEN_AUDIO_BENCH.items():
        write_open_audio_bench(root, name, rows)
    wav, floats = (encoded(QUESTIONS[0]), encoded(QUESTIONS[0], subtype="FLOAT"))
    write_parquet(
        tmp_path / "TwinkStart" / "speech-triavia-qa" / "data" / "test-00000-of-00001.parquet",
        [
            {
                "audio": audio_cell(floats, "0.wav"),
                "question": QUESTIONS[0],
                "answer": "Shakespeare OR The Bard",
            }
        ],
    )
    write_parquet(
        tmp_path / "TwinkStart" / "speech-web-questions" / "data" / "test-00000-of-00001.parquet",
        [
            {
                "audio": audio_cell(floats, "0.wav"),
                "question": QUESTIONS[0],
                "answers": ["Shakespeare", "The Bard"],
            }
        ],
    )
    write_parquet(
        tmp_path / "TwinkStart" / "llama-questions" / "data" / "test-00000-of-00001.parquet",
        [{"audio": audio_cell(wav, "0.wav"), "Questions": QUESTIONS[0], "Answer": "Shakespeare"}],
    )
    write_parquet(
        tmp_path / "fixie-ai" / "spoken-web-questions" / "data" / "test-00000-of-00001.parquet",
        [
            {
                "url": "http://x",
                "question": QUESTIONS[0],
                "answers": ["Shakespeare"],
                "audio": audio_cell(wav, "0.wav"),
            }
        ],
    )
    write_parquet(
        tmp_path / "fixie-ai" / "llama-questions" / "data" / "test-00000-of-00001.parquet",
        [{"question": QUESTIONS[0], "answer": "Shakespeare", "audio": audio_cell(wav, "0.wav")}],
    )
    answer = {
        "aliases": ["Shakespeare", "The Bard"],
        "normalized_aliases": ["shakespeare", "the bard"],
        "matched_wiki_entity_name": "",
        "normalized_matched_wiki_entity_name": "",
        "normalized_value": "william shakespeare",
        "type": "WikipediaEntity",
        "value": "William Shakespeare",
    }
    write_parquet(
        tmp_path / "fixie-ai" / "trivia_qa-audio" / "rc.wikipedia" / "validation-00000-of-00001.parquet",
        [
            {
                "question": QUESTIONS[0],
                "question_id": "tc_0",
                "question_source": "http://x",
                "entity_pages": {
                    "doc_source": ["a"],
                    "filename": ["a"],
                    "title": ["a"],
                    "wiki_context": ["a"],
                },
                "search_results": {"description": ["a"], "rank": [1], "url": ["a"]},
                "answer": answer,
                "question_audio": audio_cell(wav, "0.wav"),
            }
        ],
        audio=("question_audio",),
    )
    return tmp_path


EXPECTED = {
    "triviaqa_openaudiobench": ["william shakespeare", "shakespeare", "bard of avon"],
    "triviaqa_twinkstart": ["Shakespeare", "The Bard"],
    "triviaqa_fixie": ["William Shakespeare", "Shakespeare", "The Bard"],
    "webquestions_openaudiobench": ["William Shakespeare"],
    "webquestions_twinkstart": ["Shakespeare", "The Bard"],
    "webquestions_fixie": ["Shakespeare"],
    "llama_questions_openaudiobench": ["Shakespeare, William"],
    "llama_questions_twinkstart": ["Shakespeare"],
    "llama_questions_fixie": ["Shakespeare"],
}


@pytest.mark.parametrize("name", list(SETS))
def test_every_set_is_read_in_its_own_layout(data_dir, name, capsys):
    loaded = load_source("spoken_qa", {"set": name}, Place(data_dir))
    first = loaded.documents[0]
    assert (first["kind"], first["prompt"], first["instruction"]) == ("qa", "", QUESTIONS[0])
    assert first["references"] == EXPECTED[name]
    heard = model_input.load_wave(first["audio"])
    assert len(heard) == pytest.approx(len(clips.decode_clip(encoded(QUESTIONS[0]))), rel=0.1)
    assert first["duration"] == pytest.approx(len(heard) / 16_000, rel=0.01) and abs(heard).max() > 0.05
    assert loaded.origin["repo"] == SETS[name].repo and loaded.origin["set"] == name
    assert f"the published set has {SETS[name].items}" in capsys.readouterr().err


def test_item_names_tell_the_sets_apart(data_dir):
    names = [
        d["id"] for name in SETS for d in spoken_qa.load_spoken_qa({"set": name}, Place(data_dir)).documents
    ]
    assert len(names) == len(set(names)) == 12
    assert "triviaqa_openaudiobench-trivia_qa_1" in names


def test_lists_written_in_a_csv_cell(data_dir):
    second = spoken_qa.load_spoken_qa({"set": "triviaqa_openaudiobench"}, Place(data_dir)).documents[1]
    assert second["references"] == ["seine", "river seine", "seine's"]
    second = spoken_qa.load_spoken_qa({"set": "webquestions_openaudiobench"}, Place(data_dir)).documents[1]
    assert second["references"] == ["Seine", "La Seine"]


@pytest.mark.parametrize(
    ("value", "separator", "answers"),
    [
        (None, ";", []),
        ("", ";", []),
        (" a ; b;", ";", ["a", "b"]),
        ("a;b", "", ["a;b"]),
        ('["a", "b;c"]', ";", ["a", "b;c"]),
        ("['a', 'b']", ";", ["a", "b"]),
        ("['it''s']", "", None),
        ("['a' 'b']", "", None),
        ("[a, b]", "", None),
        ("[__import__('os')]", "", None),
        ("[" * 5000 + "]" * 5000, "", ["[" * 5000 + "]" * 5000]),
        ("[Redacted]", "", ["[Redacted]"]),
        ("[Redacted]; b", ";", ["[Redacted]", "b"]),
        ("[the Beatles]", ";", ["[the Beatles]"]),
        ("[1969]", "", ["1969"]),
        (["a", None, " "], ";", ["a"]),
        (1969, "", ["1969"]),
    ],
)
def test_answers_in_a_cell(value, separator, answers):
    if answers is None:
        with pytest.raises(UserError, match="item-7: cannot read the answer list"):
            split_answers(value, separator, "item-7")
    else:
        assert split_answers(value, separator, "item-7") == answers


def test_an_answer_that_cannot_be_read_costs_its_item_and_not_the_set(tmp_path, capsys):
    rows = [dict(row) for row in OPEN_AUDIO_BENCH["web_questions"]]
    rows[1]["answers"] = "['Seine' 'La Seine']"
    write_open_audio_bench(tmp_path, "web_questions", rows)
    loaded = spoken_qa.load_spoken_qa({"set": "webquestions_openaudiobench"}, Place(tmp_path))
    assert [doc["references"] for doc in loaded.documents] == [["William Shakespeare"]]
    assert loaded.origin["left_out"]["n"] == 1 and "read" in loaded.origin["left_out"]["reason"]
    assert "its commas are missing" in capsys.readouterr().err


def test_a_set_of_which_no_answer_can_be_read_is_refused(tmp_path):
    rows = [{**row, "answers": "[a, b]"} for row in OPEN_AUDIO_BENCH["web_questions"]]
    write_open_audio_bench(tmp_path, "web_questions", rows)
    with pytest.raises(UserError, match="cannot read the answer list"):
        spoken_qa.load_spoken_qa({"set": "webquestions_openaudiobench"}, Place(tmp_path))


def test_a_broken_clip_is_an_item_all_the_same(tmp_path):
    write_open_audio_bench(
        tmp_path, "web_questions", OPEN_AUDIO_BENCH["web_questions"], {"web_questions_1.mp3"}
    )
    first, second = spoken_qa.load_spoken_qa(
        {"set": "webquestions_openaudiobench"}, Place(tmp_path)
    ).documents
    assert first["duration"] > 0.5 and second["duration"] == 0.0
    with pytest.raises(clips.AudioError):
        model_input.load_wave(second["audio"])


def test_a_clip_that_was_not_downloaded_is_missing(tmp_path):
    folder = write_open_audio_bench(tmp_path, "web_questions", OPEN_AUDIO_BENCH["web_questions"])
    (folder / "audios" / "web_questions_1.mp3").unlink()
    with pytest.raises(
        MissingPrerequisite, match=r"1 of 2 clips .*web_questions_1.mp3.*hf download baichuan-inc"
    ):
        spoken_qa.load_spoken_qa({"set": "webquestions_openaudiobench"}, Place(tmp_path))


def test_a_question_without_answers_is_left_out_and_counted(tmp_path, capsys):
    rows = [dict(row) for row in OPEN_AUDIO_BENCH["web_questions"]]
    rows[0]["answers"] = " "
    write_open_audio_bench(tmp_path, "web_questions", rows)
    loaded = spoken_qa.load_spoken_qa({"set": "webquestions_openaudiobench"}, Place(tmp_path))
    assert len(loaded.documents) == 1 and loaded.origin["left_out"]["n"] == 1
    assert loaded.origin["left_out"]["items"] == ["webquestions_openaudiobench-web_questions_0"]
    assert "1 questions have no answer" in capsys.readouterr().err


def test_tables_of_another_layout(tmp_path):
    with pytest.raises(MissingPrerequisite, match="hf download baichuan-inc/OpenAudioBench"):
        spoken_qa.load_spoken_qa({"set": "triviaqa_openaudiobench"}, Place(tmp_path))
    folder = write_open_audio_bench(tmp_path, "llama_questions", OPEN_AUDIO_BENCH["llama_questions"])
    (folder / "llama_questions.csv").write_text("question,answer\na,b\n")
    with pytest.raises(UserError, match="lacks the columns Questions, Answer, audio_filename"):
        spoken_qa.load_spoken_qa({"set": "llama_questions_openaudiobench"}, Place(tmp_path))
    (folder / "llama_questions.csv").write_text("Questions,Answer,audio_filename\na,b,../../secret.mp3\n")
    with pytest.raises(UserError, match="that is no file name"):
        spoken_qa.load_spoken_qa({"set": "llama_questions_openaudiobench"}, Place(tmp_path))
    (folder / "llama_questions.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        spoken_qa.load_spoken_qa({"set": "llama_questions_openaudiobench"}, Place(tmp_path))
    with pytest.raises(UserError, match="unknown spoken question set 'nq'"):
        spoken_qa.load_spoken_qa({"set": "nq"}, Place(tmp_path))


def test_every_set_has_a_task_of_its_name_and_one_is_the_usual():
    tasks = {spec.name: spec for spec in task_registry.list_tasks()}
    for name in SETS:
        assert tasks[name].config["dataset_kwargs"] == {"source": "spoken_qa", "set": name}
        assert tasks[name].metrics == ["asserted_match", "alias_match", "exact_match", "judge_accuracy"]
        text = yaml.safe_load((tasks[name].path).read_text().replace("!function ", ""))
        assert text["metadata"].get("variant", False) == (not name.endswith("_openaudiobench"))
    for benchmark in ("triviaqa", "webquestions", "llama_questions"):
        [usual] = task_registry.resolve_tasks([benchmark], "full")
        assert usual.name == f"{benchmark}_openaudiobench"
