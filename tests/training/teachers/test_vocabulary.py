"""Only models of one vocabulary learn from each other token by token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.training.options.nested_options import TeacherOptions
from rba_bench.training.teachers.text_teacher import make_text_teacher, shared_vocabulary


class Words:
    """A tokenizer as far as this is concerned: `words` from 0, then `added` special ones."""

    def __init__(self, words: str, added: str = "") -> None:
        names = [*words.split(), *added.split()]
        self.added_tokens_decoder = dict(list(enumerate(names))[len(words.split()) :])
        self.all_special_ids = list(self.added_tokens_decoder)
        self._ids = {name: number for number, name in enumerate(names)}

    def get_vocab(self) -> dict[str, int]:
        return self._ids


def shared(ours: Words, theirs: Words, rows: tuple[int, int] = (10, 10), **options: Any) -> int:
    return shared_vocabulary(
        ours, theirs, student_rows=rows[0], teacher_rows=rows[1], **{"end_ids": [0], **options}, name="big"
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "rows", "options", "expected"),
    [
        (Words("</s> a b"), Words("</s> a b"), (3, 3), {}, 3),
        (Words("</s> a b"), Words("</s> a b"), (8, 64), {}, 8),  # padding rows
        (Words("</s> a b", "<audio>"), Words("</s> a b"), (4, 3), {"audio_token_id": 3}, 3),
        (Words("</s> a b", "<audio> <bos>"), Words("</s> a b"), (8, 8), {"audio_token_id": 3}, 8),
        (Words("</s> a b", "<audio>"), Words("</s> a b", "<tool>"), (8, 8), {"audio_token_id": 3}, 8),
        (Words("</s> a b"), Words("</s> a b c d"), (3, 5), {}, 3),  # the student cannot say c
    ],
)
def test_one_vocabulary(
    ours: Words, theirs: Words, rows: tuple[int, int], options: Any, expected: int
) -> None:
    assert shared(ours, theirs, rows, **options) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "rows", "options", "named"),
    [
        (
            Words("</s> a b"),
            Words("</s> b a"),
            (3, 3),
            {},
            "token 1 is 'b' for the teacher and 'a' for the student",
        ),
        (Words("</s> a b c"), Words("</s> a b"), (4, 4), {}, "token 3 is none for the teacher and 'c'"),
        (Words("</s> a b"), Words("</s> a b c"), (4, 4), {}, "token 3 is 'c' for the teacher and none"),
        (Words("</s> a b"), Words("</s> a b"), (3, 2), {}, "token 2"),  # its head does not name b
        (
            Words("a b", "<end>"),
            Words("a b"),
            (3, 3),
            {"end_ids": [2]},
            "token 2 is none for the teacher and '<end>'",
        ),
        (Words("a b", "<x>"), Words("a b", "<y>"), (3, 3), {}, "token 2 is '<y>' for the teacher and '<x>'"),
    ],
)
def test_another_vocabulary(
    ours: Words, theirs: Words, rows: tuple[int, int], options: Any, named: str
) -> None:
    with pytest.raises(UserError, match=rf"teacher\.model big has another vocabulary .*{named}"):
        shared(ours, theirs, rows, **options)


def test_a_teacher_of_another_family_is_refused_before_it_is_loaded(
    student: Callable[..., Any], tiny_textlm_dir: Path, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
    tokenizer = tokenizer.train_new_from_iterator(["entirely other words and no german"] * 9, 300)
    tokenizer.save_pretrained(tmp_path)
    AutoConfig.from_pretrained(tiny_textlm_dir).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"teacher\.model .* another vocabulary .*method sft"):
        make_text_teacher(TeacherOptions(model=str(tmp_path)), student(), weights="w", shared=True)
