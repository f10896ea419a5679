"""Token-level distillation needs one vocabulary: token n must be the same token to student and teacher."""

from collections.abc import Collection
from typing import Any

from rba_bench.errors import UserError


def shared_vocabulary(
    student: Any,
    teacher: Any,
    *,
    student_rows: int,
    teacher_rows: int,
    end_ids: Collection[int],
    audio_token_id: int | None = None,
    name: str = "teacher",
) -> int:
    """How many tokens, counted from 0, both sides can be compared on.

    Heads often have more rows than there are tokens, and not equally many; such rows are cut off. Special and added
    tokens that only one side knows, the audio placeholder above all, do not matter: no answer holds them.

    Args:
        student: tokenizer of the speech model.
        teacher: tokenizer of the text teacher.
        student_rows: tokens that the student's head names.
        teacher_rows: tokens that the teacher's head names.
        end_ids: tokens that end the student's answers.
        audio_token_id: the student's placeholder.
        name: the teacher, for the message.

    Returns:
        The number of tokens that both heads name.

    Raises:
        UserError: a token that an answer can hold is another one to the teacher, or none.
    """
    ours, theirs = _by_id(student), _by_id(teacher)
    rows = min(student_rows, teacher_rows)
    extra = {*_added(student), *_added(teacher)} - set(end_ids)
    for token in sorted({*ours, *theirs}):
        if token >= student_rows or token == audio_token_id:
            continue  # nothing that the student says
        same = ours.get(token) == theirs.get(token) and token < rows
        if not same and not (token in extra and (token not in ours or token not in theirs)):
            raise UserError(
                f"teacher.model {name} has another vocabulary than the student: token {token} is "
                f"{_shown(theirs.get(token))} to the one and {_shown(ours.get(token))} to the other; use "
                "`teacher.model: self` or a text model of the student's family, or learn from the teacher's text "
                "(method sft)"
            )
    return rows


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {int(number): token for token, number in tokenizer.get_vocab().items()}


def _added(tokenizer: Any) -> set[int]:
    return {*getattr(tokenizer, "added_tokens_decoder", {}), *tokenizer.all_special_ids}


def _shown(token: str | None) -> str:
    return "none" if token is None else repr(token)
