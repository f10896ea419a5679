"""`rba-bench assets`: weights by name: what there is, fetch, check, find."""

from typing import Annotated, Any

import typer

from rba_bench.assets import ASSETS, WEIGHTS, Asset, fetching, find_asset
from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.errors import MissingPrerequisite, RbaError
from rba_bench.progress import say, stdout_reserved

app = typer.Typer(
    help="Model weights by name, usable as asset:NAME wherever a model is named.",
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of an asset.", show_default=False)]


@app.command("list")
def list_command(as_json: options.Json = False) -> None:
    """List all assets: size, licence, sources, and whether they are on this machine."""
    rows = [_describe(asset) for asset in ASSETS.values()]
    if as_json:
        emit_json(rows)
        return
    columns = ("name", "what it is", "MB", "licence", "sources", "here")
    emit_table(
        columns,
        [
            (
                row["name"],
                row["about"],
                round(row["bytes"] / 1e6, 2),
                row["license"],
                ", ".join(row["sources"]),
                "yes" if row["here"] else "no",
            )
            for row in rows
        ],
    )


@app.command("fetch")
def fetch_command(name: Name, as_json: options.Json = False) -> None:
    """Fetch an asset into the cache and print its path. A broken transfer continues where it stopped."""
    asset = find_asset(name)
    was_here = asset.shipped is not None or not fetching.find_faults(asset)
    with stdout_reserved():
        path = fetching.fetch(asset)
    if was_here:
        say(f"asset {asset.name} is here already")
    if as_json:
        emit_json({**_describe(asset), "path": path})
    else:
        emit(str(path))


@app.command("verify")
def verify_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Name of an asset; all that are here by default.", show_default=False
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compute the hashes of files and tensors again. Exit code 1 if one differs."""
    assets = [asset for asset in ASSETS.values() if asset.shipped or asset.folder().exists()]
    if name is not None:
        assets = [asset for asset in assets if asset is find_asset(name)] or [_here(name)]
    with stdout_reserved():
        rows = [_verify(asset) for asset in assets]
    if as_json:
        emit_json(rows)
    else:
        states = [(row["name"], "; ".join(row["faults"]) or "ok", row["note"]) for row in rows]
        emit_table(("name", "state", "note"), states)
    if wrong := [asset for asset, row in zip(assets, rows, strict=True) if row["faults"]]:
        names, shipped = ", ".join(asset.name for asset in wrong), wrong[0].shipped
        remedy = f"fetch it again with `rba-bench assets fetch {wrong[0].name}`"
        if shipped is not None:
            remedy = f"install rba-bench again, or unset {WEIGHTS[shipped[0]].variable}"
        raise RbaError(f"{names}: not as published; {remedy}")


@app.command("where")
def where_command(name: Name) -> None:
    """Print the path of an asset that is on this machine, and nothing else."""
    emit(str(_here(name).path()))


def _here(name: str) -> Asset:
    asset = find_asset(name)
    if not fetching.is_cached(asset):
        raise MissingPrerequisite(
            f"asset {asset.name} is not here: fetch it with `rba-bench assets fetch {asset.name}`"
        )
    return asset


def _verify(asset: Asset) -> dict[str, Any]:
    from rba_bench.textlm.asset_tensors import find_tensor_fault

    faults, note = fetching.find_faults(asset), ""
    if not faults:
        try:
            fault = find_tensor_fault(asset)
        except RbaError as error:  # its format cannot be read here: a package is missing
            fault, note = "", f"tensors not checked: {error}"
        faults = [fault] if fault else []
    return {"name": asset.name, "ok": not faults, "faults": faults, "note": note}


def _describe(asset: Asset) -> dict[str, Any]:
    return {
        "name": asset.name,
        "about": asset.about,
        "bytes": asset.size,
        "license": asset.license,
        "sources": asset.sources,
        "here": fetching.is_cached(asset),
        "files": asset.files,
        "tensors_sha256": asset.tensors_sha256 or None,
    }
