"""TARS's two reward parts, by hand and against transformers' own hidden states."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite
from rba_bench.training import methods
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import Sample
from rba_bench.training.model import building as build
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.rewards.trajectory import Extra, Trajectories, layer_likeness, match_partners
from rba_bench.training.rollouts import buffer as collect
from rba_bench.training.training_recipe import TrainingRecipe

NAN = float("nan")


def samples(rows: list[AlignmentRow], spoken: int, read: int) -> list[Sample]:
    """Spoken answers, then answers to the transcript, each of its own words."""
    return [
        Sample(rows[n % 2], (10 + n, 20 + n, 4)[n % 2 :], True, f"word {n}", as_text=n >= spoken)
        for n in range(spoken + read)
    ]


def test_spoken_answers_take_turns_with_the_correct_answers_to_the_transcript(
    rows: list[AlignmentRow],
) -> None:
    group = samples(rows, 3, 4)
    assert match_partners(group, [9, 9, 9, 0, 1, NAN, 2], 1.0) == [(0, 4), (1, 6), (2, 4)]
    assert match_partners(group, [9, 9, 9, 0, 0.5, NAN, 0], 1.0) == []
    greedy = [*group[:2], replace(group[2], greedy=True), *group[3:]]
    assert match_partners(greedy, [0.0] * 3 + [1.0] * 4, 1.0) == [(0, 3), (1, 4)]


def hidden(family: Any, clip: Any, tokens: tuple[int, ...]) -> list[torch.Tensor]:
    """States at an answer's tokens but the last, behind each layer, through transformers' ordinary forward pass."""
    ids = torch.cat([clip.prompt_ids, torch.tensor(tokens)])[None]
    heard = {} if clip.sound is None else {"audio_states": clip.sound[None]}
    states = family.model(input_ids=ids, output_hidden_states=True, **heard).hidden_states
    start = len(clip.prompt_ids)
    return [layer[0, start : start + len(tokens) - 1] for layer in states[1:]]  # the first are the embeddings


@pytest.mark.parametrize("layout", ["pack", "pad"])
def test_mean_states_are_those_of_transformers(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], layout: Any
) -> None:
    store = store_for(family)
    clips = [*store.get(rows[:2]), *store.text([rows[0]])]
    responses = [
        Response(0, (30, 31, 32, 4)),
        Response(0, (40, 4)),
        Response(1, (4,)),
        Response(2, (50, 51, 4)),
    ]
    means = SpeechPolicy(family, layout=layout).eval().layer_means(clips, responses)
    assert means.shape[:2] == (4, family.decoder.config.num_hidden_layers) and not means.requires_grad
    for response, found in zip(responses, means, strict=True):
        for layer, mean in zip(hidden(family, clips[response.clip], response.tokens), found, strict=True):
            expected = layer.mean(0) if len(layer) else torch.zeros_like(mean)  # an end alone has no words
            torch.testing.assert_close(mean, expected, atol=1e-4, rtol=1e-4)


def test_likeness_is_the_mean_cosine_of_the_layers() -> None:
    one = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [3.0, 4.0]]])
    other = torch.tensor([[[2.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-3.0, -4.0]]])
    assert layer_likeness(one, other).tolist() == pytest.approx([(1 + 0.5**0.5) / 2, (0 - 1) / 2])


@pytest.fixture
def rollout_buffer(family: Any, store_for: Callable[..., Any]) -> Callable[..., collect.RolloutBuffer]:
    """A rollout buffer of a TARS run, with what it adds to rewards."""

    def make(**tars: Any) -> collect.RolloutBuffer:
        recipe = TrainingRecipe(method="tars", voices_per_group=2, tars={"behavior_by": "chrf", **tars})
        policy, store, responder = SpeechPolicy(family), store_for(family), ResponseTokens(family)
        method = methods.make_method(recipe, responder.end_ids)
        trajectories = build.make_trajectories(recipe, policy, store, "cpu")
        judge: Any = lambda *_: []  # noqa: E731
        return collect.RolloutBuffer(
            recipe, method, policy, store, responder, judge, trajectories=trajectories
        )

    return make


def test_both_parts_go_to_spoken_answers_alone(
    rollout_buffer: Callable[..., collect.RolloutBuffer], rows: list[AlignmentRow]
) -> None:
    made = rollout_buffer(representation=2.0, behavior=0.5)
    group = samples(rows, 2, 2)
    same = replace(group[1], text=group[3].text)  # says what its partner says
    group = [group[0], same, *group[2:]]
    trajectories: Trajectories = made.trajectories  # type: ignore[assignment]
    found = trajectories(group, [0.0, 1.0, 0.0, 1.0], [0, 4])
    assert set(found) == {0, 1} and made.policy.training  # as it was
    clips, places = made.store.distinct_inputs(group)
    means = made.policy.eval().layer_means(
        clips, [Response(place, one.tokens) for place, one in zip(places, group, strict=True)]
    )
    for spoken in (0, 1):
        expected = F.cosine_similarity(means[spoken], means[3], dim=-1).mean()
        assert found[spoken].representation == pytest.approx(float(expected), abs=1e-4)
    assert found[1].behavior == pytest.approx(1.0) and 0 <= found[0].behavior < 1
    assert trajectories.worth(Extra(0.3, 0.4)) == pytest.approx(0.8)
    outcome = made._outcome(group, [0.0, 1.0, 0.0, 1.0], 0, [found.get(place) for place in range(4)])
    worth = [trajectories.worth(found[0]), 1 + trajectories.worth(found[1])]
    mean = sum(worth) / 2
    assert [one.advantage for one in outcome.rated[0]] == pytest.approx(
        [worth[0] - mean, worth[1] - mean, -0.5, 0.5]
    )
    assert outcome.stats["representation"] == pytest.approx(
        (found[0].representation + found[1].representation) / 2
    )
    assert outcome.stats["reward"] == 0.5  # as it was given


def test_without_a_correct_answer_to_the_transcript_nothing_is_added(
    rollout_buffer: Callable[..., collect.RolloutBuffer], rows: list[AlignmentRow]
) -> None:
    trajectories: Trajectories = rollout_buffer().trajectories  # type: ignore[assignment]
    found = trajectories(samples(rows, 2, 2) * 2, [0.0] * 4 + [0, 0, 1, 0], [0, 4, 8])
    assert found[0] == found[1] == Extra() and found[4] != Extra()


def test_comparing_texts_needs_an_embedding_model_or_chrf(
    rollout_buffer: Callable[..., collect.RolloutBuffer],
) -> None:
    with pytest.raises(MissingPrerequisite, match="reward.similarity_model .*behavior_by to chrf"):
        rollout_buffer(behavior_by="embedding")
    assert rollout_buffer(behavior_by="embedding", behavior=0.0).trajectories is not None
