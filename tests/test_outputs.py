"""The signature of output folders."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rba_bench import outputs
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import LOCK, SIGNATURE, check_writable, claim, differences, lock, locked, release


def test_first_claim_signs_and_second_resumes(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    assert claim(out, "train", {"seed": 1, "lr": 0.1}) is False
    assert read_json(out / SIGNATURE) == {
        "schema_version": 1,
        "stage": "train",
        "config": {"seed": 1, "lr": 0.1},
    }
    release(out)
    assert claim(out, "train", {"lr": 0.1, "seed": 1}) is True


def test_other_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    claim(tmp_path, "train", {"seed": 1, "lora": {"r": 8}, "gone": True})
    with pytest.raises(UserError) as caught:
        claim(tmp_path, "train", {"seed": 2, "lora": {"r": 16}, "new": None})
    message = str(caught.value)
    for part in ("seed: 1 -> 2", "lora.r: 8 -> 16", "gone: true -> -", "new: - -> null"):
        assert part in message
    assert caught.value.exit_code == 2
    assert read_json(tmp_path / SIGNATURE)["config"]["seed"] == 1


def test_other_stage_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, "synth", {})
    with pytest.raises(UserError, match="output of `synth`, not of `train`"):
        claim(tmp_path, "train", {})


def test_strangers_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        claim(tmp_path, "train", {})
    assert not (tmp_path / SIGNATURE).exists()


def test_hidden_leftovers_do_not_count(tmp_path: Path) -> None:
    (tmp_path / f".{SIGNATURE}.77.tmp").write_text('{"sta')
    assert claim(tmp_path, "train", {}) is False


def test_a_file_or_damaged_signature_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UserError, match="is a file"):
        claim(file, "train", {})
    with pytest.raises(UserError, match="cannot use"):
        claim(file / "below", "train", {})
    (tmp_path / SIGNATURE).write_text('{"stage": ')
    with pytest.raises(UserError, match="damaged"):
        claim(tmp_path, "train", {})


def test_true_and_one_are_different_values() -> None:
    assert list(differences({"a": 1}, {"a": True})) == ["a: 1 -> true"]
    assert list(differences({"a": [1, 2]}, {"a": [1, 2]})) == []


def test_a_folder_that_is_worked_in_is_refused_until_it_is_let_go(tmp_path: Path) -> None:
    claim(tmp_path, "synth", {"a": 1})
    with pytest.raises(UserError, match="in use by another process"):
        claim(tmp_path, "synth", {"a": 1})
    with pytest.raises(UserError, match="in use by another process"):
        lock(tmp_path / ".." / tmp_path.name)
    release(tmp_path)
    assert not (tmp_path / LOCK).exists()
    assert claim(tmp_path, "synth", {"a": 1}) is True
    release(tmp_path)


def test_a_killed_process_frees_its_folder_and_its_litter_is_cleared_away(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom rba_bench.outputs import claim\n"
        f"claim({str(tmp_path)!r}, 'synth', {{}})\n"
        f"open({str(tmp_path)!r} + '/.part.parquet.1.tmp', 'w').close()\n"
        "print('in', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="in use"):
        claim(tmp_path, "synth", {})
    other.kill()
    other.wait()
    assert claim(tmp_path, "synth", {}) is True
    assert not list(tmp_path.glob(".*.tmp"))
    release(tmp_path)


def test_of_a_distributed_run_the_first_process_locks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path):
        with pytest.raises(UserError, match="in use"):
            lock(tmp_path)  # a process that is not of the run
        monkeypatch.setenv("RANK", "1")
        lock(tmp_path)
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()
    lock(tmp_path)  # others of the run take none of their own
    assert not (tmp_path / LOCK).exists()


def test_the_first_process_leaves_alone_what_the_others_of_its_run_are_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them sign the folder at the same moment, each through a temporary file."""
    fresh, old = tmp_path / f".{SIGNATURE}.1.tmp", tmp_path / ".model.safetensors.1.tmp"
    fresh.write_text("half")
    old.write_text("half")
    os.utime(old, (time.time() - 3600,) * 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with locked(tmp_path):
        assert fresh.is_file() and not old.is_file()


def test_a_failure_inside_lets_the_folder_go(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), locked(tmp_path):
        raise ValueError("x")
    with locked(tmp_path):
        pass


def test_old_litter_in_the_cache_is_removed_once_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "index").mkdir(parents=True)
    old, new = (tmp_path / "cache" / "index" / f".x.json.{pid}.tmp" for pid in (1, 2))
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    with locked(tmp_path / "out"):
        assert not old.exists() and new.exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="it is a file"):
        check_writable(tmp_path / "file")
    with pytest.raises(UserError, match="Not a directory"):
        check_writable(tmp_path / "file" / "below")
    check_writable(tmp_path / "new" / "deep")
    assert not list((tmp_path / "new" / "deep").iterdir())


def test_a_process_whose_neighbour_signs_first_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of one run sign at the same moment: one looks, the other signs, the first one sees files."""
    plain = outputs.read_signature

    def late(folder: Path) -> Any:
        seen = plain(folder)
        if seen is None:
            signature = {"schema_version": 1, "stage": "train", "config": {"seed": 1}}
            (folder / SIGNATURE).write_text(json.dumps(signature))
        return seen

    monkeypatch.setattr(outputs, "read_signature", late)
    claim(tmp_path, "train", {"seed": 1})
    release(tmp_path)
    (tmp_path / SIGNATURE).unlink()
    with pytest.raises(UserError, match="seed: 1 -> 2"):
        claim(tmp_path, "train", {"seed": 2})


def test_a_stage_may_bring_a_resume_rule_of_its_own(tmp_path: Path) -> None:
    def may_grow(signed: dict[str, int], asked: dict[str, int]) -> list[str]:
        return [] if asked["n"] >= signed["n"] else [f"n: {signed['n']} -> {asked['n']}"]

    assert not claim(tmp_path / "set", "synth", {"n": 3}, may_grow)
    release(tmp_path / "set")
    assert claim(tmp_path / "set", "synth", {"n": 5}, may_grow)
    release(tmp_path / "set")
    with pytest.raises(UserError, match="n: 3 -> 2"):
        claim(tmp_path / "set", "synth", {"n": 2}, may_grow)
    with pytest.raises(UserError, match="n: 3 -> 5"):  # without the rule
        claim(tmp_path / "set", "synth", {"n": 5})
