"""A small sealed set for the tests of statistics, figures, cards and pages: three voices, topics, transcripts."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rba_bench.audio.alignment_set import shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from tests.audio.test_sealing import row

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> | </p>\"'&amp; \u202eevil [x](javascript:y)"
VOICES, TOPICS = ("ann", "bob", "cem"), ("advice", "planning", "")
CLIPS = 45


def rows() -> list[dict[str, Any]]:
    """45 clips of 15 instructions; voice `cem` is misunderstood, by one word in four, ever more."""
    made = []
    for number in range(CLIPS):
        instruction, voice = f"please tell me number {number // 3}", VOICES[number % 3]
        errors = number // 9 if voice == "cem" else 0
        heard = " ".join([*["oops"] * errors, *instruction.split()[errors:]])
        made.append(
            {
                **row(number),
                "group_id": f"g{number // 3}",
                "kind": "instruct",
                "instruction": instruction,
                "response": f"answer {number}",
                "source_lang": "en",
                "target_lang": "en",
                "voice": voice,
                "topic": TOPICS[number // 3 % 3],
                "difficulty": "easy",
                "split": "validation" if number >= 42 else "train",
                "asr_text": heard,
                "asr_wer": errors / 5,
            }
        )
    made[1]["response"] = made[1]["prompt"] = HOSTILE
    made[1]["asr_text"] = HOSTILE
    return made


def make_set(folder: Path, made: list[dict[str, Any]] | None = None) -> Path:
    """The set in two shards, sealed."""
    folder.mkdir(parents=True)
    made = rows() if made is None else made
    for part, some in enumerate((made[:20], made[20:])):
        if some:
            table = pa.Table.from_pylist(some, schema=shard_schema())
            pq.write_table(table, folder / f"part-{part}.parquet", row_group_size=8)
    seal_alignment_set(folder)
    return folder
