"""Gumbel-max sampling: the right distribution, and a row's draw depends on its seed alone."""

from typing import Any, ClassVar

import pytest
import torch
from tokenizers import AddedToken

from rba_bench.textlm.base import Decoding
from rba_bench.textlm.sampling import (
    Continuation,
    PerRequestGumbel,
    continue_batch,
    keep_nucleus,
    to_generation,
)

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
DRAWS = 20_000
IDS = torch.zeros(1, 1, dtype=torch.long)


def frequencies(temperature: float, top_p: float) -> torch.Tensor:
    """Relative frequencies of DRAWS draws: 200 rows with a seed each, 100 steps."""
    sampler = PerRequestGumbel(range(200), temperature, top_p)
    counts = torch.zeros(len(LOGITS), dtype=torch.float64)
    for _ in range(DRAWS // 200):
        counts += torch.bincount(sampler(IDS, LOGITS.expand(200, -1)).argmax(dim=-1), minlength=len(LOGITS))
    return counts / DRAWS


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_the_softmax(temperature: float) -> None:
    expected = (LOGITS.double() / temperature).softmax(dim=-1)
    deviation = (frequencies(temperature, 1.0) - expected).abs()
    assert (deviation < 4 * (expected * (1 - expected) / DRAWS).sqrt()).all()  # 4 standard errors each


@pytest.mark.parametrize(("temperature", "top_p", "kept"), [(1.0, 0.8, 3), (0.5, 0.8, 1), (2.0, 0.5, 2)])
def test_frequencies_with_a_nucleus(temperature: float, top_p: float, kept: int) -> None:
    expected = (LOGITS.double() / temperature).softmax(dim=-1)
    assert expected[:kept].sum() >= top_p > expected[: kept - 1].sum()  # LOGITS are in falling order
    expected = torch.where(torch.arange(len(LOGITS)) < kept, expected, 0.0) / expected[:kept].sum()
    found = frequencies(temperature, top_p)
    assert (found[kept:] == 0).all()
    assert ((found - expected).abs() <= 4 * (expected * (1 - expected) / DRAWS).sqrt()).all()


def test_nucleus_does_not_need_sorted_logits_and_keeps_one_token() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = LOGITS[order][None]
    kept = keep_nucleus(shuffled, 0.8).isfinite()[0]
    assert sorted(order[kept].tolist()) == [0, 1, 2]
    assert keep_nucleus(shuffled, 1e-9).isfinite().sum() == 1


def draws(seeds: list[int], steps: int = 30) -> list[list[int]]:
    sampler = PerRequestGumbel(seeds)
    flat = torch.zeros(len(seeds), 50)
    return torch.stack([sampler(IDS, flat).argmax(dim=-1) for _ in range(steps)], dim=1).tolist()


def test_a_row_depends_on_its_seed_alone() -> None:
    together = draws([3, 1, 2**62, 3])
    assert together[0] == together[3] == draws([3])[0]
    assert together[1] == draws([9, 1])[1]
    assert together[2] == draws([2**62])[0]
    assert together[0] != together[1]


def test_steps_are_independent() -> None:
    """Neighbouring steps of one row agree as often as chance has it: once in 50."""
    rows = torch.tensor(draws(list(range(300)), steps=20))
    agreement = (rows[:, 1:] == rows[:, :-1]).double().mean()
    assert abs(agreement - 0.02) < 4 * (0.02 * 0.98 / (300 * 19)) ** 0.5


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = draws([7])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert draws([7]) == first


def test_rows_must_match_seeds() -> None:
    with pytest.raises(ValueError, match="2 rows for 3 seeds"):
        PerRequestGumbel([1, 2, 3])(IDS, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="temperature above 0"):
        PerRequestGumbel([1], temperature=0.0)


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
