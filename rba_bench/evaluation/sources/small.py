"""The test sets of the track `small`, which this package writes and speaks itself (see `rba_bench.small`)."""

import json
from collections.abc import Mapping
from typing import Any

from rba_bench.assets import load_world
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources.source import LoadedSet, Place, check_options
from rba_bench.evaluation.sources.tables import Clip, read_columns

COLUMNS = (
    "id", "group_id", "kind", "instruction", "references", "level", "subject", "open_ended", "constraints", "voice",
    "sampling_rate", "duration", "audio_sha256",
)  # fmt: skip
REPEAT = "Repeat what you hear, word for word."
KINDS = {"qa": "qa", "instruct": "ifeval", "asr": "asr"}


def load_small(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Items of one set.

    Args:
        options: `set`, such as `small_qa`; `split` (`test`); `only`: `open` for the open-ended instructions, which a
            judge compares with the answers of a baseline.
        place: Not asked: the sets are spoken into the cache.

    Raises:
        UserError: Unknown set or split.
        MissingPrerequisite: It cannot be spoken here.
    """
    chosen = check_options(options, set="small_qa", split="test", only="")
    file = load_world("testsets", "small").load_testset(chosen["set"], chosen["split"]) / "test.parquet"
    rows = read_columns(file, COLUMNS)
    items = [
        _document(row, Clip(row["audio_sha256"], row["sampling_rate"], row["duration"], str(file.resolve()), number))
        for number, row in enumerate(rows)
        if row["open_ended"] or chosen["only"] != "open"
    ]
    return LoadedSet(items, {"source": "small", **chosen})


def _document(row: Mapping[str, Any], clip: Clip) -> documents.Document:
    kind = KINDS[row["kind"]]
    constraints = json.loads(row["constraints"]) if row["constraints"] else {}
    if constraints:
        constraints["constraint"] = constraints["instructions"][0]["name"]
    return documents.make_document(
        id=row["id"],
        kind=kind,
        clip=clip,
        instruction=row["instruction"],
        prompt=REPEAT if kind == "asr" else "",
        references=row["references"],
        topic=row["level"] or row["subject"],
        voice=row["voice"],
        group=row["level"] or constraints.get("constraint", ""),
        cluster=row["group_id"],
        extra=constraints or None,
    )
