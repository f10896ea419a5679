"""Options that several commands share, defined once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        "--trust-remote-code",
        help="Run Python code that comes with models and task files. Off unless you say so.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Output folder; the same command resumes there.", show_default=False
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="REPO",
        help="Publish the result on the Hub when it is finished; needs `hf auth login` or HF_TOKEN.",
        show_default=False,
    ),
]
Public = Annotated[
    bool, typer.Option("--public", help="On the Hub: let everybody read it. Private unless you say so.")
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="YAML recipe: a file, or the name of a shipped one.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the recipe; may be repeated.",
        show_default=False,
    ),
]
