"""What a run is called, and what of the model counts."""

import pytest

from rba_bench.evaluation.plan import identifying_facts, relative_spec


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("base", "base"),
        ("Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2-Audio-7B-Instruct"),
        ("/elsewhere/models/mine", "mine"),
        ("text:/elsewhere/llm", "text:llm"),
        ("text:openai:http://127.0.0.1:8000/v1#m", "text:openai:http://127.0.0.1:8000/v1#m"),
        ("cascade:large-v3+/elsewhere/llm", "cascade:large-v3+llm"),
        ("cascade:/elsewhere/asr+openai:http://h:1/v1#m", "cascade:asr+openai:http://h:1/v1#m"),
        ("openai:https://host/v1#org/model", "openai:https://host/v1#org/model"),
    ],
)
def test_specs_name_no_folder_of_this_machine(spec, shown):
    assert relative_spec(spec) == shown


def test_a_path_below_here_stays_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative_spec(str(tmp_path / "runs" / "sft")) == "runs/sft"


def test_what_a_model_is_called_does_not_identify_it():
    named = {"name": "a", "spec": "b", "training": {}, "verified": True, "weights_sha256": "c"}
    assert identifying_facts(named) == {"weights_sha256": "c"}
