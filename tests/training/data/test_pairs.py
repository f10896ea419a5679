"""Which answers become pairs, and how a step puts them together."""

from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import assemble_batch
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import (
    AnswerTokens,
    PreferencePair,
    Sample,
    group_pair,
    sample_requests,
    single_pair,
)


def samples(rows: list[AlignmentRow], ended: tuple[bool, ...] = (True, True, True)) -> list[Sample]:
    return [
        Sample(row, (10 + n, 4), end, f"answer {n}")
        for n, (row, end) in enumerate(zip(rows, ended, strict=False))
    ]


def test_slots_use_voices_then_repeat(rows: list[AlignmentRow]) -> None:
    def asked(*voices: int, **options: Any) -> list[tuple[str, int]]:
        return [
            (slot.row.voice, slot.repeat) for slot in sample_requests([rows[v] for v in voices], **options)
        ]

    assert asked(0, 1, 2, size=2) == [("v0", 0), ("v1", 0)]
    assert asked(0, size=3) == [("v0", 0), ("v0", 1), ("v0", 2)]
    assert asked(0, 1, size=2, each=2) == [("v0", 0), ("v1", 0), ("v0", 1), ("v1", 1)]
    hot = sample_requests(rows[:2], 4, temperatures=(0.5, 1.5))
    assert [slot.temperature for slot in hot] == [0.5, 1.5, 0.5, 1.5]


def test_single_pair_is_teacher_against_own_sample_on_its_clip(rows: list[AlignmentRow]) -> None:
    sample = samples(rows)[1]
    assert single_pair(sample, (7, 4)) == PreferencePair(
        AnswerTokens(rows[1], (7, 4)), AnswerTokens(rows[1], (11, 4))
    )
    assert single_pair(sample, (11, 4)) is None


def test_group_pair_is_best_against_worst_each_on_its_own_voice(rows: list[AlignmentRow]) -> None:
    pair = group_pair(samples(rows), [0.5, 0.9, 0.1])
    assert pair == PreferencePair(
        AnswerTokens(rows[1], (11, 4)), AnswerTokens(rows[2], (12, 4)), gap=pytest.approx(0.8)
    )


def test_no_gap_no_pair(rows: list[AlignmentRow]) -> None:
    assert group_pair(samples(rows), [0.5, 0.5, 0.5]) is None
    assert group_pair(samples(rows), [0.5, 0.6, 0.5], min_gap=0.2) is None
    assert group_pair(samples(rows), [float("nan")] * 3) is None


def test_what_could_not_be_judged_takes_no_part(rows: list[AlignmentRow]) -> None:
    pair = group_pair(samples(rows), [0.5, float("nan"), 0.1])
    assert pair is not None and (pair.chosen.row, pair.rejected.row) == (rows[0], rows[2])


@pytest.mark.parametrize("unjudged", [0, 1, 2])
def test_the_pair_is_that_of_the_judged_ones_wherever_the_other_stands(
    rows: list[AlignmentRow], unjudged: int
) -> None:
    rewards = [0.25, 0.75]
    rewards.insert(unjudged, float("nan"))
    pair = group_pair(samples(rows), rewards)
    assert pair is not None and pair.gap == 0.5


def test_an_answer_that_never_ended_is_never_preferred(rows: list[AlignmentRow]) -> None:
    pair = group_pair(samples(rows, (True, False, True)), [0.5, 0.9, 0.1])
    assert pair is not None and pair.chosen.row is rows[0]
    assert group_pair(samples(rows, (False, False, False)), [0.5, 0.9, 0.1]) is None


def test_an_answer_that_never_ended_may_be_the_rejected_one(rows: list[AlignmentRow]) -> None:
    pair = group_pair(samples(rows, (True, False, True)), [0.9, 0.1, 0.5])
    assert pair is not None and pair.rejected == AnswerTokens(rows[1], (11, 4))


def test_ties_rotate(rows: list[AlignmentRow]) -> None:
    chosen = []
    for turn in range(3):
        pair = group_pair(samples(rows), [0.9, 0.9, 0.1], turn=turn)
        assert pair is not None
        chosen.append(pair.chosen.row.voice)
    assert chosen == ["v0", "v1", "v0"]


def test_each_answer_is_scored_once(rows: list[AlignmentRow]) -> None:
    teacher = (7, 4)
    pairs = [
        PreferencePair(
            AnswerTokens(rows[0], teacher), AnswerTokens(rows[0], (10, 4))
        ),  # the chosen side is the teacher's answer
        PreferencePair(
            AnswerTokens(rows[5], (10, 4)), AnswerTokens(rows[0], (10, 4))
        ),  # another clip, and a known rejected side
    ]
    batch = assemble_batch(rows[:2], pairs, teacher_tokens=lambda response: teacher)
    assert [row.id for row, _ in batch.prompts] == ["g0-v0", "g0-v1", "g1-v2"]
    assert batch.responses == [
        Response(0, teacher),
        Response(1, teacher),
        Response(0, (10, 4)),
        Response(2, (10, 4)),
    ]
    assert (batch.teacher, batch.chosen, batch.rejected) == ([0, 1], [0, 3], [2, 2])
    assert assemble_batch(rows[:2], pairs).teacher == []
