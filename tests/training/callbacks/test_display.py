"""What a run shows: all figures it has and none that it has not, whole on narrow and wide screens, plain in a pipe."""

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from rba_bench import progress
from rba_bench.training.callbacks import display as shown
from rba_bench.training.callbacks.display import (
    Board,
    Lines,
    Panel,
    clock,
    display,
    validation_text,
    wrap_words,
)

FULL = {
    "step": 1, "loss": 2.5, "reward": 0.25, "margin": 3.0, "length": 12.0, "truncated": 0.05, "saturated": 0.5,
    "tokens": 400.0, "clips": 32.0, "elapsed_s": 2.0, "grad_norm": 1.0,
}  # fmt: skip
PLAIN = {"step": 1, "loss": 2.5, "tokens": 400.0, "clips": 32.0, "elapsed_s": 2.0}


def test_a_method_shows_the_figures_that_it_has() -> None:
    board = Board("train x", 10, 0, 5)
    board.step(FULL, 2.0)
    assert board.figures() == [
        "loss 2.500", "reward 0.250", "margin 3.00", "length 12.0", "cut 5%", "saturated 50%", "200 tokens/s",
        "16 clips/s",
    ]  # fmt: skip
    board = Board("train x", 10, 0, 5)
    board.step(PLAIN, 2.0)
    assert board.figures() == ["loss 2.500", "200 tokens/s", "16 clips/s"]


def test_figures_are_means_over_the_last_steps_and_speeds_over_their_time() -> None:
    board = Board("train x", 10, 0, 2)
    for step, loss, seconds in ((1, 100.0, 50.0), (2, 1.0, 1.0), (3, 2.0, 3.0)):
        board.step({**PLAIN, "step": step, "loss": loss}, seconds)
    assert board.figures() == ["loss 1.500", "200 tokens/s", "16 clips/s"]


def test_the_time_that_is_left_follows_the_pace_and_ends_with_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    board = Board("train x", 10, 4, 2, budget_s=50.0)
    assert board.left() is None
    for step in (5, 6):
        now[0] += 3.0
        board.step({**PLAIN, "step": step, "elapsed_s": 20.0}, 3.0)
    assert board.left() == pytest.approx(4 * 3.0)
    board.step({**PLAIN, "step": 7, "elapsed_s": 45.0}, 3.0)
    assert board.left() == pytest.approx(5.0)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_block_fits_the_terminal_and_loses_nothing(width: int) -> None:
    panel = Panel("train rba-group", 1000, 0, 5)
    panel.step({**FULL, "step": 37}, 2.0)
    panel.validated(20, {"validation_loss": 3.0, "validation_loss_qa": 1.0, "validation_loss_s2tt": 5.0})
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(panel)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    text = " ".join(out.getvalue().split())
    words = ["37/1000", "loss 2.500", "saturated 50%", "16 clips/s"]
    assert all(word in text for word in words)
    assert "validation at step 20: loss 3.000 (qa 1.000, s2tt 5.000)" in text
    assert len(lines) == {40: 6, 80: 4, 200: 2}[width]


def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, soft_wrap=True, width=80))
    return out


def test_without_a_terminal_there_is_a_plain_line_every_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with display("train \x1b[31mx", 7, 0, every=3) as board:
        assert isinstance(board, Lines)
        board.validated(0, {"validation_loss": 3.0})
        for step in range(1, 8):
            board.step({**FULL, "step": step}, 2.0)
    text = out.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    lines = text.splitlines()
    assert [re.search(r"step (\d+)", line)[1] for line in lines] == ["0", "3", "6", "7"]  # type: ignore[index]
    assert "loss 2.500, reward 0.250, margin 3.00" in lines[1] and lines[1].endswith("left")
    assert not lines[-1].endswith("left")


def test_slow_steps_are_said_though_no_line_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    out = said(monkeypatch)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = Lines("train x", 100, 0, 10)
    for step in (1, 2, 3):
        now[0] += shown.SILENCE_S / 2 + 1
        lines.step({**PLAIN, "step": step}, 30.0)
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == ["train x: step 2/100"]


def test_a_terminal_without_a_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    for term, kind in (("dumb", Lines), ("xterm", Panel)):
        monkeypatch.setattr(shown, "console", Console(file=Terminal(), _environ={"TERM": term}))
        with display("train x", 2, 0, 1) as board:
            assert type(board) is kind
    out = said(monkeypatch)
    with display("train x", 2, 0, 1, shown=False) as board:
        board.step(FULL, 2.0)
        board.validated(1, {"validation_loss": 3.0})
    assert type(board) is Board and not out.getvalue()


def test_words_are_packed_whole() -> None:
    assert wrap_words(["aaa", "bbb", "c"], 9) == ["aaa   bbb", "c"]
    assert wrap_words(["a" * 20, "b"], 9) == ["a" * 20, "b"]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_a_time_reads_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_validation_of_one_kind_is_said_once() -> None:
    figures: dict[str, Any] = {"validation_reward": 0.5, "validation_reward_qa": 0.5}
    assert validation_text(3, figures) == "validation at step 3: reward 0.500"
