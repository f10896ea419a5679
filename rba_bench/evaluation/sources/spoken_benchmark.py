"""Text benchmarks that `rba-bench speak` has spoken: a folder with a manifest, named by `--data-dir`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rba_bench.audio.spoken_benchmark import INSTRUCTIONS, TASKS, SpokenBenchmark
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines
from rba_bench.evaluation.sources.source import DATA_DIR_VARIABLE, LoadedSet, Place, check_options
from rba_bench.evaluation.sources.tables import Clip, read_columns


def load_spoken_benchmark(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """All items of one benchmark.

    Args:
        options: `kind`, `qa` or `chat`; `data`, the folder, in the task of one benchmark.
        place: The folder by `data_dir`; answers to beat by `options["baseline"]`, else those stored in the set.

    Raises:
        MissingPrerequisite: No spoken benchmark there, or instructions without answers to beat.
        UserError: It is damaged, or of the other kind.
    """
    values = check_options(options, kind=..., data="")
    folder = Path(values["data"]) if values["data"] else place.data_dir
    if folder is None:
        raise MissingPrerequisite(
            f"no spoken benchmark: make one with `rba-bench speak --out DIR`, and name it with --data-dir DIR "
            f"(or {DATA_DIR_VARIABLE})"
        )
    benchmark = SpokenBenchmark.open(folder)
    if benchmark.kind != values["kind"]:
        raise UserError(
            f"{folder} is evaluated with --task {TASKS.get(benchmark.kind, 'of a later version')}"
        )
    items = [
        _document(
            row, Clip(row["audio_sha256"], row["sampling_rate"], row["duration"], str(file.resolve()), number)
        )
        for file in benchmark.files
        for number, row in enumerate(read_columns(file, (*documents.COLUMNS, "group_id")))
    ]
    origin = _origin(benchmark)
    if benchmark.kind != INSTRUCTIONS:
        return LoadedSet(items, origin)
    return baselines.with_baseline(items, origin, place, _stored(benchmark))


def _document(row: Mapping[str, Any], clip: Clip) -> documents.Document:
    facts = ("sampling_rate", "audio_sha256", "duration", "group_id")
    fields = {name: value for name, value in row.items() if name not in facts}
    return documents.make_document(**fields, clip=clip, cluster=documents.text_cluster(row["instruction"]))


def _origin(benchmark: SpokenBenchmark) -> dict[str, Any]:
    """What the record should know of the benchmark: its name and hash, and what was left out."""
    manifest = benchmark.manifest
    counts, recognizer = manifest["counts"], manifest["round_trip"]["recognizer"] or {}
    return {
        "repo": manifest["name"],
        "revision": benchmark.sha256,
        "file_sha256": manifest["file"]["sha256"],
        "texts": counts["texts"],
        "dropped": {reason: of["n"] for reason, of in counts["dropped"]["reasons"].items() if of["n"]},
        "voices": sorted(counts["voices"]),
        "recognizer": recognizer.get("name", "none"),
        "wer": counts["wer"]["kept"],
    }


def _stored(benchmark: SpokenBenchmark) -> Any:
    """The name of the answers in the set, or what tells that there are none."""
    if systems := benchmark.manifest["systems"]:
        return systems[0]

    def none_stored(place: Place) -> baselines.Baseline:
        raise MissingPrerequisite(
            f"{benchmark.path} holds no answers to beat: name some with --baseline FILE (JSON or JSONL with "
            f"`instruction` and `output`) or --baseline RUN (a run folder), or leave the comparison out with "
            f"--baseline {baselines.NONE}"
        )

    return none_stored
