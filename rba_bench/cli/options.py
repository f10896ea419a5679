"""Options that several commands share, defined once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        "--trust-remote-code",
        help="Allow Python code from models and task files to run. Not allowed by default.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Output folder. The same command with the same folder resumes an unfinished run.",
        show_default=False,
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="REPO",
        help="Publish the result on the Hugging Face Hub when it is finished. Needs `hf auth login` or HF_TOKEN.",
        show_default=False,
    ),
]
Public = Annotated[
    bool, typer.Option("--public", help="Make the repository on the Hub public. It is private by default.")
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="YAML recipe: a file, or the name of a recipe that comes with rba-bench.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set one key of the recipe. May be repeated.", show_default=False
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder with local copies of data sets, used instead of the Hub.",
        show_default=False,
    ),
]
