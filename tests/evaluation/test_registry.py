"""Names, tracks and decodings of tasks; messages for what does not exist."""

from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import registry


def names(specs):
    return [spec.name for spec in specs]


def test_every_benchmark_has_greedy_and_sampled_micro_tasks_and_a_readme():
    specs = registry.list_tasks()
    assert names(specs) == [f"micro_{b}{s}" for b in registry.BENCHMARKS for s in ("", "_sampled")]
    for spec in specs:
        assert spec.track == "micro" and spec.version != "0" and spec.metrics
        assert spec.protocol == ("sampled" if spec.name.endswith("_sampled") else "greedy")
        readme = (spec.path.parent / "README.md").read_text()
        for part in ("Source and licence", "One raw record", "Metrics", "Caveats", spec.name):
            assert part in readme


def test_sampled_task_differs_from_greedy_in_decoding_only():
    greedy, sampled = registry.resolve(["covost2"])
    changed = {key for key in greedy.config if greedy.config[key] != sampled.config[key]}
    assert changed == {"task", "generation_kwargs"} and greedy.config.keys() == sampled.config.keys()


def test_short_names_say_what_they_became(capsys):
    found = registry.resolve(["covost2,fleurs", "covost2"], decodings=("greedy",))
    assert names(found) == ["micro_covost2", "micro_fleurs"]
    assert "covost2 on the micro track: micro_covost2" in capsys.readouterr().err


def test_exact_name_is_that_task_alone():
    assert names(registry.resolve(["micro_triviaqa_sampled"])) == ["micro_triviaqa_sampled"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("covst2", "covost2"),
        ("alpaca_eval", "alpacaeval"),
        ("micro_fluers", "micro_fleurs"),
        ("TriviaQA", "triviaqa"),
    ],
)
def test_unknown_task_names_the_nearest(name, near):
    with pytest.raises(UserError, match=f"unknown task '{name}'.*did you mean.*{near}"):
        registry.resolve([name])


def test_hopeless_name_lists_all():
    with pytest.raises(UserError, match="known: .*webquestions"):
        registry.resolve(["zzzzzz"])


@pytest.mark.parametrize("name", registry.BENCHMARKS)
def test_full_track_is_refused_as_missing(name):
    with pytest.raises(MissingPrerequisite, match=f"{name} has no full-track tasks") as caught:
        registry.resolve([name], track="full")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], "micro"), "no task named"),
        ((["covost2"], "nano"), "unknown track 'nano'"),
        ((["micro_covost2"], "full"), "belongs to the micro track"),
        ((["covost2"], "micro", ["beam"]), "unknown decoding beam"),
        ((["covost2"], "micro", []), "unknown decoding"),
        ((["no/such.yaml"],), "cannot read task file"),
    ],
)
def test_bad_requests_get_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        registry.resolve(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "no mapping"),
        ("doc_to_text: x", "does not define a task"),
        ("include: t.yaml", "includes itself"),
    ],
)
def test_bad_task_files_get_one_line(tmp_path: Path, text, message):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        registry.resolve([str(tmp_path / "t.yaml")])


def test_show_gives_config_and_readme_without_machine_paths():
    shown = registry.show("fleurs")
    assert names_of(shown) == ["micro_fleurs", "micro_fleurs_sampled"] and shown["readme"].startswith(
        "# fleurs"
    )
    assert shown["tasks"][0]["config"]["process_results"] == "rba_bench.evaluation.hooks.score"
    assert names_of(registry.show("micro_fleurs_sampled")) == ["micro_fleurs_sampled"]
    with pytest.raises(UserError, match="did you mean"):
        registry.show("fleur")


def names_of(shown):
    return [task["name"] for task in shown["tasks"]]


def test_tasks_inside_the_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "rba_bench"
    (package / "evaluation").mkdir(parents=True)
    monkeypatch.setattr(registry, "__file__", str(package / "evaluation" / "registry.py"))
    with pytest.raises(MissingPrerequisite, match="install rba-bench again"):
        registry.tasks_dir()
    (tmp_path / "tasks").mkdir()
    assert registry.tasks_dir() == tmp_path / "tasks"
    (package / "_tasks").mkdir()
    assert registry.tasks_dir() == package / "_tasks"


def test_lm_eval_reads_the_same_configs(monkeypatch):
    """Our light reader and lm-eval's loader agree on every key of every task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for spec in registry.list_tasks():
        theirs = load_yaml(spec.path, resolve_func=False)
        assert theirs.keys() == spec.config.keys()
        for key, value in spec.config.items():
            if key not in ("custom_dataset", "doc_to_audio", "process_results", "metric_list"):  # functions
                assert theirs[key] == value
