"""`rba-bench assets`: what it prints, where, and with which exit code."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rba_bench.assets import ASSETS, Asset, find_asset, weights_folder
from rba_bench.cli.main import main
from tests.assets.given_assets import CONTENT, offer_asset
from tests.assets.local_index import pip_settings, serve

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asset]:
    """An asset that can be fetched, in a list of its own with one that ships."""
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    with serve() as index:
        for key, value in pip_settings(index).items():
            monkeypatch.setenv(key, value)
        asset = offer_asset(index)
        shipped = find_asset("micro-asr")
        monkeypatch.setattr("rba_bench.assets.ASSETS", {"tiny": asset, shipped.name: shipped})
        monkeypatch.setattr("rba_bench.cli.assets.ASSETS", {"tiny": asset, shipped.name: shipped})
        yield asset


def _run(capsys: Capture, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["assets", *words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_from_the_list_to_the_path(tiny: Asset, capsys: Capture) -> None:
    path = f"{tiny.folder()}\n"
    code, out, _ = _run(capsys, "list")
    assert code == 0 and out.splitlines()[2].split() == [
        "tiny",
        "two",
        "files",
        "1.5",
        "MIT",
        "tiny-weights==1.0",
        "no",
    ]
    missing = "error: asset tiny is not here: fetch it with `rba-bench assets fetch tiny`\n"
    assert _run(capsys, "where", "tiny") == (3, "", missing)
    assert _run(capsys, "verify", "tiny") == (3, "", missing)

    code, out, err = _run(capsys, "fetch", "tiny")
    assert (code, out) == (0, path) and "fetching asset tiny (2 MB, MIT)" in err
    assert _run(capsys, "fetch", "asset:tiny") == (0, path, "asset tiny is here already\n")
    assert _run(capsys, "where", "tiny") == (0, path, "")
    listed = json.loads(_run(capsys, "list", "--json")[1])
    assert [(row["name"], row["here"], row["bytes"]) for row in listed][0] == ("tiny", True, tiny.size)
    assert listed[0]["files"][0]["sha256"] == tiny.files[0].sha256
    assert listed[1]["sources"] == ["shipped"] and listed[1]["here"] is True

    assert json.loads(_run(capsys, "verify", "--json")[1]) == [
        {"name": name, "ok": True, "faults": [], "note": ""} for name in ("tiny", "micro-asr")
    ]
    (tiny.folder() / "model.bin").write_bytes(b"x" + CONTENT["model.bin"][1:])
    (tiny.folder() / "config.json").unlink()
    code, out, err = _run(capsys, "verify", "tiny")
    assert code == 1 and "model.bin has the SHA-256" in out and "config.json is missing" in out
    assert err == "error: tiny: not as published; fetch it again with `rba-bench assets fetch tiny`\n"
    assert _run(capsys, "where", "tiny")[0] == 3


def test_other_weights_in_the_place_of_the_shipped_ones_are_found(
    tiny: Asset, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(weights_folder() / "asr", tmp_path / "asr")
    data = bytearray((tmp_path / "asr" / "ctc.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "asr" / "ctc.safetensors").write_bytes(data)
    monkeypatch.setenv("RBA_MICRO_WEIGHTS", str(tmp_path))
    code, out, err = _run(capsys, "verify")
    assert code == 1 and "ctc.safetensors has the SHA-256" in out
    assert err == "error: micro-asr: not as published; install rba-bench again, or unset RBA_MICRO_WEIGHTS\n"


def test_a_misspelt_name_is_one_line(capsys: Capture) -> None:
    hint = "error: no asset 'whisper-tiny': did you mean 'whisper-tiny.en'?\n"
    for command in ("fetch", "verify", "where"):
        assert _run(capsys, command, "whisper-tiny") == (2, "", hint)


def test_all_assets_are_listed(capsys: Capture) -> None:
    code, out, _ = _run(capsys, "list")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[2:]] == list(ASSETS)


def test_a_format_that_cannot_be_read_here_is_a_note(
    tiny: Asset, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = replace(tiny, tensors_sha256="0" * 64)
    for module in ("rba_bench.assets", "rba_bench.cli.assets"):
        monkeypatch.setattr(f"{module}.ASSETS", {"tiny": asset})
    assert _run(capsys, "fetch", "tiny")[0] == 0
    code, out, err = _run(capsys, "verify", "tiny")
    assert code == 0 and err.startswith("converting the asset") and "tensors not checked: " in out
