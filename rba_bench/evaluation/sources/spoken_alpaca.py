"""Spoken versions of AlpacaEval and Alpaca: instructions read aloud, with answers to beat.

`voicebench` is `hlt-lab/voicebench`, configurations `alpacaeval_full` and `alpacaeval`. The answers to beat are
AlpacaEval's GPT-4 Turbo answers, found by the words of the instruction.

    <config>/test-00000-of-00001.parquet     audio {bytes, path}, prompt (the words spoken)

`spoken_alpaca` is 200 items of `GSQA/spoken-alpaca-gpt4`, with GPT-4's answers. They are chosen by hash of seed and
words, so the choice depends neither on order nor on file format, but on which items there are.

    default/partial-train/0000.parquet ...   the Hub's own conversion: the first 18,600 of 51,349 items, 4.9 GB
    data-00000-of-00035.arrow ...            as uploaded: all items, 13.7 GB; read where a local copy has no parquet

Columns: instruction, input, output, speech_input, input_speaker, output_speaker, input_audio, output_audio.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.audio.parquet import stored_bytes
from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines, hub, tables
from rba_bench.evaluation.sources.source import ItemNames, LoadedSet, Place, check_options, compare_size
from rba_bench.files import cache_dir, sha256_bytes, write_atomic
from rba_bench.progress import say
from rba_bench.seeding import stable_seed

VOICEBENCH_REPO = "hlt-lab/voicebench"
VOICEBENCH_REVISION = "aaa46d405d681aeb220047d3e8be782094b4cd31"
VOICEBENCH_ITEMS = {"alpacaeval_full": 636, "alpacaeval": 199}
REPO = "GSQA/spoken-alpaca-gpt4"
REVISION = "433327c1a4ab814ab0aecf901cb23e98cfdb1f49"  # of refs/convert/parquet
PARQUET, ARROW = "default/partial-train/*.parquet", "data-*-of-*.arrow"
AUDIO = "input_audio"
NEEDED = ("instruction", "input", "output")
WORDS = "speech_input"  # what is said; where the column is missing, instruction and input
SEED = 1234
ITEMS = 200


def load_voicebench(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The items of a configuration with answers to beat.

    Args:
        options: `config`: `alpacaeval_full` or `alpacaeval`; `revision` of the Hub.
        place: `options["baseline"]` replaces AlpacaEval's answers.

    Raises:
        UserError: unknown configuration, or files of another layout.
        MissingPrerequisite: data or baseline is not there.
    """
    values = check_options(options, config=..., revision=VOICEBENCH_REVISION)
    config = str(values["config"])
    if config not in VOICEBENCH_ITEMS:
        raise UserError(f"unknown VoiceBench configuration {config!r}; known: {', '.join(VOICEBENCH_ITEMS)}")
    files = hub.find_files(VOICEBENCH_REPO, (f"{config}/test-*.parquet",), place, str(values["revision"]))
    names = ItemNames(f"voicebench-{config}")
    items = [
        documents.make_document(id=names.of(row["prompt"]), kind="chat", clip=clip, instruction=row["prompt"])
        for row, clip in tables.parquet_rows(files.paths, ["prompt"])
    ]
    origin = files.origin(config=config, **compare_size(config, len(items), VOICEBENCH_ITEMS[config]))
    return baselines.with_baseline(items, origin, place, baselines.alpaca_eval_baseline)


@dataclass(frozen=True)
class _Row:
    """One row of the set: its texts, and where it lies."""

    texts: dict[str, str]
    file: Path
    number: int

    @property
    def words(self) -> str:
        """What is said."""
        spoken = self.texts.get(WORDS, "") or f"{self.texts['instruction']} {self.texts['input']}"
        return " ".join(spoken.split())


def load_spoken_alpaca(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """The chosen items, with GPT-4's answers to beat.

    Args:
        options: `n` items, `seed` of the draw, `revision` of the Hub.
        place: `options["baseline"]` replaces GPT-4's answers.

    Raises:
        UserError: files of another layout.
        MissingPrerequisite: the data is not there.
    """
    values = check_options(options, n=ITEMS, seed=SEED, revision=REVISION)
    files = hub.find_files(REPO, (PARQUET, ARROW), place, str(values["revision"]))
    parquet = [path for path in files.paths if path.suffix == ".parquet"]
    pool: dict[str, _Row] = {}
    for row in _rows(parquet or files.paths):
        if row.words:
            pool.setdefault(row.words, row)
    n, seed = int(values["n"]), int(values["seed"])
    rows = sorted(pool.values(), key=lambda row: stable_seed("spoken_alpaca", seed, row.words))[:n]
    if len(rows) < n:
        say(f"spoken_alpaca: only {len(rows)} of {n} items are there")
    names = ItemNames("spoken-alpaca")
    items = [
        documents.make_document(
            id=names.of(row.words),
            kind="chat",
            clip=clip,
            instruction=row.words,
            voice=row.texts.get("input_speaker", ""),
            baseline=row.texts["output"],
        )
        for row, clip in zip(rows, _clips(rows), strict=True)
    ]
    origin = files.origin(format="parquet" if parquet else "arrow", pool=len(pool), seed=seed)
    return baselines.with_baseline(items, origin, place, "GPT-4 (stored with the set)")


def _rows(files: Sequence[Path]) -> Iterator[_Row]:
    for file in files:
        names = _columns(file)
        if missing := [name for name in (*NEEDED, AUDIO) if name not in names]:
            raise UserError(f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(names)}")
        columns = [name for name in (*NEEDED, WORDS, "input_speaker") if name in names]
        parts = (
            [tables.read_columns(file, columns)]
            if file.suffix == ".parquet"
            else (batch.select(columns).to_pylist() for batch in _batches(file))
        )
        for number, texts in enumerate(row for part in parts for row in part):
            yield _Row({name: text or "" for name, text in texts.items()}, file, number)


def _columns(file: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix == ".parquet":
            return list(pq.read_schema(file).names)
        with pa.memory_map(str(file)) as source:
            return list(pa.ipc.open_stream(source).schema.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): get it again") from error


def _batches(file: Path) -> Iterator[Any]:
    """Record batches of an Arrow stream file, which is how `datasets` saves a set; memory-mapped, never all held."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            yield from pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): get it again") from error


def _clips(rows: Sequence[_Row]) -> list[tables.Clip]:
    """Clips of rows, in their order."""
    by_file: dict[Path, set[int]] = {}
    for row in rows:
        by_file.setdefault(row.file, set()).add(row.number)
    clips: dict[tuple[Path, int], tables.Clip] = {}
    for file, numbers in by_file.items():
        numbered: Iterator[tuple[int, tables.Clip]] = _clips_of_arrow(file, numbers)
        if file.suffix == ".parquet":
            numbered = enumerate(clip for _, clip in tables.parquet_rows([file], [], AUDIO))
        clips.update({(file, number): clip for number, clip in numbered if number in numbers})
    return [clips[row.file, row.number] for row in rows]


def _clips_of_arrow(file: Path, numbers: set[int]) -> Iterator[tuple[int, tables.Clip]]:
    """Clips copied out of an Arrow file into the cache: a row of such a file cannot be read by reference."""
    start = 0
    for batch in _batches(file):
        audio = batch.column(AUDIO)
        for number in sorted(number for number in numbers if start <= number < start + len(batch)):
            data = stored_bytes(file, audio[number - start].as_py()) or b""
            copy = cache_dir() / "clips" / f"{sha256_bytes(data)}.audio"
            if not copy.is_file():
                write_atomic(copy, data)
            yield number, tables.file_clip(copy)
        start += len(batch)
