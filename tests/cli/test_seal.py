"""`rba-bench synth --seal`: a folder of another tool's parquet files becomes an alignment set."""

import json
import shutil
from pathlib import Path

import pytest

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.cli.main import main
from tests.training.conftest import alignment_dir, rows

__all__ = ["alignment_dir", "rows"]


def test_a_folder_of_shards_is_sealed_once_and_again(
    alignment_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = shutil.copytree(alignment_dir, tmp_path / "foreign")
    (foreign / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(["synth", "--seal", str(foreign), "--json"])
        assert end.value.code in (0, None)
        told = json.loads(capsys.readouterr().out)
        assert told["alignment_set"] == str(foreign) and len(told["checksums"]) == 1
    assert len(AlignmentSet.open(foreign).rows()) == 21


def test_it_makes_nothing_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["synth", "--seal", str(tmp_path), "--out", str(tmp_path / "out")])
    assert end.value.code == 2 and "leave out --recipe" in capsys.readouterr().err


def test_a_sample_goes_with_sealing_only(
    alignment_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = shutil.copytree(alignment_dir, tmp_path / "foreign")
    (foreign / "manifest.json").unlink()
    with pytest.raises(SystemExit) as end:
        main(["synth", "--seal", str(foreign), "--sample", "5"])
    assert end.value.code in (0, None) and "decoded 5 of 21 clips, none bad" in capsys.readouterr().err
    assert AlignmentSet.open(foreign).manifest["sealed"]["clips_heard"] == 5
    with pytest.raises(SystemExit) as end:
        main(["synth", "--sample", "5", "--out", str(tmp_path / "out")])
    assert end.value.code == 2 and "--sample belongs to --seal" in capsys.readouterr().err
