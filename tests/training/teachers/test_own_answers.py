"""Sets whose answers the own LLM writes: shared out over processes, kept on disk, resumed, counted."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.textlm.text_model import Decoding, Generation, TextLM
from rba_bench.training.data.groups import TrainingData, choices
from rba_bench.training.options.nested_options import CONTINUE
from rba_bench.training.teachers.own_answers import (
    FOLDER,
    AnswerSettings,
    OwnAnswers,
    WithOwnAnswers,
    own_answers,
)
from rba_bench.training.teachers.readers import PolicyTextLM
from rba_bench.training.training_run import train

Data = TrainingData


class Author(TextLM):
    """Answers by rule, counts what it is asked, and may stop in the middle."""

    def __init__(self, weights: str = "w", stop_after: int | None = None) -> None:
        self.weights = weights
        self.stop_after = stop_after
        self.asked: list[list[str]] = []

    def identity(self) -> dict[str, Any]:
        return {"kind": "self", "path": "anywhere", "weights_sha256": self.weights}

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(list(user_texts))
        return [self._answer(text, seed) for text, seed in zip(user_texts, seeds, strict=True)]

    def _answer(self, text: str, seed: int) -> Generation:
        if "river" in text:
            return Generation("the longest answer that", 4, "truncated")
        if "letter" in text:
            return Generation("", 0, "empty")
        return Generation(f"{text.split()[-1]} {seed % 1000}", 2, "ok")

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        raise NotImplementedError

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        raise NotImplementedError

    def pre_query_template(self) -> str:
        raise NotImplementedError


@pytest.fixture
def data(alignment_dir: Path) -> Data:
    """Six groups to train on, one held out."""
    return TrainingData.open(choices(str(alignment_dir)))


def asked(data: Data, author: Author, folder: Path, **options: Any) -> OwnAnswers:
    process = options.pop("process", (0, 1))
    way = AnswerSettings(**{"mode": "answer", **options})
    return own_answers(data.train, data.sha256, author, way, folder, process)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_answers_replace_the_teachers(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    author = Author()
    made = asked(data, author, tmp_path)
    texts = [text for batch in author.asked for text in batch]
    assert sorted(texts) == sorted(rows[0].user_text for rows in data.train.values())  # not one a voice
    assert list(made) == list(made.ids) == ["g0", "g1", "g2", "g5"] and len(made) == 4
    for group, rows in made.items():
        before = data.train[group]
        assert [(row.id, row.prompt, row.audio) for row in rows] == [
            (row.id, row.prompt, row.audio) for row in before
        ]
        assert {row.response for row in rows} == {f"{before[0].instruction.split()[-1]} 0"}
    with pytest.raises(KeyError):
        made["g3"]
    assert made.counts == {"ok": 4, "empty": 1, "truncated": 1, "error": 0}
    message = capsys.readouterr().err
    assert "4 of 6 instructions used, left out: 1 empty, 1 truncated" in message and FOLDER in message
    both = WithOwnAnswers(made, data.validation)
    assert list(both) == [*made, "g6"] and len(both) == 5
    assert both["g6"] == data.validation["g6"] and both["g0"] == made["g0"]


def test_continuing_is_asked_of_the_student_too(data: Data, tmp_path: Path) -> None:
    author = Author()
    made = asked(data, author, tmp_path, mode="continue")
    assert all(row.prompt == CONTINUE for rows in made.values() for row in rows)
    (texts,) = author.asked
    assert f"{CONTINUE} der hund schläft im garten" in texts  # the set's own prompt is gone
    assert all(rows[0].user_text in texts for rows in made.values())


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_write_the_bytes_of_one(data: Data, tmp_path: Path, size: int) -> None:
    """With one transcript a batch the six groups are two blocks: of five processes three have nothing to ask."""
    options: dict[str, Any] = {"batch_size": 1, "decoding": Decoding(9, 1.0), "seed": 3}
    alone = asked(data, Author(), tmp_path / "one", **options)
    authors = [Author() for _ in range(size)]

    class TurnOfAnother(Exception):
        pass

    def wait(seconds: float) -> None:
        raise TurnOfAnother

    way = AnswerSettings(mode="answer", **options)
    open_ = list(range(size))
    while open_:  # whoever has to wait is asked again later
        mine = open_.pop(0)
        try:
            made = own_answers(
                data.train, data.sha256, authors[mine], way, tmp_path / "many", (mine, size), wait
            )
        except TurnOfAnother:
            open_.append(mine)
            continue
        assert dict(made) == dict(alone)
    assert files(tmp_path / "many") == files(tmp_path / "one")
    counts = [len(author.asked) for author in authors]
    assert sum(counts) == 6 and counts[:2] == [4, 2]


def test_a_stopped_author_goes_on_behind_its_last_batch(data: Data, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(data, Author(stop_after=2), tmp_path / "stopped", batch_size=2)
    (path,) = tmp_path.rglob("*.open.jsonl")
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    # the second batch is torn: it is asked again as a whole, as an answer may depend on its batch by rounding
    path.write_text("\n".join(lines[:3]) + '\n{"group_id": "torn')
    again, fresh = Author(), Author()
    made = asked(data, again, tmp_path / "stopped", batch_size=2)
    assert dict(made) == dict(asked(data, fresh, tmp_path / "fresh", batch_size=2))
    assert again.asked == fresh.asked[1:]
    assert files(tmp_path / "stopped") == files(tmp_path / "fresh")
    silent = Author()
    asked(data, silent, tmp_path / "stopped", batch_size=2)
    assert silent.asked == []


def test_what_decides_an_answer_has_a_folder_of_its_own(data: Data, tmp_path: Path) -> None:
    def questions(author: Author | None = None, **options: Any) -> int:
        author = author or Author()
        asked(data, author, tmp_path, **options)
        return sum(map(len, author.asked))

    assert questions() == 6 and questions() == 0
    assert questions(Author("other weights")) == 6
    assert questions(mode="continue") == 6 and questions(mode="continue", prompt="go on :") == 6
    assert questions(decoding=Decoding(9)) == 6
    sampled = Decoding(9, 1.0)
    assert questions(decoding=sampled, seed=1) == 6 and questions(decoding=sampled, seed=2) == 6
    assert questions(decoding=sampled, seed=1) == 0 and questions(seed=2) == 0  # greedy answers need no seed
    assert questions(prompt="unused") == 0


def test_no_usable_answer_is_an_error(data: Data, tmp_path: Path) -> None:
    index = data.sources[0].index
    out = np.ones(len(index.seconds), dtype=bool)
    for group in ("g3", "g4"):
        number = index.find(group)
        out[int(index.starts[number]) : int(index.starts[number + 1])] = False
    data.leave_out([out])
    with pytest.raises(RbaError, match=r"no usable answer to 2 transcripts \(1 empty, 1 truncated\)"):
        asked(data, Author(), tmp_path)


def test_the_policys_own_llm_writes_a_set(student: Callable[..., Any], data: Data, tmp_path: Path) -> None:
    family = student()
    louder = torch.zeros(family.model.get_output_embeddings().weight.shape[0])
    louder[family.stops] = 6.0  # a random model hardly ever ends
    family.model.get_output_embeddings().register_forward_hook(lambda module, given, logits: logits + louder)
    way = AnswerSettings("answer", decoding=Decoding(40, 1.0), seed=4)
    made = own_answers(data.train, data.sha256, PolicyTextLM(family, "w"), way, tmp_path)
    (part,) = tmp_path.rglob("part-*.jsonl")
    records = {record["group_id"]: record for record in map(json.loads, part.read_text().splitlines())}
    assert 0 < len(made) == sum(record["status"] == "ok" for record in records.values())
    for group, rows in made.items():
        assert records[group]["text"] == rows[0].user_text
        assert {row.response for row in rows} == {records[group]["response"]}


def test_the_model_is_on_its_device_in_its_precision_before_it_answers(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is asked behind the move to the device: an 8B model on the CPU would never end."""
    from rba_bench.training.model.policy import SpeechPolicy

    order: list[str] = []
    moved, chat = SpeechPolicy.to, PolicyTextLM.chat

    def to(self: SpeechPolicy, *args: Any, **kwargs: Any) -> SpeechPolicy:
        order.append("device")
        return moved(self, *args, **kwargs)

    def answer(self: PolicyTextLM, texts: Any, decoding: Any, seeds: Any) -> list[Generation]:
        order.append(f"half {self.half}")
        chat(self, texts, decoding, seeds)
        return [Generation("the lake", 2, "ok") for _ in texts]

    monkeypatch.setattr(SpeechPolicy, "to", to)
    monkeypatch.setattr(PolicyTextLM, "chat", answer)
    changes: dict[str, Any] = {
        "method": "blsp",
        "steps": 1,
        "precision": "bfloat16",
        "train_parts": ["projector"],
    }
    result = train(recipe_for(**changes, teacher={"answers": {"max_new_tokens": 3}}), tmp_path)
    assert order[:2] == ["device", "half True"] and result.steps == 1


def test_rows_are_read_when_they_are_wanted(data: Data, tmp_path: Path) -> None:
    made = asked(data, Author(), tmp_path)
    held = {name for name, value in vars(made).items() if isinstance(value, list | dict)}
    assert held <= {"counts"}  # numbers of the usable groups, and an index that is mapped into memory
    row: AlignmentRow = made["g0"][0]
    (part,) = tmp_path.rglob("part-*.jsonl")
    part.write_text(part.read_text().replace(row.response, "xyzzy 0"))
    assert made["g0"][0].response == "xyzzy 0"
