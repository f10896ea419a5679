"""`rba-bench study`: train all methods under equal conditions with several seeds, and compare them."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.errors import UserError
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

if TYPE_CHECKING:
    from rba_bench.study.plan import StudyPlan
    from rba_bench.study.power import ResolvedTask
    from rba_bench.study.report import StudyReport
    from rba_bench.study.stages import Study

WIDE = 160  # columns where stdout is a file or a pipe and has no width of its own
TRACKS = {
    "micro": "Train every method from one base on one alignment set and compare them, in the micro world.",
    "small": "Train every method from one base on one alignment set and compare them, on real models.",
}
CONDITIONS = """

At equal steps and at equal wall time, with several seeds. Shows quality, speaker consistency and cost with paired
intervals. The same command resumes; finished trainings and evaluations are not repeated."""

app = typer.Typer(help="Train all methods under equal conditions and compare them.", rich_markup_mode=None)


def study_command(
    context: typer.Context,
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
        bool,
        typer.Option(
            "--plan",
            help="Show which runs are left, how long they take and what they can resolve; run nothing.",
        ),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="With --plan: first measure two steps of each method and a part of each task."
        ),
    ] = False,
    stop_after: Annotated[
        str | None,
        typer.Option(
            "--stop-after",
            metavar="TIME",
            help="Stop after this time, such as 2h or 90m; the same command goes on.",
            show_default=False,
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            "--continue",
            metavar="DIR",
            help="Published report of this study, from this or another machine: what it has is not run again.",
            show_default=False,
        ),
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            "--publish", metavar="DIR", help="Also copy the report to this folder.", show_default=False
        ),
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """The body of `study micro` and `study small`, which differ in recipe and folder alone."""
    track = str(context.info_name)
    if probe and not plan:
        raise UserError("--probe belongs to --plan: add --plan")
    if plan and published:
        raise UserError("--plan shows what is left in --out: run once with --continue, then plan")
    with stdout_reserved():
        from rba_bench.study.deadline import parse_duration, stopping_after

        seconds = None if stop_after is None else parse_duration(stop_after)
        study = _load_study(
            out or RUNS / f"study-{track}", recipe or f"study-{track}", set_, (methods, seeds, budget), trust
        )
        study.published = published
        if plan:
            from rba_bench.study.plan import plan_study
            from rba_bench.study.probe import probe_study

            study.check()
            with stopping_after(seconds):
                if probe:
                    probe_study(study)
            study_plan = plan_study(study)
        else:
            from rba_bench.study.report import collect_study, publish_study_report, write_study_report

            with stopping_after(seconds):
                study.run()
            data = collect_study(study.study, study.folder.out)
            if seconds is not None and not data.budgets:
                say("no training run is finished and scored yet: there is no report")
                return
            report = write_study_report(data, study.folder.report)
            if publish is not None:
                say(f"published in {publish_study_report(report, publish)}")
    if plan:
        _print_plan(study_plan, as_json)
    else:
        _print_report(report, as_json, report.folder)


for _track, _about in TRACKS.items():
    app.command(_track, help=_about + CONDITIONS)(study_command)


@app.command("report")
def study_report_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a study's report, or of a published copy.")
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="METHOD",
            help="Compare with this method instead of the recipe's baseline; the tables are printed, and no file "
            "changes.",
            show_default=False,
        ),
    ] = None,
    curves: Annotated[
        list[Path] | None,
        typer.Option(
            "--curves",
            metavar="OUT",
            help="Put the training curves of the checkpoints in this folder of the study into the report. May be "
            "given several times, for a study that ran in pieces.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compute the tables and pages of a report again from its stored scores and training curves.

    The same scores and curves give the same files, byte for byte.
    """
    if baseline and curves:
        raise UserError(
            "--baseline changes no file, so it cannot put --curves into the report: give one of the two"
        )
    with stdout_reserved():
        from rba_bench.study.report import load_study, with_baseline, with_curves, write_study_report

        data = with_curves(load_study(folder), curves or ())
        if baseline is None:
            report = write_study_report(data, folder)
        else:
            with TemporaryDirectory() as elsewhere:
                report = write_study_report(with_baseline(data, baseline), Path(elsewhere))
    _print_report(report, as_json, None if baseline else report.folder)


def _load_study(
    out: Path,
    recipe: Path | str,
    overrides: list[str] | None,
    part: tuple[str | None, str | None, str],
    trust: bool,
) -> "Study":
    from rba_bench.recipes import load_recipe, recipe_file
    from rba_bench.study.stages import Study, select_runs
    from rba_bench.study.study_recipe import StudyRecipe

    study = load_recipe(StudyRecipe, recipe_file(recipe), overrides or (), trust)
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


def _print_report(report: "StudyReport", as_json: bool, folder: Path | None) -> None:
    """Print a report, and where its files are, if they stay."""
    if as_json:
        emit_json(report.data | ({"out": folder} if folder else {}))
        return
    from rba_bench.leaderboard.tables import print_tables
    from rba_bench.study.report import INDEX

    print_tables(report.tables, report.sentences, width=WIDE)
    if folder:
        emit(f"Report: {folder / INDEX}")


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
    for sentence in plan.left_out:
        emit(f"left out: {sentence}")
    for task in plan.power:
        emit(_power_sentence(task))
    unknown = f", and {plan.unknown} runs without a time estimate (--probe measures)" if plan.unknown else ""
    emit(
        f"remaining: about {_hours(plan.seconds)} (training {_hours(plan.training_s)}, evaluation "
        f"{_hours(plan.evaluation_s)}){unknown}; so far {_hours(plan.done_s)}"
    )
    if plan.allowed_s is not None and plan.seeds_that_fit is not None:
        seeds = len({run.seed for run in plan.lines})
        fits = plan.done_s + plan.seconds <= plan.allowed_s
        rest = (
            "" if fits else f"; {plan.seeds_that_fit} of {seeds} seeds do: take fewer steps, methods or tasks"
        )
        emit(f"the {_hours(plan.allowed_s)} of the recipe {'hold it' if fits else 'do not hold it'}{rest}")


def _power_sentence(task: "ResolvedTask") -> str:
    source = f"{task.pairs} pairs of methods so far" if task.pairs else "assumed variances"
    ways = []
    if task.items_needed is not None:
        ways.append(f"{task.items_needed:,} texts with as many seeds")
    if task.seeds_needed is not None:
        ways.append(f"{task.seeds_needed} seeds with as many texts")
    needed = f"3 points need {' or '.join(ways)}" if ways else "3 points need more texts and more seeds"
    return (
        f"{task.task}: {task.items:,} texts and {task.seeds} seeds resolve {100 * task.detectable:.1f} points with "
        f"power 0.8; {needed} ({source})"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
