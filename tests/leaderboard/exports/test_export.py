"""`leaderboard export`: only verified, complete records leave; a file or a folder, as the format wants."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation.records import read_record
from rba_bench.leaderboard.exports.export import FORMATS, export_latex, export_markdown, export_records
from rba_bench.leaderboard.exports.origin import Origin, make_origin
from rba_bench.untrusted import plain
from tests.leaderboard.exports.given import HOSTILE, edited, groups_of, invented, record_of

TASK = "micro_triviaqa"


def test_tables_show_the_scores_of_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [str(record_of(model, TASK)) for model in ("base", "sft", "text")]
    texts = {}
    for form in ("latex", "markdown"):
        out = tmp_path / f"table.{form}"
        with pytest.raises(SystemExit) as end:
            main(["leaderboard", "export", *records, "--format", form, "--out", str(out)])
        assert end.value.code == 0 and capsys.readouterr().out.strip() == str(out)
        texts[form] = out.read_text()
    group = groups_of(*map(Path, records))[0]
    for run in group.runs:
        value = run.record.metrics["asserted_match"]
        score, low, high = (f"{100 * number:.1f}" for number in (value.value, value.low, value.high))
        assert f"{score} [{low}, {high}]" in texts["markdown"]
        assert f"{score} {{\\scriptsize [{low}, {high}]}}" in texts["latex"]
    for text in texts.values():
        assert "Difference from sft" in text and "Modality gap" in text and "miniature world" in text
        assert group.protocol_hash[:8] in text and "n = 96" in text and "text (ref)" in text


def test_a_record_at_fault_or_partial_leaves_in_no_format(tmp_path: Path) -> None:
    folder = shutil.copytree(record_of("base", TASK), tmp_path / "run")
    metrics = json.loads((folder / "run.json").read_text())["metrics"]
    metrics["asserted_match"]["high"] = 0.99
    edited(folder, metrics=metrics)
    partial = edited(shutil.copytree(record_of("base", TASK), tmp_path / "partial"), partial=True, limit=96)
    for form in FORMATS:
        with pytest.raises(UserError, match="asserted_match.high is recorded as 0.99"):
            export_records([folder], form, tmp_path / "out", Origin("x"))
        with pytest.raises(UserError, match="is partial"):
            export_records([partial], form, tmp_path / "out", Origin("x"))
    assert not (tmp_path / "out").exists()


def test_runs_without_the_speech_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    folders = [path.parent for path in record_of("base", TASK).parent.glob(f"{TASK}-*/run.json")]
    controls = {read_record(folder).audio_control for folder in folders} - {""}
    made = export_records(folders, "model-index", tmp_path / "out", Origin())
    assert controls and {line.partition(" (")[2].partition(")")[0] for line in made.left_out} == controls
    [model] = yaml.safe_load((tmp_path / "out" / "base.yaml").read_text())["model-index"]
    assert len(model["results"]) == 1 and len(model["results"][0]["metrics"]) == 1


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "base.yaml").symlink_to(tmp_path / "elsewhere" / "base.yaml")
    with pytest.raises(UserError, match="leads out of"):
        export_records([record_of("base", TASK)], "model-index", tmp_path / "out", Origin("x"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_where_a_folder_is_wanted_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="model-index writes a folder"):
        export_records([record_of("base", TASK)], "model-index", tmp_path / "file", Origin())
    with pytest.raises(UserError, match="latex writes a file: name one in it"):
        export_records([record_of("base", TASK)], "latex", tmp_path, Origin())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://x y", "https://x\n\\input{a}", "file:///etc", "x"]
)
def test_an_address_is_one_of_the_web(url: str) -> None:
    with pytest.raises(UserError, match="is no address: write https://"):
        make_origin("", "other", url)
    assert make_origin("a\nb", "other", "https://example.org/a?b=c#d").organization == "a b"


@pytest.mark.parametrize(
    "name",
    [
        "a|b", "*b* **c**", "_i_ __x__", "my_model_v2", "a__b", "<b>x</b>", "a\\|b", "\\", "~~s~~ ~t~", "&lt;i&gt;",
        "&#124;", "![i](x.png)", "a *", "2*3",
    ],
)  # fmt: skip
def test_a_name_is_read_in_markdown_letter_by_letter(tmp_path: Path, name: str) -> None:
    [markdown] = export_markdown(groups_of(invented(tmp_path, name)), Origin()).files.values()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown.decode())
    cell = next(tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open")
    assert cell.content.count("|") == name.count("|") and {each.type for each in cell.children} <= {
        "text",
        "text_special",
    }
    assert "".join(each.content for each in cell.children) == plain(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_keep_the_shape_of_tables(tmp_path: Path, name: str) -> None:
    groups = groups_of(invented(tmp_path, name))
    [markdown] = export_markdown(groups, Origin()).files.values()
    rows = [line for line in markdown.decode().splitlines() if line.startswith("|")]
    assert len(rows) == 3 and all(line.endswith(" |") for line in rows)
    assert not [mark for mark in ("<img", "\x1b", "\u202e", "\u2028", "\n- x") if mark in markdown.decode()]
    [latex] = export_latex(groups, Origin()).files.values()
    assert latex.decode().count("\\begin{table}") == latex.decode().count("\\end{table}") == 1
    assert "\\input" not in latex.decode()
