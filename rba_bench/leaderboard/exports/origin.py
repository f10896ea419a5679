"""What all exported formats share: who evaluated, which runs belong to one model, and what a score says beside it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rba_bench.errors import UserError
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import score_texts
from rba_bench.leaderboard.exports.formats import Relationship
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.provenance import provenance_of
from rba_bench.untrusted import plain

_ADDRESS = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/?#=&+%@:,;!-]*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Origin:
    """Who evaluated, as far as the user says so; records do not.

    Attributes:
        organization: Person or organization, "" if not stated.
        relationship: Between them and the makers of the models.
        url: Address where the records can be read, "" if not stated.
    """

    organization: str = ""
    relationship: Relationship = "other"
    url: str = ""


def make_origin(organization: str, relationship: Relationship, url: str) -> Origin:
    """Who evaluated, as options say it.

    Raises:
        UserError: the address is not one of the web.
    """
    if url and not _ADDRESS.fullmatch(url):
        raise UserError(f"--source-url {plain(url)!r} is no address: write https://...")
    return Origin(plain(organization), relationship, url)


@dataclass(frozen=True)
class ExportedFiles:
    """Files of one format.

    Attributes:
        files: Content by path below the output folder; one file called "" where the output is a single file.
        left_out: What the format cannot express, in sentences.
    """

    files: dict[str, bytes]
    left_out: tuple[str, ...] = ()


def hub_id(name: object) -> str:
    """`name` if it has the form of a repository on the Hub, `owner/name`; else ""."""
    return name if isinstance(name, str) and _HUB_ID.fullmatch(name) else ""


def runs_by_model(groups: Sequence[BoardGroup]) -> dict[str, list[tuple[BoardGroup, LoadedRun]]]:
    """Runs with their groups, by the name of the model as the record has it, in the order of names."""
    models: dict[str, list[tuple[BoardGroup, LoadedRun]]] = {}
    for group in groups:
        for run in group.runs:
            models.setdefault(str(run.record.model["name"]), []).append((group, run))
    return dict(sorted(models.items()))


def task_title(group: BoardGroup) -> str:
    """Name of a task, with what was done to its clips."""
    return group.record.task + (f" ({group.perturbation})" if group.perturbation else "")


def score_note(group: BoardGroup, run: LoadedRun, metric: str) -> str:
    """One sentence about a score: metric, interval, n, protocol, version; and that the micro track is a miniature."""
    record = run.record
    value = record.metrics[metric]
    _, low, high = score_texts(metric, value)
    facts = [
        f"{metric}, {record.protocol} decoding, 95 % interval [{low}, {high}], n = {value.n}",
        *([f"{value.n_missing} items without a score"] if value.n_missing else []),
        *([f"clips changed by {group.perturbation}"] if group.perturbation else []),
        f"protocol {record.protocol_hash}, test set {group.data_hash}",
        f"rba-bench {plain(record.versions.get('rba-bench', 'unknown'))}",
        *filter(None, [provenance_of(run).summary]),  # words; no field that means a check by the Hub
    ]
    return "; ".join(facts) + (f". {MICRO.replace('**', '')}" if record.track == "micro" else "")
