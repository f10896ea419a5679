"""`rba-bench train`: an alignment set and a base SpeechLM in, a checkpoint out; its reports and its vLLM server."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rba_bench.cli import options, push, train_plan
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.progress import say, stdout_reserved
from rba_bench.recipes import recipe_file
from rba_bench.stages import run_training, training_recipe
from rba_bench.training.options.presets import MethodName


def train_server_command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder for the text decoder.")],
    method: Annotated[
        MethodName | None,
        typer.Option("--method", help="Training method, as for the training run.", show_default=False),
    ] = None,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=1, help="Maximum length of prompt and response in tokens. Default: that of the model.",
            show_default=False,
        ),
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Export the text decoder of the base model and print the command that serves it with vLLM.

    The server may run in another environment, on other GPUs or on another machine that reads the same files. Start the
    training run with the same recipe and --set rollout.engine=vllm.
    """
    from rba_bench.recipes import load_recipe
    from rba_bench.training.training_recipe import TrainingRecipe

    chosen = [f"method={method}"] if method is not None else []
    checked = load_recipe(
        TrainingRecipe, recipe_file(recipe or method or "rba-single"), [*chosen, *(set_ or ())], trust
    )
    with stdout_reserved():
        from rba_bench.training.rollouts.engines import export, serve_command

        layers = export(checked, out)
    variables, words = serve_command(checked, out, layers, max_length)
    line = " ".join([*(f"{name}={value}" for name, value in variables.items()), shlex.join(words)])
    say(f"{out} holds the text decoder; serve it where vLLM (0.32 or later) is installed:")
    if as_json:
        emit_json({"path": str(out), "environment": variables, "command": words})
    else:
        emit(line)


EXPLAIN = "--explain"


class _TrainGroup(TyperGroup):
    """`train` has options of its own beside its commands; the key after `--explain` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        pairs = zip(args, [*args, "--"][1:], strict=True)
        words = [f"{word}=" if word == EXPLAIN and after.startswith("-") else word for word, after in pairs]
        return super().parse_args(ctx, words)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise UserError(
                f"`train` has no command {args[0]!r} (it has {', '.join(self.commands)}); a recipe is named by an "
                f"option: rba-bench train --recipe {args[0]}"
            )
        names = [name for name, value in ctx.params.items() if value not in (None, False, (), [])]
        if names:
            words = ", ".join("--" + name.strip("_").replace("as_json", "json") for name in names)
            raise UserError(
                f"`train {args[0]}` takes none of the options of a training run: leave out {words} before {args[0]}"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_TrainGroup, rich_markup_mode=None)
app.command("server")(train_server_command)


@app.callback(invoke_without_command=True)
def train_command(
    context: typer.Context,
    method: Annotated[
        MethodName | None,
        typer.Option(
            "--method",
            help="Training method. Default: that of the recipe, else rba-single.",
            show_default=False,
        ),
    ] = None,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Random seed; short for --set seed=N.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Number of optimiser steps; short for --set steps=N.", show_default=False
        ),
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            "--continue-from",
            metavar="RUN",
            help="Continue the run in this folder up to --steps, with its own recipe unless one is named.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            EXPLAIN,
            metavar="[KEY]",
            help="Explain the keys of the recipe, or one of them: type, default, reason. Trains nothing.",
            show_default=False,
        ),
    ] = None,
    show_plan: Annotated[
        bool,
        typer.Option("--plan", help="Estimate memory, steps, hours and hardware of the run. Trains nothing."),
    ] = False,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume",
            metavar="KEY=VALUE",
            help="With --plan: change an assumption, such as answer_tokens=300 or mfu=0.4. May be repeated.",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="With --plan: also measure this machine, which takes a few seconds."),
    ] = False,
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Align a SpeechLM with its teacher.

    Without options: RBA-Single on the micro track, on the alignment set under runs/, which is synthesised first if
    there is none. The same command resumes an interrupted run.
    """
    if context.invoked_subcommand is not None:
        return
    overrides = [
        *(set_ or ()),
        *(f"{key}={value}" for key, value in (("seed", seed), ("steps", steps)) if value is not None),
    ]
    if explain is not None:
        _print_keys(explain, method, recipe, overrides, trust, as_json)
        return
    checked = training_recipe(method, recipe, overrides, continue_from, trust)
    if show_plan or assume or probe:
        if not show_plan:
            raise UserError(f"{'--probe' if probe else '--assume'} belongs to --plan: add --plan")
        train_plan.print_plan(checked, assume or [], probe, as_json)
        return
    repository = push.reserve_repository(push_to_hub, "model", public)
    with stdout_reserved():
        result = run_training(checked, out, continue_from)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes, only the first one prints
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))
    push.publish_folder(result.path, repository)


@app.command("connector")
def train_connector_command(
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="ID",
            help="Composite with a CTC compressor, as `rba-bench compose --connector ctc` makes it: folder or Hub id.",
        ),
    ],
    sets: Annotated[
        list[Path],
        typer.Option("--data", metavar="DIR", help="Alignment set with the clips to read. May be repeated."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder of the checkpoint.")],
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the clips.")] = 8,
    lr: Annotated[float, typer.Option("--lr", min=0.0, help="Peak of the learning rate.")] = 1.5e-3,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the order and the masks.")] = 0,
    half: Annotated[
        bool, typer.Option("--bfloat16", help="Compute in bfloat16, where the processor is faster at that.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train the CTC compressor of a composite on clips and their words, without the LLM.

    The clips are encoded once. The same command with the same folder resumes an unfinished run.
    """
    with stdout_reserved():
        from rba_bench.training.connector import ConnectorRecipe
        from rba_bench.training.connector_run import train_connector

        recipe = ConnectorRecipe(epochs=epochs, lr=lr, seed=seed)
        result = train_connector(base, sets, out, recipe, half)
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))


@app.command("report")
def train_report_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a training run: finished, running or stopped.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="File to write. Default: RUN/report.html.", show_default=False
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the report of a training run: curves, clips, samples, answers before and after.

    One HTML page that needs no network. It can be written while the run goes on.
    """
    with stdout_reserved():
        from rba_bench.training.report.page import write_page

        path, missing = write_page(run, out)
    for line in missing:
        say(line)
    if as_json:
        emit_json({"report": path, "missing": missing})
    else:
        emit(str(path))


def _print_keys(
    key: str, method: str | None, recipe: Path | None, overrides: list[str], trust: bool, as_json: bool
) -> None:
    """Print keys of the recipe with type, default, reason, and the values of a method or a recipe."""
    from rba_bench.training.options import explain

    values = None
    if recipe is not None or overrides:
        from rba_bench.training.options.choice import resolve_recipe

        values = resolve_recipe(method, recipe, overrides, trust)
    elif method is not None:
        values = explain.method_recipe(method)
        say(f"values that {method} itself sets; its recipe may set more: --recipe {method} {EXPLAIN}")
    keys = explain.explain_keys(key, values)
    if as_json:
        emit_json(keys)
        return
    width = min(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else None
    for each in keys:
        emit("\n".join(explain.key_lines(each, width, values is not None)))
