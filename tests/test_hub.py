"""Publishing, with the real client against a Hub on this machine: what goes there, who may, and what a failure says."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

import rba_bench as rba
from rba_bench import hub
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.card_media import media_files
from rba_bench.cards import CARD, front_matter
from rba_bench.errors import UserError
from rba_bench.files import sha256_file
from tests.cli.test_failures import refused, run
from tests.local_hub import TOKEN, LocalHub, serve
from tests.training.conftest import alignment_dir, rows

__all__ = ["alignment_dir", "rows"]


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The Hub, and a user who is logged in."""
    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def checkpoint(tiny_composite_dir: Path, tmp_path: Path) -> Path:
    """A run's folder as training leaves it, with the places of this machine in its records."""
    folder = shutil.copytree(tiny_composite_dir, tmp_path / "home" / "run")
    for name, value in (
        ("rba_config.json", {"schema_version": 1, "stage": "train", "config": {}}),
        ("rba_start.json", {"base": str(tmp_path)}),
        (
            "rba_run.json",
            {"base": str(tmp_path / "home" / "base"), "recipe": {"alignment_set": f"{tmp_path}/set"}},
        ),
    ):
        (folder / name).write_text(json.dumps(value))
    (folder / "train_log.jsonl").write_text("{}\n")
    (folder / "report.html").write_text("<html></html>")
    for place in (folder / "trainer" / "checkpoint-1", folder / ".cache"):
        place.mkdir(parents=True)
        (place / "optimizer.safetensors").write_bytes(b"x")
    return folder


def test_a_checkpoint_arrives_whole_private_and_without_places(
    local: LocalHub, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("push", str(checkpoint), "ann/mine", "--json") == 0
    printed, told = capsys.readouterr()
    assert json.loads(printed)["url"].startswith(f"{local.url}/models/ann/mine/commit/")
    files = local.files("ann/mine")
    kept = {
        *(
            "model.safetensors",
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
        *("processor_config.json", "chat_template.jinja", "rba_run.json", CARD),
    }
    assert set(files) == kept
    assert files["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert json.loads(files["rba_run.json"]) == {"base": "base", "recipe": {"alignment_set": "set"}}
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    assert local.repos["models/ann/mine"]["private"]
    assert TOKEN not in printed + told


def test_a_second_push_uploads_nothing_twice(local: LocalHub, checkpoint: Path) -> None:
    assert run("push", str(checkpoint), "mine") == 0  # in the user's own space
    (checkpoint / CARD).write_text((checkpoint / CARD).read_text() + "\nMine.\n")
    local.asked.clear()
    assert run("push", str(checkpoint), "ann/mine") == 0
    assert local.files("ann/mine")[CARD].endswith(b"\nMine.\n")
    assert not [line for line in local.asked if line.startswith("PUT")]


def test_an_alignment_set_can_be_used_where_it_arrives(
    local: LocalHub, alignment_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(alignment_dir, tmp_path / "set")
    (folder / "instructions.jsonl").write_text('{"dropped": "text"}\n')
    monkeypatch.setattr(hub, "COMMIT_SIZE", 1)  # several commits, the manifest behind the shards
    assert run("push", str(folder), "ann/set") == 0
    arrived = tmp_path / "arrived"
    for name, content in local.files("ann/set", "dataset").items():
        (arrived / name).parent.mkdir(parents=True, exist_ok=True)
        (arrived / name).write_bytes(content)
    assert AlignmentSet.open(arrived).sha256 == AlignmentSet.open(folder).sha256
    media = media_files(folder)
    assert sorted(path.name for path in arrived.rglob("*") if path.is_file()) == sorted(
        [CARD, "manifest.json", *(path.name for path in [*folder.rglob("*.parquet"), *map(Path, media)])]
    )
    assert front_matter(arrived / CARD)["configs"]
    commits = [line for line in local.asked if "/commit/" in line]
    assert len(commits) == 3 + len(media) and list(local.files("ann/set", "dataset"))[-1] == CARD
    card = (arrived / CARD).read_text()
    assert (
        f'<audio controls preload="none" src="{local.url}/datasets/ann/set/resolve/main/card/clips/01.'
        in card
    )
    assert (
        'src="card/' not in card
        and "](card/clips/01." in card
        and 'src="card/' in (folder / CARD).read_text()
    )


def test_what_was_loaded_in_python_can_be_published(
    local: LocalHub, checkpoint: Path, alignment_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address = rba.load_checkpoint(checkpoint).push_to_hub("ann/mine")
    assert address.startswith(f"{local.url}/models/ann/mine/commit/")
    assert "publishing" in capfd.readouterr().err and local.repos["models/ann/mine"]["private"]
    rba.load_alignment_set(alignment_dir).push_to_hub("ann/set", public=True, progress=False)
    assert capfd.readouterr() == ("", "") and not local.repos["datasets/ann/set"]["private"]
    assert "manifest.json" in local.files("ann/set", "dataset")


def test_the_right_to_write_is_asked_for_before_the_work(
    local: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("rba_bench.cli.synth.make_set", begun)
    monkeypatch.setattr("rba_bench.cli.train.run_training", begun)
    words = ("--out", str(tmp_path / "out"), "--push-to-hub", "bob/other")
    for command in ("synth", "train"):
        code, line = refused(capsys, command, *words)
        assert code == 3 and "may not write to bob/other" in line and "rights to create" in line
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, line = refused(capsys, "train", *words)
    assert code == 3 and "does not accept this token" in line and "hf_wrong" not in line
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    code, line = refused(capsys, "synth", *words)
    assert code == 3 and "hf auth login" in line
    code, line = refused(capsys, "train", "--push-to-hub", "a b/c")
    assert code in (2, 3) and "\n" not in line.strip()
    code, line = refused(capsys, "train", "--public")
    assert code == 2 and "--push-to-hub" in line


def test_nothing_becomes_public_by_accident(
    local: LocalHub, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local.repos["models/ann/open"] = {"private": False, "files": {}}
    code, line = refused(capsys, "push", str(checkpoint), "ann/open")
    assert code == 2 and "ann/open is public: add --public" in line and not local.files("ann/open")
    assert run("push", str(checkpoint), "ann/open", "--public") == 0
    assert run("push", str(checkpoint), "ann/new", "--public") == 0
    assert local.files("ann/open") == local.files("ann/new") and not local.repos["models/ann/new"]["private"]


def test_a_failed_upload_says_how_to_go_on(
    local: LocalHub, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = hub.prepare_repository("ann/mine", "model")
    before = {path: sha256_file(path) for path in checkpoint.rglob("*.safetensors")}
    for piece in ("/upload/", "/commit/", "/preupload/"):
        local.refuse = {piece: (403, "out of storage")}
        code = run("push", str(checkpoint), "ann/mine")
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: the upload failed (")
        assert code == 1 and f"rba-bench push {checkpoint} ann/mine" in line and "out of storage" in line
    run("push", str(checkpoint), "ann/open", "--public")
    assert (
        f"rba-bench push {checkpoint} ann/open --public" in capsys.readouterr().err
    )  # can be given as it stands
    local.refuse = {}
    assert hub.upload_folder(checkpoint, repository)
    assert before == {path: sha256_file(path) for path in checkpoint.rglob("*.safetensors")}


def test_only_what_is_finished_is_published(
    local: LocalHub, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refused(capsys, "push", str(tmp_path), "ann/mine")
    assert code == 2 and "neither a checkpoint nor an alignment set" in line
    (checkpoint / "rba_run.json").unlink()
    code, line = refused(capsys, "push", str(checkpoint), "ann/mine")
    assert code == 2 and "rba_run.json is missing" in line
    with pytest.raises(UserError, match="is unfinished"):
        hub.upload_folder(checkpoint, hub.Repository("ann/mine", "model", ""))
    assert local.asked == []


def test_sealing_publishes_what_it_checked(
    local: LocalHub, alignment_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = shutil.copytree(alignment_dir, tmp_path / "foreign")
    (foreign / "manifest.json").unlink()
    assert run("synth", "--seal", str(foreign), "--push-to-hub", "ann/set") == 0
    printed, told = capsys.readouterr()
    assert printed == f"{foreign}\n" and f"published: {local.url}/datasets/ann/set" in told
    assert "manifest.json" in local.files("ann/set", "dataset")


def test_no_hub_at_all_is_one_line(tmp_path: Path, alignment_dir: Path) -> None:
    """In a process of its own, as the address is read when the client is loaded."""
    with serve() as closed:
        address = closed.url
    names = {**os.environ, "HF_TOKEN": TOKEN, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-m", "rba_bench", "push", str(alignment_dir), "ann/set"]
    done = subprocess.run(
        words, env={**names, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}, capture_output=True, text=True
    )
    assert (
        done.returncode == 3 and done.stdout == "" and done.stderr.startswith("error: the Hub cannot be used")
    )
    assert done.stderr.count("\n") == 1 and TOKEN not in done.stderr
