"""The protocol hash changes with what changes a score, and with nothing else."""

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import metric, scoring, task_registry
from rba_bench.evaluation.model_input import cut_at_stops, read_generation_settings
from rba_bench.evaluation.plan import protocol_hash, protocol_spec
from tests.evaluation.conftest import write_task

DOCS = [{"kind": "qa", "target_lang": "en", "prompt": ""}]


def hash_of(path, docs=DOCS, **more):
    spec = task_registry.read_spec(path)
    return protocol_hash(
        protocol_spec(spec, read_generation_settings(spec.config["generation_kwargs"]), docs, **more)
    )


@pytest.fixture
def base(tmp_path):
    return hash_of(write_task(tmp_path / "base", "triviaqa"))


@pytest.mark.parametrize(
    "changes",
    [
        {"doc_to_text": "Answer: {{prompt}}"},
        {"description": "You are helpful."},
        {"generation_kwargs": {"protocol": "greedy", "max_gen_toks": 49, "until": []}},
        {"generation_kwargs": {"protocol": "sampled", "max_gen_toks": 48, "until": []}},
        {"generation_kwargs": {"protocol": "greedy", "max_gen_toks": 48, "until": ["\n"]}},
        {"metric_list": []},
        {"metadata": {"version": 99}},
        {"metadata": {"version": 2, "judge": {"name": "another"}}},
    ],
)
def test_prompt_decoding_metric_judge_and_version_count(tmp_path, base, changes):
    assert hash_of(write_task(tmp_path, "triviaqa", **changes)) != base


@pytest.mark.parametrize(
    "more",
    [
        {"docs": [{**DOCS[0], "prompt": "Answer in one word."}]},
        {"finish": [{"name": "yesno", "judge": {"model": "x"}}]},
        {"perturb": {"text": "noise=10dB", "version": 1}},
        {"baseline": {"name": "gpt4", "sha256": "0"}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_wording_judges_perturbation_and_baseline_count(tmp_path, base, more):
    assert hash_of(write_task(tmp_path, "triviaqa"), **more) != base


def test_seed_and_data_folder_do_not_count(tmp_path, base):
    seeded = {"protocol": "greedy", "max_gen_toks": 48, "until": [], "seed": 99}
    assert hash_of(write_task(tmp_path / "elsewhere", "triviaqa", generation_kwargs=seeded)) == base


def test_metric_signature_counts(tmp_path, base, monkeypatch):
    monkeypatch.setattr(metric, "_signature", lambda metric, langs: "another normaliser")
    assert hash_of(write_task(tmp_path, "triviaqa")) != base


def test_target_language_changes_the_tokenizer_and_so_the_hash(tmp_path):
    task = write_task(tmp_path, "covost2")
    german, chinese = ([{"kind": "s2tt", "target_lang": lang, "prompt": ""}] for lang in ("de", "zh-CN"))
    assert hash_of(task, german) != hash_of(task, chinese)
    assert "tok:zh" in scoring.signatures("s2tt", ["zh-CN"])["bleu"]


@pytest.mark.parametrize(
    ("kwargs", "protocol", "temperature"),
    [
        ({}, "greedy", 0.0),
        ({"protocol": "greedy"}, "greedy", 0.0),
        ({"do_sample": False, "temperature": 1.0}, "greedy", 0.0),
        ({"protocol": "sampled"}, "sampled", 1.0),
        ({"do_sample": True}, "sampled", 1.0),
        ({"do_sample": True, "temperature": 0.7}, "custom", 0.7),
        ({"do_sample": True, "top_p": 0.9}, "custom", 1.0),
    ],
)
def test_settings_name_their_protocol(kwargs, protocol, temperature):
    found = read_generation_settings(kwargs)
    assert (found.protocol, found.decoding.temperature) == (protocol, temperature)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"protocol": "greedy", "do_sample": True},
        {"protocol": "sampled", "temperature": 0.5},
        {"protocol": "sampled", "do_sample": False},
        {"protocol": "beam"},
        {"num_beams": 4},
    ],
)
def test_contradicting_settings_are_refused(kwargs):
    with pytest.raises(UserError):
        read_generation_settings(kwargs)


def test_answers_are_cut_at_the_first_stop_string():
    assert cut_at_stops("one. two\nthree", ["\n", ". "]) == "one"
    assert cut_at_stops("one", ["\n", ""]) == "one"
