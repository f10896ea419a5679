"""Progress goes to stderr, says what it did, and never eats brackets."""

import os

import pytest

from rba_bench import progress


def test_message_goes_to_stderr_with_its_brackets(capfd: pytest.CaptureFixture[str]) -> None:
    progress.say("pip install 'rba-bench[tts]' [bold]")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "pip install 'rba-bench[tts]' [bold]\n"


def test_long_message_stays_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    progress.say("/a/long/path" * 40)
    assert capfd.readouterr().err.count("\n") == 1


def test_bar_off_a_terminal_is_one_line_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bar("clips", 3, unit="items") as advance:
        for _ in range(3):
            advance(1)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == ["clips: 3/3 items"]


def test_bar_counts_what_an_earlier_run_did(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bar("clips", 10, done=8) as advance:
        advance(2)
    assert capfd.readouterr().err.splitlines() == ["clips: 10/10"]


def test_slow_loop_speaks_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, progress.PLAIN_EVERY + 1, progress.PLAIN_EVERY + 2])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bar("steps", 100) as advance:
        for _ in range(3):
            advance(10)
    assert capfd.readouterr().err.splitlines() == ["steps: 20/100"]


def test_what_libraries_print_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.stdout_reserved():
        print("python chatter")
        os.write(1, b"C chatter\n")
    os.write(1, b"result\n")
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert "python chatter" in err and "C chatter" in err


def test_stdout_is_given_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="boom"), progress.stdout_reserved():
        raise ValueError("boom")
    os.write(1, b"back\n")
    assert capfd.readouterr().out == "back\n"


def test_silence_ends_where_it_should(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.silenced(), progress.bar("clips", 1) as advance:
        progress.say("unheard")
        advance(1)
    progress.say("heard")
    assert capfd.readouterr().err == "heard\n"
