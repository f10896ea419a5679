"""Spoken AlpacaEval of VoiceBench: `hlt-lab/voicebench`, configurations `alpacaeval_full` and `alpacaeval`.

    <config>/test-00000-of-00001.parquet    audio {bytes, path}, prompt (the words spoken)

The answers to beat are AlpacaEval's GPT-4 Turbo answers, found by the words of the instruction.
"""

from collections.abc import Mapping
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines, hub, tables
from rba_bench.evaluation.sources.base import Loaded, Place
from rba_bench.evaluation.sources.common import Names, checked, compare_size

REPO = "hlt-lab/voicebench"
REVISION = "aaa46d405d681aeb220047d3e8be782094b4cd31"
ITEMS = {"alpacaeval_full": 636, "alpacaeval": 199}


def load(options: Mapping[str, Any], place: Place) -> Loaded:
    """The items of a configuration with answers to beat.

    Args:
        options: `config`: `alpacaeval_full` or `alpacaeval`; `revision` of the Hub.
        place: `options["baseline"]` replaces AlpacaEval's answers.

    Raises:
        UserError: unknown configuration, or files of another layout.
        MissingPrerequisite: data or baseline is not there.
    """
    chosen = checked(options, config=..., revision=REVISION)
    config = str(chosen["config"])
    if config not in ITEMS:
        raise UserError(f"unknown VoiceBench configuration {config!r}; known: {', '.join(ITEMS)}")
    found = hub.files(REPO, (f"{config}/test-*.parquet",), place, str(chosen["revision"]))
    names = Names(f"voicebench-{config}")
    items = [
        documents.make(id=names.of(row["prompt"]), kind="chat", clip=clip, instruction=row["prompt"])
        for row, clip in tables.rows(found.paths, ["prompt"])
    ]
    origin = found.origin(config=config, **compare_size(config, len(items), ITEMS[config]))
    return baselines.compared(items, origin, place, baselines.alpaca_eval)
