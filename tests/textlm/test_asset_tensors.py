"""The hash of tensors does not depend on how they are stored, and every other change changes it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rba_bench.assets import ASSETS, WEIGHTS, find_asset
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.textlm.asset_tensors import find_tensor_fault
from rba_bench.textlm.formats.conversion import tensors_sha256

TENSORS = {"b.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3), "a": torch.tensor([7])}


def _hash(folder: Path, files: dict[str, dict[str, torch.Tensor]]) -> str:
    folder.mkdir()
    for name, tensors in files.items():
        save_file(tensors, folder / name, metadata={"made": name})
    return tensors_sha256(folder)


def test_it_is_the_hash_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    by_hand = hashlib.sha256(
        b"a torch.int64 (1,)\n" + (7).to_bytes(8, "little")
        + b"b.weight torch.float16 (2, 3)\n" + bytes.fromhex("0000003c004000420044" "0045")
    ).hexdigest()  # fmt: skip
    assert _hash(tmp_path / "one", {"model.safetensors": TENSORS}) == by_hand
    shards = {f"{key}.safetensors": {key: value} for key, value in reversed(TENSORS.items())}
    assert _hash(tmp_path / "shards", shards) == by_hand


@pytest.mark.parametrize(
    "other",
    [
        {"c.weight": TENSORS["b.weight"], "a": TENSORS["a"]},
        {**TENSORS, "b.weight": TENSORS["b.weight"].to(torch.bfloat16)},
        {**TENSORS, "b.weight": TENSORS["b.weight"].reshape(3, 2)},
        {**TENSORS, "a": torch.tensor([8])},
        {"a": TENSORS["a"]},
    ],
    ids=["name", "type", "shape", "number", "less"],
)
def test_every_change_shows(tmp_path: Path, other: dict[str, torch.Tensor]) -> None:
    before = _hash(tmp_path / "before", {"model.safetensors": TENSORS})
    assert _hash(tmp_path / "after", {"model.safetensors": other}) != before


def test_no_weights_and_damaged_ones_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match=r"holds no \*\.safetensors"):
        tensors_sha256(tmp_path)
    _hash(tmp_path / "cut", {"model.safetensors": TENSORS})
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="a damaged safetensors file") as caught:
        tensors_sha256(tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_the_shipped_assets_have_the_tensors_of_the_list() -> None:
    shipped = [asset for asset in ASSETS.values() if asset.shipped]
    assert len(shipped) == sum(len(weights.roles) for weights in WEIGHTS.values())
    assert not any(find_tensor_fault(asset) for asset in shipped)
    wrong = replace(find_asset("micro-asr"), tensors_sha256="0" * 64)
    right = find_asset("micro-asr").tensors_sha256
    assert find_tensor_fault(wrong) == f"its tensors have the SHA-256 {right}, not 000000000000..."
