"""`rba-bench leaderboard card`: scores of a checkpoint's own records in its card, for readers and for the Hub.

Front matter gets a `model-index`, the text a table with interval, n, protocol hash and test set. Only complete records
count, of these very weights and this very tokenizer, and each is verified as for a board.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench import cards
from rba_bench.errors import UserError
from rba_bench.evaluation.records import MetricValue, describe_failures, read_record
from rba_bench.leaderboard.board_groups import BoardGroup, GroupKey, group_key
from rba_bench.leaderboard.columns import SCORE, score_texts
from rba_bench.leaderboard.loaded_runs import MODEL, find_runs, kind_of_spec, load_checked_run
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.verify import refuse_faulty
from rba_bench.textlm.weights import local_folder, setup_sha256, weights_sha256

RESULTS = "results"
INDEX = "model-index"
OURS = "protocol_sha256"  # an argument of our metrics alone, by which our entries are known again
HUB_TASKS = {"asr": "automatic-speech-recognition"}  # by kind of item; all others are:
HUB_TASK = "audio-text-to-text"


@dataclass(frozen=True)
class CardResults:
    """What went into a card.

    Attributes:
        card: Its path.
        runs: Folders of the records, in the order of the table.
        left_out: Why other records below the same folders are not in it, in sentences.
    """

    card: Path
    runs: tuple[Path, ...]
    left_out: tuple[str, ...]


def write_results(checkpoint: Path, records: Sequence[Path]) -> CardResults:
    """Put the scores of a checkpoint into its card; those of an earlier call are replaced, all else stays.

    Args:
        checkpoint: Its folder.
        records: Run folders, or folders of them.

    Raises:
        UserError: no complete record of this checkpoint there, one that is at fault, or a card that cannot be edited.
        MissingPrerequisite: no checkpoint there.
    """
    folder = local_folder(checkpoint, "checkpoint")
    weights, setup = weights_sha256(folder), setup_sha256(folder)
    folders, left_out = _runs_of_checkpoint(find_runs(records), weights, setup)
    if not folders:
        raise UserError(
            f"no complete record of the weights in {folder} below {', '.join(map(str, records))} "
            f"({'; '.join(left_out)}): make one with rba-bench eval --model {folder}"
        )
    runs = [load_checked_run(place) for place in folders]
    refuse_faulty(runs)
    groups = [BoardGroup(group_key(run.record), [run], "") for run in runs]
    path = folder / cards.CARD
    index = _index(cards.front_matter(path), groups)
    cards.write_card(folder, {INDEX: index}, {RESULTS: _text(groups, weights)}, renewed=(INDEX,), adopt=True)
    return CardResults(path, tuple(run.folder for run in runs), tuple(left_out))


def _runs_of_checkpoint(folders: Iterable[Path], weights: str, setup: str) -> tuple[list[Path], list[str]]:
    """The newest complete record of each protocol and test set, and why the others are left out."""
    newest: dict[GroupKey, Path] = {}
    foreign = partial = older = 0
    records = [(read_record(folder), folder) for folder in folders]
    for record, folder in sorted(records, key=lambda each: (each[0].created, each[0].run_id)):
        model = record.model
        is_own = model.get("weights_sha256") == weights and model.get("setup_sha256", setup) == setup
        if not is_own or kind_of_spec(str(model["spec"])) != MODEL:
            foreign += 1
        elif record.partial:
            partial += 1
        else:
            older += group_key(record) in newest
            newest[group_key(record)] = folder
    reasons = (
        (foreign, "of other weights"),
        (partial, "partial"),
        (older, "older than one of the same protocol"),
    )
    left_out = [f"{number} {'is' if number == 1 else 'are'} {why}" for number, why in reasons if number]
    return [newest[key] for key in sorted(newest)], left_out


def _index(front: Mapping[str, Any], groups: Sequence[BoardGroup]) -> list[dict[str, Any]]:
    """The `model-index` with our entries, and those of others as they were."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    others: list[EvalResult] = []
    name = groups[0].runs[0].name
    if INDEX in front:
        try:
            name, entries = model_index_to_eval_results(front[INDEX])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"the model-index of the card is none ({error!r}): correct or remove it"
            ) from error
        others = [entry for entry in entries if OURS not in (entry.metric_args or {})]
    ours = [_entry(group) for group in groups]
    index: list[dict[str, Any]] = eval_results_to_model_index(name, [*others, *ours])
    return index


def _entry(group: BoardGroup) -> Any:
    from huggingface_hub import EvalResult

    record, metric = group.record, group.primary
    value, data = record.metrics[metric], record.data
    score, low, high = map(float, score_texts(metric, value))
    perturbed = f" ({group.perturbation})" if group.perturbation else ""
    return EvalResult(
        task_type=HUB_TASKS.get(group.runs[0].samples[0].kind, HUB_TASK),
        dataset_type=str(data.get("repo") or data["source"]),
        dataset_name=f"{record.task}{perturbed}",
        dataset_revision=str(data.get("revision") or data["items_sha256"]),
        metric_type=metric,
        metric_name=SCORE.title(group, metric),
        metric_value=score,
        metric_args={"ci95": [low, high], "n": value.n, OURS: record.protocol_hash},
    )


def _text(groups: Sequence[BoardGroup], weights: str) -> str:
    rows = []
    for group in groups:
        record, metric = group.record, group.primary
        value = record.metrics[metric]
        score, low, high = score_texts(metric, value)
        task = record.task + (f" ({group.perturbation})" if group.perturbation else "")
        counts = (f"{score} [{low}, {high}]{_lengths(value)}", value.n, describe_failures(record.statuses))
        hashes = (record.protocol_hash, group.data_hash)
        rows.append(
            (task, record.protocol, SCORE.title(group, metric), *counts, *hashes, record.created[:10])
        )
    columns = ("task", "decoding", "metric", "score [95 %]", "n", "not ok", "protocol", "test set", "date")
    versions = sorted({group.record.versions.get("rba-bench", "unknown") for group in groups})
    measured = f"Measured with rba-bench {', '.join(versions)} on the weights `{weights}`. {READING}"
    micro = any(group.record.track == "micro" for group in groups)
    return "\n\n".join(["## Results", measured, *([MICRO] if micro else []), cards.table(columns, rows)])


def _lengths(value: MetricValue) -> str:
    """Of a win rate, the mean lengths that it is read beside."""
    if value.mean_length is None or value.baseline_mean_length is None:
        return ""
    return f", mean length {value.mean_length:.0f} (baseline {value.baseline_mean_length:.0f})"


READING = """\
Scores of equal protocol and test set may be compared, others not. *not ok* counts items without a good answer."""
