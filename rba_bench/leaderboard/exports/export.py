"""`rba-bench leaderboard export`: verified records in the format of somebody else, as files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rba_bench.errors import UserError
from rba_bench.files import inside, write_atomic
from rba_bench.leaderboard.board_groups import BoardGroup, group_runs
from rba_bench.leaderboard.exports.eval_results import export_eval_results
from rba_bench.leaderboard.exports.every_eval_ever import export_every_eval_ever
from rba_bench.leaderboard.exports.formats import Format
from rba_bench.leaderboard.exports.latex import PREAMBLE, engine_note, latex_table
from rba_bench.leaderboard.exports.model_index import export_model_index
from rba_bench.leaderboard.exports.origin import ExportedFiles, Origin, task_title
from rba_bench.leaderboard.loaded_runs import find_runs, load_checked_run, without_copies
from rba_bench.leaderboard.pages import MICRO, reference_notes, summary_tables
from rba_bench.leaderboard.tables import SHORT
from rba_bench.leaderboard.verify import refuse_faulty
from rba_bench.untrusted import plain

OF_RUNS: tuple[Format, ...] = (
    "eval-results",
    "every-eval-ever",
    "model-index",
)  # the others are tables of a board
MEANING = "Scores have 95 % intervals; * marks a difference whose interval excludes zero"


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        files: Paths, sorted.
        left_out: What the format cannot express, in sentences.
    """

    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def export_records(
    records: Sequence[Path], form: Format, out: Path, origin: Origin, baseline: str = "sft"
) -> ExportResult:
    """Verify records and write them in another format.

    Args:
        records: Run folders, `run.json` files, folders of them, or a board.
        form: The format. `latex` and `markdown` give one file, the others a folder of files.
        out: That file or folder.
        origin: Who evaluated.
        baseline: Model or training method that the tables show differences from.

    Raises:
        UserError: no finished run, one that is partial or at fault, or nothing that the format can express.
        MissingPrerequisite: a package is missing that a scorer needs.
    """
    runs = without_copies([load_checked_run(folder) for folder in find_runs(records)])
    if partial := [run for run in runs if run.record.partial]:
        raise UserError(f"{partial[0].folder} is partial (--limit): evaluate it without --limit")
    refuse_faulty(runs)
    groups = group_runs(runs, baseline)
    made = FORMATS[form](groups, origin)
    controls = _controls(groups) if form in OF_RUNS else []
    if out.is_file() and "" not in made.files:
        raise UserError(f"--out {out} is a file, and {form} writes a folder")
    if out.is_dir() and "" in made.files:
        raise UserError(f"--out {out} is a folder, and {form} writes a file: name one in it")
    targets = {(inside(out, name) if name else out): content for name, content in made.files.items()}
    for path, content in targets.items():
        write_atomic(path, content)
    return ExportResult(tuple(sorted(targets)), (*made.left_out, *controls))


def _controls(groups: Sequence[BoardGroup]) -> list[str]:
    """Runs without the speech: a score of theirs beside a full one would be taken for the model's."""
    return [
        f"{run.name} on {group.task}: a control ({plain(run.record.audio_control)}) is no score of the model"
        for group in groups
        for run in group.all_runs
        if run.record.audio_control
    ]


def export_latex(groups: Sequence[BoardGroup], origin: Origin) -> ExportedFiles:
    """One file with the tables of a board's summary."""
    notes = [MEANING, *_track_note(groups), *reference_notes(groups)]
    tables = [
        latex_table(table, [*notes, *_protocol_notes(groups, table.title)], f"tab:rba-bench-{number}")
        for number, table in enumerate(summary_tables(groups), start=1)
    ]
    comments = [f"% {note}\n" for note in _addresses(origin)] + [engine_note("".join(tables))]
    return ExportedFiles({"": "\n".join(["".join([PREAMBLE, *comments]), *tables]).encode()})


def export_markdown(groups: Sequence[BoardGroup], origin: Origin) -> ExportedFiles:
    """One file with the tables of a board's summary, each with its title and what it was measured by."""
    blocks = []
    for table in summary_tables(groups):
        blocks += [f"**{table.title}**", table.markdown().rstrip("\n")]
        blocks += [f"{' '.join(f'{note}.' for note in _protocol_notes(groups, table.title))}"]
    notes = [MEANING, *_track_note(groups), *reference_notes(groups), *_addresses(origin)]
    blocks += ["\n".join(f"- {note.rstrip('.')}." for note in notes)]
    return ExportedFiles({"": ("\n\n".join(blocks) + "\n").encode()})


def _track_note(groups: Sequence[BoardGroup]) -> list[str]:
    return [MICRO.replace("**", "").rstrip(".")] if groups[0].record.track == "micro" else []


def _protocol_notes(groups: Sequence[BoardGroup], title: str) -> Iterable[str]:
    """Task, n, protocol and test set of each group in the table of this title, which names its decoding."""
    for group in groups:
        if f"{group.record.protocol} decoding" in title:
            hashes = f"protocol {group.protocol_hash[:SHORT]}, test set {group.data_hash[:SHORT]}"
            n = "/".join(map(str, sorted({run.record.metrics[group.primary].n for run in group.runs})))
            yield f"{task_title(group)}: n = {n}, {hashes}"


def _addresses(origin: Origin) -> list[str]:
    return [f"Records: {origin.url}"] if origin.url else []


FORMATS: dict[Format, Callable[[Sequence[BoardGroup], Origin], ExportedFiles]] = {
    "eval-results": export_eval_results,
    "every-eval-ever": export_every_eval_ever,
    "model-index": export_model_index,
    "latex": export_latex,
    "markdown": export_markdown,
}
