"""Given pairs instead of sampled ones: who gets which, what the reference says of them, whole runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.training.data.pairs import OfflinePairs, TextPair
from rba_bench.training.training_run import train


def tokens(text: str) -> tuple[int, ...]:
    return (*map(ord, text), 4)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    lines = [{"id": f"g{n}", "chosen": "the garden", "rejected": "the lake", "gap": 0.5} for n in range(6)]
    lines.append({"id": "g0-v1", "chosen": "paris", "rejected": "a letter"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_pair_of_a_clip_and_pairs_that_voices_share(rows: list[AlignmentRow]) -> None:
    given = OfflinePairs(
        {
            "g0-v1": [TextPair("c", "r")],
            "g0": [TextPair("x", "y", 0.5), TextPair("same", "same"), TextPair("p", "q")],
        }
    )
    made = given(rows[:3], tokens)
    assert made.items == 4  # one of them teaches nothing
    assert [(pair.chosen.row.voice, pair.chosen.tokens, pair.gap) for pair in made.pairs] == [
        ("v1", tokens("c"), 0.0),
        ("v0", tokens("x"), 0.5),
        ("v2", tokens("p"), 0.0),
    ]
    assert given(rows[3:6], tokens).items == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no pair"),
        ('{"id": "g0", "chosen": "a"}\n', "line 1: a pair is"),
        ('{"id": "g0", "chosen": "a", "rejected": "b", "gap": "x"}\n', "gap must be a number"),
        ('{"id": "other", "chosen": "a", "rejected": "b"}\n', "check its `id`s"),
    ],
)
def test_what_is_no_pair_is_refused(
    recipe_for: Callable[..., Any], tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        train(recipe_for(method="dpo", pairs_file=str(path)), tmp_path / "out")


def test_a_missing_file_and_a_method_without_pairs_are_refused(
    recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no pairs in"):
        train(recipe_for(method="dpo", pairs_file=str(tmp_path / "absent")), tmp_path / "out")
    for method in ("sft", "grpo", "spin"):
        with pytest.raises(ValueError, match="pairs_file gives preference pairs"):
            recipe_for(method=method, pairs_file="x.jsonl")


@pytest.mark.parametrize("method", ["dpo", "tdpo", "cpo", "odpo"])
def test_a_run_learns_to_prefer_the_given_side(
    recipe_for: Callable[..., Any], tmp_path: Path, pairs_file: Path, method: str
) -> None:
    recipe = recipe_for(method=method, pairs_file=str(pairs_file), steps=8, groups_per_step=6, save_every=100)
    result = train(recipe, tmp_path / "out")
    seen = list(read_jsonl(result.path / "train_log.jsonl"))
    assert seen[-1]["margin"] > seen[0]["margin"] + 2 and seen[0]["pairs"] == 7
    assert result.run["answers_sampled"] == 0 and result.run["pairs_sha256"]


def test_the_policy_speaks_for_the_reference_before_it_trains(
    recipe_for: Callable[..., Any], tmp_path: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With log-probabilities from before the first step, and with a frozen copy asked in every step."""
    from rba_bench.training import training_run
    from rba_bench.training.model import building as build

    recipe = recipe_for(method="dpo", pairs_file=str(pairs_file), steps=4)
    train(recipe, tmp_path / "kept")

    class Live(training_run._Run):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.reference = build.make_reference(self.policy)

    monkeypatch.setattr(training_run, "_Run", Live)
    train(recipe, tmp_path / "live")
    kept, live = (list(read_jsonl(tmp_path / name / "train_log.jsonl")) for name in ("kept", "live"))
    for one, other in zip(kept, live, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert kept[0]["loss"] == pytest.approx(0.6931, abs=1e-3) and kept[-1]["loss"] < kept[0]["loss"]


def test_other_pairs_are_another_run(
    recipe_for: Callable[..., Any], tmp_path: Path, pairs_file: Path
) -> None:
    recipe = recipe_for(method="dpo", pairs_file=str(pairs_file), steps=2)
    train(recipe, tmp_path / "out")
    assert read_json(tmp_path / "out" / "rba_run.json")["recipe"]["pairs_file"] == str(pairs_file)
    pairs_file.write_text(pairs_file.read_text().replace("lake", "river"))
    with pytest.raises(UserError, match="pairs_sha256"):
        train(recipe, tmp_path / "out")
