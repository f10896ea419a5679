"""A file over HTTP: what is there already is kept, and only the rest is asked for."""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rba_bench.errors import MissingPrerequisite, first_line
from rba_bench.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

TRIES = 4  # in a row that bring nothing new
WAIT_S = 1.0  # before the second try; then twice as long each time
TIMEOUT_S = 60.0  # without a byte
CERTIFICATES = (
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)  # as pip; the client itself reads SSL_CERT_FILE
MEGABYTE = 1_000_000


def download(url: str, file: Path, size: int, label: str) -> None:
    """Complete `file` to `size` bytes. A broken transfer is continued, at once or by a later call.

    Args:
        url: An http or https address. Messages do not repeat it, as it may contain a secret.
        file: Its bytes so far are kept; a server that cannot continue a transfer begins again.
        size: Of the whole file, in bytes.
        label: How the progress bar names it.

    Raises:
        MissingPrerequisite: The server does not give it, or gives a file of another size.
        OSError: The disk is full or cannot be written; what arrived is kept.
    """
    import httpx2

    failures, most = 0, _length(file)
    if most > size:
        file.unlink()
        most = 0
    with _client() as client, _megabytes(label, most, size) as show:
        while _length(file) < size:
            problem = "it ends the transfer too early"
            try:
                _receive(client, url, file, size, show)
            except httpx2.HTTPStatusError as error:
                status = error.response.status_code
                problem = f"HTTP status {status}"
                if status < 500 and status != 429:
                    raise MissingPrerequisite(problem) from error
            except httpx2.HTTPError as error:
                problem = first_line(error)
            failures = failures + 1 if _length(file) <= most else 0
            most = max(most, _length(file))
            if failures == TRIES:
                raise MissingPrerequisite(problem)
            if failures:
                time.sleep(WAIT_S * 2 ** (failures - 1))


def _receive(client: "httpx2.Client", url: str, file: Path, size: int, show: "Callable[[int], None]") -> None:
    """Ask for the bytes that are missing, and append them as they arrive."""
    start = _length(file)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with client.stream("GET", url, headers=headers) as reply:
        if reply.status_code == 416:  # this range is not to be had: begin again
            file.unlink(missing_ok=True)
            return
        reply.raise_for_status()
        interval, _, whole = reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if reply.status_code != 206 or interval.partition("-")[0] != str(start):
            if reply.status_code == 206:  # another range than the one asked for
                file.unlink(missing_ok=True)
                return
            start, whole = 0, reply.headers.get("Content-Length", "")
        if whole.isdecimal() and int(whole) != size:
            raise MissingPrerequisite(f"a file of {int(whole):,} bytes instead of {size:,}")
        with open(file, "ab" if start else "wb") as handle:
            for block in reply.iter_raw():
                handle.write(block[: size - start])
                start = min(size, start + len(block))
                show(start)
                if start == size:  # whatever else a server sends
                    break


def _client() -> "httpx2.Client":
    import httpx2

    bundle = next((path for name in CERTIFICATES if (path := os.environ.get(name))), None)
    verify: ssl.SSLContext | bool = True
    if bundle is not None and Path(bundle).exists():
        is_folder = Path(bundle).is_dir()
        verify = ssl.create_default_context(
            cafile=None if is_folder else bundle, capath=bundle if is_folder else None
        )
    proxy = os.environ.get("PIP_PROXY") or None  # the usual variables are read by the client itself
    return httpx2.Client(
        timeout=httpx2.Timeout(TIMEOUT_S, connect=TIMEOUT_S / 4),
        follow_redirects=True,
        verify=verify,
        proxy=proxy,
    )


@contextmanager
def _megabytes(label: str, done: int, size: int) -> Iterator["Callable[[int], None]"]:
    """Progress in whole megabytes; yields a function of the number of bytes that are there."""
    shown = done // MEGABYTE
    with bar(label, max(1, size // MEGABYTE), shown, "MB") as advance:

        def show(arrived: int) -> None:
            nonlocal shown
            if (now := arrived // MEGABYTE) != shown:
                advance(now - shown)
                shown = now

        yield show


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
