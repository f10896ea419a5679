"""Whether an asset gives the tensors that it should, whatever file format they come in."""

from rba_bench.assets import PREFIX, Asset
from rba_bench.textlm.formats.conversion import tensors_sha256
from rba_bench.textlm.weights import local_folder


def find_tensor_fault(asset: Asset) -> str:
    """What is wrong with an asset's tensors, in a few words; "" where nothing is, or where the file's hash decides.

    A file of another format is converted for this, once.
    """
    if not asset.tensors_sha256:
        return ""
    folder = asset.folder() if asset.shipped else local_folder(f"{PREFIX}{asset.name}", "asset")
    actual, expected = tensors_sha256(folder), asset.tensors_sha256
    return "" if actual == expected else f"its tensors have the SHA-256 {actual}, not {expected[:12]}..."
