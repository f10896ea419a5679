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

    Uploads weights or shards, the card and the record, without local paths and without the trainer's state. The same
    command again uploads only what is missing.
    """
    with stdout_reserved():
        from rba_bench import hub

        repository = hub.prepare_repository(repo, hub.repository_kind(folder), public)
        address = hub.upload_folder(folder, repository)
    if as_json:
        emit_json({"folder": folder, "repo": repo, "url": address})
    else:
        emit(address)


def reserve_repository(repo: str | None, kind: "Kind", public: bool) -> "Repository | None":
    """The repository of `--push-to-hub`, prepared before the work begins; None without it, and on all ranks but 0.

    Raises:
        UserError: `--public` without `--push-to-hub`, or a repository that cannot be used.
        MissingPrerequisite: there is no token, or the Hub cannot be reached.
    """
    if repo is None:
        if public:
            raise UserError("--public needs --push-to-hub: add --push-to-hub REPO, or leave out --public")
        return None
    if os.environ.get("RANK", "0") != "0":
        return None
    with stdout_reserved():
        from rba_bench import hub

        return hub.prepare_repository(repo, kind, public)


def publish_folder(folder: Path, repository: "Repository | None") -> None:
    """Upload the folder that a command made, if there is a repository; the address is printed on stderr.

    Raises:
        RbaError: the upload failed; the folder is complete.
    """
    if repository is None:
        return
    with stdout_reserved():
        from rba_bench import hub

        say(f"published: {hub.upload_folder(folder, repository)}")
