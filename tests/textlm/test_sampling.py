"""The one call of `generate`: what it is told, how answers are cut, and what becomes of drawn tokens."""

from typing import Any, ClassVar

import pytest
import torch
from tokenizers import AddedToken

from rba_bench.textlm.sampling import (
    Continuation,
    continue_batch,
    to_generation,
)
from rba_bench.textlm.text_model import Decoding


class Scripted:
    """Generates fixed tokens, as `generate` returns them: prompt first, then what a row drew, then padding."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows
        self.generation_config: Any = "shipped"
        self.seen: dict[str, Any] = {}

    def generate(self, **kwargs: Any) -> torch.Tensor:
        self.seen = {**kwargs, "defaults": self.generation_config}
        drawn = torch.tensor(self.rows)
        return torch.cat([kwargs["input_ids"], drawn], dim=1) if "input_ids" in kwargs else drawn


def test_answers_are_cut_at_the_first_stop_token() -> None:
    model = Scripted([[5, 6, 2, 0], [5, 9, 0, 0], [2, 0, 0, 0], [5, 6, 7, 2], [5, 6, 7, 8]])
    inputs = {"input_ids": torch.ones(5, 3, dtype=torch.long)}
    found = continue_batch(model, inputs, Decoding(max_new_tokens=3), [0] * 5, stop_ids=[2, 9], pad_id=0)
    assert found == [
        Continuation([5, 6], True),
        Continuation([5], True),
        Continuation([], True),
        Continuation([5, 6, 7], True),  # exactly as long as allowed, and it ended
        Continuation([5, 6, 7], False),
    ]


def test_embedded_prompts_are_not_part_of_the_output() -> None:
    model = Scripted([[5, 2]])
    inputs = {"inputs_embeds": torch.zeros(1, 7, 4)}
    found = continue_batch(model, inputs, Decoding(), [0], stop_ids=[2], pad_id=0)
    assert found == [Continuation([5], True)]


def test_shipped_generation_defaults_are_hidden_and_put_back() -> None:
    model = Scripted([[2]])
    continue_batch(model, {"inputs_embeds": None}, Decoding(), [0], stop_ids=[2], pad_id=0)
    assert model.seen["defaults"].repetition_penalty in (None, 1.0)
    assert model.generation_config == "shipped"
    assert model.seen["do_sample"] is False
    assert not model.seen["logits_processor"]


class Words:
    """Decodes token 1 as a space and others as letters."""

    all_special_ids: tuple[int, ...] = ()

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(" " if token == 1 else chr(ord("a") + token) for token in tokens)


@pytest.mark.parametrize(
    ("tokens", "ended", "text", "status"),
    [
        ([1, 2, 3, 1], True, "cd", "ok"),
        ([2, 3], False, "cd", "truncated"),
        ([], True, "", "empty"),
        ([1, 1], True, "", "empty"),
        ([1, 1], False, "", "empty"),
    ],
)
def test_statuses(tokens: list[int], ended: bool, text: str, status: str) -> None:
    generation = to_generation(Words(), Continuation(tokens, ended))
    assert (generation.text, generation.status, generation.n_tokens) == (text, status, len(tokens))


class Tokens(Words):
    """Three added tokens: one that marks thinking, one that marks a turn, one that does neither."""

    all_special_ids = (7, 8, 9)
    added_tokens_decoder: ClassVar = {
        7: AddedToken("[THINK]", special=True),
        8: AddedToken("<|im_start|>", special=True),
        9: AddedToken("<|pad|>", special=True),
        10: AddedToken("<think>", special=False),
    }

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        names = {i: str(token) for i, token in self.added_tokens_decoder.items()}
        kept = [t for t in tokens if not (skip_special_tokens and t in self.all_special_ids)]
        return "".join(names.get(t, " abcdef"[min(t, 6)]) for t in kept)


def test_special_tokens_that_mark_thinking_or_turns_are_seen_and_others_are_not() -> None:
    found = to_generation(Tokens(), Continuation([7, 2, 9, 3, 8, 4], True))
    assert found.text == "[THINK]bc<|im_start|>d"
    assert to_generation(Tokens(), Continuation([2, 9, 3], True)).text == "bc"


def test_the_tag_that_the_prompt_has_opened_stands_before_the_reply() -> None:
    found = to_generation(Tokens(), Continuation([2, 3], False), "<think>\n")
    assert (found.text, found.status) == ("<think>\nbc", "truncated")
