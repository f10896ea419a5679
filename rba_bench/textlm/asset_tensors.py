"""Whether an asset gives the tensors that it should, whatever file format they come in."""

import hashlib
from pathlib import Path

from rba_bench.assets import PREFIX, Asset
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.textlm.weights import local_folder


def tensors_sha256(folder: Path) -> str:
    """SHA-256 over the tensors of all safetensors files of a folder, in the order of their names.

    Of each tensor the line `NAME DTYPE SHAPE` counts, such as `lm_head.weight torch.float16 (854, 192)`, and then its
    bytes. How the tensors are shared out over files does not count.

    Raises:
        MissingPrerequisite: There are no such files.
        UserError: One is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingPrerequisite(f"{folder} holds no *.safetensors")
    digest = hashlib.sha256()
    places: dict[str, Path] = {}
    try:
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                places |= dict.fromkeys(tensors.keys(), file)
        for name, file in sorted(places.items()):
            with safe_open(file, framework="pt") as tensors:
                tensor = tensors.get_tensor(name).contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    except SafetensorError as error:
        raise UserError(f"{folder} holds a damaged safetensors file ({first_line(error)})") from error
    return digest.hexdigest()


def find_tensor_fault(asset: Asset) -> str:
    """What is wrong with an asset's tensors, in a few words; "" where nothing is, or where the file's hash decides.

    A file of another format is converted for this, once.
    """
    if not asset.tensors_sha256:
        return ""
    folder = asset.folder() if asset.shipped else local_folder(f"{PREFIX}{asset.name}", "asset")
    found, expected = tensors_sha256(folder), asset.tensors_sha256
    return "" if found == expected else f"its tensors have the SHA-256 {found}, not {expected[:12]}..."
