"""How many groups there are, and how long clips and answers: read from the alignment set, or assumed."""

from dataclasses import dataclass
from pathlib import Path

from rba_bench.training.planning.assumptions import Assumptions
from rba_bench.training.recipe import TrainingRecipe

SHARDS_READ = 4  # of each set: enough for means
TOKENS_PER_WORD = 1.4  # of answers in the languages of the paper, by the tokenizers of their models


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        groups: instructions.
        voices: clips of each, as many as are used.
        seconds: mean length of a clip.
        answer_tokens: mean length of a teacher's answer.
        source: where this comes from.
    """

    groups: int
    voices: int
    seconds: float
    answer_tokens: float
    source: str


def data_of(recipe: TrainingRecipe, assumed: Assumptions) -> Data:
    """Read the recipe's sets where all of them are there; what is assumed counts in any case."""
    folders = [Path(one.path) for one in recipe.alignment_sets]
    there = all((folder / "manifest.json").is_file() for folder in folders)
    read = _read(folders) if there else Data(250_000, recipe.voices_per_group, 5.0, 250.0, "assumed")
    return Data(
        assumed.groups or read.groups,
        min(assumed.voices or read.voices, recipe.voices_per_group),
        assumed.seconds or read.seconds,
        float(assumed.answer_tokens or read.answer_tokens),
        read.source,
    )


def _read(folders: list[Path]) -> Data:
    """Means over the first shards of each set; numbers of rows from all of them."""
    import pyarrow.parquet as pq

    rows, seen, seconds, words = 0, 0, 0.0, 0
    groups: set[tuple[str, str]] = set()
    for folder in folders:
        shards = sorted((folder / "shards").glob("*.parquet"))
        rows += sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
        for shard in shards[:SHARDS_READ]:
            table = pq.read_table(shard, columns=["group_id", "duration", "response"]).to_pydict()
            seen += len(table["duration"])
            seconds += sum(table["duration"])
            words += sum(len(response.split()) for response in table["response"])
            groups |= {(str(folder), name) for name in table["group_id"]}
    voices = seen / max(len(groups), 1)
    return Data(
        max(1, round(rows / max(voices, 1))),
        max(1, round(voices)),
        seconds / max(seen, 1),
        max(1.0, TOKENS_PER_WORD * words / max(seen, 1)),
        ", ".join(map(str, folders)),
    )
