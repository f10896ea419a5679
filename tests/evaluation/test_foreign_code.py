"""Task files of others run no Python code unless the user says so."""

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import foreign_code, task_registry
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.runner import evaluate, requested_tasks

HOOK = "!function rba_bench.evaluation.hooks.score"


def write(folder, text, name="task.yaml"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("task: t\nprocess_docs: !function evil.run\n", "!function evil.run"),
        ("task: t\nmetric_list: [{metric: m, aggregation: !function os.system}]\n", "!function os.system"),
        ("task: t\nprocess_docs: !function rba_bench.files.write_atomic\n", "write_atomic"),
        ("task: t\nprocess_docs: !function rba_bench.evaluation.hooks.os.system\n", "hooks.os.system"),
        ('task: t\ndoc_to_text: "{{ cycler.__init__.__globals__ }}"\n', "template"),
        ('task: t\ndescription: "{% for x in y %}{% endfor %}"\n', "template"),
        ("task: t\nx: !!python/name:os.system\n", "python/name"),
        ("task: t\nx: !new evil\n", "the tag !new"),
        ("- !function evil.run\n", "evil.run"),
    ],
)
def test_code_in_a_task_file_is_found_and_named(tmp_path, text, named):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as refused:
        foreign_code.refuse_foreign_code(path)
    assert named in str(refused.value) and "--trust" in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_names_only_this_package_is_let_through(tmp_path):
    shipped = task_registry.tasks_dir() / "covost2" / "micro_covost2.yaml"
    foreign_code.refuse_foreign_code(
        write(tmp_path, f"include: {shipped}\ntask: mine\nprocess_results: {HOOK}\n")
    )
    foreign_code.refuse_foreign_code(shipped)


def test_code_in_an_included_file_is_found(tmp_path):
    write(tmp_path, "process_docs: !function evil.run\n", "parts/base.yaml")
    path = write(tmp_path, "include: [parts/base.yaml]\ntask: t\n")
    with pytest.raises(UserError, match=r"base.yaml runs code of its own"):
        foreign_code.refuse_foreign_code(path)


def test_a_file_beside_the_task_cannot_take_the_place_of_the_package(tmp_path):
    path = write(tmp_path, f"task: t\nprocess_results: {HOOK}\n")
    write(tmp_path, "def score(doc, results): ...\n", "rba_bench/evaluation/hooks.py")
    with pytest.raises(UserError, match="imported instead of this package's"):
        foreign_code.refuse_foreign_code(path)


def test_files_that_include_each_other_end(tmp_path):
    path = write(tmp_path, "include: other.yaml\ntask: t\n")
    write(tmp_path, "include: task.yaml\n", "other.yaml")
    foreign_code.refuse_foreign_code(path)


def test_an_evaluation_runs_no_code_of_a_task_file_unless_trusted(tmp_path):
    ran = tmp_path / "ran"
    write(tmp_path, f"open({str(ran)!r}, 'w').close()\ndef load(**kwargs): ...\n", "evil.py")
    shipped = task_registry.tasks_dir() / "triviaqa" / "micro_triviaqa.yaml"
    path = write(tmp_path, f"include: {shipped}\ntask: t\nprocess_docs: !function evil.load\n")
    request = EvalRequest(tasks=(str(path),), model="constant", out=tmp_path / "out")
    with pytest.raises(UserError, match="--trust"):
        evaluate(request)
    assert not ran.exists()
    trusting = EvalRequest(tasks=(str(path),), model="constant", out=tmp_path / "out", trust=True)
    assert [spec.name for spec in requested_tasks(trusting)] == ["t"]


PLAIN = "task: t\ndataset_path: json\noutput_type: generate_until\n"


@pytest.mark.parametrize(
    "merge",
    [
        "<<: {include: parts/base.yaml}",
        "<<: [{include: [parts/base.yaml]}]",
        "<<:\n  <<: {include: parts/base.yaml}",
    ],
)
def test_an_include_that_a_merge_key_brings_is_followed(tmp_path, merge):
    write(tmp_path, "process_docs: !function evil.run\n", "parts/base.yaml")
    with pytest.raises(UserError, match=r"base.yaml runs code of its own"):
        foreign_code.refuse_foreign_code(write(tmp_path, f"{PLAIN}{merge}\n"))


@pytest.mark.parametrize(
    "metrics",
    [
        "[{metric: ./evil.py}]",
        "[{metric: someone/space}]",
        "[{metric: exact_match, hf_evaluate: true}]",
        "[{<<: {metric: evil}}]",
    ],
)
def test_a_metric_whose_script_would_be_fetched_and_run_is_refused(tmp_path, metrics):
    with pytest.raises(UserError, match=r"the metric '.*' of the package `evaluate`"):
        foreign_code.refuse_foreign_code(write(tmp_path, f"{PLAIN}metric_list: {metrics}\n"))


def test_metrics_of_lm_eval_and_names_of_what_a_hook_returns_are_let_through(tmp_path):
    foreign_code.refuse_foreign_code(
        write(tmp_path, f"{PLAIN}metric_list: [{{metric: exact_match}}, {{metric: bleu}}]\n")
    )
    hooked = f"{PLAIN}process_results: {HOOK}\nmetric_list: [{{metric: wer_of_ours}}]\n"
    foreign_code.refuse_foreign_code(write(tmp_path, hooked, "base.yaml"))
    foreign_code.refuse_foreign_code(write(tmp_path, "include: base.yaml\ntask: u\n"))


def test_a_hook_that_the_including_file_takes_away_lets_no_metric_through(tmp_path):
    write(tmp_path, f"{PLAIN}process_results: {HOOK}\nmetric_list: [{{metric: ./evil.py}}]\n", "base.yaml")
    path = write(tmp_path, "include: base.yaml\ntask: u\nprocess_results: null\n")
    with pytest.raises(UserError, match=r"the metric './evil.py'"):
        foreign_code.refuse_foreign_code(path)


def test_templates_out_of_another_file_are_refused(tmp_path):
    path = write(tmp_path, f"{PLAIN}use_prompt: prompts.yaml:p\n")
    with pytest.raises(UserError, match=r"the prompts of prompts.yaml:p"):
        foreign_code.refuse_foreign_code(path)
    foreign_code.refuse_foreign_code(write(tmp_path, f"{PLAIN}use_prompt: null\n"))


@pytest.mark.parametrize("text", ["group: g\ntask: [a, {task: b}]\n", "task: g\ntask_list: [{task: b}]\n"])
def test_a_file_of_several_tasks_is_refused_before_any_of_them_is_built(tmp_path, text):
    with pytest.raises(UserError, match="not a single task"):
        foreign_code.refuse_foreign_code(write(tmp_path, text))


def test_aliases_that_contain_themselves_and_deep_nesting_end_in_one_line(tmp_path):
    foreign_code.refuse_foreign_code(write(tmp_path, f"{PLAIN}metadata: &a [*a, *a]\n"))
    bomb = "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(30))
    foreign_code.refuse_foreign_code(write(tmp_path, f"{PLAIN}metadata:\n{bomb}"))
    with pytest.raises(UserError, match="nested too deeply"):
        foreign_code.refuse_foreign_code(write(tmp_path, "[" * 3000))
