"""What exports say of where a record comes from: words where the format has room for them, no claim of the Hub's."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from rba_bench.leaderboard.exports.eval_results import export_eval_results
from rba_bench.leaderboard.exports.every_eval_ever import export_every_eval_ever
from rba_bench.leaderboard.exports.model_index import export_model_index
from rba_bench.leaderboard.exports.origin import Origin
from tests.leaderboard.attested import attest, mark
from tests.leaderboard.exports.given import groups_of, invented

FACTS = "submitted; 5 of 5 items answered again with the same answers, 2026-11-29, by ‹b›x"


def proven(root: Path) -> Path:
    folder = mark(invented(root))
    attest(folder, by="<b>x")
    return folder


def test_eval_results_have_a_note_and_no_token_of_the_hub(tmp_path: Path) -> None:
    [content] = export_eval_results(groups_of(proven(tmp_path / "a")), Origin()).files.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(content))
    assert FACTS in entry.notes and entry.verify_token is None and b"verif" not in content
    [content] = export_eval_results(groups_of(invented(tmp_path / "b")), Origin()).files.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(content))
    assert "submitted" not in entry.notes and "answered again" not in entry.notes


def test_a_log_has_it_among_its_details(tmp_path: Path) -> None:
    schema = pytest.importorskip("every_eval_ever.schema", reason="installed by `make setup`")
    origin = Origin("Some lab")
    for folder, expected in ((proven(tmp_path / "a"), FACTS), (invented(tmp_path / "b"), None)):
        files = export_every_eval_ever(groups_of(folder), origin).files
        log = json.loads(next(content for name, content in files.items() if name.endswith(".json")))
        jsonschema.validate(log, schema.schema_json("eval.schema.json"))
        assert log["source_metadata"]["additional_details"].get("provenance") == expected
        assert log["source_metadata"]["evaluator_relationship"] == "other"


def test_a_model_card_claims_nothing(tmp_path: Path) -> None:
    [content] = export_model_index(groups_of(proven(tmp_path)), Origin()).files.values()
    [model] = yaml.safe_load(content)["model-index"]
    assert not any(metric.get("verified") for result in model["results"] for metric in result["metrics"])
    assert b"verifyToken" not in content
