"""Length control of spoken AlpacaEval: difficulties by the words of the instruction, from files or a local copy."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.finishers.base import FinishOptions
from rba_bench.evaluation.judges.length import LengthControl
from rba_bench.metrics.lc_winrate import length_controlled, read_gamed

COUNT = 60


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """The three files of tatsu-lab/alpaca_eval in the layout of a local copy, with 60 instructions."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "data" / "tatsu-lab" / "alpaca_eval"
    folder.mkdir(parents=True)
    rows = [{"instruction": f"Please, do No. {i}!", "output": "x", "dataset": "vicuna"} for i in range(COUNT)]
    (folder / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(rows))
    difficulty = rng.normal(size=COUNT)
    with open(folder / "instruction_difficulty.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([["", "instruction_difficulty"], *enumerate(difficulty.tolist())])
    columns = [
        "index",
        "preference",
        "std_delta_len",
        "instruction_difficulty",
        "not_gamed_baseline",
        "model",
    ]
    with open(folder / "df_gamed.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        for model, shift in (("verbose", -1.0), ("concise", 1.0)):
            for i in range(COUNT):
                writer.writerow([i, rng.random(), rng.normal(shift), difficulty[i], False, model])
    return tmp_path / "data"


def spoken(sample: Any, number: int, response: str) -> Any:
    return sample(number, response, instruction=f"please do no {number}")


@pytest.mark.parametrize("form", ["minimal", "difficulty", "difficulty_noreg"])
def test_forms_use_what_they_say(tables: Path, sample: Any, tmp_path: Path, form: str) -> None:
    options = FinishOptions(cache=tmp_path, data_dir=tables)
    control = LengthControl.of({"lc": form}, options)
    assert control is not None
    rng = np.random.default_rng(1)
    subset = [5, 7, 11, *range(20, COUNT)]
    samples = [spoken(sample, i, "x" * int(rng.integers(10, 90))) for i in subset]
    wins = rng.random(len(subset)).tolist()
    fit = control.fit(samples, wins, ["y" * 40] * len(subset))
    gamed = read_gamed(tables / "tatsu-lab" / "alpaca_eval" / "df_gamed.csv")
    hard = None if form == "minimal" else [gamed.by_index[i] for i in subset]
    lengths = [len(s.response) for s in samples]
    direct = length_controlled(
        wins, lengths, [40] * len(subset), hard, gamed if form == "difficulty" else None
    )
    assert fit.rate == direct.rate and set(fit.weights) == set(direct.weights)
    assert bool(control.facts().get("tables_sha256")) == (form != "minimal")
    assert str(tables) not in json.dumps(control.facts()) and form in control.signature


def test_forms_differ(tables: Path, sample: Any, tmp_path: Path) -> None:
    options = FinishOptions(cache=tmp_path, data_dir=tables)
    rng = np.random.default_rng(2)
    samples = [spoken(sample, i, "x" * int(rng.integers(10, 90))) for i in range(COUNT)]
    gamed = read_gamed(tables / "tatsu-lab" / "alpaca_eval" / "df_gamed.csv")
    hard = np.array([gamed.by_index[i] for i in range(COUNT)])
    wins = (1 / (1 + np.exp(1 - 2 * hard - rng.normal(size=COUNT)))).tolist()
    rates = set()
    for form in ("minimal", "difficulty", "difficulty_noreg"):
        control = LengthControl.of({"lc": form}, options)
        assert control is not None
        rates.add(round(control.fit(samples, wins, ["y" * 40] * COUNT).rate, 6))
    assert len(rates) == 3


def test_named_files_come_before_the_local_copy(tables: Path, sample: Any, tmp_path: Path) -> None:
    folder = tables / "tatsu-lab" / "alpaca_eval"
    named = {
        "lc": "difficulty_noreg",
        "difficulty": folder / "instruction_difficulty.csv",
        "instructions": folder / "alpaca_eval_gpt4_baseline.json",
    }
    control = LengthControl.of(named, FinishOptions(cache=tmp_path, data_dir=tmp_path))
    assert control is not None and control.by_index is not None and len(control.by_index) == COUNT
    with pytest.raises(MissingPrerequisite, match="df_gamed.csv of tatsu-lab/alpaca_eval"):
        LengthControl.of({**named, "gamed": folder / "absent.csv"}, FinishOptions(cache=tmp_path))
    with pytest.raises(MissingPrerequisite, match="hf download tatsu-lab/alpaca_eval"):
        LengthControl.of({"lc": "difficulty"}, FinishOptions(cache=tmp_path, data_dir=tmp_path))


def test_an_instruction_without_difficulty_is_refused(tables: Path, sample: Any, tmp_path: Path) -> None:
    options = FinishOptions(cache=tmp_path, data_dir=tables)
    control = LengthControl.of({"lc": "difficulty"}, options)
    assert control is not None
    with pytest.raises(UserError, match=r"1 of 2 instructions .*'sing'.* lc: minimal"):
        control.check([spoken(sample, 1, "x"), sample(2, "x", instruction="sing")])


def test_files_of_another_layout(tables: Path, tmp_path: Path) -> None:
    folder = tables / "tatsu-lab" / "alpaca_eval"
    (folder / "alpaca_eval_gpt4_baseline.json").write_text('{"instruction": 1}')
    options = FinishOptions(cache=tmp_path, data_dir=tables)
    with pytest.raises(UserError, match="no list of instructions"):
        LengthControl.of({"lc": "difficulty"}, options)
    (folder / "df_gamed.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="gamed baselines"):
        LengthControl.of({"lc": "difficulty"}, options)


def test_none_leaves_it_out(tmp_path: Path) -> None:
    assert LengthControl.of({"lc": "none"}, FinishOptions(cache=tmp_path)) is None
