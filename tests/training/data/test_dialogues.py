"""Training on dialogues: the model reads the earlier turns; runs in which another model would read one are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow, AlignmentSet, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.audio.turns import Turn
from rba_bench.errors import UserError
from rba_bench.evaluation.sources.held_out import rows_of_split
from rba_bench.training.data.dialogues import refuse_text_readers
from rba_bench.training.data.groups import TrainingData, choices
from rba_bench.training.model.frozen_models import ReferenceCache
from rba_bench.training.preflight import ModelLimits
from rba_bench.training.rewards.combined import RewardByKind
from rba_bench.training.rewards.reward import TEXT_REWARDS

TURNS = (Turn("what is the capital of france", "paris"),)


@pytest.fixture(scope="module")
def dialogue_dir(alignment_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set, in which every group ends a dialogue of two turns."""
    folder = tmp_path_factory.mktemp("dialogues")
    [shard] = AlignmentSet.open(alignment_dir).shards
    earlier = {"instruction": TURNS[0].instruction, "response": TURNS[0].response, "audio": None}
    records = [{**record, "turns": [earlier]} for record in pq.read_table(shard).to_pylist()]
    pq.write_table(pa.Table.from_pylist(records, schema=shard_schema(turns=True)), folder / "a.parquet")
    assert seal_alignment_set(folder).has_turns
    return folder


def test_prompts_hold_the_earlier_turns(
    rows: list[AlignmentRow], family: Any, store_for: Callable[..., Any]
) -> None:
    store = store_for(family)
    row = replace(rows[3], turns=TURNS)
    [with_turns], [alone] = store.get([row]), store.get([rows[3]])
    assert torch.equal(with_turns.sound, alone.sound)
    ids = [token for token in with_turns.prompt_ids.tolist() if token != family.audio_token_id]
    assert "capital of france" in family.tokenizer.decode(ids) and len(with_turns.prompt_ids) > len(
        alone.prompt_ids
    )
    [read] = store.text([row])
    assert tuple(read.prompt_ids.tolist()) == family.text_ids(row.instruction, TURNS)


def test_answers_after_other_histories_are_kept_and_scored_apart(rows: list[AlignmentRow]) -> None:
    row = replace(rows[0], turns=TURNS)
    keys = {ReferenceCache.key(one, as_text, [1, 2]) for one in (row, rows[0]) for as_text in (False, True)}
    assert len(keys) == 4
    asked = list[int]()

    def count(given: Any, responses: Any) -> list[float]:
        asked.append(len(responses))
        return [0.0] * len(responses)

    reward = RewardByKind({row.kind: count}, [TEXT_REWARDS["chrf"]])  # type: ignore[dict-item]
    reward([row, rows[0], row], ["a", "a", "a"])
    assert asked == [2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "kd"}, "the text teacher of kd reads one turn"),
        ({"method": "blsp"}, "the LLM that writes the answers for blsp"),
        ({"method": "rba-group", "reward": {"instruct": "judge", "judge": "micro"}}, "the reward judge"),
        (
            {
                **{"method": "sft", "eval_every": 1, "validation": {"metric": "reward"}},
                "reward": {"instruct": "reward-model"},
            },
            "the reward reward-model",
        ),
    ],
)
def test_models_that_would_read_one_turn_are_refused(
    dialogue_dir: Path,
    alignment_dir: Path,
    recipe_for: Callable[..., Any],
    changes: dict[str, Any],
    message: str,
) -> None:
    recipe = recipe_for(**changes)
    refuse_text_readers(recipe, TrainingData.open(choices(str(alignment_dir))))
    with pytest.raises(UserError, match=f"has dialogues, and {message}"):
        refuse_text_readers(recipe, TrainingData.open(choices(str(dialogue_dir))))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "sft"},
        {"method": "rba-single"},
        {"method": "rba-group", "reward": {"instruct": "chrf", "qa": "alias", "s2tt": "bleu"}},
    ],
)
def test_methods_that_read_the_whole_chat_are_not(
    dialogue_dir: Path, recipe_for: Callable[..., Any], changes: dict[str, Any]
) -> None:
    refuse_text_readers(recipe_for(**changes), TrainingData.open(choices(str(dialogue_dir))))


def test_the_history_counts_against_the_context(
    dialogue_dir: Path, family: Any, recipe_for: Callable[..., Any]
) -> None:
    data = TrainingData.open(choices(str(dialogue_dir)))
    group = next(iter(data.train.values()))
    limits = ModelLimits(family, recipe_for(method="sft"))
    index = data.sources[0].index
    used = np.ones(len(index.text), dtype=bool)
    tokens = np.full(len(index.text), 5)
    longest = max(
        len(family.prompt_ids(row.prompt, row.turns)) - 1 + 5 + len(family.answer_ids(row.response))
        for rows in data.all.values()
        for row in rows
    )
    assert group[0].turns == TURNS
    for context, expected in ((longest, False), (longest - 1, True)):
        family.context = context
        out, _ = limits._texts(data.sources[0], used, tokens)
        assert bool(out.any()) is expected


def test_a_task_on_held_out_rows_refuses_dialogues(dialogue_dir: Path) -> None:
    with pytest.raises(UserError, match="has dialogues, and this task asks one turn"):
        rows_of_split(AlignmentSet.open(dialogue_dir), "s2tt")


def test_a_run_trains_on_dialogues(
    dialogue_dir: Path, recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    from rba_bench.training.training_run import train

    recipe = recipe_for(method="sft", steps=2, alignment_set=str(dialogue_dir))
    result = train(recipe, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert result.steps == 2 and all(np.isfinite(line["loss"]) for line in log)
