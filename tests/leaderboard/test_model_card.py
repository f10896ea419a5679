"""Scores in a checkpoint's card: only its own complete records, replaced by a second call, beside what others wrote."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rba_bench.assets import weights_folder
from rba_bench.cards import CARD, front_matter
from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation.records import read_record
from rba_bench.leaderboard.model_card import write_results
from tests.published import published_run

TASK = "micro_webquestions"


def record_of(model: str, task: str = TASK) -> Path:
    return published_run(model, task)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The shipped base, of which the published board holds records."""
    return shutil.copytree(weights_folder() / "base", tmp_path / "base")


def metrics_of(checkpoint: Path) -> list[dict[str, Any]]:
    (model,) = front_matter(checkpoint / CARD)["model-index"]
    return [metric for result in model["results"] for metric in result["metrics"]]


def test_scores_of_the_checkpoint_s_own_records_stand_in_its_card(checkpoint: Path) -> None:
    own, other = record_of("base"), record_of("rba-group")
    (checkpoint / CARD).write_text("---\nlicense: mit\n---\n\n# My words\n")
    done = write_results(checkpoint, [own, other])
    assert done.runs == (own,) and done.left_out == ("1 is of other weights",)
    record = read_record(own)
    stated = record.metrics["asserted_match"]
    value, low, high = (round(100 * number, 1) for number in (stated.value, stated.low, stated.high))
    assert metrics_of(checkpoint) == [
        {
            "type": "asserted_match", "name": "asserted_match %", "value": value,
            "args": {"ci95": [low, high], "n": 96, "protocol_sha256": record.protocol_hash},
        }
    ]  # fmt: skip
    text = (checkpoint / CARD).read_text()
    assert f"| {TASK} | greedy | asserted_match % | {value} [{low}, {high}] | 96 |" in text
    assert (
        record.protocol_hash in text and record.model["weights_sha256"] in text and "miniature world" in text
    )
    assert front_matter(checkpoint / CARD)["license"] == "mit" and "# My words" in text


def test_a_second_call_replaces_scores_and_keeps_those_of_others(checkpoint: Path) -> None:
    write_results(checkpoint, [record_of("base")])
    path = checkpoint / CARD
    foreign = """- task:
      type: automatic-speech-recognition
    dataset:
      name: LibriSpeech
      type: librispeech_asr
    metrics:
    - type: wer
      value: 3.1
  """
    path.write_text(
        path.read_text().replace("  results:\n  - ", f"  results:\n  {foreign}- ", 1) + "\nMine.\n"
    )
    assert [metric["type"] for metric in metrics_of(checkpoint)] == ["wer", "asserted_match"]
    write_results(checkpoint, [record_of("base", "micro_fleurs")])
    assert [metric["type"] for metric in metrics_of(checkpoint)] == ["wer", "bleu"]
    text = path.read_text()
    assert TASK not in text and text.endswith("\nMine.\n") and text.count("## Results") == 1
    before = path.read_bytes()
    write_results(checkpoint, [record_of("base", "micro_fleurs")])
    assert path.read_bytes() == before


def changed(source: Path, place: Path, **values: Any) -> Path:
    folder = shutil.copytree(source, place)
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_partial_records_and_those_of_other_models_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    partial = changed(record_of("base"), tmp_path / "partial", partial=True, limit=96)
    with pytest.raises(
        UserError, match=r"1 is of other weights; 1 is partial\): make one with rba-bench eval"
    ):
        write_results(checkpoint, [partial, record_of("sft")])
    oracle = json.loads((record_of("base") / "run.json").read_text())["model"] | {"spec": "text:base"}
    with pytest.raises(UserError, match="1 is of other weights"):
        write_results(checkpoint, [changed(record_of("base"), tmp_path / "text", model=oracle)])
    assert not (checkpoint / CARD).exists()


def test_a_record_at_fault_does_not_reach_a_card(checkpoint: Path, tmp_path: Path) -> None:
    path = record_of("base") / "run.json"
    metrics = json.loads(path.read_text())["metrics"]
    metrics["asserted_match"]["high"] = 0.99
    forged = changed(record_of("base"), tmp_path / "forged", metrics=metrics)
    with pytest.raises(UserError, match="asserted_match"):
        write_results(checkpoint, [forged])
    assert not (checkpoint / CARD).exists()


def test_the_command_writes_the_whole_card_and_names_it(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["leaderboard", "card", str(checkpoint), str(record_of("base")), "--json"])
    assert end.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["card"] == str(checkpoint / CARD) and printed["runs"] == [str(record_of("base"))]
    text = (checkpoint / CARD).read_text()
    assert "## How to use it" in text and "## Results" in text
    assert front_matter(checkpoint / CARD)["library_name"] == "transformers"
