"""Cards: what is ours is renewed, what is the owner's stays byte by byte."""

from pathlib import Path

import pytest

from rba_bench.cards import front_matter, last_path_part, markdown_table, without_paths, write_card
from rba_bench.errors import UserError

METADATA = {"license": "mit", "tags": ["a", "b"], "configs": [{"config_name": "default"}]}


def renew(folder: Path, value: object, text: str, adopt: bool = False) -> bool:
    return write_card(folder, {"configs": value, "license": "mit"}, {"facts": text}, ["configs"], adopt)


def test_a_new_card_has_front_matter_and_a_marked_section(tmp_path: Path) -> None:
    assert write_card(tmp_path, {**METADATA, "language": None}, {"facts": "# One"})
    text = (tmp_path / "README.md").read_text()
    assert front_matter(tmp_path / "README.md") == METADATA
    assert text.count("rba-bench:facts") == 2 and "# One" in text
    assert b"\r" not in (tmp_path / "README.md").read_bytes()


def test_what_the_user_wrote_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    write_card(tmp_path, METADATA, {"facts": "# One"})
    mine = path.read_text().replace("license: mit", "license: other # ask me\n# and me\nmine:\n- 1")
    mine = mine.replace("\n---\n", "\n---\nBefore.\n", 1) + "\nAfter: $1 \\1 <!-- mine -->\n"
    path.write_text(mine)
    assert renew(tmp_path, [{"config_name": "all"}], "# Two \\1")
    new = path.read_text()
    assert new.replace("config_name: all", "config_name: default") == mine.replace("# One", "# Two \\1")
    assert front_matter(path) == {
        "license": "other", "mine": [1], "tags": ["a", "b"], "configs": [{"config_name": "all"}],
    }  # fmt: skip
    before = path.read_bytes()
    assert renew(tmp_path, [{"config_name": "all"}], "# Two \\1") and path.read_bytes() == before
    assert renew(tmp_path, None, "# Two \\1") and "configs" not in front_matter(path)


def test_a_readme_of_somebody_else_is_left_alone_until_a_section_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Mine\n")
    assert not renew(tmp_path, 1, "# Ours") and path.read_text() == "# Mine\n"
    assert renew(tmp_path, 1, "# Ours", adopt=True)
    assert path.read_text().startswith("---\nconfigs: 1\n---\n\n# Mine\n\n<!-- rba-bench:facts:")


@pytest.mark.parametrize("front", ["a: [", "- a", "{a: 1,\nconfigs: 2}"])
def test_front_matter_that_cannot_be_edited_is_refused_and_kept(tmp_path: Path, front: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"---\n{front}\n---\nMine\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match="front matter"):
        renew(tmp_path, 1, "# Ours", adopt=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/ann/sets/mine", "mine"),
        ("/home/ann/sets/mine/", "mine"),
        ("C:\\Users\\ann\\model", "model"),
        ("~/model", "model"),
        ("cascade:small+/home/ann/llm", "cascade:small+llm"),
        ("text:/srv/llm", "text:llm"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("runs/sft", "runs/sft"),
        ("openai:http://127.0.0.1:8000/v1#m", "openai:http://127.0.0.1:8000/v1#m"),
        ("/", "/"),
        ("/say\nthis", "/say\nthis"),
        ("", ""),
    ],
)
def test_absolute_paths_become_their_last_path_part(text: str, kept: str) -> None:
    assert last_path_part(text) == kept
    assert without_paths({"a": [text, 1, None, True]}) == {"a": [kept, 1, None, True]}


def test_a_table_shows_cells_as_they_are() -> None:
    assert markdown_table(("a", "b"), [("x|y", "<b>`1`")]) == "| a | b |\n| --- | --- |\n| x\\|y | ‹b›'1' |"
