"""The contestant of ours in the race beside TRL is the trainer as it is: one step of each of its variants."""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rba_side
    import trainer_shapes
    import trainer_speed

    monkeypatch.setattr(rba_side, "BATCH", 2)
    return argparse.Namespace(side=rba_side, shapes=trainer_shapes, speed=trainer_speed)


@pytest.fixture
def folder(benchmarks: Any, tmp_path: Path) -> Path:
    encoder = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 16}
    decoder = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tiny = replace(
        benchmarks.shapes.SHAPES["decoder"],
        encoder=encoder,
        decoder={**decoder, "num_key_value_heads": 2, "vocab_size": 8192},
        seconds=1.0,
        text=20,
    )
    benchmarks.speed.make_model(tmp_path, tiny)
    benchmarks.speed.make_pairs(tmp_path, tiny, 4)
    return tmp_path


@pytest.mark.parametrize(
    "reference, tower, layout",
    [("live", "train", "pack"), ("cached", "frozen", "share"), ("live", "frozen", "pad")],
)
def test_our_side_takes_a_step(
    benchmarks: Any, folder: Path, reference: str, tower: str, layout: str
) -> None:
    given = argparse.Namespace(
        folder=folder,
        policy="policy",
        reference=reference,
        tower=tower,
        steps=1,
        accumulate=2 if layout == "share" else 1,
        layout=layout,
        pad_clips=False,
        per_answer=layout == "pad",
        encoder_cache=None,
    )
    trainer = benchmarks.side.make_trainer(given, None)
    assert trainer.order[1] == (1, "g1")
    trainer.train()
    assert trainer.state.global_step == 1 and math.isfinite(trainer.grad_norm)
