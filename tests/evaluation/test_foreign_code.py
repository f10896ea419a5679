"""Task files of others run no Python code unless the user says so."""

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import foreign_code, registry
from rba_bench.evaluation.request import EvalRequest
from rba_bench.evaluation.runner import checked, evaluate

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
        foreign_code.refuse(path)
    assert named in str(refused.value) and "--trust" in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_names_only_this_package_is_let_through(tmp_path):
    shipped = registry.tasks_dir() / "covost2" / "micro_covost2.yaml"
    foreign_code.refuse(write(tmp_path, f"include: {shipped}\ntask: mine\nprocess_results: {HOOK}\n"))
    foreign_code.refuse(shipped)


def test_code_in_an_included_file_is_found(tmp_path):
    write(tmp_path, "process_docs: !function evil.run\n", "parts/base.yaml")
    path = write(tmp_path, "include: [parts/base.yaml]\ntask: t\n")
    with pytest.raises(UserError, match=r"base.yaml runs code of its own"):
        foreign_code.refuse(path)


def test_a_file_beside_the_task_cannot_take_the_place_of_the_package(tmp_path):
    path = write(tmp_path, f"task: t\nprocess_results: {HOOK}\n")
    write(tmp_path, "def score(doc, results): ...\n", "rba_bench/evaluation/hooks.py")
    with pytest.raises(UserError, match="imported instead of this package's"):
        foreign_code.refuse(path)


def test_files_that_include_each_other_end(tmp_path):
    path = write(tmp_path, "include: other.yaml\ntask: t\n")
    write(tmp_path, "include: task.yaml\n", "other.yaml")
    foreign_code.refuse(path)


def test_an_evaluation_runs_no_code_of_a_task_file_unless_trusted(tmp_path):
    ran = tmp_path / "ran"
    write(tmp_path, f"open({str(ran)!r}, 'w').close()\ndef load(**kwargs): ...\n", "evil.py")
    shipped = registry.tasks_dir() / "triviaqa" / "micro_triviaqa.yaml"
    path = write(tmp_path, f"include: {shipped}\ntask: t\nprocess_docs: !function evil.load\n")
    request = EvalRequest(tasks=(str(path),), model="constant", out=tmp_path / "out")
    with pytest.raises(UserError, match="--trust"):
        evaluate(request)
    assert not ran.exists()
    trusting = EvalRequest(tasks=(str(path),), model="constant", out=tmp_path / "out", trust=True)
    assert [spec.name for spec in checked(trusting)] == ["t"]
