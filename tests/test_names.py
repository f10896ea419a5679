"""Names of others as paths: identifiers, folder names, and what stays inside a folder."""

from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.files import folder_name, inside, is_below, is_name


@pytest.mark.parametrize(
    "name", ["micro_triviaqa", "fleurs_cmn_hans_cn", "covost2_zh-CN_en", "chrf++", "1.0", "a..b"]
)
def test_what_is_an_identifier(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "/etc", "C:", "a:b", "CON", "con.txt", "Lpt1", "a.", "a b", "a\n", "a\0b",
     "\u0430bc", "a\u202eb", "-rf", ".hidden", "x" * 201, None, 3],
)  # fmt: skip
def test_what_is_none(name):
    assert not is_name(name)


def test_a_name_that_stays_as_it_is_needs_no_hash_and_any_other_gets_one():
    assert folder_name("Qwen2.5-7B") == "Qwen2.5-7B" and folder_name("модель") == "модель"
    assert folder_name("org/model: v1").startswith("org-model-v1-") and folder_name("a/b") != folder_name(
        "a-b"
    )
    names = [
        "a/b",
        "a b",
        "a\\b",
        "a-b",
        "a:b",
        "-a-b",
        "a-b.",
        "..",
        ".",
        "",
        "CON",
        "nul.x",
        "\ud800",
        "é",
        "é" * 300,
    ]
    folders = [folder_name(name) for name in names]
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert not set(folder) & set("/\\: \0") and folder not in (".", "..") and len(folder.encode()) < 150


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "link/x", "loop/x", "a\0b", "", ".", "a/..", "x" * 5000]
)
def test_nothing_leads_out(tmp_path: Path, name: str):
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(UserError):
        inside(folder, name)


def test_what_lies_inside_is_a_path(tmp_path: Path):
    assert inside(tmp_path, "records/a/run.json") == tmp_path / "records" / "a" / "run.json"
    (tmp_path / "also").symlink_to(tmp_path)
    assert inside(tmp_path / "also", "x") == tmp_path / "also" / "x"


def test_a_list_of_files_names_files_below_it():
    assert all(map(is_below, ["a.parquet", "shards/part-00000.parquet", "a..b/c"]))
    assert not any(
        map(is_below, ["../a", "a/../../b", "/etc/passwd", "", ".", "a\0", "..", "a\\..\\b", 3, None])
    )
