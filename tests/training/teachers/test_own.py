"""The own LLM as a text model, and the training sets it writes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.files import read_jsonl
from rba_bench.textlm.base import Decoding, Generation, TextLM
from rba_bench.textlm.local import LocalTextLM
from rba_bench.training.teacher_options import CONTINUE, TeacherOptions
from rba_bench.training.teachers.answers import FILE, own_answers
from rba_bench.training.teachers.own import PolicyTextLM

TEXTS = ("what is the capital of france", "der hund schläft im garten", "give me a plan")
GREEDY = Decoding(max_new_tokens=8)


def test_the_composites_llm_is_the_text_model_it_was_made_of(
    student: Callable[..., Any], tiny_textlm_dir: Path
) -> None:
    own, plain = PolicyTextLM(student(), "w", 2), LocalTextLM.from_pretrained(tiny_textlm_dir)
    assert isinstance(own, TextLM)
    sampled = Decoding(max_new_tokens=8, temperature=1.0)
    for decoding in (GREEDY, sampled):
        assert own.chat(TEXTS, decoding, [1, 2, 3]) == plain.chat(TEXTS, decoding, [1, 2, 3])
    raw = [own.pre_query_template()] * 2
    assert raw[0] == plain.pre_query_template()
    assert own.complete(raw, sampled, [5, 6]) == plain.complete(raw, sampled, [5, 6])
    responses = ["paris", "the dog", "go early"]
    assert own.logprobs(TEXTS, responses) == pytest.approx(plain.logprobs(TEXTS, responses), abs=1e-3)
    assert own.identity() == {"kind": "self", "path": "self", "weights_sha256": "w"}


@torch.no_grad()
def test_another_family_speaks_by_its_own_template(student: Callable[..., Any]) -> None:
    family = student("qwen2")
    family.model.train()
    own = PolicyTextLM(family, "w")
    answer = own.chat(TEXTS[:1], GREEDY, [0])[0]
    ids, drawn = list(family.text_ids(TEXTS[0])), []
    family.model.eval()
    for _ in range(8):
        token = int(family.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in family.stops:
            break
        drawn.append(token)
        ids.append(token)
    assert answer.text == family.tokenizer.decode(drawn, skip_special_tokens=True).strip()
    assert answer.n_tokens == len(drawn)
    tokens = family.answer_ids("paris")
    whole = torch.tensor([[*family.text_ids(TEXTS[0]), *tokens]])
    odds = family.model(input_ids=whole).logits[0, -len(tokens) - 1 : -1].log_softmax(-1)
    expected = float(odds.gather(-1, torch.tensor(tokens)[:, None]).sum())
    family.model.train()
    assert own.logprobs(TEXTS, ["paris", "a", "b c d"])[0] == pytest.approx(expected, abs=1e-3)
    assert family.model.training


def test_adapters_can_be_left_out(student: Callable[..., Any]) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    family = student()
    before = PolicyTextLM(family, "w").chat(TEXTS, GREEDY, [0, 0, 0])
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj", "v_proj"]), family.decoder)
    with torch.no_grad():
        for name, weight in family.decoder.named_parameters():
            if "lora_" in name:
                weight.normal_()
    assert PolicyTextLM(family, "w", adapters=False).chat(TEXTS, GREEDY, [0, 0, 0]) == before
    assert PolicyTextLM(family, "w").chat(TEXTS, GREEDY, [0, 0, 0]) != before


class Author:
    """Answers by rule, counts what it is asked, and may stop in the middle."""

    def __init__(self, weights: str = "w", stop_after: int | None = None) -> None:
        self.weights = weights
        self.stop_after = stop_after
        self.asked: list[str] = []

    def identity(self) -> dict[str, Any]:
        return {"kind": "self", "path": "anywhere", "weights_sha256": self.weights}

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += user_texts
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


def test_answers_replace_the_teachers(
    rows: list[AlignmentRow], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    author = Author()
    made = own_answers(rows, author, "answer", tmp_path)
    assert sorted(author.asked) == sorted(
        {row.user_text for row in rows}
    )  # one an instruction, not one a voice
    assert [row.id for row in made] == [row.id for row in rows if row.group_id not in ("g3", "g4")]
    by_id = {row.id: row for row in rows}
    assert all(row.response == f"{row.instruction.split()[-1]} 0" for row in made)
    assert all((row.prompt, row.audio) == (by_id[row.id].prompt, by_id[row.id].audio) for row in made)
    message = capsys.readouterr().err
    assert "5 of 7 instructions used, left out: 1 empty, 1 truncated" in message and FILE in message


def test_continuing_is_asked_of_the_student_too(rows: list[AlignmentRow], tmp_path: Path) -> None:
    author = Author()
    made = own_answers(rows, author, "continue", tmp_path)
    assert all(row.prompt == CONTINUE for row in made)
    assert f"{CONTINUE} der hund ist im garten" in author.asked  # the set's own prompt is gone
    assert all(row.user_text in author.asked for row in made)


def test_a_stopped_author_goes_on(rows: list[AlignmentRow], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        own_answers(rows, Author(stop_after=4), "answer", tmp_path, batch_size=2)
    path = tmp_path / FILE
    assert len(list(read_jsonl(path))) == 4
    with open(path, "a") as file:
        file.write('{"key": "torn')
    again = Author()
    made = own_answers(rows, again, "answer", tmp_path, batch_size=2)
    assert len(again.asked) == 3
    assert made == own_answers(rows, Author(stop_after=0), "answer", tmp_path)  # nothing more to ask
    fresh = own_answers(rows, Author(), "answer", tmp_path / "fresh")
    assert made == fresh
    assert [json.loads(line)["mode"] for line in path.read_text().splitlines()] == ["answer"] * 7


def test_what_decides_an_answer_is_in_its_key(rows: list[AlignmentRow], tmp_path: Path) -> None:
    def asked(author: Author | None = None, **options: Any) -> int:
        author = author or Author()
        own_answers(rows, author, options.pop("mode", "answer"), tmp_path, **options)
        return len(author.asked)

    assert asked() == 7 and asked() == 0
    assert asked(Author("other weights")) == 7
    assert asked(mode="continue") == 7 and asked(mode="continue", prompt="go on :") == 7
    assert asked(decoding=Decoding(9)) == 7
    sampled = Decoding(9, 1.0)
    assert asked(decoding=sampled, seed=1) == 7 and asked(decoding=sampled, seed=2) == 7
    assert asked(decoding=sampled, seed=1) == 0 and asked(seed=2) == 0  # greedy answers need no seed


def test_no_usable_answer_is_an_error(rows: list[AlignmentRow], tmp_path: Path) -> None:
    some = [row for row in rows if row.group_id in ("g3", "g4")]
    with pytest.raises(RbaError, match=r"no usable answer to 2 transcripts \(1 empty, 1 truncated\)"):
        own_answers(some, Author(), "answer", tmp_path)


def test_the_policys_own_llm_writes_a_set(
    student: Callable[..., Any], rows: list[AlignmentRow], tmp_path: Path
) -> None:
    family = student()
    louder = torch.zeros(family.model.get_output_embeddings().weight.shape[0])
    louder[family.stops] = 6.0  # a random model hardly ever ends
    family.model.get_output_embeddings().register_forward_hook(lambda module, given, logits: logits + louder)
    own = PolicyTextLM(family, "w")
    few = [row for row in rows if row.group_id in ("g0", "g1", "g2", "g3")]
    made = own_answers(few, own, "answer", tmp_path, decoding=Decoding(40, 1.0), seed=4)
    texts = sorted({row.user_text for row in made})
    assert 0 < len(texts) <= 4
    record = next(record for record in read_jsonl(tmp_path / FILE) if record["status"] == "ok")
    assert record["response"] == next(row.response for row in made if row.group_id == record["group_id"])


def test_options_refuse_what_cannot_be() -> None:
    assert TeacherOptions().answers.prompt == CONTINUE
    for wrong in (
        {"jsd_weight": 1.5},
        {"temperature": 0},
        {"top_k": -1},
        {"answers": {"prompt": " "}},
        {"model_": 1},
    ):
        with pytest.raises(ValueError, match="validation error"):
            TeacherOptions.model_validate(wrong)
