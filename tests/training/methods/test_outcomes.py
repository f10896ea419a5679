"""What methods ask for, and what they make of judged samples, by hand."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.pairs import AnswerTokens, Outcome, Sample
from rba_bench.training.methods import make_method
from rba_bench.training.training_recipe import TrainingRecipe
from tests.training.given import step_of

NAN = float("nan")


def method(**values: Any) -> Any:
    return make_method(TrainingRecipe(**values), [4])


def samples(rows: list[AlignmentRow], **values: Any) -> list[Sample]:
    return [Sample(row, (10 + n, 4), True, f"answer {n}", **values) for n, row in enumerate(rows)]


def asked(voices: list[Any]) -> list[tuple[str, int, float, bool]]:
    return [(voice.row.voice, voice.repeat, voice.temperature, voice.as_text) for voice in voices]


def advantages(outcome: Outcome) -> list[list[float]]:
    return [[one.advantage for one in group] for group in outcome.rated]


def test_who_is_asked(rows: list[AlignmentRow]) -> None:
    two, one = rows[:2], rows[:1]
    assert asked(method(method="rba-single").requests(two)) == [("v0", 0, 1.0, False), ("v1", 0, 1.0, False)]
    group = method(method="rba-group", voices_per_group=3)
    assert [voice for voice, *_ in asked(group.requests(two))] == ["v0", "v1", "v0"]
    clips = method(method="rba-group", group_by="clip", samples_per_clip=3, voices_per_group=2)
    assert [(voice, repeat) for voice, repeat, *_ in asked(clips.requests(one))] == [
        ("v0", 0), ("v0", 1), ("v0", 2)
    ]  # fmt: skip
    hot = method(method="grpo", voices_per_group=2, temperature=(0.5, 1.5))
    assert [temperature for _, _, temperature, _ in asked(hot.requests(two))] == [0.5, 1.5]
    assert asked(method(method="scst", voices_per_group=1).requests(one)) == [
        ("v0", 0, 1.0, False), ("v0", -1, 0.0, False)
    ]  # fmt: skip
    hot = method(method="grpo").outcome(samples(rows[:2], temperature=0.7), [0.0, 1.0], [()] * 2, 0)
    assert [one.answer.temperature for one in hot.rated[0]] == [0.7, 0.7]  # and scored as they were drawn
    tars = method(method="grpo", voices_per_group=2, policy_gradient={"baseline": "modality"})
    assert asked(tars.requests(two)) == [
        ("v0", 0, 1.0, False), ("v1", 0, 1.0, False), ("v0", 1, 1.0, True), ("v0", 2, 1.0, True)
    ]  # fmt: skip
    assert method(method="sft").requests(two) == []


def test_gkd_answers_itself_in_its_share_of_the_steps() -> None:
    """One draw a step, from seed and step alone: whole steps are on-policy, whole steps are not."""
    share = [method(method="gkd", student_fraction=0.3).samples_in_step(step) for step in range(2000)]
    assert share == [method(method="gkd", student_fraction=0.3).samples_in_step(step) for step in range(2000)]
    assert sum(share) / 2000 == pytest.approx(0.3, abs=0.04)
    other = [method(method="gkd", student_fraction=0.3, seed=2).samples_in_step(step) for step in range(2000)]
    assert share != other
    assert all(method(method="gkd").samples_in_step(step) for step in range(50))
    assert not any(method(method="gkd", student_fraction=0).samples_in_step(step) for step in range(50))


def test_groups_that_are_equally_good_throughout_are_drawn_anew(rows: list[AlignmentRow]) -> None:
    """By what they are rewarded for, not by length; DAPO only, and what could not be judged does not count."""
    drawn = [Sample(rows[n], (*[10] * n, 4), True, "") for n in range(3)]
    changes = {"max_new_tokens": 4, "policy_gradient": {"overlong_cache": 2, "scale": "none"}}
    dapo, grpo = method(method="dapo", **changes), method(method="grpo", **changes)
    for rewards in ([1.0, 1.0, 1.0], [1.0, NAN, 1.0], [NAN, NAN, 2.0], [NAN] * 3):
        equal = dapo.outcome(drawn, rewards, [()] * 3, 0)
        assert (equal.items, equal.rated, dapo.teaches(equal)) == (0, [], False)
    assert dapo.teaches(dapo.outcome(drawn, [1.0, NAN, 2.0], [()] * 3, 0))
    assert len(grpo.outcome(drawn, [1.0, 1.0, 1.0], [()] * 3, 0).rated[0]) == 3


def test_answers_near_the_longest_length_lose_reward(rows: list[AlignmentRow]) -> None:
    # the longest is 4, the punishment grows over 2: lengths 1 to 3 lose 0, 0 and a half, times the weight of 3
    drawn = [Sample(rows[n], (*[10] * n, 4), True, "") for n in range(3)]
    options = {"overlong_cache": 2, "overlong_weight": 3.0, "scale": "none"}
    dapo = method(method="dapo", max_new_tokens=4, policy_gradient=options)
    made = dapo.outcome(drawn, [0.0, 1.0, 2.0], [()] * 3, 0)
    # 0, 1, 0.5 around their mean; what is kept is the reward as it was given
    assert advantages(made) == [pytest.approx([-0.5, 0.5, 0.0])]
    assert [one.reward for one in made.rated[0]] == [0.0, 1.0, 2.0]
    assert made.stats == {"overlong": pytest.approx(-0.5)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (100, 20)),
        ({"overlong_share": 0.0}, (100, 0)),
        ({"overlong_cache": 7}, (100, 7)),
        ({"overlong_max": 50}, (50, 10)),
    ],
)
def test_where_the_punishment_begins(options: dict[str, Any], expected: tuple[int, int]) -> None:
    recipe = TrainingRecipe(method="dapo", max_new_tokens=100, policy_gradient=options)
    assert recipe.overlong == expected
    assert TrainingRecipe(method="grpo", max_new_tokens=100).overlong[1] == 0


@pytest.mark.parametrize(("audio", "voices"), [("own", (1, 2)), ("chosen", (1, 1)), ("rejected", (2, 2))])
def test_the_sides_of_a_pair_are_heard_on_the_clips_asked_for(
    rows: list[AlignmentRow], audio: str, voices: tuple[int, int]
) -> None:
    made = method(method="rba-group", pair_audio=audio).outcome(
        samples(rows[:3]), [0.5, 0.9, 0.1], [()] * 3, 0
    )
    [pair] = made.pairs
    assert (pair.chosen, pair.rejected) == (
        AnswerTokens(rows[voices[0]], (11, 4)),
        AnswerTokens(rows[voices[1]], (12, 4)),
    )
    assert (made.items, pair.gap) == (1, pytest.approx(0.8))


def test_pairs_within_each_clip(rows: list[AlignmentRow]) -> None:
    twice = [rows[0], rows[0], rows[1], rows[1]]
    by_clip = method(method="rba-group", group_by="clip", samples_per_clip=2)
    made = by_clip.outcome(samples(twice), [0.1, 0.2, 0.9, 0.9], [()] * 4, 0)
    assert made.items == 2 and [pair.chosen.row for pair in made.pairs] == [rows[0]]


def test_advantages_within_a_group(rows: list[AlignmentRow]) -> None:
    group = samples(rows[:3])
    plain = method(method="grpo", policy_gradient={"scale": "none"})
    assert advantages(plain.outcome(group, [1.0, 2.0, 6.0], [()] * 3, 0)) == [pytest.approx([-2, -1, 3])]
    scaled = method(method="grpo").outcome(group, [1.0, 2.0, 6.0], [()] * 3, 0)
    deviation = math.sqrt(7)  # of a sample: 14 / 2
    assert advantages(scaled)[0] == pytest.approx([-2 / deviation, -1 / deviation, 3 / deviation], rel=1e-3)
    assert advantages(plain.outcome(group, [5.0, 5.0, 5.0], [()] * 3, 0)) == [[0, 0, 0]]
    others = method(method="grpo", policy_gradient={"baseline": "leave-one-out"})
    assert advantages(others.outcome(group, [1.0, 2.0, 6.0], [()] * 3, 0)) == [pytest.approx([-3, -1.5, 4.5])]


def test_each_modality_has_its_own_mean(rows: list[AlignmentRow]) -> None:
    tars = method(method="grpo", policy_gradient={"baseline": "modality", "scale": "none"})
    mixed = [*samples(rows[:2]), *samples(rows[:2], as_text=True)]
    made = tars.outcome(mixed, [0.0, 1.0, 10.0, 14.0], [()] * 4, 0)
    assert advantages(made) == [pytest.approx([-0.5, 0.5, -2, 2])]
    assert [one.answer.as_text for one in made.rated[0]] == [False, False, True, True]


@pytest.mark.parametrize("name", ["grpo", "mrt", "scst"])
def test_what_could_not_be_judged_takes_no_part(rows: list[AlignmentRow], name: str) -> None:
    values = {"samples_per_clip": 4} if name == "mrt" else {}
    group = [*samples([rows[0]] * 3), Sample(rows[0], (9, 4), True, "greedy", greedy=True)]
    rewards = [1.0, NAN, 3.0, 2.0]
    made = method(method=name, **values).outcome(group, rewards, [()] * 4, 0)
    assert all(math.isfinite(one.reward) and math.isfinite(one.advantage) for g in made.rated for one in g)
    kept = {one.answer.tokens[0] for g in made.rated for one in g}
    assert kept == ({10, 12} if name == "scst" else {10, 12, 9})
    nothing = method(method=name, **values).outcome(group, [NAN] * 4, [()] * 4, 0)
    assert (nothing.items, nothing.rated) == (0, [])


def ended_or_not(rows: list[AlignmentRow], cut: int) -> list[Sample]:
    """Samples of which number `cut` was cut off."""
    return [
        Sample(row, (10 + n, 9 if n == cut else 4), n != cut, f"answer {n}") for n, row in enumerate(rows)
    ]


def test_a_cut_sample_is_compared_or_not_with_the_teacher(rows: list[AlignmentRow]) -> None:
    for truncated, rejected in (("keep", [10, 11, 12]), ("mask", [10, 11, 12]), ("drop", [10, 12])):
        made = method(method="rba-single", truncated=truncated).outcome(
            ended_or_not(rows[:3], 1), [0.0] * 3, [(5, 4)] * 3, 0
        )
        assert made.items == 3 and [pair.rejected.tokens[0] for pair in made.pairs] == rejected


def test_a_cut_sample_is_the_worst_of_its_group_only_if_it_counts_as_whole(rows: list[AlignmentRow]) -> None:
    for truncated, worst in (("keep", 11), ("mask", 10), ("drop", 10)):
        made = method(method="rba-group", truncated=truncated).outcome(
            ended_or_not(rows[:3], 1), [0.5, 0.1, 0.9], [()] * 3, 0
        )
        [pair] = made.pairs
        assert (pair.chosen.tokens[0], pair.rejected.tokens[0]) == (12, worst)


@pytest.mark.parametrize(
    ("truncated", "expected"),
    [("keep", {10: -2, 11: -1, 12: 3}), ("mask", {10: -2, 12: 3}), ("drop", {10: -2.5, 12: 2.5})],
)
def test_cut_samples_of_policy_gradients(
    rows: list[AlignmentRow], truncated: str, expected: dict[int, float]
) -> None:
    grpo = method(method="grpo", truncated=truncated, policy_gradient={"scale": "none"})
    made = grpo.outcome(ended_or_not(rows[:3], 1), [1.0, 2.0, 6.0], [()] * 3, 0)
    assert made.items == len(expected)
    assert {one.answer.tokens[0]: one.advantage for one in made.rated[0]} == pytest.approx(expected)


@pytest.mark.parametrize(("truncated", "learned"), [("keep", {10, 11}), ("mask", {10}), ("drop", {10})])
def test_cut_samples_against_the_greedy_answer(
    rows: list[AlignmentRow], truncated: str, learned: set[int]
) -> None:
    scst = method(method="scst", truncated=truncated)
    greedy = Sample(rows[0], (20, 4), True, "g", greedy=True)
    group = [*ended_or_not([rows[0]] * 2, 1), greedy]
    made = scst.outcome(group, [3.0, 1.0, 2.0], [()] * 3, 0)
    assert {one.answer.tokens[0] for group in made.rated for one in group} == learned
    bar = [*ended_or_not([rows[0]] * 2, 1), Sample(rows[0], (20, 9), False, "g", greedy=True)]
    made = scst.outcome(bar, [3.0, 1.0, 2.0], [()] * 3, 0)  # a bar that was cut off is none with `drop`
    assert {one.answer.tokens[0] for group in made.rated for one in group} == (
        set() if truncated == "drop" else learned
    )


def test_the_greedy_answer_is_the_bar(rows: list[AlignmentRow]) -> None:
    group = [*samples([rows[0], rows[1]]), *samples([rows[0], rows[1]], greedy=True)]
    made = method(method="scst").outcome(group, [3.0, 1.0, 2.0, 4.0], [()] * 4, 0)
    assert advantages(made) == [[1.0, -3.0]]


def test_a_list_holds_each_answer_once(rows: list[AlignmentRow]) -> None:
    same = [Sample(rows[0], (10, 4), True, "a"), Sample(rows[0], (10, 4), True, "a"), *samples([rows[0]])]
    made = method(method="mrt").outcome(
        [*same, Sample(rows[0], (11, 4), True, "b")], [1.0] * 3 + [2.0], [()] * 4, 0
    )
    assert [one.answer.tokens for one in made.rated[0]] == [(10, 4), (11, 4)]


def test_outcomes_survive_being_written_down(rows: list[AlignmentRow]) -> None:
    known = {row.id: row for row in rows}
    pair = method(method="odpo").outcome(samples(rows[:3]), [0.5, 0.9, 0.1], [()] * 3, 0)
    rated = method(method="grpo").outcome(samples(rows[:2], logprobs=(-0.5, -0.25)), [0.0, 1.0], [()] * 2, 0)
    rated = replace(rated, group="g3", step=7, redrawn=2)
    for made in (pair, rated):
        again = Outcome.from_json(json.loads(json.dumps(made.to_json())), known)
        assert again == made
    assert rated.rated[0][0].logprobs == (-0.5, -0.25)


@pytest.fixture
def responder(family: Any) -> ResponseTokens:
    return ResponseTokens(family)


def test_losses_by_hand(
    rows: list[AlignmentRow], responder: ResponseTokens, groups: dict[str, list[AlignmentRow]]
) -> None:
    recipe = TrainingRecipe(method="rba-group", beta=0.5, sft_weight=0.3, preference_reduction="sequence")
    rba = make_method(recipe, [4])
    outcome = rba.outcome(samples(rows[:3]), [0.5, 0.9, 0.1], [()] * 3, 0)
    batch = rba.batch(rows[:1], [outcome], responder)
    width = max(len(response.tokens) for response in batch.responses)
    mask = torch.tensor([[i < len(response.tokens) for i in range(width)] for response in batch.responses])
    logprobs = torch.where(mask, -torch.arange(1.0, 1 + mask.numel()).view(mask.shape) / 10, 0.0)
    step = step_of(rba, batch, logprobs, mask)
    step.counts = {**step.counts, "items": 2}
    sums = logprobs.sum(-1)
    margin = float(sums[batch.chosen[0]] - sums[batch.rejected[0]])
    expected = math.log1p(math.exp(-0.5 * margin)) / 2 - 0.3 * float(
        sums[batch.teacher[0]]
    )  # 2 items, 1 pair
    terms = rba.loss(step)
    assert float(terms.loss) == pytest.approx(expected, rel=1e-5)
    assert terms.notes["margin"] == pytest.approx(margin, rel=1e-5)


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_long_answers_weigh_more_in_dapo_than_in_grpo(
    rows: list[AlignmentRow], responder: ResponseTokens, name: str
) -> None:
    one = make_method(TrainingRecipe(method=name, policy_gradient={"kl_weight": 0, "scale": "none"}), [4])
    group = [Sample(rows[0], (10, 4), True, "a"), Sample(rows[1], (11, 12, 13, 4), True, "b")]
    batch = one.batch(rows[:1], [one.outcome(group, [0.0, 2.0], [()] * 2, 0)], responder)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    logprobs = torch.zeros(2, 4, requires_grad=True)
    one.loss(step_of(one, batch, logprobs, mask)).loss.backward()
    share = [1 / 4, 1 / 8] if name == "grpo" else [1 / 6, 1 / 6]  # of a token
    assert logprobs.grad is not None
    assert logprobs.grad[0].tolist() == pytest.approx([share[0], share[0], 0, 0])
    assert logprobs.grad[1].tolist() == pytest.approx([-share[1]] * 4)


def test_an_older_policys_samples_are_clipped(rows: list[AlignmentRow], responder: ResponseTokens) -> None:
    recipe = TrainingRecipe(method="grpo", refresh_every=2, policy_gradient={"kl_weight": 0, "scale": "none"})
    grpo = make_method(recipe, [4])
    group = [Sample(rows[n], (10 + n, 4), True, "", logprobs=(-1.0, -1.0)) for n in range(2)]
    batch = grpo.batch(rows[:1], [grpo.outcome(group, [0.0, 2.0], [()] * 2, 0)], responder)
    mask = torch.ones(2, 2, dtype=torch.bool)
    logprobs = torch.tensor(
        [[-1.0, -1.0], [-0.5, -1.0]], requires_grad=True
    )  # one rose by half a nat already
    grpo.loss(step_of(grpo, batch, logprobs, mask)).loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad[1].tolist() == [0.0, pytest.approx(-0.25)]


def test_what_was_only_read_trains_beside_a_clip_that_is_heard(
    rows: list[AlignmentRow], responder: ResponseTokens
) -> None:
    """None of the spoken samples could be judged: the projector must take part all the same."""
    tars = method(method="grpo", policy_gradient={"baseline": "modality", "kl_weight": 0})
    mixed = [*samples(rows[:2]), *samples(rows[:2], as_text=True)]
    batch = tars.batch(rows[:2], [tars.outcome(mixed, [NAN, NAN, 1.0, 3.0], [()] * 4, 0)], responder)
    assert [as_text for _, as_text in batch.prompts] == [True, True, False]
    assert batch.rated == [0, 1] and len(batch.responses) == 3 and batch.responses[2].clip == 2
    spoken = tars.batch(rows[:2], [tars.outcome(mixed, [1.0, 3.0, NAN, NAN], [()] * 4, 0)], responder)
    assert len(spoken.responses) == 2
