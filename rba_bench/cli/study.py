"""`rba-bench study`: all methods on equal terms, in several seeds, with what can be said of their differences."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.errors import UserError
from rba_bench.progress import stdout_reserved
from rba_bench.untrusted import printable

if TYPE_CHECKING:
    from rba_bench.study.report import StudyReport
    from rba_bench.study.stages import Study, StudyPlan

RECIPE = "study-micro"
OUT = Path("runs/study-micro")
WIDE = 160  # columns where stdout is a file or a pipe and has no width of its own

app = typer.Typer(help="Train all methods on equal terms and compare them.", rich_markup_mode=None)


@app.command("micro")
def micro(
    out: options.Out = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", metavar="A,B", help="Only these methods of the recipe.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="1,2,3", help="These training seeds, not the recipe's.", show_default=False
        ),
    ] = None,
    budget: Annotated[
        Literal["steps", "time", "both"],
        typer.Option("--budget", help="Equal steps, equal wall time, or both."),
    ] = "both",
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be run, and how long it takes.")
    ] = False,
    publish: Annotated[
        Path | None,
        typer.Option("--publish", metavar="DIR", help="Also copy the report there.", show_default=False),
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Train every method from one base on one set and compare them.

    At equal steps and at equal wall time, in several seeds. Shows quality, speaker consistency and cost with paired
    intervals. A rerun resumes; finished trainings and evaluations are only read.
    """
    with stdout_reserved():
        study = _study(out or OUT, recipe, set_, (methods, seeds, budget), trust)
        if plan:
            from rba_bench.study.stages import plan_study

            study.check()
            found = plan_study(study)
        else:
            study.run()
            report = _report(study, publish)
    if plan:
        emit_json(found) if as_json else _render_plan(found)
    else:
        emit_json(report.data | {"folder": report.folder}) if as_json else _render(report)


@app.command("report")
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A study's report, or a published copy of it.")
    ],
    as_json: options.Json = False,
) -> None:
    """Compute the tables of a report again from its scores.

    The same scores give the same files, byte for byte.
    """
    with stdout_reserved():
        from rba_bench.study.report import load_study, write_report

        made = write_report(load_study(folder), folder)
    emit_json(made.data | {"folder": made.folder}) if as_json else _render(made)


def _study(
    out: Path,
    recipe: Path | None,
    set_: list[str] | None,
    part: tuple[str | None, str | None, str],
    trust: bool,
) -> "Study":
    from rba_bench.recipes import load_recipe, recipe_file
    from rba_bench.study.stages import Study, select_runs
    from rba_bench.study.study_recipe import StudyRecipe

    checked = load_recipe(StudyRecipe, recipe_file(recipe or RECIPE), set_ or (), trust)
    methods, seeds, budget = part
    wanted = () if budget == "both" else (budget,)
    return Study(checked, out, select_runs(checked, _names(methods), _numbers(seeds), wanted))  # type: ignore[arg-type]


def _names(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _numbers(text: str | None) -> list[int]:
    try:
        found = [int(word) for word in _names(text)]
    except ValueError as error:
        raise UserError(
            f"--seeds {text}: write whole numbers with commas between them, such as 1,2,3"
        ) from error
    if len(set(found)) != len(found):
        raise UserError(f"--seeds {text}: name each seed once")
    return found


def _report(study: "Study", publish: Path | None) -> "StudyReport":
    from rba_bench.progress import say
    from rba_bench.study.report import collect_study, publish_report, write_report

    made = write_report(collect_study(study.study, study.folder.out), study.folder.report)
    if publish is not None:
        say(f"published in {publish_report(made, publish)}")
    return made


def _render(made: "StudyReport") -> None:
    from rich.console import Console
    from rich.text import Text

    from rba_bench.study.report import INDEX

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    for table in made.tables:
        console.print(table.rich())
    for line in made.sentences:
        console.print(Text(printable(line)))
    emit(f"Report: {made.folder / INDEX}")


def _render_plan(found: "StudyPlan") -> None:
    def seconds(value: float | None) -> str:
        return "?" if value is None else f"{value:.0f}"

    rows = [
        [line.budget, line.method, line.seed, line.state, "?" if line.steps is None else str(line.steps),
         seconds(line.train_s), seconds(line.eval_s)]
        for line in found.lines
    ]  # fmt: skip
    emit_table(["budget", "method", "seed", "state", "steps", "train s", "eval s"], rows)
    unknown = f", and {found.unknown} runs that nothing measured speaks for" if found.unknown else ""
    emit(f"to come: about {found.seconds / 60:.0f} min{unknown}")
