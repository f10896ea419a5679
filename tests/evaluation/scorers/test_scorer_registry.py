"""From the YAML to scorers: names, keys, and what is left out."""

import dataclasses

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import task_registry as tasks
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.scorers import registry
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.textlm.endpoints.keys import KEY_VARIABLES


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def spec(name):
    return next(spec for spec in tasks.list_tasks() if spec.name == name)


def request(tmp_path, **changes):
    return EvalRequest(("alpacaeval_full",), "constant", track="full", out=tmp_path, **changes)


def test_a_hosted_judge_without_a_key_is_found_before_anything_is_answered(tmp_path, monkeypatch):
    with pytest.raises(MissingPrerequisite, match="gpt-4.1-2025-04-14 needs a key.*--judge none") as caught:
        registry.make_scorers(spec("alpacaeval_full"), request(tmp_path))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    found = registry.make_scorers(spec("alpacaeval_full"), request(tmp_path))
    assert [scorer.describe()["name"] for scorer in found] == ["pairwise", "rating"]


def test_a_judge_of_the_users_needs_no_key(tmp_path):
    local = request(tmp_path, judge="openai:http://127.0.0.1:9/v1#m")
    assert len(registry.make_scorers(spec("alpacaeval_full"), local)) == 2


def test_no_judge_leaves_judged_metrics_out_and_keeps_the_rest(tmp_path):
    assert registry.make_scorers(spec("alpacaeval_full"), request(tmp_path, judge="none")) == ()
    [kept] = registry.make_scorers(spec("micro_speaker_consistency"), request(tmp_path, judge="none"))
    assert kept.describe()["name"] == "consistency"


def test_unknown_scorers_are_named(tmp_path):
    with pytest.raises(UserError, match="unknown scorer 'pairwize'.*known: pairwise"):
        registry.make_scorer({"name": "pairwize"}, ScorerOptions(cache=tmp_path))


SHIPPED = {
    str(config): config
    for spec in tasks.list_tasks()
    for config in (spec.config.get("metadata") or {}).get("finish") or []
    if config["name"] != "consistency" or config.get("embedding") == "none"
}


@pytest.mark.parametrize("config", SHIPPED.values(), ids=SHIPPED)
def test_metrics_known_without_making_are_those_of_the_scorer(config, tmp_path):
    options = dataclasses.replace(ScorerOptions(cache=tmp_path), judge="openai:http://127.0.0.1:9/v1#m")
    made = registry.make_scorer(config, options)
    assert registry.scorer_class(config).metric_names(config, options) == tuple(
        metric.name for metric in made.metrics
    )


def test_no_shipped_task_controls_length_by_length_alone():
    forms = {
        spec.name: config.get("lc", "none")
        for spec in tasks.list_tasks()
        for config in (spec.config.get("metadata") or {}).get("finish") or []
        if config["name"] == "pairwise"
    }
    assert {name for name, form in forms.items() if form != "none"} == {"alpacaeval_full", "alpacaeval_199"}
    assert forms["alpacaeval_full"] == forms["alpacaeval_199"] == ["difficulty", "none"]


def test_every_judged_metric_of_a_task_is_in_its_metric_list(tmp_path):
    options = ScorerOptions(cache=tmp_path)
    for spec in tasks.list_tasks():
        configs = (spec.config.get("metadata") or {}).get("finish") or []
        judged = {
            metric
            for config in configs
            for metric in registry.scorer_class(config).metric_names(config, options)
        }
        assert judged <= set(spec.metrics), spec.name
