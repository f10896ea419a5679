"""The frozen surface of the command line: adding, renaming or dropping an option is a reviewed act."""

from typing import Any

import typer

from rba_bench.cli.main import app

SURFACE = {
    "": ["--help", "--install-completion", "--show-completion", "--version", "-h"],
    "quickstart": ["--help", "--json", "--out", "--track", "-h"],
    "synth": [
        *(
            "--against",
            "--dry-run",
            "--engine",
            "--help",
            "--json",
            "--out",
            "--price-per-million-tokens",
            "--probe-items",
            "--public",
            "--push-to-hub",
            "--ray",
            "--recipe",
            "--sample",
            "--seal",
            "--set",
            "--workers",
            "-h",
        ),
    ],
    "synth export": ["--help", "--json", "--out", "--to", "-h", "SOURCE"],
    "synth import": [
        *("--audio", "--help", "--json", "--language", "--layout", "--limit", "--max-seconds", "--out"),
        *("--validation", "-h", "SOURCE"),
    ],
    "synth inspect": ["--clips", "--help", "--json", "--out", "-h", "SOURCE"],
    "speak": [
        *(
            "--batch-size",
            "--device",
            "--from",
            "--help",
            "--json",
            "--language",
            "--layout",
            "--limit",
            "--max-seconds",
        ),
        *("--max-wer", "--name", "--out", "--per-text", "--recognizer", "--seed", "--voices", "-h"),
    ],
    "compose": [
        *(
            "--audio-token",
            "--connector",
            "--dtype",
            "--encoder",
            "--help",
            "--json",
            "--language",
            "--llm",
            "--out",
            "--projector-size",
        ),
        *("--public", "--push-to-hub", "--seed", "--stack", "-h"),
    ],
    "train": [
        *(
            "--assume",
            "--continue-from",
            "--explain",
            "--help",
            "--json",
            "--method",
            "--out",
            "--plan",
            "--probe",
            "--public",
            "--push-to-hub",
            "--recipe",
            "--seed",
            "--set",
            "--steps",
            "--trust",
        ),
        *("--trust-remote-code", "-h"),
    ],
    "train connector": [
        *("--base", "--bfloat16", "--data", "--epochs", "--help", "--json", "--lr", "--out", "--seed", "-h"),
    ],
    "train report": ["--help", "--json", "--out", "-h", "RUN"],
    "train server": [
        *("--help", "--json", "--max-length", "--method", "--out", "--recipe", "--set", "--trust"),
        *("--trust-remote-code", "-h"),
    ],
    "eval": [
        *(
            "--audio",
            "--baseline",
            "--batch-seconds",
            "--batch-size",
            "--cache",
            "--data-dir",
            "--device",
            "--dry-run",
            "--encoder-cache",
            "--gap",
            "--help",
            "--json",
            "--judge",
            "--language",
            "--limit",
            "--model",
            "--no-cache",
            "--out",
            "--pad",
            "--perturb",
            "--retry-errors",
            "--seed",
            "--task",
            "--template",
            "--track",
            "--trust",
            "--trust-remote-code",
            "-h",
        ),
    ],
    "rescore": ["--data-dir", "--device", "--help", "--json", "--judge", "--out", "--task", "-h", "RUNS"],
    "compare": ["--across", "--help", "--json", "-h", "RUN_A", "RUN_B"],
    "view": [
        *(
            "--data-dir",
            "--help",
            "--json",
            "--limit",
            "--no-open",
            "--open",
            "--out",
            "--port",
            "-h",
            "RECORDS",
        )
    ],
    "assets": ["--help", "-h"],
    "assets fetch": ["--help", "--json", "-h", "NAME"],
    "assets list": ["--help", "--json", "-h"],
    "assets verify": ["--help", "--json", "-h", "NAME"],
    "assets where": ["--help", "-h", "NAME"],
    "leaderboard": ["--help", "-h"],
    "leaderboard build": [
        *(
            "--allow-partial",
            "--baseline",
            "--ceiling",
            "--clips",
            "--equal-length",
            "--help",
            "--json",
            "--out",
            "--reported",
            "--reported-page",
            "--verify-again",
            "--workers",
            "-h",
            "RECORDS",
        ),
    ],
    "cite": ["--help", "--json", "-h", "TASKS"],
    "leaderboard export": [
        *("--baseline", "--format", "--help", "--json", "--organization", "--out", "--relationship"),
        *("--source-url", "-h", "RECORDS"),
    ],
    "leaderboard index": ["--help", "--json", "-h", "FOLDER"],
    "leaderboard review": ["--data-dir", "--help", "--json", "--repository", "-h", "BASE", "HEAD"],
    "leaderboard submit": ["--data-dir", "--help", "--json", "--out", "-h", "RUN"],
    "leaderboard card": ["--help", "--json", "-h", "CHECKPOINT", "RECORDS"],
    "leaderboard verify": [
        *("--attest", "--by", "--data-dir", "--device", "--help", "--item", "--json", "--model", "--rerun"),
        *("--seed", "-h", "RECORDS"),
    ],
    "judge": ["--help", "-h"],
    "judge transfer": [
        *("--ask-a", "--data-dir", "--device", "--dry-run", "--from", "--help", "--json", "--out", "--pairs"),
        *("--reanchor", "--seed", "--task", "--to", "-h", "RECORDS"),
    ],
    "study": ["--help", "-h"],
    **dict.fromkeys(
        ("study micro", "study small"),
        [
            *(
                "--budget",
                "--continue",
                "--help",
                "--json",
                "--methods",
                "--out",
                "--plan",
                "--probe",
                "--publish",
                "--recipe",
            ),
            *("--seeds", "--set", "--stop-after", "--trust", "--trust-remote-code", "-h"),
        ],
    ),
    "study report": ["--baseline", "--curves", "--help", "--json", "-h", "FOLDER"],
    "tasks": ["--help", "-h"],
    "tasks list": ["--help", "--json", "-h"],
    "tasks show": ["--help", "--json", "-h", "NAME"],
    "micro": ["--help", "-h"],
    "micro build": ["--help", "--json", "--out", "-h"],
    "small": ["--help", "-h"],
    "small align": ["--base", "--help", "--json", "--method", "--out", "-h"],
    "small build": ["--bfloat16", "--connector", "--help", "--json", "--out", "--processes", "-h"],
    "push": ["--help", "--json", "--public", "-h", "FOLDER", "REPO"],
    "doctor": ["--endpoint", "--help", "--json", "--probe", "-h"],
}


def _surface(command: Any, context: Any, path: str = "") -> dict[str, list[str]]:
    names = []
    for parameter in command.get_params(context):
        argument = parameter.param_type_name == "argument"
        names += [parameter.name.upper()] if argument else [*parameter.opts, *parameter.secondary_opts]
    found = {path: sorted(names)}
    for name, child in getattr(command, "commands", {}).items():
        nested = typer.Context(child, parent=context, info_name=name)
        found |= _surface(child, nested, f"{path} {name}".strip())
    return found


def test_commands_and_options_are_the_agreed_ones() -> None:
    root = typer.main.get_command(app)
    assert (
        _surface(root, typer.Context(root, info_name="rba-bench", help_option_names=["-h", "--help"]))
        == SURFACE
    )


def test_every_command_and_option_explains_itself() -> None:
    def walk(command: Any, path: str) -> list[str]:
        silent = [] if command.help else [path]
        silent += [f"{path} {p.name}" for p in command.params if p.param_type_name == "option" and not p.help]
        return silent + [
            s for name, child in getattr(command, "commands", {}).items() for s in walk(child, name)
        ]

    assert walk(typer.main.get_command(app), "rba-bench") == []
