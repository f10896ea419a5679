"""`rba-bench compare` from the command line: tables, JSON, and the one line of a refusal."""

import json
from pathlib import Path

import pytest

from rba_bench.cli.main import main
from tests.leaderboard import board_records as made

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, skill in (("rba-group", 0.5), ("text:org/llm", 1.2)):
        model = {"name": name.rpartition("/")[2], "spec": name, "weights_sha256": "0", "training": None}
        place = root / model["name"]
        made.write_run(place, "x", made.qa_samples(skill, n=40), model=model)
        made.write_run(
            place, "x", made.translation_samples(1.2 - skill, n=30), "micro_covost2_greedy", model=model
        )
    return root


def called(capsys: Capture, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["compare", *words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_folders_of_runs_as_tables(runs: Path, capsys: Capture) -> None:
    code, out, err = called(capsys, str(runs / "rba-group"), str(runs / "llm"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("micro_")] == [
        "micro_covost2_greedy", "micro_triviaqa_greedy"
    ]  # fmt: skip
    assert sum(line.startswith("B reads the transcript") for line in lines) == 2
    (row,) = [line.strip() for line in lines if line.strip().startswith("alias_match %")]
    cells = [cell for cell in row.split("  ") if cell]
    assert (
        cells[2].strip() == "100.00" and cells[3].strip().endswith("*") and cells[-1].strip().startswith("0/")
    )
    assert [cells[-3].strip(), cells[-2].strip()] == ["40", "0"]


def test_the_ceiling_first_gives_the_modality_gap(runs: Path, capsys: Capture) -> None:
    _, there, _ = called(capsys, str(runs / "llm"), str(runs / "rba-group"), "--json")
    _, back, _ = called(capsys, str(runs / "rba-group"), str(runs / "llm"), "--json")
    gap, loss = (json.loads(text)["comparisons"][1]["metrics"][1] for text in (there, back))
    assert gap["metric"] == loss["metric"] == "alias_match" and gap["significant"]
    assert (
        gap["difference"]["value"] == pytest.approx(-loss["difference"]["value"])
        and gap["difference"]["low"] > 0
    )
    assert (gap["wins"], gap["losses"]) == (loss["losses"], loss["wins"])
    _, out, _ = called(capsys, str(runs / "llm"), str(runs / "rba-group"))
    assert "A reads the transcript: A-B is the modality gap" in out


def test_json_names_both_runs_and_what_was_left_out(runs: Path, capsys: Capture) -> None:
    one = next((runs / "rba-group").rglob("micro_triviaqa*"))
    code, out, _ = called(capsys, str(one), str(runs / "llm"), "--json")
    found = json.loads(out)
    (comparison,) = found["comparisons"]
    assert code == 0 and comparison["a"]["folder"] == str(one) and comparison["b"]["kind"] == "ceiling"
    assert comparison["metrics"][0]["difference"]["n"] == 40 and len(comparison["protocol_hash"]) == 64
    assert found["left_out"] == ["micro_covost2_greedy under protocol abababab: only B has a run of it"]


def test_a_refusal_is_one_line_that_names_what_differs_and_code_2(
    runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    spec = {"task": "micro_triviaqa_greedy", "decoding": {"temperature": 1.0}}
    other = made.write_run(
        tmp_path, "b", made.qa_samples(0.5, n=40), protocol_hash="ee" * 32, protocol_spec=spec
    )
    one = next((runs / "rba-group").rglob("micro_triviaqa*"))
    code, out, err = called(capsys, str(one), str(other))
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "their protocols differ in decoding (absent against" in err
    code, _, err = called(capsys, str(one), str(tmp_path / "nowhere"))
    assert code == 2 and "does not exist" in err
