"""What of a sample is rewarded: what evaluation would score."""

from collections.abc import Callable
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training import collect, methods
from rba_bench.training.clips import ResponseTokens
from rba_bench.training.pairs import Voice
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rollout import Draw


@pytest.mark.parametrize(
    ("said", "rewarded"),
    [
        ("<think>a bag ?</think>paris<|end|>", "paris"),
        ("paris<|end|>", "paris"),
        ("paris<|user|>what else<|end|>", "paris"),
        ("<think>paris", ""),
    ],
)
def test_thinking_and_marks_of_the_template_are_not_rewarded(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    rewarded: str,
) -> None:
    recipe = TrainingRecipe(method="rba-group")
    tokens = tuple(family.tokenizer(said, add_special_tokens=False)["input_ids"])
    monkeypatch.setattr(
        collect, "sample", lambda _policy, _clips, asked, *_, **__: [Draw(tokens, True)] * len(asked)
    )
    policy, store, responder = SpeechPolicy(family), store_for(family), ResponseTokens(family)
    method = methods.make(recipe, responder.end_ids)
    made = collect.Collector(recipe, method, policy, store, responder)
    [sample] = made.answer([Voice(rows[3], 0, 0.0)], 0)
    assert (sample.text, sample.tokens) == (rewarded, tokens)
