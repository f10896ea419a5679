"""Scores in a model card (`rba-bench leaderboard card`): a table for readers and a `model-index` for the Hub.

A score has its interval, n, protocol hash and test set. Only complete records of exactly these weights and this
tokenizer are used, and each is verified as for a leaderboard.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rba_bench import cards
from rba_bench.errors import UserError
from rba_bench.evaluation.records import describe_failures, read_record
from rba_bench.leaderboard.board_groups import BoardGroup, GroupKey, group_key
from rba_bench.leaderboard.columns import SCORE, score_texts
from rba_bench.leaderboard.exports.model_index import INDEX, model_index
from rba_bench.leaderboard.exports.origin import task_title
from rba_bench.leaderboard.loaded_runs import MODEL, find_runs, kind_of_spec, load_checked_run
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.verify import refuse_faulty
from rba_bench.textlm.weights import local_folder, setup_sha256, weights_sha256

RESULTS = "results"


@dataclass(frozen=True)
class CardResults:
    """The records whose scores a card shows.

    Attributes:
        card: Path of the card.
        runs: Folders of the records, in the order of the table.
        left_out: Why other records in the same folders are not shown, in sentences.
    """

    card: Path
    runs: tuple[Path, ...]
    left_out: tuple[str, ...]


def write_results(checkpoint: Path, records: Sequence[Path]) -> CardResults:
    """Write the scores of a checkpoint into its card; scores of an earlier call are replaced, all else stays.

    Args:
        checkpoint: Folder of the checkpoint.
        records: Run folders, or folders of them.

    Raises:
        UserError: there is no complete record of this checkpoint, a record is at fault, or the card cannot be edited.
        MissingPrerequisite: there is no checkpoint.
    """
    folder = local_folder(checkpoint, "checkpoint")
    weights, setup = weights_sha256(folder), setup_sha256(folder)
    folders, left_out = _newest_records(find_runs(records), weights, setup)
    if not folders:
        raise UserError(
            f"no complete record of the weights of {folder} in {', '.join(map(str, records))} "
            f"({'; '.join(left_out)}): make one with rba-bench eval --model {folder}"
        )
    runs = [load_checked_run(path) for path in folders]
    refuse_faulty(runs)
    groups = [BoardGroup(group_key(run.record), [run], "") for run in runs]
    card = folder / cards.CARD
    index = model_index(cards.front_matter(card), [(group, group.runs[0]) for group in groups])
    cards.write_card(
        folder, {INDEX: index}, {RESULTS: _results_section(groups, weights)}, renewed=(INDEX,), adopt=True
    )
    return CardResults(card, tuple(run.folder for run in runs), tuple(left_out))


def _newest_records(folders: Iterable[Path], weights: str, setup: str) -> tuple[list[Path], list[str]]:
    """The newest complete record of each protocol and test set, and the reasons why other records are left out."""
    newest: dict[GroupKey, Path] = {}
    foreign = partial = older = controls = 0
    records = [(read_record(folder), folder) for folder in folders]
    for record, folder in sorted(records, key=lambda item: (item[0].created, item[0].run_id)):
        model = record.model
        same_model = model.get("weights_sha256") == weights and model.get("setup_sha256", setup) == setup
        if not same_model or kind_of_spec(str(model["spec"])) != MODEL:
            foreign += 1
        elif record.partial:
            partial += 1
        elif record.audio_control:
            controls += 1
        else:
            older += group_key(record) in newest
            newest[group_key(record)] = folder
    reasons = (
        (foreign, "of other weights"),
        (partial, "partial"),
        (controls, "a control without the speech"),
        (older, "older than one of the same protocol"),
    )
    left_out = [f"{number} {'is' if number == 1 else 'are'} {reason}" for number, reason in reasons if number]
    return [newest[key] for key in sorted(newest)], left_out


def _results_section(groups: Sequence[BoardGroup], weights: str) -> str:
    rows = []
    for group in groups:
        record, metric = group.record, group.primary
        value = record.metrics[metric]
        score, low, high = score_texts(metric, value)
        lengths = ""
        if value.mean_length is not None and value.baseline_mean_length is not None:  # of win rates
            lengths = f", mean length {value.mean_length:.0f} (baseline {value.baseline_mean_length:.0f})"
        protocol = (task_title(group), record.protocol, SCORE.title(group, metric))
        result = (f"{score} [{low}, {high}]{lengths}", value.n, describe_failures(record.statuses))
        rows.append((*protocol, *result, record.protocol_hash, group.data_hash, record.created[:10]))
    columns = ("task", "decoding", "metric", "score [95 %]", "n", "not ok", "protocol", "test set", "date")
    versions = sorted({group.record.versions.get("rba-bench", "unknown") for group in groups})
    measured = (
        f"Measured with rba-bench {', '.join(versions)} on the weights `{weights}`. Only scores with equal protocol "
        "and test set can be compared. *not ok* counts items without a usable response."
    )
    micro = [MICRO] if any(group.record.track == "micro" for group in groups) else []
    return "\n\n".join(["## Results", measured, *micro, cards.markdown_table(columns, rows)])
