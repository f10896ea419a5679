"""Samples as they are published: packed files are taken as they are only if they could not be told from our own."""

import gzip
from pathlib import Path

import pytest

from rba_bench.evaluation.records import PACKED_FILE, SAMPLES_FILE, pack_samples, packed_as_published

DATA = b"".join(b'{"doc_id": %d, "response": "answer %d"}\n' % (i, i * i) for i in range(300))
HEAD = pack_samples(b"")[:10]
EMPTY_BLOCKS = b"\x00\x00\x00\xff\xff" * 4000  # stored blocks of no bytes, before the others


def named(data: bytes) -> bytes:
    """As `gzip -9` does it: with the name of the file."""
    packed = pack_samples(data)
    return packed[:3] + b"\x08" + packed[4:10] + b"samples.jsonl\x00" + packed[10:]


def test_what_pack_samples_has_packed_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PACKED_FILE).write_bytes(pack_samples(DATA))
    packed = packed_as_published(tmp_path, DATA)
    assert packed == pack_samples(DATA) and gzip.decompress(packed) == DATA
    monkeypatch.setattr("rba_bench.evaluation.records.pack_samples", pytest.fail)
    assert packed_as_published(tmp_path, DATA) == packed


@pytest.mark.parametrize(
    "other",
    [
        gzip.compress(DATA, 6, mtime=0),
        gzip.compress(DATA, 9, mtime=1),
        named(DATA),
        pack_samples(DATA) + named(b""),
        pack_samples(DATA) + b"more",
        pack_samples(DATA)[:-1],
        pack_samples(DATA[:-1]),
        HEAD + EMPTY_BLOCKS + pack_samples(DATA)[10:],
        b"",
    ],
    ids=[
        "faster",
        "dated",
        "named",
        "two members",
        "more behind",
        "cut off",
        "other samples",
        "padded",
        "empty",
    ],
)
def test_anything_else_is_packed_anew(tmp_path: Path, other: bytes) -> None:
    (tmp_path / PACKED_FILE).write_bytes(other)
    assert other != pack_samples(DATA) and packed_as_published(tmp_path, DATA) == pack_samples(DATA)


def test_a_link_is_not_followed_and_no_file_is_needed(tmp_path: Path) -> None:
    (tmp_path / SAMPLES_FILE).write_bytes(DATA)
    assert packed_as_published(tmp_path, DATA) == pack_samples(DATA)
    (tmp_path / "elsewhere").write_bytes(pack_samples(DATA))
    (tmp_path / PACKED_FILE).symlink_to(tmp_path / "elsewhere")
    assert packed_as_published(tmp_path, DATA) == pack_samples(DATA)
