"""The list of runs at the end of `index.md`: what each of them is, and where it comes from."""

from collections.abc import Mapping
from urllib.parse import quote

from rba_bench.evaluation.records import ATTESTATION_FILE, RUN_FILE
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.provenance import MEANINGS, PROVENANCES, provenance_of
from rba_bench.leaderboard.tables import ALL_TEXT, NOTHING, SHORT, Markdown, TextTable
from rba_bench.untrusted import plain

HEADINGS = ["model", "task", "weights", "RTFx", "created", "provenance"]


def run_list(runs: Mapping[str, LoadedRun]) -> list[str]:
    """Blocks of Markdown: a table of runs by their published folders, and what its words mean."""
    lines = [_line(folder, run) for folder, run in sorted(runs.items())]
    shown = {provenance_of(run).label for run in runs.values()}
    meanings = "; ".join(f"*{label}*: {MEANINGS[label]}" for label in PROVENANCES if label in shown)
    return [
        "## Runs",
        TextTable(HEADINGS, lines, numeric_from=ALL_TEXT).markdown(),
        f"Provenance: {meanings}.",
    ]


def _line(folder: str, run: LoadedRun) -> list[str]:
    record = run.record
    weights = plain(record.model.get("weights_sha256") or NOTHING)[:SHORT]
    task = f"{record.task} ({record.audio_control})" if record.audio_control else record.task
    link = _link(run.name, folder, RUN_FILE)
    return [link, task, weights, f"{record.timing.rtfx:.0f}", record.created, _provenance(folder, run)]


def _provenance(folder: str, run: LoadedRun) -> str:
    """The label, with a link to the attestation and what it says."""
    found = provenance_of(run)
    if found.attestation is None:
        return found.label
    link = _link(found.label, folder, ATTESTATION_FILE)
    return Markdown(f"{link} ({_without_brackets(found.facts)})")


def _link(text: str, folder: str, file: str) -> Markdown:
    return Markdown(f"[{_without_brackets(text)}]({quote(folder)}/{file})")


def _without_brackets(text: str) -> str:
    """Brackets would end the text of a link, or begin one."""
    return text.replace("[", "(").replace("]", ")")
