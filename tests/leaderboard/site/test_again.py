"""The command that lets a model answer an item again: it does what it says, as the pages show it."""

import shlex
from pathlib import Path

import pytest

from rba_bench.cli.main import main
from rba_bench.leaderboard.loaded_runs import LoadedRun, find_runs, load_checked_run
from rba_bench.leaderboard.site.again import ON_BOARD, SERVED, WRITTEN
from rba_bench.leaderboard.site.local_runs import LocalRuns
from rba_bench.leaderboard.site.local_site import LocalSite, write_site
from rba_bench.leaderboard.site.samples import sample_files
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.test_samples import arguments, groups

BOARD = Path(__file__).parents[3] / "leaderboards" / "micro"


def run_of(root: Path, spec: str) -> LoadedRun:
    model = {"name": "m", "spec": spec, "weights_sha256": "33" * 32, "training": None}
    return load_checked_run(write_run(root, "m", qa_samples(0.5, n=4), model=model))


def shown(files: dict[str, bytes], section: str, number: int) -> str:
    """The command of the first model for an item."""
    [summary] = arguments(files[f"samples/{section}/summary.js"], "rbaSummary")
    [_, _, items] = arguments(files[f"samples/{section}/items-0000.js"], "rbaItems")
    return f"{summary['models'][0]['command']} {items[number]['option']}"


def answers_equally(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(command)
    assert program == "rba-bench"
    with pytest.raises(SystemExit) as end:
        main(words)
    out = capsys.readouterr().out
    assert not end.value.code and "the answer is equal" in out and words[-1].removeprefix("--item=") in out


@pytest.mark.parametrize("task", ["micro_triviaqa", "micro_covost2_sampled"])
def test_the_command_of_a_board_works_in_its_folder(
    task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("espeakng_loader")
    full = [
        folder
        for folder in find_runs([BOARD / "records" / "base"])
        if folder.name.rpartition("-")[0] == task and not load_checked_run(folder).record.audio_control
    ]
    section, group = next(iter(groups(full[0]).items()))
    command = shown(sample_files({section: group}), section, 7)
    monkeypatch.chdir(BOARD)
    answers_equally(command, capsys)


def test_the_commands_of_local_runs_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.chdir(tmp_path)
    words = ["eval", "--model", "base", "--task", "micro_triviaqa", "--limit", "3", "--out", "runs/eval"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    capsys.readouterr()
    site = LocalSite(LocalRuns([Path("runs/eval")]))
    names = ("summary.js", "items-0000.js")
    served = {name: site.file(name) or b"" for name in (f"samples/micro_triviaqa/{each}" for each in names)}
    answers_equally(shown(served, "micro_triviaqa", 2), capsys)
    page = write_site([Path("runs/eval")], Path("page")).page.parent
    written = {name: (page / name).read_bytes() for name in served}
    monkeypatch.chdir(next(Path("runs/eval/base").glob("micro_*")).parent)  # as the page says
    answers_equally(shown(written, "micro_triviaqa", 1), capsys)


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        ("base", []),
        ("cascade", []),
        ("asset:small-base", ["--model=asset:small-base"]),
        ("text:asset:smollm2-135m-instruct", ["--model=text:asset:smollm2-135m-instruct"]),
        (
            "cascade:asset:whisper-tiny.en+asset:smollm2-135m-instruct",
            ["--model=cascade:asset:whisper-tiny.en+asset:smollm2-135m-instruct"],
        ),
        ("asset:no-such-asset", ["--model=MODEL"]),
        ("runs/checkpoints/mine", ["--model=MODEL"]),
        ("org/model", ["--model=MODEL"]),
        ("openai:https://evil.example/v1#model", ["--model=MODEL"]),
        ("cascade:asset:whisper-tiny.en+openai:https://evil.example/v1#model", ["--model=MODEL"]),
        ("$(evil)", ["--model=MODEL"]),
    ],
)
def test_known_weights_are_named_and_nothing_else_that_a_record_says(
    spec: str, option: list[str], tmp_path: Path
) -> None:
    run = run_of(tmp_path, spec)
    for commands, folder in (
        (ON_BOARD, f"records/m/{run.record.run_id}"),
        (WRITTEN, run.record.run_id),
        (SERVED, str(run.folder)),
    ):
        assert shlex.split(commands.of(run)) == ["rba-bench", "leaderboard", "verify", folder, *option]


def test_a_model_that_lies_on_this_machine_need_not_be_named_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    run = run_of(tmp_path, "mine")
    assert "--model" not in SERVED.of(run)
    for commands in (ON_BOARD, WRITTEN):  # the same on every machine
        assert commands.of(run).endswith(" --model=MODEL")
