"""Scores as the `model-index` in the front matter of a model card, which the Hub shows.

The format is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md, written and read by
`huggingface_hub`. Each score has its interval, n and protocol hash as arguments of the metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import folder_name
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import SCORE, score_texts
from rba_bench.leaderboard.exports.origin import ExportedFiles, Origin, runs_by_model, task_title
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.untrusted import plain

INDEX = "model-index"
PROTOCOL_ARGUMENT = "protocol_sha256"  # marks the entries that rba-bench wrote
HUB_TASKS = {"asr": "automatic-speech-recognition"}  # by kind of item
DEFAULT_HUB_TASK = "audio-text-to-text"


def export_model_index(groups: Sequence[BoardGroup], origin: Origin) -> ExportedFiles:
    """`<model>.yaml` for each model: the `model-index` to paste into its card.

    Args:
        groups: The runs.
        origin: Not needed by this format.
    """
    from huggingface_hub.utils import yaml_dump

    files = {}
    for name, members in runs_by_model(groups).items():
        index = model_index({}, members)
        files[f"{folder_name(name)}.yaml"] = yaml_dump({INDEX: index}, sort_keys=False).encode()
    return ExportedFiles(files)


def model_index(
    front: Mapping[str, Any], members: Sequence[tuple[BoardGroup, LoadedRun]]
) -> list[dict[str, Any]]:
    """The `model-index` with an entry for each run; entries that rba-bench did not write stay as they are.

    Args:
        front: Front matter of the card so far.
        members: Runs of one model, each with its group.

    Raises:
        UserError: the index of the card is not valid.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    others: list[EvalResult] = []
    name = members[0][1].name
    if INDEX in front:
        try:
            name, entries = model_index_to_eval_results(front[INDEX])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"the model-index of the card is not valid ({error!r}): correct or remove it"
            ) from error
        others = [entry for entry in entries if PROTOCOL_ARGUMENT not in (entry.metric_args or {})]
    own = [_entry(group, run) for group, run in members]
    index: list[dict[str, Any]] = eval_results_to_model_index(name, [*others, *own])
    return index


def _entry(group: BoardGroup, run: LoadedRun) -> Any:
    from huggingface_hub import EvalResult

    record, metric = run.record, group.primary
    value, data = record.metrics[metric], record.data
    score, low, high = map(float, score_texts(metric, value))
    return EvalResult(
        task_type=HUB_TASKS.get(run.samples[0].kind, DEFAULT_HUB_TASK),
        dataset_type=plain(data.get("repo") or data["source"]),
        dataset_name=task_title(group),
        dataset_config=task_title(group),  # what keeps two tasks on one data set, or changed clips, apart
        dataset_revision=plain(data.get("revision") or data["items_sha256"]),
        metric_type=metric,
        metric_name=SCORE.title(group, metric),
        metric_value=score,
        metric_args={"ci95": [low, high], "n": value.n, PROTOCOL_ARGUMENT: record.protocol_hash},
    )
