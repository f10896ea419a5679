"""`verify --rerun`: the model of a record answers some of its items again, which is the only check on the responses."""

import json
import shutil
from pathlib import Path

import pytest

from rba_bench.cli.main import main
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard import forging
from tests.leaderboard.forging import Json
from tests.textlm.misbehaving_server import answer, serving

TASKS = ("micro_triviaqa", "micro_triviaqa_sampled")
N = 6


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, tuple[Json, list[Json]]]:
    out = tmp_path_factory.mktemp("eval")
    evaluate(EvalRequest(tasks=TASKS, model="base", out=out, limit=N, perturb="noise=20dB", device="cpu"))
    found = {}
    for task in TASKS:
        [folder] = out.glob(f"base/{task}-*")
        lines = (folder / "samples.jsonl").read_text().splitlines()
        found[task] = json.loads((folder / "run.json").read_text()), [json.loads(line) for line in lines]
    return found


def command(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "verify", *words])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


@pytest.mark.parametrize("task", TASKS)
def test_the_model_of_an_honest_record_says_the_same_again(runs, tmp_path, capsys, task):
    """Sampled answers too: an item's seed is its own."""
    folder = forging.write(tmp_path / "run", *runs[task])
    code, out, _ = command(capsys, str(folder), "--rerun", "4", "--seed", "3")
    assert code == 0 and "rerun of 4 items (seed 3): 4 answers are equal" in out.splitlines()[0]


def right(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["response"] = sample["extracted"] = sample["references"][-1] + " indeed"
    forging.rescore(samples)
    forging.settle(record, samples)


@pytest.mark.parametrize(("task", "code"), zip(TASKS, (1, 0), strict=True))
def test_answers_of_an_older_sampler_are_no_fault_but_greedy_ones_are(runs, tmp_path, capsys, task, code):
    def older(record: Json, samples: list[Json]) -> None:
        del record["versions"]["sampler"]
        right(record, samples)

    folder = forging.edited(tmp_path / "run", runs[task], older)
    found, out, _ = command(capsys, str(folder), "--rerun", "2")
    assert found == code
    assert ("another version of the sampler, so this proves nothing" in out) == (code == 0)


def test_edited_responses_are_found_though_all_else_fits(runs, tmp_path, capsys):
    folder = forging.edited(tmp_path / "run", runs["micro_triviaqa"], right)
    assert verify_records([folder]).ok
    code, out, _ = command(capsys, str(folder), "--rerun", str(2 * N), "--seed", "0")
    assert code == 1 and f"rerun of {N} items (seed 0): 0 answers are equal, not those of " in out
    assert "the responses were edited" in out
    code, out, _ = command(capsys, str(folder), "--rerun", "2", "--json")
    assert code == 1 and "rerun of 2 items" in json.loads(out)["records"][0]["faults"][0]


def test_one_item_is_answered_again_by_its_id_or_number(runs, tmp_path, capsys):
    record, samples = runs["micro_triviaqa"]
    folder = forging.write(tmp_path / "run", record, samples)
    for item in (samples[2]["id"], "2"):
        code, out, _ = command(capsys, str(folder), f"--item={item}")
        assert code == 0 and f"rerun of item {item}: the answer is equal" in out.splitlines()[0]
    forged = forging.edited(tmp_path / "forged", runs["micro_triviaqa"], right)
    code, out, _ = command(capsys, str(forged), "--item", "2")
    assert code == 1 and samples[2]["response"] in out and "the responses were edited" in out
    code, _, err = command(capsys, str(folder), "--item", "nothing")
    assert code == 2 and "no answer to an item 'nothing'" in err
    assert command(capsys, str(folder), "--item", "2", "--rerun", "1")[0] == 2


def test_only_the_weights_that_the_record_names_are_asked(runs, tmp_path, capsys):
    def other(record: Json, samples: list[Json]) -> None:
        record["model"]["weights_sha256"] = "ab" * 32
        forging.identify(record)

    folder = forging.edited(tmp_path / "run", runs["micro_triviaqa"], other)
    code, _, said = command(capsys, str(folder), "--rerun", "1")
    assert code == 3 and "is not on this machine: name it with --model" in said
    code, _, said = command(capsys, str(folder), "--rerun", "1", "--model", "base")
    assert code == 2 and "base is not the model of" in said and "the record's abababababab" in said


@pytest.mark.parametrize("spec", ["openai:http://127.0.0.1:9/v1#m", "evil/model", "../../evil"])
def test_nothing_in_a_record_makes_this_machine_fetch_or_call(runs, tmp_path, capsys, spec, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    def named(record: Json, samples: list[Json]) -> None:
        record["model"]["spec"] = spec
        if spec.startswith("openai:"):
            record["model"]["kind"] = "endpoint"
            forging.identify(record)

    monkeypatch.setattr("rba_bench.leaderboard.rerun.load_speech_model", refuse)
    folder = forging.edited(tmp_path / "run", runs["micro_triviaqa"], named)
    code, out, said = command(capsys, str(folder), "--rerun", "1")
    assert code == 3 and "name it with --model" in said, out


def test_a_checkpoint_is_found_by_its_name_below_runs(runs, tmp_path, capsys, monkeypatch):
    """A record of a checkpoint elsewhere holds the last part of its path alone."""
    from rba_bench.assets import model_folder

    monkeypatch.chdir(tmp_path)

    def named(record: Json, samples: list[Json]) -> None:
        record["model"].update(spec="mine", name="mine")

    folder = forging.edited(tmp_path / "run", runs["micro_triviaqa"], named)
    assert command(capsys, str(folder), "--rerun", "1")[0] == 3
    shutil.copytree(model_folder("base"), Path("runs/study/mine"))
    code, out, _ = command(capsys, str(folder), "--rerun", "2")
    assert code == 0 and "2 answers are equal" in out


def test_a_server_is_asked_again_and_that_proves_nothing_is_said(tmp_path, capsys):
    with serving(lambda seen: answer("the dorn")) as server:
        evaluate(EvalRequest(("micro_triviaqa",), server.spec, out=tmp_path, limit=3, device="cpu"))
        code, _, said = command(capsys, str(tmp_path), "--rerun", "2")
        assert code == 3 and "name it with --model" in said
        code, out, _ = command(capsys, str(tmp_path), "--rerun", "2", "--model", server.spec)
        assert code == 0 and "2 answers are equal; the weights of a server are not known" in out
    with serving(lambda seen: answer("something else")) as server:
        code, out, _ = command(capsys, str(tmp_path), "--rerun", "2", "--model", server.spec)
        assert code == 0 and "0 answers are equal, not those of micro_triviaqa-00" in out


def test_a_model_is_only_named_for_a_rerun(tmp_path, capsys):
    code, _, said = command(capsys, str(tmp_path), "--model", "base")
    assert code == 2 and "--model is for --rerun N" in said
