"""`rba-bench quickstart`: the whole way, teacher to leaderboard, in one go."""

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.progress import stdout_reserved
from rba_bench.quickstart import OUT, Result, run


def command(out: options.Out = None, as_json: options.Json = False) -> None:
    """Run the whole way, offline: synth, train, eval, leaderboard.

    Trains SFT, RBA-Single and RBA-Group on one alignment set of the micro world, evaluates them beside the base and
    the reference systems, and prints the table. A rerun resumes.
    """
    with stdout_reserved():
        result = run(out or OUT)
    if as_json:
        emit_json(result.summary())
        return
    _render(result)


def _render(result: Result) -> None:
    from rba_bench.leaderboard.terminal import render_terminal

    render_terminal(result.board)
    for name, path in result.paths():
        emit(f"{name:<22} {path}")
