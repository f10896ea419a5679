"""The exported `model-index` is that of `leaderboard card`, and huggingface_hub reads it."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from rba_bench.leaderboard.exports.model_index import export_model_index, model_index
from rba_bench.leaderboard.exports.origin import Origin
from tests.leaderboard.exports.given import HOSTILE, groups_of, invented, record_of


def test_one_file_a_model_and_the_hub_reads_it(tmp_path: Path) -> None:
    groups = groups_of(record_of("base", "micro_triviaqa"), record_of("sft", "micro_triviaqa"))
    made = export_model_index(groups, Origin())
    assert sorted(made.files) == ["base.yaml", "sft.yaml"]
    card = ModelCard(f"---\n{made.files['base.yaml'].decode()}---\n")
    [result] = card.data.eval_results
    value = groups[0].runs[0].record.metrics["asserted_match"]
    assert card.data.model_name == "base" and result.metric_value == round(100 * value.value, 1)
    assert result.metric_args["ci95"] == [round(100 * value.low, 1), round(100 * value.high, 1)]
    index = model_index({}, [(groups[0], groups[0].runs[0])])
    assert yaml.safe_load(made.files["base.yaml"])["model-index"] == index


def test_two_tasks_and_changed_clips_of_one_data_set_keep_their_names(tmp_path: Path) -> None:
    noisy = {"task": "t", "perturb": {"text": "noise=0dB"}}
    plain, changed = (
        invented(tmp_path / "a", "m"),
        invented(tmp_path / "b", "m", protocol_spec=noisy, protocol_hash="cd" * 32),
    )
    made = export_model_index(groups_of(plain, changed), Origin())
    card = ModelCard(f"---\n{made.files['m.yaml'].decode()}---\n")
    names = sorted(result.dataset_name for result in card.data.eval_results)
    assert names == ["micro_triviaqa_greedy", "micro_triviaqa_greedy (noise=0dB)"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_yaml(tmp_path: Path, name: str) -> None:
    groups = groups_of(invented(tmp_path, name))
    [(path, content)] = export_model_index(groups, Origin()).files.items()
    assert "/" not in path
    [model] = yaml.safe_load(content)["model-index"]
    assert model["name"] == groups[0].runs[0].name and len(model["results"]) == 1
