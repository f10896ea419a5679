"""`rba-bench push`, and `--push-to-hub` of other commands: upload a finished folder to the Hugging Face Hub."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.progress import say, stdout_reserved

if TYPE_CHECKING:
    from rba_bench.hub import Kind, Repository


def push_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a finished checkpoint or alignment set.")
    ],
    repo: Annotated[
        str,
        typer.Argument(
            metavar="REPO", help="Repository on the Hub: OWNER/NAME. It is created if it does not exist."
        ),
    ],
    public: options.Public = False,
    as_json: options.Json = False,
) -> None:
    """Publish a checkpoint or an alignment set on the Hub.

    Uploads weights or shards, the card and the record, without local paths and without the state of the training. The
    same command again uploads what is missing.
    """
    with stdout_reserved():
        from rba_bench import hub

        address = hub.push(folder, hub.reserve(repo, hub.kind_of(folder), public))
    if as_json:
        emit_json({"folder": folder, "repo": repo, "url": address})
    else:
        emit(address)


def reserve_repository(repo: str | None, kind: "Kind", public: bool) -> "Repository | None":
    """The repository of `--push-to-hub`, before the work begins; None where nobody asked, or another process does.

    Raises:
        UserError: `--public` alone, or a repository that this may not be.
        MissingPrerequisite: no token, or no way to the Hub.
    """
    if repo is None:
        if public:
            raise UserError("--public belongs to --push-to-hub REPO")
        return None
    if os.environ.get("RANK", "0") != "0":
        return None
    with stdout_reserved():
        from rba_bench import hub

        return hub.reserve(repo, kind, public)


def publish_folder(folder: Path, repository: "Repository | None") -> None:
    """Upload what a command has made, if `reserve_repository` gave it a place; the address goes to stderr.

    Raises:
        RbaError: the upload failed; the folder is finished all the same.
    """
    if repository is None:
        return
    with stdout_reserved():
        from rba_bench import hub

        say(f"published: {hub.push(folder, repository)}")
