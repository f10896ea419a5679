"""`rba-bench`: the list of commands, and how a failure ends the program.

Exit codes: 0 done; 1 the run failed; 2 wrong usage, recipe or file; 3 something only the user can provide is missing;
130 interrupted (the same command resumes). Expected failures are one line on stderr, bugs keep their traceback.
"""

import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from rba_bench import __version__
from rba_bench.cli import (
    assets,
    cite,
    doctor,
    evaluate,
    judge,
    leaderboard,
    micro,
    push,
    quickstart,
    small,
    speak,
    study,
    synth,
    tasks,
    train,
)
from rba_bench.cli.output import emit, set_utf8_output
from rba_bench.errors import RbaError
from rba_bench.faults import explain_fault
from rba_bench.recipes import suggest
from rba_bench.untrusted import printable

INTERRUPTED = 130
_CHOICE = re.compile(r"'([^']*)' is not one of ('.*')")
_QUOTED = re.compile(r"'([^']*)'")

app = typer.Typer(
    name="rba-bench",
    help="Benchmark speech language models and align them: teacher, alignment set, checkpoint, scores, leaderboard.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("quickstart")(quickstart.quickstart_command)
app.add_typer(synth.app, name="synth")
app.command("speak")(speak.speak_command)
app.command("compose")(synth.compose_command)
app.add_typer(train.app, name="train")
app.command("eval")(evaluate.eval_command)
app.command("rescore")(evaluate.rescore_command)
app.command("compare")(leaderboard.compare_command)
app.command("view")(leaderboard.view_command)
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(judge.app, name="judge")
app.add_typer(study.app, name="study")
app.add_typer(tasks.app, name="tasks")
app.add_typer(micro.app, name="micro")
app.add_typer(small.app, name="small")
app.add_typer(assets.app, name="assets")
app.command("cite")(cite.cite_command)
app.command("push")(push.push_command)
app.command("doctor")(doctor.doctor_command)


def _version(asked: bool) -> None:
    if asked:
        emit(f"rba-bench {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        emit(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code.

    Args:
        arguments: the words after `rba-bench`; the process's own by default.

    Raises:
        SystemExit: always.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    _stop_on_signals()
    set_utf8_output()
    try:
        code: Any = app(words, standalone_mode=False, prog_name="rba-bench")
    except RbaError as error:
        _complain(str(error))
        return error.exit_code
    except typer.TyperException as error:  # an unknown option, a missing argument, a value out of range
        _complain(_usage(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        told = explain_fault(error)
        if told is None:
            raise  # a bug keeps its traceback
        _complain(str(told))
        return told.exit_code
    if code == INTERRUPTED:
        called = Path(sys.argv[0])  # its path where a shell would not find it by name
        by_path = called.name == "rba-bench" and shutil.which("rba-bench") != str(called)
        program = str(called) if by_path else "rba-bench"
        sys.stderr.write(f"\ninterrupted; resume with: {shlex.join([program, *words])}\n")
    return int(code or 0)


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)  # only usage errors know their command
    help_line = f" (see `{context.command_path} --help`)" if context is not None else ""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    chosen = _CHOICE.search(message)
    if chosen is not None:
        known = _QUOTED.findall(chosen[2])
        hint = suggest(chosen[1], known) if get_close_matches(chosen[1].lower(), known, 1, 0.5) else ""
        message = message[: chosen.start()] + f"unknown value {chosen[1]!r}{hint} (known: {', '.join(known)})"
    return message[:1].lower() + message[1:] + help_line


def _complain(message: str) -> None:
    sys.stderr.write(f"error: {printable(message)}\n")


def _stop_on_signals() -> None:
    """A batch system's SIGTERM, or the SIGHUP of a closed terminal, ends a run like Ctrl-C does: resumably."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP; `nohup` has it ignored, and so it stays
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
