"""`rba-bench train server`: what a vLLM server needs to draw a training run's answers.

`rba-bench train`: an alignment set and a base SpeechLM in, a checkpoint out.
"""

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
from rba_bench.training.options.presets import Method


def server_command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the text decoder.")],
    method: Annotated[
        Method | None, typer.Option("--method", help="As for the run.", show_default=False)
    ] = None,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=1, help="Longest prompt and answer, in tokens; the model's own by default.",
            show_default=False,
        ),
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Write the text decoder of a recipe's base model and print the command that serves it with vLLM.

    The server may run in an environment, on GPUs and on a machine of its own, as long as it sees the same files. Give
    the run the same recipe with --set rollout.engine=vllm.
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


class _Group(TyperGroup):
    """`train` with its own options and commands beside them; the key behind `--explain` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_key(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise UserError(
                f"`train` has no command {args[0]!r} (it has {', '.join(self.commands)}); a recipe is named by an "
                f"option: rba-bench train --recipe {args[0]}"
            )
        given = [name for name, value in ctx.params.items() if value not in (None, False, (), [])]
        if given:
            raise UserError(
                f"`train {args[0]}` takes none of the options of a training run: leave out "
                f"{', '.join('--' + name.strip('_').replace('as_json', 'json') for name in given)} before {args[0]}"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Group, rich_markup_mode=None)
app.command("server")(server_command)


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    method: Annotated[
        Method | None,
        typer.Option(
            "--method", help="Objective; rba-single unless the recipe says otherwise.", show_default=False
        ),
    ] = None,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    seed: Annotated[int | None, typer.Option("--seed", help="As --set seed=N.", show_default=False)] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="As --set steps=N.", show_default=False)
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            "--continue-from",
            metavar="RUN",
            help="Go on from another run's folder to more --steps, by its own recipe unless one is named.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            EXPLAIN,
            metavar="[KEY]",
            help="Print the recipe's keys (or one) with type, default and reason; train nothing.",
            show_default=False,
        ),
    ] = None,
    show_plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Print what the run will take (memory, steps, hours, hardware), and stop."
        ),
    ] = False,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume",
            metavar="KEY=VALUE",
            help="With --plan: what it rests on, such as answer_tokens=300 or mfu=0.4. Repeatable.",
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --plan: measure this machine, too (a few seconds).")
    ] = False,
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Align a SpeechLM with its teacher.

    With no options: RBA-Single on the micro track, on the alignment set under runs/ (made first if there is none).
    A rerun resumes.
    """
    if context.invoked_subcommand is not None:
        return
    overrides = [*(set_ or ()), *_shorthands(seed, steps)]
    if explain is not None:
        explain_keys(explain, method, recipe, overrides, trust, as_json)
        return
    checked = training_recipe(method, recipe, overrides, continue_from, trust)
    if show_plan or assume or probe:
        if not show_plan:
            raise UserError(f"{'--probe' if probe else '--assume'} belongs to --plan: add --plan")
        train_plan.show(checked, assume or [], probe, as_json)
        return
    repository = push.reserve(push_to_hub, "model", public)
    with stdout_reserved():
        result = run_training(checked, out, continue_from)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first one speaks
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))
    push.publish(result.path, repository)


@app.command("report")
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run: finished, running or stopped.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write; RUN/report.html by default.", show_default=False
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write a run's report: one page with curves, clips, samples, and answers before and after.

    It needs no network. A run that is going on can be looked at meanwhile.
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


def with_key(words: list[str]) -> list[str]:
    """The words behind `train`, where `--explain` without a key gets an empty one."""
    found = []
    for word, behind in zip(words, [*words, "--"][1:], strict=True):
        found.append(f"{word}=" if word == EXPLAIN and behind.startswith("-") else word)
    return found


def explain_keys(
    key: str, method: str | None, recipe: Path | None, overrides: list[str], trust: bool, as_json: bool
) -> None:
    """Print keys of the recipe with type, default, reason, and the values of a method or a recipe.

    Raises:
        UserError: there is no such key.
    """
    from rba_bench.training.options import explain

    asked = None
    if recipe is not None or overrides:
        from rba_bench.training.options.choice import chosen_recipe

        asked = chosen_recipe(method, recipe, overrides, trust)
    elif method is not None:
        asked = explain.method_recipe(method)
        say(f"what {method} itself sets; its shipped recipe may say more: --recipe {method} {EXPLAIN}")
    found = explain.explain_keys(key, asked)
    if as_json:
        emit_json(found)
        return
    width = min(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else None
    for one in found:
        emit("\n".join(explain.key_lines(one, width, asked is not None)))


def _shorthands(seed: int | None, steps: int | None) -> list[str]:
    named = (("seed", seed), ("steps", steps))
    return [f"{key}={value}" for key, value in named if value is not None]
