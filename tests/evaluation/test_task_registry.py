"""Names, tracks and decodings of tasks; messages for what does not exist."""

from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import task_registry


def names(specs):
    return [spec.name for spec in specs]


def test_every_benchmark_of_the_quickstart_has_greedy_and_sampled_micro_tasks():
    micro = {spec.name: spec for spec in task_registry.list_tasks() if spec.track == "micro"}
    assert {f"micro_{b}{s}" for b in task_registry.BENCHMARKS for s in ("", "_sampled")} <= set(micro)
    for name, spec in micro.items():
        assert spec.protocol == ("sampled" if name.endswith("_sampled") else "greedy")


@pytest.mark.parametrize("spec", task_registry.list_tasks(), ids=lambda spec: spec.name)
def test_every_task_is_versioned_measured_and_described(spec):
    assert spec.track in task_registry.TRACKS and spec.version != "0" and spec.metrics
    assert spec.benchmark in task_registry.ORDER and spec.path.parent.name == spec.benchmark
    stderrs = {str(m["metric"]) for m in spec.config["metric_list"]} - set(spec.metrics)
    assert stderrs == {f"{metric}_stderr" for metric in spec.metrics}
    readme = (spec.path.parent / "README.md").read_text()
    for part in ("Source and licence", "raw record", "Metric", "Caveats"):
        assert part in readme


def test_a_group_stands_for_its_tasks_by_name_and_by_path():
    group = next(group for group in task_registry.list_groups() if group.name == "covost2_en_x")
    assert len(group.tasks) == 15 and "covost2_en_zh-CN" in group.tasks
    for name in ("covost2_en_x", str(group.path)):
        assert names(task_registry.resolve_tasks([name], "full")) == list(group.tasks)
    assert (
        names(task_registry.resolve_tasks(["covost2_x_en,covost2_de_en"], "full")).count("covost2_de_en") == 1
    )


def test_every_group_names_shipped_tasks():
    shipped = {spec.name for spec in task_registry.list_tasks()}
    assert all(set(group.tasks) <= shipped for group in task_registry.list_groups())


def test_the_short_name_leaves_other_versions_of_a_benchmark_out():
    found = names(task_registry.resolve_tasks(["webquestions"], "full"))
    variants = {s.name for s in task_registry.list_tasks() if s.benchmark == "webquestions" and s.variant}
    assert found == ["webquestions_openaudiobench"] and "webquestions_fixie" in variants


def test_any_pair_of_fleurs_languages_is_a_task(tmp_path, monkeypatch):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path))
    [spec] = task_registry.resolve_tasks(["fleurs_sw_hi"], "full")
    assert spec.config["dataset_kwargs"]["pair"] == "sw_ke-hi_in" and spec.track == "full"
    assert spec.path == tmp_path / "tasks" / "fleurs_sw_hi.yaml"
    for name in ("fleurs_sw_xx", "fleurs_sw_sw", "mustc_sw_hi"):
        with pytest.raises(UserError, match="unknown task"):
            task_registry.resolve_tasks([name], "full")


@pytest.mark.parametrize(
    ("task", "track"),
    [
        ("covost2_en_de", "full"),
        ("covost2_en_x,fleurs_en_de", "full"),
        ("covost2_en_x,triviaqa", "full"),
        ("mustc", "full"),
        ("micro_covost2", "micro"),
        ("covost2", None),
        ("micro_covost2,covost2_en_de", None),
        ("no such task", None),
    ],
)
def test_track_of_named_tasks(task, track):
    assert task_registry.common_track([task]) == track


def test_sampled_task_differs_from_greedy_in_decoding_only():
    greedy, sampled = task_registry.resolve_tasks(["covost2"])
    changed = {key for key in greedy.config if greedy.config[key] != sampled.config[key]}
    assert changed == {"task", "generation_kwargs"} and greedy.config.keys() == sampled.config.keys()


def test_short_names_say_what_they_became(capsys):
    found = task_registry.resolve_tasks(["covost2,fleurs", "covost2"], decodings=("greedy",))
    assert names(found) == ["micro_covost2", "micro_fleurs"]
    assert "covost2 on the micro track: micro_covost2" in capsys.readouterr().err


def test_exact_name_is_that_task_alone():
    assert names(task_registry.resolve_tasks(["micro_triviaqa_sampled"])) == ["micro_triviaqa_sampled"]


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
        task_registry.resolve_tasks([name])


def test_hopeless_name_lists_all():
    with pytest.raises(UserError, match="known: .*webquestions"):
        task_registry.resolve_tasks(["zzzzzz"])


def test_a_track_without_the_benchmark_is_refused_as_missing():
    with pytest.raises(MissingPrerequisite, match="mustc has no micro-track tasks") as caught:
        task_registry.resolve_tasks(["mustc"], track="micro")
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
        task_registry.resolve_tasks(*arguments)
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
        task_registry.resolve_tasks([str(tmp_path / "t.yaml")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task: t\ninclude: 3\n", "include must be the name of a file"),
        (b"task: t\ninclude: null\n", "include must be the name of a file"),
        (b"task: t\ninclude: [{a: b}]\n", "include must be the name of a file"),
        (b"task: t\nmetadata: &a [*a]\n", "metadata must be a mapping"),
        (b"task: t\ngeneration_kwargs: greedy\n", "generation_kwargs must be a mapping"),
        (b"task: t\nmetric_list: [bleu]\n", "metric_list must be a list of mappings"),
        (b"task: t\nx: " + b"9" * 5000, "not valid YAML"),
        ("task: t\n".encode("utf-16"), "not valid YAML"),
    ],
)
def test_keys_of_another_form_get_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        task_registry.resolve_tasks([str(path)])
    assert "\n" not in str(refused.value)


def test_show_gives_config_and_readme_without_machine_paths():
    shown = task_registry.describe_task("fleurs")
    assert {"fleurs_de_en", "micro_fleurs", "micro_fleurs_sampled"} <= set(names_of(shown))
    assert shown["readme"].startswith("# fleurs")
    assert shown["tasks"][0]["config"]["process_results"] == "rba_bench.evaluation.hooks.score"
    assert names_of(task_registry.describe_task("micro_fleurs_sampled")) == ["micro_fleurs_sampled"]
    with pytest.raises(UserError, match="did you mean"):
        task_registry.describe_task("fleur")


def names_of(shown):
    return [task["name"] for task in shown["tasks"]]


def test_tasks_inside_the_package_come_first(tmp_path, monkeypatch):
    package = tmp_path / "rba_bench"
    (package / "evaluation").mkdir(parents=True)
    monkeypatch.setattr(task_registry, "__file__", str(package / "evaluation" / "registry.py"))
    with pytest.raises(MissingPrerequisite, match="install rba-bench again"):
        task_registry.tasks_dir()
    (tmp_path / "tasks").mkdir()
    assert task_registry.tasks_dir() == tmp_path / "tasks"
    (package / "_tasks").mkdir()
    assert task_registry.tasks_dir() == package / "_tasks"


def test_lm_eval_reads_the_same_configs(monkeypatch):
    """Our light reader and lm-eval's loader agree on every key of every task."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for spec in task_registry.list_tasks():
        theirs = load_yaml(spec.path, resolve_func=False)
        assert theirs.keys() == spec.config.keys()
        for key, value in spec.config.items():
            if key not in ("custom_dataset", "doc_to_audio", "process_results", "metric_list"):  # functions
                assert theirs[key] == value
