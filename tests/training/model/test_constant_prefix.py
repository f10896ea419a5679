"""Constant text before the audio is computed once: what is left out of the rows changes no value and no gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.packing import Response, plan_layout
from rba_bench.training.model import constant_prefix
from rba_bench.training.model import trainable_parts as parts
from rba_bench.training.model.building import make_reference
from rba_bench.training.model.constant_prefix import Openings, openings_of
from rba_bench.training.model.frozen_models import FrozenModels
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.training_run import train
from tests.training.test_training_run import log, same, stop_at  # noqa: F401  (a fixture)

SOUND = 99
BRANCHES = [
    Response(0, (30, 31, 32, 4)),
    Response(0, (40, 4)),
    Response(1, (4,)),
    Response(1, (50, 51, 52, 53, 4)),
    Response(2, (9,)),
    Response(3, (60, 61)),
]


def prompts(*rows: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in rows]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Openings of any length count."""
    monkeypatch.setattr(constant_prefix, "SHORTEST", 1)


def test_openings_are_what_stands_before_the_audio(short: None) -> None:
    found = openings_of(
        prompts([1, 2, SOUND, 3], [1, 2, 5, SOUND, 3], [1, 2, SOUND, SOUND], [1, 2, 5, 7], [1, 2]), SOUND
    )
    assert found.texts == ((1, 2, 5), (1, 2))
    assert found.of_clip == (1, 0, 1, 0, -1)  # the last has nothing behind it to predict from
    assert [found.length(clip) for clip in range(5)] == [2, 3, 2, 3, 0]
    assert found.columns == (0, 0, 0, 1, 1)


def test_of_many_openings_only_what_all_share_is_taken(short: None) -> None:
    rows = prompts(*([1, 2, number, SOUND] for number in range(10, 16)))
    assert openings_of(rows, SOUND) == Openings(((1, 2),), (0,) * 6)
    assert openings_of([*rows, torch.tensor([8, SOUND])], SOUND) == Openings()


def test_short_openings_stay_in_the_rows() -> None:
    assert openings_of(prompts([1, 2, SOUND, 3]), SOUND) == Openings()
    assert openings_of(prompts([*range(8), SOUND]), SOUND).texts == (tuple(range(8)),)


def test_rows_begin_behind_their_openings() -> None:
    made = plan_layout(
        prompts([7, 8, 9, SOUND], [7, SOUND]),
        [Response(0, (1, 2)), Response(1, (3,)), Response(0, (4, 5))],
        openings=Openings(((7, 8, 9), (7,)), (0, 1)),
        reach=1000.0,
    )
    assert made.input_ids.tolist() == [[SOUND, 1, 4, SOUND]]
    assert made.position_ids.tolist() == [[3, 4, 4, 1]]
    assert made.sources.tolist() == [[0, 1], [3, 0], [0, 2]]
    seen = made.attention_mask(torch.float32)
    assert seen is not None
    assert (seen[0, 0] == 0).int().tolist() == [
        [1, 1, 1, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0, 1, 0],
        [0, 0, 0, 1, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("mode", ["pack", "share", "pad"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_values_and_gradients_are_those_of_whole_rows(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    attention: str,
) -> None:
    family.model.set_attn_implementation(attention)
    parts.freeze(family, ["projector"])
    store = store_for(family)
    clips = [*store.get([rows[0], rows[6], rows[9]]), *store.text([rows[3]])]  # with a prompt, without, text
    found = []
    for shortest in (1, 10**6):
        monkeypatch.setattr(constant_prefix, "SHORTEST", shortest)
        family.model.zero_grad()
        policy = SpeechPolicy(family, layout=mode)
        scores = policy(clips, BRANCHES, extra_outputs=("hidden",))
        assert bool(policy.openings._known) == (shortest == 1)
        (scores.logprobs * torch.arange(len(BRANCHES))[:, None]).sum().backward()
        gradients = [p.grad.clone() for p in family.model.parameters() if p.grad is not None]
        found.append((scores.logprobs.detach(), scores.hidden.detach(), gradients))
    (values, hidden, gradients), (whole, states, expected) = found
    torch.testing.assert_close(values, whole, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(hidden, states, atol=2e-5, rtol=1e-4)
    assert len(gradients) == len(expected) == 6
    for mine, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5 * float(other.abs().max()), rtol=1e-4)


def test_nothing_is_left_out_where_the_language_model_moves(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], short: None
) -> None:
    clips = store_for(family).get([rows[0]])
    policy = SpeechPolicy(family)
    response = BRANCHES[:1]
    for change in ("trains", "recomputes", "shared out"):
        parts.freeze(family, ["projector", "llm"] if change == "trains" else ["projector"])
        family.decoder.gradient_checkpointing = change == "recomputes"
        policy.sharded = change == "shared out"
        policy(clips, response)
        assert not policy.openings._known, change
    policy.sharded = False
    policy(clips, response)
    assert list(policy.openings._known) == [(tuple(clips[0].prompt_ids[:2].tolist()), False)]


def test_a_reference_that_takes_over_new_weights_reads_its_openings_again(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], short: None
) -> None:
    parts.freeze(family, ["projector", "llm"])
    policy = SpeechPolicy(family).eval()
    reference = make_reference(policy)
    store = store_for(family)
    clips = store.get([rows[0]])
    before = reference(clips, BRANCHES[:1]).logprobs
    assert reference.openings._known
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name in trained:
                parameter.mul_(1.1)
    FrozenModels(store, reference, None, trained).renew_reference(policy)
    after = reference(clips, BRANCHES[:1]).logprobs
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, policy(clips, BRANCHES[:1]).logprobs, atol=2e-5, rtol=1e-5)


def test_a_connector_learns_the_same_and_resumes_bit_for_bit(
    recipe_for: Callable[..., Any],
    tmp_path: Any,
    stop_at: Callable[[int], None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_for(method="sft", train_parts=["projector"], steps=4, log_every=1)
    train(recipe, tmp_path / "whole rows")
    monkeypatch.setattr(constant_prefix, "SHORTEST", 1)
    train(recipe, tmp_path / "openings")
    first, second = (log(tmp_path / name) for name in ("whole rows", "openings"))
    for one, other in zip(first, second, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
    stop_at(2)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "parts")
    stop_at(0)
    train(recipe, tmp_path / "parts")
    same(tmp_path / "openings", tmp_path / "parts")
