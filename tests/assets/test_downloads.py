"""A transfer that breaks is continued where it broke, and a server that cannot help is one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rba_bench.assets import downloads
from rba_bench.assets.downloads import download
from rba_bench.errors import MissingPrerequisite
from tests.assets.local_index import LocalIndex, serve

CONTENT = bytes(range(256)) * 12_000  # 3 MB
NAME = "thing.whl"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalIndex]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "WAIT_S", 0.001)
    with serve() as index:
        index.wheels[NAME] = CONTENT
        yield index


def test_a_transfer_that_breaks_again_and_again_brings_every_byte_once(
    index: LocalIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.cut_after = 700_000
    download(index.address(NAME), tmp_path / "part", len(CONTENT), "thing")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert len(index.sent) == 5 and sum(count for _, _, count in index.sent) == len(CONTENT)
    assert "thing: 3/3 MB" in capsys.readouterr().err


def test_what_a_killed_process_left_is_kept(index: LocalIndex, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT[:2_000_000])
    download(index.address(NAME), tmp_path / "part", len(CONTENT), "thing")
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert [(start, count) for _, start, count in index.sent] == [(2_000_000, len(CONTENT) - 2_000_000)]


def test_a_server_without_ranges_begins_again(index: LocalIndex, tmp_path: Path) -> None:
    index.ranges = False
    (tmp_path / "part").write_bytes(b"x" * 1_000_000)
    download(index.address(NAME), tmp_path / "part", len(CONTENT), "thing")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_not_built_upon(index: LocalIndex, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT + b"more")
    download(index.address(NAME), tmp_path / "part", len(CONTENT), "thing")
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_server_that_never_gets_further_is_given_up(index: LocalIndex, tmp_path: Path) -> None:
    index.ranges, index.cut_after = False, 500_000
    with pytest.raises(MissingPrerequisite):
        download(index.address(NAME), tmp_path / "part", len(CONTENT), "thing")
    assert len(index.sent) == 1 + downloads.TRIES and (tmp_path / "part").stat().st_size == 500_000


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, downloads.TRIES)])
def test_a_refusal_is_final_and_an_overload_is_not(
    index: LocalIndex, tmp_path: Path, status: int, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(downloads.time, "sleep", asked.append)
    index.status = status
    with pytest.raises(MissingPrerequisite, match=f"HTTP status {status}"):
        download(index.address(NAME), tmp_path / "part", len(CONTENT), "thing")
    assert len(asked) == requests - 1 and not (tmp_path / "part").exists()


def test_a_file_of_another_size_is_refused_before_it_is_fetched(index: LocalIndex, tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="a file of 3,072,000 bytes instead of 2,000,000"):
        download(index.address(NAME), tmp_path / "part", 2_000_000, "thing")
    assert not (tmp_path / "part").exists()


def test_no_more_is_kept_than_the_file_should_have(index: LocalIndex, tmp_path: Path) -> None:
    index.lengths = False
    download(index.address(NAME), tmp_path / "part", 2_000_000, "thing")
    assert (tmp_path / "part").read_bytes() == CONTENT[:2_000_000]


def test_no_server_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "WAIT_S", 0.001)
    with pytest.raises(MissingPrerequisite) as caught:
        download("http://127.0.0.1:9/thing", tmp_path / "part", 1, "thing")
    assert "\n" not in str(caught.value)
