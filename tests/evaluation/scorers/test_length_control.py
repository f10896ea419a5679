"""Length control of spoken AlpacaEval: difficulties by the words of the instruction, from files or a local copy."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.scorers import pairwise, rating
from rba_bench.evaluation.scorers.length_control import LengthControl
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.metrics.win_rate import length_controlled, read_gamed
from rba_bench.textlm.judging import Reply

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
    options = ScorerOptions(cache=tmp_path, data_dir=tables)
    control = LengthControl.from_config({"lc": form}, options)
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
    options = ScorerOptions(cache=tmp_path, data_dir=tables)
    rng = np.random.default_rng(2)
    samples = [spoken(sample, i, "x" * int(rng.integers(10, 90))) for i in range(COUNT)]
    gamed = read_gamed(tables / "tatsu-lab" / "alpaca_eval" / "df_gamed.csv")
    hard = np.array([gamed.by_index[i] for i in range(COUNT)])
    wins = (1 / (1 + np.exp(1 - 2 * hard - rng.normal(size=COUNT)))).tolist()
    rates = set()
    for form in ("minimal", "difficulty", "difficulty_noreg"):
        control = LengthControl.from_config({"lc": form}, options)
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
    control = LengthControl.from_config(named, ScorerOptions(cache=tmp_path, data_dir=tmp_path))
    assert control is not None and control.by_index is not None and len(control.by_index) == COUNT
    with pytest.raises(MissingPrerequisite, match="df_gamed.csv of tatsu-lab/alpaca_eval"):
        LengthControl.from_config({**named, "gamed": folder / "absent.csv"}, ScorerOptions(cache=tmp_path))
    with pytest.raises(MissingPrerequisite, match="hf download tatsu-lab/alpaca_eval"):
        LengthControl.from_config({"lc": "difficulty"}, ScorerOptions(cache=tmp_path, data_dir=tmp_path))


def test_an_instruction_without_difficulty_is_refused(tables: Path, sample: Any, tmp_path: Path) -> None:
    options = ScorerOptions(cache=tmp_path, data_dir=tables)
    control = LengthControl.from_config({"lc": "difficulty"}, options)
    assert control is not None
    with pytest.raises(UserError, match=r"1 of 2 instructions .*'sing'.* lc: none"):
        control.has_difficulty([spoken(sample, 1, "x"), sample(2, "x", instruction="sing")])


def test_a_few_instructions_without_difficulty_have_no_controlled_rate(
    tables: Path, sample: Any, tmp_path: Path, scripted: Any
) -> None:
    """Of 40 items two are not AlpacaEval's, and one of these has nothing to beat: judged or not, they are counted."""
    options = ScorerOptions(cache=tmp_path, data_dir=tables)
    samples = [spoken(sample, i, f"answer {i} " + "x" * (7 * i % 50)) for i in range(38)]
    samples += [sample(38, "x", instruction="sing"), sample(39, "x", instruction="hum", baseline="")]
    odds = Reply("m", top_logprobs=(("m", np.log(0.3)), ("M", np.log(0.6))))
    judge = pairwise.PairwiseJudge.from_config({"lc": "difficulty"}, options, scripted(lambda _: odds))
    additions = judge.score(samples)
    assert [sorted(a.scores) for a in additions[:38]] == [["lc_win_rate", "win_rate"]] * 38
    assert [sorted(a.scores) for a in additions[38:]] == [["win_rate"], []]
    assert judge.report()["length_control"]["without_difficulty"] == 1
    assert "lc:difficulty" in judge.metrics[1].signature.split("|")


def test_the_first_form_whose_tables_are_there_is_taken_and_told(
    tables: Path, tmp_path: Path, scripted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"lc": ["difficulty", "none"]}
    with_tables = ScorerOptions(cache=tmp_path, data_dir=tables)
    without = ScorerOptions(cache=tmp_path, data_dir=tmp_path)
    asker = scripted(lambda _: Reply("m"))
    full = pairwise.PairwiseJudge.from_config(config, with_tables, asker)
    assert capsys.readouterr().err == ""
    bare = pairwise.PairwiseJudge.from_config(config, without, asker)
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "lc: difficulty cannot be used, lc: none is used instead" in told
    for part in ("hf download tatsu-lab/alpaca_eval", "df_gamed.csv", "alpaca_eval_gpt4_baseline.json"):
        assert part in told
    assert [m.name for m in full.metrics] == ["win_rate", "lc_win_rate"]
    assert [m.name for m in bare.metrics] == ["win_rate"]
    assert full.describe()["lc"]["form"] == "difficulty" and bare.describe()["lc"] == {"form": "none"}
    assert pairwise.PairwiseJudge.metric_names(config, with_tables) == ("win_rate", "lc_win_rate")
    assert pairwise.PairwiseJudge.metric_names(config, without) == ("win_rate",)
    assert capsys.readouterr().err == ""


def test_a_settled_entry_needs_no_search(tables: Path, tmp_path: Path) -> None:
    """What is decided where the data is loaded holds where the data folder is not known."""
    config = {"name": "pairwise", "lc": ["difficulty", "none"]}
    settled = pairwise.PairwiseJudge.resolve_config(config, ScorerOptions(cache=tmp_path, data_dir=tables))
    assert settled["lc"] == "difficulty" and str(tables) in settled["gamed"]
    elsewhere = ScorerOptions(cache=tmp_path, data_dir=tmp_path)
    assert pairwise.PairwiseJudge.metric_names(settled, elsewhere) == ("win_rate", "lc_win_rate")
    assert rating.RatingJudge.resolve_config({"name": "rating"}, elsewhere) == {"name": "rating"}


def test_a_table_that_the_entry_names_is_never_passed_over(tables: Path, tmp_path: Path) -> None:
    options = ScorerOptions(cache=tmp_path, data_dir=tables)
    with pytest.raises(MissingPrerequisite, match="absent.csv"):
        LengthControl.from_config({"lc": ["difficulty", "none"], "gamed": tmp_path / "absent.csv"}, options)


def test_files_of_another_layout(tables: Path, tmp_path: Path) -> None:
    folder = tables / "tatsu-lab" / "alpaca_eval"
    (folder / "alpaca_eval_gpt4_baseline.json").write_text('{"instruction": 1}')
    options = ScorerOptions(cache=tmp_path, data_dir=tables)
    with pytest.raises(UserError, match="no list of instructions"):
        LengthControl.from_config({"lc": "difficulty"}, options)
    (folder / "df_gamed.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="gamed baselines"):
        LengthControl.from_config({"lc": "difficulty"}, options)


def test_none_is_the_default_and_leaves_it_out(tmp_path: Path) -> None:
    for config in ({}, {"lc": "none"}, {"lc": []}):
        assert LengthControl.from_config(config, ScorerOptions(cache=tmp_path)) is None
