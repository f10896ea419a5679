"""Files of others: bombs, links, pipes, and JSON that breaks readers."""

import gzip
import json
import os

import pytest

from rba_bench.errors import UserError
from rba_bench.untrusted import parse_untrusted_json, read_untrusted_file, read_untrusted_json, unpack_gzip


@pytest.mark.parametrize(
    "text",
    ["", "{", "[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", "[" + "1" * 41 + "]", "[" + "1" * 5000 + "]",
     '{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 1}}', "[" * 100_000 + "]" * 100_000,
     "[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, '[[], {"a": ' + "[" * 63 + "]" * 64 + "}]",
     '{"a":' * 50_000 + "1" + "}" * 50_000, '["\\ud800"]', '{"\\udfff": 1}', b'["\xff"]', b"\xff\xfe[\x00]\x00"],
)  # fmt: skip
def test_json_that_readers_disagree_on_is_refused(text):
    with pytest.raises(ValueError):
        parse_untrusted_json(text)


def test_ordinary_json_is_read():
    value = {"a": [1, -2.5e-3, None, True, "ü\U0001f600"], "seed": 2**63 - 1}
    assert (
        parse_untrusted_json(json.dumps(value))
        == parse_untrusted_json(json.dumps(value, ensure_ascii=False).encode())
        == value
    )


def test_json_of_many_levels_and_much_json_of_few_are_told_apart():
    deep = parse_untrusted_json("[" * 64 + "]" * 64)
    assert json.dumps(deep) == "[" * 64 + "]" * 64
    assert len(parse_untrusted_json("[" + ",".join(["[{}]"] * 10_000) + "]")) == 10_000
    assert parse_untrusted_json(json.dumps("[" * 1000)) == "[" * 1000


def test_only_ordinary_files_of_the_right_size_are_read(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"x" * 100)
    assert read_untrusted_file(file, 100) == b"x" * 100
    with pytest.raises(UserError, match="larger"):
        read_untrusted_file(file, 99)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(UserError, match="is a link"):
        read_untrusted_file(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not an ordinary file"):
        read_untrusted_file(tmp_path / "pipe")
    with pytest.raises(UserError):
        read_untrusted_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_untrusted_json(tmp_path / "none")


def test_an_endless_sparse_file_is_refused_without_reading_it(tmp_path):
    with open(tmp_path / "big", "wb") as handle:
        handle.truncate(2**40)
    with pytest.raises(UserError, match="larger than 1 MiB"):
        read_untrusted_file(tmp_path / "big", 2**20)


def test_what_packs_like_text_unpacks_and_a_bomb_does_not(tmp_path):
    text = b"".join(b'{"id": %d, "text": "the cat sleeps"}\n' % number for number in range(50_000))
    assert unpack_gzip(gzip.compress(text, mtime=0), tmp_path) == text
    assert unpack_gzip(gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0), tmp_path) == b"ab"
    bomb = gzip.compress(bytes(64 * 2**20), mtime=0)
    with pytest.raises(UserError, match="unpacks to more than 16 MiB"):
        unpack_gzip(bomb, tmp_path)
    with pytest.raises(UserError, match="unpacks to more than 1 MiB"):
        unpack_gzip(gzip.compress(os.urandom(2**21), mtime=0), tmp_path, limit=2**20)


@pytest.mark.parametrize(
    "data",
    [b"no gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], gzip.compress(b"x", mtime=0)[:-1] + b"\0\0"],
)
def test_a_damaged_file_is_refused(tmp_path, data):
    with pytest.raises(UserError, match="damaged"):
        unpack_gzip(data, tmp_path)
