"""Pairs that are given, and a reference that is asked once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.training.data.batch import StepBatch, assemble_batch
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.pairs import AnswerTokens, OfflinePairs, PreferencePair
from rba_bench.training.model.frozen_models import FrozenModels, ReferenceCache
from rba_bench.training.model.policy import SpeechPolicy


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tokens(text: str) -> tuple[int, ...]:
    return tuple(ord(letter) for letter in text)


def test_pairs_go_to_their_clip_or_to_the_voices_in_turn(tmp_path: Path, rows: list[AlignmentRow]) -> None:
    group = rows[:3]
    path = written(
        tmp_path,
        {"id": group[1].id, "chosen": "a", "rejected": "b", "gap": 2},
        {"id": group[0].group_id, "chosen": "c", "rejected": "d"},
        {"id": group[0].group_id, "chosen": "e", "rejected": "f"},
        {"id": group[0].group_id, "chosen": "same", "rejected": "same"},
    )
    outcome = OfflinePairs.open(path)(group, tokens)
    assert outcome.items == 4  # what has no difference still counts
    heard = [(pair.chosen.row.id, pair.chosen.tokens, pair.gap) for pair in outcome.pairs]
    assert heard == [
        (group[1].id, (97,), 2.0),
        (group[0].id, (99,), 0.0),
        (group[1].id, (101,), 0.0),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "r", "chosen": "a"}, "line 1: a pair is"),
        (["r", "a", "b"], "line 1: a pair is"),
        ({"id": "r", "chosen": "a", "rejected": "b", "gap": "much"}, "gap must be a number"),
    ],
)
def test_lines_that_are_no_pairs_are_refused(tmp_path: Path, line: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        OfflinePairs.open(written(tmp_path, line))


def test_no_file_an_empty_file_and_unknown_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pairs_file"):
        OfflinePairs.open(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no pair"):
        OfflinePairs.open(written(tmp_path))
    given = OfflinePairs.open(written(tmp_path, {"id": "g1", "chosen": "a", "rejected": "b"}))
    given.check(["g0", "g1"])
    with pytest.raises(UserError, match="alignment set"):
        given.check(["g2"])


class Scorer:
    """Log-probabilities that tell which answer was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, batch: StepBatch, places: Any) -> tuple[torch.Tensor, torch.Tensor]:
        answers = [batch.responses[place].tokens for place in places]
        self.asked.append(len(answers))
        size = max(map(len, answers))
        values = torch.zeros(len(answers), size)
        mask = torch.zeros(len(answers), size, dtype=torch.bool)
        for number, answer in enumerate(answers):
            values[number, : len(answer)] = -torch.tensor(answer, dtype=torch.float32)
            mask[number, : len(answer)] = True
        return values, mask


def test_known_answers_are_not_scored_again(tmp_path: Path, rows: list[AlignmentRow]) -> None:
    one, other = rows[0], rows[1]
    batch = StepBatch()
    for answer in (
        AnswerTokens(one, (1, 2)),
        AnswerTokens(one, (3,)),
        AnswerTokens(other, (1, 2)),
        AnswerTokens(one, (1, 2), True),
    ):
        batch.add(answer)
    assert len(batch.prompts) == 3 and len(batch.responses) == 4
    score = Scorer()
    cache = ReferenceCache("tag", folder=tmp_path)
    first = cache.scores(batch, [1, 0], score)
    again = cache.scores(batch, [0, 2, 3, 1], score)
    assert score.asked == [2, 2]  # other clip and transcript are answers of their own
    assert first[0].tolist() == [[-3, 0], [-1, -2]] and first[1].tolist() == [[True, False], [True, True]]
    assert again[0].tolist() == [[-1, -2], [-1, -2], [-1, -2], [-3, 0]]
    assert (cache.computed, cache.found) == (4, 2)
    later = ReferenceCache("tag", folder=tmp_path)
    assert torch.equal(later.scores(batch, [0, 2, 3, 1], score)[0], again[0])
    assert score.asked == [2, 2]
    ReferenceCache("another", folder=tmp_path).scores(batch, [0], score)
    assert score.asked == [2, 2, 1]


def test_filled_by_the_policy_it_holds_what_the_reference_would_say(
    rows: list[AlignmentRow], family: Any, store_for: Callable[..., Any]
) -> None:
    frozen_models = FrozenModels(store_for(family), SpeechPolicy(family))

    chosen, rejected = ResponseTokens(family)("the lake"), ResponseTokens(family)("a tree and water")
    pairs = [PreferencePair(AnswerTokens(row, chosen), AnswerTokens(row, rejected)) for row in rows[:6]]
    cache = ReferenceCache("tag")
    cache.fill(pairs, frozen_models.score, batch_size=2)
    assert cache.computed == 12

    def nobody(batch: StepBatch, places: Any) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("all answers are known")

    batch = assemble_batch([], pairs)
    kept, mask = cache.scores(batch, range(12), nobody)
    live, present = frozen_models.score(batch, range(12))
    assert torch.equal(mask, present)
    torch.testing.assert_close(kept * mask, live * present, atol=1e-5, rtol=1e-5)
