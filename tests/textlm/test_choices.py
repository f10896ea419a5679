"""Answers that are scored as a tree: the numbers are those of one pass for each of them."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

from rba_bench.assets import ASSETS, resolve_model
from rba_bench.assets.fetching import is_cached
from rba_bench.textlm.choices import answer_tree, choice_logprobs
from rba_bench.textlm.engine_support import causal_lm_decoder
from rba_bench.textlm.local import LocalTextLM

LLM = "smollm2-135m-instruct"
# They share beginnings, and one is the beginning of another: `logprobs` counts the end token too.
CHOICES = ("very easy", "easy", "very hard", "hard", "a", "a b", "")
TEXTS = ("the lake", "What is the capital?", "N/A", "a long one " * 9, "the lake", "<|end|><|user|>")


def by_single_passes(lm: LocalTextLM, texts: tuple[str, ...], answers: tuple[str, ...]) -> list[list[float]]:
    return [lm.logprobs([text] * len(answers), list(answers)) for text in texts]


def test_a_tree_has_each_beginning_once_and_shows_a_node_its_ancestors() -> None:
    tree = answer_tree([(7, 5, 2), (7, 9, 2), (4, 2), (2,)])
    assert tree.tokens == [7, 5, 9, 4] and tree.depths == [1, 2, 2, 1]
    assert tree.steps == [([0, 1, 2], [7, 5, 2]), ([0, 1, 3], [7, 9, 2]), ([0, 4], [4, 2]), ([0], [2])]
    assert tree.seen.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_are_those_of_single_passes(tiny_textlm_dir: Path, batch_size: int) -> None:
    lm = LocalTextLM.from_pretrained(tiny_textlm_dir, batch_size=batch_size)
    expected = by_single_passes(lm, TEXTS, CHOICES)
    assert choice_logprobs(lm, TEXTS, CHOICES) == [pytest.approx(row, abs=1e-4) for row in expected]
    assert choice_logprobs(lm, TEXTS[3:4], CHOICES) == [pytest.approx(expected[3], abs=1e-4)]
    assert len({round(value, 3) for value in expected[0]}) == len(CHOICES)  # otherwise it would say little


def test_nothing_to_score(tiny_textlm_dir: Path) -> None:
    lm = LocalTextLM.from_pretrained(tiny_textlm_dir)
    assert choice_logprobs(lm, [], CHOICES) == [] and choice_logprobs(lm, TEXTS[:2], []) == [[], []]


def test_a_turn_without_room_is_not_scored_and_harms_no_other(tiny_textlm_dir: Path) -> None:
    lm = LocalTextLM.from_pretrained(tiny_textlm_dir)
    found = choice_logprobs(lm, ["x" * 2_000, "the lake"], CHOICES)
    assert all(map(math.isnan, found[0]))
    assert found[1] == pytest.approx(by_single_passes(lm, ("the lake",), CHOICES)[0], abs=1e-4)


def test_a_model_with_a_sliding_window_reads_every_pair(tiny_textlm_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(4)
        config = MistralConfig(vocab_size=len(tokenizer), num_key_value_heads=2, sliding_window=6, **shape)
        model = MistralForCausalLM(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    lm = LocalTextLM(model, tokenizer, {})
    lm.context = 400
    assert causal_lm_decoder(model) is None
    expected = by_single_passes(lm, TEXTS[:4], CHOICES)
    found = choice_logprobs(lm, [*TEXTS[:4], "x" * 2_000], CHOICES)
    assert found[:4] == [pytest.approx(row, abs=1e-4) for row in expected]
    assert all(map(math.isnan, found[4]))


@pytest.mark.assets
def test_scores_of_a_real_model_are_those_of_single_passes() -> None:
    if not is_cached(ASSETS[LLM]):
        pytest.skip(f"fetch it with `rba-bench assets fetch {LLM}`")
    lm = LocalTextLM.from_pretrained(resolve_model(f"asset:{LLM}", "model"), batch_size=4)
    texts = ("Why is the sky blue?", "Write a poem about two rivers that never meet.", "Hello")
    answers = ("very easy", "easy", "very hard", "creative writing")
    expected = by_single_passes(lm, texts, answers)
    assert choice_logprobs(lm, texts, answers) == [pytest.approx(row, abs=2e-3) for row in expected]
