"""Synthesis, training and evaluation from Python, on the micro track."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

import rba_bench as rba

SMALL_SET = {"n_instructions": 12, "round_size": 24, "shard_size": 6}
SMALL_RUN = {"groups_per_step": 2, "max_new_tokens": 12, "warmup_steps": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> rba.AlignmentSet:
    return rba.synthesize(set=SMALL_SET, out=tmp_path_factory.mktemp("api") / "set", progress=False)


@pytest.fixture(scope="module")
def trained(made: rba.AlignmentSet, tmp_path_factory: pytest.TempPathFactory) -> rba.Checkpoint:
    """One step, with a handler of the caller's own for SIGTERM, which is there again afterwards."""
    out = tmp_path_factory.mktemp("api") / "sft"

    def own(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        changes = SMALL_RUN | {"alignment_set": made.path}
        checkpoint = rba.align("sft", set=changes, steps=1, out=out, progress=False)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    return checkpoint


def test_a_set_is_a_table_with_sound(made: rba.AlignmentSet) -> None:
    table = made.to_pandas()
    assert len(table) == len(made) == made.manifest["counts"]["clips"] == 48
    assert table["group_id"].nunique() == 12 and "audio" not in table
    clip = made.clip(3)
    assert clip.sampling_rate == 16_000
    assert len(clip.wave) / 16_000 == pytest.approx(table["duration"][3], abs=0.01)
    assert clip._repr_html_().startswith('<audio controls src="data:audio/')
    with pytest.raises(rba.UserError, match="this set has clips 0 to 47"):
        made.clip(48)
    assert "<td>clips</td><td>48</td>" in made._repr_html_()


def test_a_set_loads_as_datasets_loads_it(made: rba.AlignmentSet) -> None:
    assert rba.load_alignment_set(made.path).load().num_rows == 48
    assert made.load("train").num_rows == (made.to_pandas()["split"] == "train").sum()
    with pytest.raises(rba.UserError, match="unknown split 'test'"):
        made.load("test")


def test_a_checkpoint_knows_how_it_was_made(trained: rba.Checkpoint) -> None:
    assert (trained.method, trained.record["steps"]) == ("sft", 1)
    again = rba.load_checkpoint(trained.path)
    assert again.record == trained.record and os.fspath(again) == str(trained.path)
    assert "<td>method</td><td>sft</td>" in trained._repr_html_()
    with pytest.raises(rba.UserError, match="no finished checkpoint"):
        rba.load_checkpoint(trained.path.parent)


def test_the_same_call_finds_what_it_made(
    made: rba.AlignmentSet, trained: rba.Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    recipe = {"method": "sft", "base": "micro", "alignment_set": str(made.path)}
    by_name = rba.align("sft", set=SMALL_RUN | {"alignment_set": made.path}, steps=1, out=trained.path)
    out, err = capfd.readouterr()
    assert by_name.record == trained.record and out == "" and "is finished already" in err
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(rba.UserError, match="belongs to"):
        rba.align(recipe, steps=1, out=trained.path, progress=False)  # other keys: another run


def test_a_model_is_evaluated_where_an_event_loop_runs(
    trained: rba.Checkpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a notebook; with progress off nothing is written at all."""

    async def cell() -> rba.Run:
        return trained.evaluate("covost2", limit=2, out=tmp_path, progress=False)

    run = asyncio.run(cell())
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert list(run.results) == ["micro_covost2", "micro_covost2_sampled"] and run.partial
    assert run.results["micro_covost2"]["bleu"].n == 2
    again = rba.load_run(run.paths[0])
    assert again.results["micro_covost2"] == run.results["micro_covost2"]
    assert [s["response"] for s in again.samples] == [s["response"] for s in run.samples][:2]


def test_a_users_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rba.UserError, match="micro_covost2"):
        rba.evaluate("constant", "micro_covst2", out=tmp_path)
    with pytest.raises(rba.UserError, match="stepps"):
        rba.align("sft", set={"stepps": 3})
    with pytest.raises(rba.MissingPrerequisite, match="no checkpoint"):
        rba.evaluate()


def test_settings_are_read_as_they_were_given() -> None:
    from rba_bench.api.calling import setting_texts
    from rba_bench.recipes import parse_override

    given = {
        "a.b": [1, "x"],
        "c": None,
        "d": {"e": 1e-4},
        "f": "1e-4",
        "g": Path("x/y"),
        "h": True,
        "i": "null",
    }
    read = {".".join(where): value for where, value in map(parse_override, setting_texts(given))}
    assert read == given | {"g": "x/y"}
    assert setting_texts(["a=1"], seed=3, steps=None) == ["a=1", "seed=3"]
    with pytest.raises(TypeError, match="a setting cannot be of type object"):
        setting_texts({"a": object()})
