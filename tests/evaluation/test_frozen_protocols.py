"""A task that is asked or scored otherwise than before has a new version."""

import importlib.util

import pytest

from rba_bench.evaluation import task_registry
from rba_bench.files import read_json

SCRIPT = task_registry.tasks_dir().parent / "dev" / "freeze_protocols.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("freeze_protocols", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_protocol_changes_under_its_version(script):
    now, then = script.frozen(), read_json(script.FILE)
    changed = [
        name
        for name in now.keys() & then.keys()
        if now[name]["sha256"] != then[name]["sha256"] and now[name]["version"] == then[name]["version"]
    ]
    assert not changed, f"raise metadata.version of {sorted(changed)}, then run dev/freeze_protocols.py"
    assert now == then, "run dev/freeze_protocols.py: tasks were added, removed or have a new version"


def test_a_change_of_wording_is_seen(script, monkeypatch):
    before = script.frozen()
    monkeypatch.setattr("rba_bench.evaluation.sources.language_pairs.TRANSLATE", "Say it in {language}.")
    after = script.frozen()
    assert before["covost2_en_de"] != after["covost2_en_de"]
    assert before["micro_covost2"] == after["micro_covost2"]
