"""Hub ids with a revision, on a Hub cache laid out as the Hub's own client lays it out."""

import shutil

import pytest

from rba_bench.assets import model_folder
from rba_bench.errors import MissingPrerequisite
from rba_bench.speechlm.model_names import short_name
from rba_bench.textlm.text_model import load_judge_model, load_textlm
from rba_bench.textlm.weights import code_sha256, local_folder, weights_sha256

NEW, OLD = "a" * 40, "0123456789" * 4


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`org/lm` in a cache: main is NEW, the tag v1 is OLD; their weights differ."""
    repo = tmp_path / "models--org--lm"
    for commit in (NEW, OLD):
        shutil.copytree(model_folder("teacher"), repo / "snapshots" / commit)
    weights = next((repo / "snapshots" / OLD).glob("*.safetensors"))
    other = model_folder("asr")
    shutil.copy(next(other.glob("*.safetensors")), weights)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(NEW)
    (repo / "refs" / "v1").write_text(OLD)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return repo


@pytest.mark.parametrize(("named", "commit"), [("", NEW), ("@main", NEW), ("@v1", OLD), (f"@{OLD}", OLD)])
def test_a_hub_id_may_name_its_revision(hub, named, commit):
    folder = local_folder(f"org/lm{named}")
    assert folder.name == commit
    assert weights_sha256(folder) == weights_sha256(hub / "snapshots" / commit)


def test_a_revision_that_is_not_there_is_named_in_one_line(hub):
    with pytest.raises(MissingPrerequisite, match=r"no judge at org/lm@v2: ") as missing:
        local_folder("org/lm@v2", "judge")
    assert "\n" not in str(missing.value)


def test_the_record_names_the_commit_that_was_loaded(hub):
    assert load_textlm("org/lm").identity()["revision"] == NEW
    assert load_textlm(f"org/lm@{NEW}").identity()["revision"] == NEW
    assert load_judge_model("org/lm@main").identity()["revision"] == NEW
    assert "revision" not in load_textlm(str(model_folder("teacher"))).identity()


def test_code_that_may_run_is_part_of_what_a_model_is(tmp_path):
    assert code_sha256(tmp_path) is None
    (tmp_path / "modeling_x.py").write_text("a = 1\n")
    one = code_sha256(tmp_path)
    (tmp_path / "modeling_x.py").write_text("a = 2\n")
    assert one != code_sha256(tmp_path)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("org/lm", "lm"),
        ("org/lm@v1.0", "lm@v1.0"),
        ("org/lm@refs/pr/1", "lm@refs-pr-1"),
        (f"org/lm@{OLD}", "lm@01234567"),
        ("openai:http://localhost:1/v1#org/lm", "lm"),
    ],
)
def test_tables_name_a_model_by_its_last_part(spec, name):
    assert short_name(spec) == name
