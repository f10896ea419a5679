"""Where files are looked for, and which commit is read."""

import json
from types import SimpleNamespace

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.sources import hub, source
from rba_bench.evaluation.sources.source import Place

REPO = "fixie-ai/covost2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("inside", ["fixie-ai/covost2", "covost2", "."])
def test_local_copies_in_three_layouts(tmp_path, inside):
    folder = tmp_path / inside / "en_de"
    folder.mkdir(parents=True)
    for name in ("test-00001-of-00002.parquet", "test-00000-of-00002.parquet", "train-00000.parquet"):
        (folder / name).touch()
    found = hub.find_files(REPO, ["en_de/test-*.parquet"], Place(tmp_path))
    assert [path.name for path in found.paths] == [
        "test-00000-of-00002.parquet",
        "test-00001-of-00002.parquet",
    ]
    assert found.origin(config="en_de") == {"repo": REPO, "revision": "local", "config": "en_de"}


def test_what_is_missing_comes_with_the_command_that_gets_it(tmp_path):
    with pytest.raises(MissingPrerequisite) as caught:
        hub.find_files(REPO, ["en_de/test-*.parquet"], Place(tmp_path), "refs/convert/parquet")
    text = str(caught.value)
    assert "hf download fixie-ai/covost2 --repo-type dataset --revision refs/convert/parquet" in text
    assert "--include 'en_de/test-*.parquet'" in text and "\n" not in text


def test_a_data_dir_that_does_not_exist(tmp_path):
    with pytest.raises(MissingPrerequisite, match="is not a folder"):
        hub.find_files(REPO, ["*"], Place(tmp_path / "no"))


def test_the_environment_names_the_data_dir_too(tmp_path, monkeypatch):
    monkeypatch.setenv("RBA_DATA_DIR", str(tmp_path))
    assert Place.of().data_dir == tmp_path and Place.of(tmp_path / "x").data_dir == tmp_path / "x"
    monkeypatch.delenv("RBA_DATA_DIR")
    assert Place.of().data_dir is None


def test_a_branch_is_resolved_once_and_remembered(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("RBA_CACHE", str(tmp_path))
    found = SimpleNamespace(sha=COMMIT)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info",
        lambda _, repo, revision: asked.append((repo, revision)) or found,
    )
    assert [hub.pinned_commit(REPO, "main") for _ in range(3)] == [COMMIT] * 3 and len(asked) == 1
    assert json.loads((tmp_path / "revisions.json").read_text()) == {f"{REPO}@main": COMMIT}
    shared = tmp_path / "shared.json"
    shared.write_text(json.dumps({f"{REPO}@main": "f" * 40}))
    monkeypatch.setenv("RBA_REVISIONS", str(shared))
    assert hub.pinned_commit(REPO, "main") == "f" * 40, "a shared file pins the commit for everybody"
    assert hub.pinned_commit(REPO, COMMIT) == COMMIT and len(asked) == 1
    shared.write_text("[")
    with pytest.raises(UserError, match="damaged"):
        hub.pinned_commit(REPO, "main")


def test_the_hub_is_asked_for_that_commit_and_those_files(tmp_path, monkeypatch):
    import huggingface_hub

    (tmp_path / "en_de").mkdir()
    (tmp_path / "en_de" / "test-0.parquet").touch()
    calls = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: calls.append((a, k)) or str(tmp_path)
    )
    found = hub.find_files(REPO, ["en_de/test-*.parquet"], Place(), COMMIT)
    assert found.revision == COMMIT and found.root == tmp_path
    wanted = {"repo_type": "dataset", "revision": COMMIT, "allow_patterns": ["en_de/test-*.parquet"]}
    assert calls == [((REPO,), wanted)]
    with pytest.raises(MissingPrerequisite, match="holds no en_fr"):
        hub.find_files(REPO, ["en_fr/test-*.parquet"], Place(), COMMIT)


def test_offline_is_one_line_that_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingPrerequisite, match="--data-dir") as caught:
        hub.find_files(REPO, ["*"], Place())
    assert "\n" not in str(caught.value)


def test_unknown_sources_and_empty_sets(monkeypatch):
    for name in ("nonsense", "hub", "../x"):
        with pytest.raises(UserError, match="unknown source"):
            source.load_source(name, {}, Place())
