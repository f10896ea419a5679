"""Exit codes and the one line a user gets; bugs keep their traceback; interruptions name the way to resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rba_bench import __version__
from rba_bench.cli.main import main
from rba_bench.errors import RbaError

Capture = pytest.CaptureFixture[str]


def run(*words: str) -> int:
    """Exit code of `rba-bench WORDS` in this process."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def refused(capsys: Capture, *words: str) -> tuple[int, str]:
    """Exit code and the only line on stderr; nothing may be on stdout."""
    code = run(*words)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return code, lines[0]


def test_version(capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"rba-bench {__version__}\n"


def test_no_command_prints_the_help(capsys: Capture) -> None:
    assert run() == 0
    assert "quickstart" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("trian",), "Did you mean 'train'"),
        (("train", "--stepz", "3"), "--steps"),
        (("eval", "--limit", "0"), "--limit"),
        (("eval", "--limit", "many"), "--limit"),
        (("eval", "--track", "paper"), "micro"),
        (("train", "--method", "ppo"), "rba-single"),
        (("train", "--steps", "-1"), "--steps"),
        (("tasks",), "rba-bench tasks --help"),
        (("tasks", "show"), "TASK"),
        (("tasks", "show", "covost3"), "covost2"),
        (("synth", "--set", "voices_per_instructoin=2"), "did you mean 'voices_per_instruction'"),
        (("synth", "--set", "n_instructions=lots"), "n_instructions"),
        (("train", "--recipe", "no-such-recipe"), "no-such-recipe"),
        (("train", "--set", "seed"), "key=value"),
        (("train", "--method", "rba_group"), "unknown value 'rba_group'; did you mean 'rba-group'?"),
        (("train", "--explain", "lerning_rate"), "did you mean 'learning_rate'?"),
        (("train", "--explain", "kl_weight"), "did you mean 'policy_gradient.kl_weight'?"),
        (("train", "rba-single"), "--recipe rba-single"),
        (("eval", "--track", "mirco"), "did you mean 'micro'?"),
        (("leaderboard", "build", "no/such/folder"), "no/such/folder"),
    ],
)
def test_wrong_usage_is_one_line_with_the_fix_and_code_2(
    words: tuple[str, ...], hint: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, line = refused(capsys, *words)
    assert code == 2
    assert hint in line


def test_bad_recipe_file_names_file_line_and_key(capsys: Capture, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seed: 1\nstepz: 5\n")
    code, line = refused(capsys, "train", "--recipe", str(recipe))
    assert code == 2
    assert "mine.yaml:2" in line and "did you mean 'steps'" in line


def test_missing_checkpoint_is_code_3(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, line = refused(capsys, "eval", "--task", "covost2")
    assert code == 3
    assert "rba-bench train" in line


def test_output_folder_of_another_recipe_is_refused_with_the_difference(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rba_bench.outputs import claim
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

    def synthesize(recipe: SynthesisRecipe, out: Path, **_: object) -> Path:
        claim(out, "synth", recipe.resolved())
        raise RbaError("stopped")

    monkeypatch.setattr("rba_bench.synthesis.pipeline.synthesize", synthesize)
    assert refused(capsys, "synth", "--out", str(tmp_path)) == (1, "error: stopped")
    code, line = refused(capsys, "synth", "--set", "seed=2", "--out", str(tmp_path))
    assert code == 2
    assert "seed: 0 -> 2" in line


def in_process(body: str, *words: str) -> subprocess.Popen[str]:
    """`rba-bench WORDS` in another process in which synthesis does what `body` says."""
    script = (
        "import signal, sys, types, os, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background, as is
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # this one under `nohup`; the command leaves both so
        "fake = types.ModuleType('rba_bench.synthesis.pipeline')\n"
        f"def synthesize(recipe, out, **_):\n{body}\n"
        "fake.synthesize = synthesize\n"
        "sys.modules['rba_bench.synthesis.pipeline'] = fake\n"
        "from rba_bench.cli.main import main\n"
        f"main({list(words)!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_exits_130_and_says_how_to_resume(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "my set"
    process = in_process(
        "    sys.stderr.write('started\\n'); sys.stderr.flush(); time.sleep(120)",
        "synth",
        "--out",
        str(folder),
    )
    assert process.stderr is not None
    while "started" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().endswith(f"resume with: rba-bench synth --out '{folder}'")
    assert out == "" and "Traceback" not in err


def test_resume_line_names_a_program_that_is_not_on_the_path(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(recipe: object, out: Path, **_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("rba_bench.synthesis.pipeline.synthesize", interrupted)
    monkeypatch.setattr("sys.argv", [".venv/bin/rba-bench", "ignored"])
    assert run("synth", "--out", str(tmp_path)) == 130
    assert f"resume with: .venv/bin/rba-bench synth --out {tmp_path}" in capsys.readouterr().err


def test_bug_keeps_its_traceback() -> None:
    out, err = in_process("    raise ZeroDivisionError('a bug')", "synth").communicate(timeout=60)
    assert out == ""
    assert "Traceback (most recent call last)" in err and "ZeroDivisionError: a bug" in err


def test_failed_run_is_code_1() -> None:
    process = in_process(
        "    from rba_bench.errors import RbaError; raise RbaError('too few\\ninstructions')", "synth"
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "error: too few instructions"


def test_json_on_stdout_is_one_object_whatever_libraries_print(tmp_path: Path) -> None:
    body = (
        "    import json\n    print('chatter'); os.write(1, b'chatter')\n    out.mkdir()\n"
        "    (out / 'manifest.json').write_text(json.dumps({'counts': {'clips': 4}, 'checksums': {}}))\n    return out"
    )
    process = in_process(body, "synth", "--json", "--out", str(tmp_path / "set"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out) == {
        "alignment_set": str(tmp_path / "set"),
        "counts": {"clips": 4},
        "checksums": {},
    }
