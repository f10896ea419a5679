"""The report: everything in one file, nothing of a model's words but text, what is missing said."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.cli.main import main
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.training.callbacks import run_files as watch
from rba_bench.training.report import page
from rba_bench.training.report.content import (
    GROUPS,
    POINTS,
    make_charts,
    read_run,
    spread_groups,
    thin_points,
)
from rba_bench.training.report.page import BYTES, SECONDS, ClipPlayer, data_uri

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "{{ 7 * 7 }} {% raw %}",
    "javascript:alert(1) <a href='javascript:alert(1)'>x</a>",
    "<style>@import url(http://evil.example/x.css)</style><svg onload=alert(1)>",
    "\u202eabc\u0000\u2028 &lt;b&gt;",
)


def lines(path: Path, *records: Any) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_run(folder: Path, text: str = "hello", **recipe: Any) -> Path:
    """A run's folder in the state that a kill behind step 2 leaves it in; every text in it is `text`."""
    folder.mkdir()
    config = {"method": "rba-group", "steps": 4, "track": "micro", "refresh_every": 1, **recipe}
    (folder / "rba_config.json").write_text(
        json.dumps({"schema_version": 1, "stage": "train", "config": config})
    )
    start = {
        "method": "rba-group",
        "recipe": config | {"alignment_set": text},
        "base": text,
        "versions": {text: text},
    }
    (folder / watch.START).write_text(json.dumps(start))
    task = {"group": "g0", "kind": text, "prompt": text, "instruction": text, "teacher": text}
    sample = {
        "clip": "g0-v0",
        "voice": text,
        "text": text,
        "tokens": 3,
        "cut": True,
        "read": True,
        "reward": 0.5,
    }
    side = {"clip": "g0-v0", "voice": text, "text": text + "!", "sample": None}
    lines(
        folder / watch.SAMPLES,
        {
            **task, "step": 1, "voices": [{"clip": "g0-v0", "voice": text}], "samples": [sample],
            "samples_left_out": 3, "pairs": [{"chosen": side, "rejected": {**side, "sample": 0}, "gap": 1.0}],
        },
    )  # fmt: skip
    answer = {**task, "clip": "g0-v0", "voice": text, "answer": text, "teacher_nats": 1.5, "tokens": 2, "cut": True,
              "reward": 0.1}  # fmt: skip
    figures = {"validation_loss": 2.0, f"validation_loss_{text}": 2.0}
    lines(folder / watch.VALIDATION, {"step": 0, **figures}, {"step": 0, "answers": [answer]})
    lines(
        folder / watch.TRAIN_LOG,
        *({"step": n, "loss": 1.0 / n, "tokens": 10.0, "elapsed_s": float(n)} for n in (1, 2)),
    )
    return folder


class Page(HTMLParser):
    """Elements of a page, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["script"]:
            self.words.append(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_words_of_a_model_are_text_and_nothing_else(tmp_path: Path, text: str) -> None:
    harmless = page.render_page(read_run(make_run(tmp_path / "harmless")), "var Plotly;", [])
    hostile = page.render_page(read_run(make_run(tmp_path / "hostile", text)), "var Plotly;", [])
    wanted, made = Page(harmless), Page(hostile)
    assert made.tags == wanted.tags and made.ids == wanted.ids
    assert {name for name, _ in made.attributes} == {name for name, _ in wanted.attributes}
    addresses = [value for name, value in made.attributes if name in ("src", "href")]
    assert all(re.match(r"#[a-z]+$|data:", address) for address in addresses)
    assert not re.search("[\u202e\x00\u2028]", hostile)
    if text.startswith("{{"):
        assert text in "".join(made.words)  # shown as it is, not run


def test_the_page_s_own_policy_knows_its_two_scripts_and_no_address(tmp_path: Path) -> None:
    import base64
    import hashlib

    html = page.render_page(read_run(make_run(tmp_path / "run")), "var Plotly = 1;\n", [])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in allowed
    assert "default-src 'none'" in allowed and "http" not in allowed and "unsafe-eval" not in allowed


def test_a_run_that_was_killed_says_how_far_it_is_and_what_is_missing(tmp_path: Path) -> None:
    content = read_run(make_run(tmp_path / "run"))
    assert (content.step, content.steps, content.run) == (2, 4, {})
    assert any("has not come to its end" in line for line in content.missing)
    html = page.render_page(content, "", content.missing)
    assert "not finished" in html and "step 2 of 4" in html


def test_a_run_of_an_earlier_version_says_what_is_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in (watch.SAMPLES, watch.VALIDATION, watch.START):
        (run / name).unlink()
    lines(run / watch.TRAIN_LOG, {"step": 1, "loss": 1.0, "validation_loss": 3.0}, {"step": 2, "loss": 0.5})
    content = read_run(run)
    assert [line.split(":")[0] for line in content.missing] == [
        "No groups", "No answers before and after", "The recipe lacks its paths",
    ]  # fmt: skip
    assert [chart["title"] for chart in make_charts(content)] == ["Loss", "Validation"]
    assert "None; see above." in page.render_page(content, "", content.missing)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (watch.SAMPLES, '{"step": 1}\n'),
        (watch.SAMPLES, "[1]\n"),
        (watch.TRAIN_LOG, '{"loss": 1}\n'),
        (watch.VALIDATION, '{"step": 0, "answers": [{"clip": 3}]}\n'),
        (watch.START, "{"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read_run(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no training run"):
            read_run(folder)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("plotly")
    run = make_run(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        main(["train", "report", str(run), "--out", str(tmp_path / "mine.html"), "--json"])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert not end.value.code and told["report"] == str(tmp_path / "mine.html")
    assert "No clips" in err and told["missing"]
    html = (tmp_path / "mine.html").read_text(encoding="utf-8")
    assert html.count("<script") - html.count("<script>") >= 1 and 4e6 < len(html) < 12e6
    with pytest.raises(SystemExit) as end:
        main(["train", "--steps", "3", "report", str(run)])
    assert end.value.code == 2 and "leave out --steps" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["train", "report", str(run), "--out", str(tmp_path)])
    assert end.value.code == 2 and "cannot write" in capsys.readouterr().err


def test_without_plotly_a_run_ends_well_and_says_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(MissingPrerequisite, match=r"\[train\]"):
        page.write_page(run)
    watch.write_report(run)
    assert not (run / watch.REPORT).exists()
    assert capsys.readouterr().err.count("\n") <= 1


def test_clips_are_short_and_fit_a_budget(rows: list[AlignmentRow]) -> None:
    import base64
    import io

    import soundfile

    uri = data_uri(np.random.default_rng(0).standard_normal(16_000 * (SECONDS + 9)).astype(np.float32))
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert rate == 16_000 and SECONDS - 0.2 < len(wave) / rate < SECONDS + 0.2
    player = ClipPlayer({row.group_id: [row] for row in rows[:1]})
    assert player(rows[0].group_id, rows[0].id).startswith("data:audio/")
    assert player(rows[0].group_id, "another") == player("absent", "x") == "" and player.unread == 2
    player._bytes = BYTES
    player._uris.clear()
    assert player(rows[0].group_id, rows[0].id) == "" and player.left_out == 1
    assert ClipPlayer(None)("g", "c") == ""


def test_a_long_run_has_bounded_curves_and_groups_from_its_whole_length(tmp_path: Path) -> None:
    points = [(float(n), float(n % 2)) for n in range(1, 10 * POINTS + 1)]
    short = thin_points(points)
    assert len(short) == POINTS and short[-1] == (10.0 * POINTS, 0.5)
    assert thin_points(points[:7]) == points[:7]
    groups = [{"step": step} for step in range(1, 48)]
    chosen = [group["step"] for group in spread_groups(groups, GROUPS)]
    assert len(set(chosen)) == GROUPS and chosen == sorted(chosen) and (chosen[0], chosen[-1]) == (1, 47)


def test_speed_counts_steps_that_were_sampled_for_together_as_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", refresh_every=2)
    times = [3.0, 4.0, 7.0, 8.0]
    lines(
        run / watch.TRAIN_LOG, *({"step": n + 1, "tokens": 10.0, "elapsed_s": t} for n, t in enumerate(times))
    )
    (speed,) = [chart for chart in make_charts(read_run(run)) if chart["title"] == "Speed"]
    assert speed["curves"] == [{"name": "tokens/s", "x": [2, 4], "y": [5.0, 5.0]}]
