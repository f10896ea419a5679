"""Held-out items: what is measured, which weights are kept, when patience ends."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_json, read_jsonl
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.packing import Response
from rba_bench.training.methods import make_method
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train
from rba_bench.training.validation import Validator


def validator(history: list[tuple[int, float]], **options: Any) -> Validator:
    recipe = TrainingRecipe(eval_every=1, validation=options)
    nobody: Any = SimpleNamespace()
    made = Validator(recipe, {}, nobody, None, Path("nowhere"))
    made.history = history
    return made


def test_the_best_is_the_lowest_loss_or_the_highest_reward_and_of_equals_the_first() -> None:
    history = [(10, 3.0), (20, 1.0), (30, 1.0), (40, 2.0)]
    assert validator(history).best == (20, 1.0)
    assert validator(history, metric="reward").best == (10, 3.0)


def test_patience_counts_validations_behind_the_best() -> None:
    history = [(10, 3.0), (20, 1.0), (30, 1.5)]
    assert not validator(history).exhausted
    assert not validator(history, patience=2).exhausted
    assert validator([*history, (40, 1.2)], patience=2).exhausted
    assert not validator([*history, (40, 0.9)], patience=2).exhausted


def test_the_loss_is_the_mean_over_kinds_of_the_mean_over_clips(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], tmp_path: Path
) -> None:
    recipe = TrainingRecipe(eval_every=1, batch_size=2)
    store, policy, responder = store_for(family), SpeechPolicy(family), ResponseTokens(family)
    rollout_buffer: Any = SimpleNamespace(policy=policy.train(), store=store, responder=responder)
    chosen = {"instruct": [rows[0], rows[9], rows[15]], "qa": [rows[3]]}
    found = Validator(recipe, chosen, rollout_buffer, None, tmp_path)(7)

    def alone(row: AlignmentRow) -> float:
        policy.eval()
        with torch.no_grad():
            scores = policy(store.get([row]), [Response(0, responder(row.response))])
        return -float(scores.logprobs.sum())

    kinds = {kind: sum(map(alone, rows)) / len(rows) for kind, rows in chosen.items()}
    assert found["validation_loss_instruct"] == pytest.approx(kinds["instruct"], rel=1e-5)
    assert found["validation_loss"] == pytest.approx((kinds["instruct"] + kinds["qa"]) / 2, rel=1e-5)


@pytest.mark.parametrize("metric", ["loss", "reward"])
def test_processes_share_the_items_out_and_all_have_the_figures_of_one(
    family: Any, store_for: Callable[..., Any], rows: list[AlignmentRow], tmp_path: Path, metric: str
) -> None:
    """Five items in batches of two: of two processes one has a batch less, of four one has none."""
    values = {"eval_every": 1, "batch_size": 2, "validation": {"metric": metric}, "max_new_tokens": 4}
    recipe = TrainingRecipe.model_validate({"method": "sft", **values})
    store, policy, responder = store_for(family), SpeechPolicy(family), ResponseTokens(family)
    calls: list[str] = []
    policy.register_forward_pre_hook(lambda *_: calls.append("forward"))
    rollout_buffer = RolloutBuffer(recipe, make_method(recipe, responder.end_ids), policy, store, responder)
    chosen = {"instruct": [rows[0], rows[9], rows[15]], "qa": [rows[3], rows[12]]}

    def worth(asked: Sequence[AlignmentRow], answers: Sequence[str]) -> list[float]:
        calls.extend(["judged"] * len(asked))
        # one that cannot be judged is left out of the mean
        return [
            float("nan") if row is rows[9] else float(len(answer) + len(row.id))
            for row, answer in zip(asked, answers, strict=True)
        ]

    def validated(process: tuple[int, int], gather: Callable[[Any], Any]) -> dict[str, Any]:
        judge: Any = worth
        made = Validator(recipe, chosen, rollout_buffer, judge, tmp_path, False, process, gather)
        return made(1)

    def kept(parts: list[Any], found: Any) -> list[Any]:
        parts.append(found)
        return [found]

    alone, work = validated((0, 1), lambda found: [found]), calls.copy()
    for size in (2, 4):
        calls.clear()
        parts: list[Any] = []
        for mine in range(size):
            validated((mine, size), lambda found: kept(parts, found))  # noqa: B023
        assert sorted(calls) == sorted(work)  # shared out, not repeated
        assert sorted(item for part in parts for item in part) == [
            *(("instruct", place) for place in range(3)), ("qa", 0), ("qa", 1)
        ]  # fmt: skip
        for mine in range(size):
            assert validated((mine, size), lambda _: parts) == alone  # noqa: B023


def test_the_best_weights_are_the_run_s_result(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    """A rate that ruins the model after a while: the last weights are worse than the best."""
    from safetensors.torch import load_file

    options = {
        "method": "sft",
        "groups_per_step": 4,
        "eval_every": 1,
        "save_every": 100,
        "learning_rate": 3e-2,
    }
    last = train(recipe_for(**options, steps=8), tmp_path / "last")
    losses = {r["step"]: r["validation_loss"] for r in read_jsonl(last.path / "train_log.jsonl")}
    best_step = min(losses, key=lambda step: (losses[step], step))
    assert best_step < 8
    best = train(recipe_for(**options, steps=8, select="best"), tmp_path / "best")
    assert best.run["validations"]["best_step"] == best_step
    until_then = train(recipe_for(**options, steps=best_step), tmp_path / "short")
    one, other = (load_file(run.path / "model.safetensors") for run in (best, until_then))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_early_stopping_ends_in_good_order(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(
        method="sft", steps=40, eval_every=1, learning_rate=3e-2, save_every=100,
        validation={"patience": 3}, select="best",
    )  # fmt: skip
    result = train(recipe, tmp_path)
    assert result.steps < 40
    run = read_json(tmp_path / "rba_run.json")
    assert run["validations"]["best_step"] == result.steps - 3
    assert train(recipe, tmp_path).steps == result.steps


def test_greedy_answers_may_decide(recipe_for: Callable[..., Any], tmp_path: Path) -> None:
    recipe = recipe_for(method="sft", steps=2, eval_every=2, validation={"metric": "reward", "items": 1})
    seen = list(read_jsonl(train(recipe, tmp_path).path / "train_log.jsonl"))
    assert 0 <= seen[1]["validation_reward"] <= 1 and seen[1]["validation_reward_s2tt"] >= 0


def test_a_set_without_held_out_items_is_refused(
    recipe_for: Callable[..., Any], alignment_dir: Path, tmp_path: Path
) -> None:
    changes = {"alignment_set": {"path": str(alignment_dir), "kinds": ["qa"]}, "eval_every": 1}
    with pytest.raises(UserError, match="no validation rows"):
        train(recipe_for(method="sft", **changes), tmp_path)
