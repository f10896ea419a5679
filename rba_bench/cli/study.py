"""`rba-bench study`: train all methods under equal conditions with several seeds, and compare them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.errors import UserError
from rba_bench.progress import say, stdout_reserved

if TYPE_CHECKING:
    from rba_bench.study.report import StudyReport
    from rba_bench.study.stages import Study, StudyPlan

RECIPE = "study-micro"
OUT = Path("runs/study-micro")
WIDE = 160  # columns where stdout is a file or a pipe and has no width of its own

app = typer.Typer(help="Train all methods under equal conditions and compare them.", rich_markup_mode=None)


@app.command("micro")
def study_micro_command(
    out: options.Out = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", metavar="A,B", help="Run only these methods of the recipe.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="1,2,3",
            help="Training seeds, instead of those of the recipe.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        Literal["steps", "time", "both"],
        typer.Option("--budget", help="Compare at equal steps, at equal wall time, or at both."),
    ] = "both",
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show which runs are left and how long they take; run nothing.")
    ] = False,
    publish: Annotated[
        Path | None,
        typer.Option(
            "--publish", metavar="DIR", help="Also copy the report to this folder.", show_default=False
        ),
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Train every method from one base on one alignment set and compare them.

    At equal steps and at equal wall time, with several seeds. Shows quality, speaker consistency and cost with paired
    intervals. The same command resumes; finished trainings and evaluations are not repeated.
    """
    with stdout_reserved():
        study = _load_study(out or OUT, recipe, set_, (methods, seeds, budget), trust)
        if plan:
            from rba_bench.study.stages import plan_study

            study.check()
            study_plan = plan_study(study)
        else:
            from rba_bench.study.report import collect_study, publish_study_report, write_study_report

            study.run()
            report = write_study_report(collect_study(study.study, study.folder.out), study.folder.report)
            if publish is not None:
                say(f"published in {publish_study_report(report, publish)}")
    if plan:
        _print_plan(study_plan, as_json)
    else:
        _print_report(report, as_json)


@app.command("report")
def study_report_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a study's report, or of a published copy.")
    ],
    as_json: options.Json = False,
) -> None:
    """Compute the tables of a report again from its stored scores.

    The same scores give the same files, byte for byte.
    """
    with stdout_reserved():
        from rba_bench.study.report import load_study, write_study_report

        report = write_study_report(load_study(folder), folder)
    _print_report(report, as_json)


def _load_study(
    out: Path,
    recipe: Path | None,
    overrides: list[str] | None,
    part: tuple[str | None, str | None, str],
    trust: bool,
) -> "Study":
    from rba_bench.recipes import load_recipe, recipe_file
    from rba_bench.study.stages import Study, select_runs
    from rba_bench.study.study_recipe import StudyRecipe

    study = load_recipe(StudyRecipe, recipe_file(recipe or RECIPE), overrides or (), trust)
    methods, seeds, budget = part
    try:
        numbers = [int(word) for word in _split(seeds)]
    except ValueError as error:
        fix = "write whole numbers with commas between them, such as 1,2,3"
        raise UserError(f"--seeds {seeds}: {fix}") from error
    if len(set(numbers)) != len(numbers):
        raise UserError(f"--seeds {seeds}: name each seed once")
    budgets = () if budget == "both" else (budget,)
    return Study(study, out, select_runs(study, _split(methods), numbers, budgets))  # type: ignore[arg-type]


def _split(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _print_report(report: "StudyReport", as_json: bool) -> None:
    if as_json:
        emit_json(report.data | {"folder": report.folder})
        return
    from rba_bench.leaderboard.tables import print_tables
    from rba_bench.study.report import INDEX

    print_tables(report.tables, report.sentences, width=WIDE)
    emit(f"Report: {report.folder / INDEX}")


def _print_plan(plan: "StudyPlan", as_json: bool) -> None:
    if as_json:
        emit_json(plan)
        return

    def whole(value: float | None) -> str:
        return "?" if value is None else f"{value:.0f}"

    rows = [
        [run.budget, run.method, run.seed, run.state, whole(run.steps), whole(run.train_s), whole(run.eval_s)]
        for run in plan.lines
    ]
    emit_table(["budget", "method", "seed", "state", "steps", "train s", "eval s"], rows)
    unknown = f", and {plan.unknown} runs without a time estimate" if plan.unknown else ""
    emit(f"remaining: about {plan.seconds / 60:.0f} min{unknown}")
