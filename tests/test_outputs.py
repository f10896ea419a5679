"""The signature of output folders."""

from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import SIGNATURE, claim, differences


def test_first_claim_signs_and_second_resumes(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    assert claim(out, "train", {"seed": 1, "lr": 0.1}) is False
    assert read_json(out / SIGNATURE) == {
        "schema_version": 1,
        "stage": "train",
        "config": {"seed": 1, "lr": 0.1},
    }
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
