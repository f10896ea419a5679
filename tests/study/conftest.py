"""A study in miniature: a tiny alignment set, a test set of four sentences as a task of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.study.study_recipe import StudyRecipe

SENTENCES = ("the dog sleeps in the garden", "the dog is in the garden", "write a letter", "go to the lake")
TASK = """\
include: {tasks}/_micro.yaml
task: tiny
dataset_kwargs: {{data: "{data}"}}
metric_list:
  - {{metric: bleu, aggregation: !function rba_bench.evaluation.hooks.bleu, higher_is_better: true}}
generation_kwargs: {{protocol: greedy, max_gen_toks: 4, seed: 1234, until: []}}
metadata: {{version: 1, benchmark: tiny, track: micro}}
"""


@pytest.fixture(scope="session")
def sounds(clips: list[np.ndarray]) -> list[bytes]:
    """FLAC of the session's clips."""
    from rba_bench.audio.clips import encode_flac

    return [encode_flac(wave, 16_000) for wave in clips]


@pytest.fixture(scope="session")
def alignment_dir(tmp_path_factory: pytest.TempPathFactory, sounds: list[bytes]) -> Path:
    """Four instructions in two voices, as an alignment set on disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.audio.alignment_set import shard_schema
    from rba_bench.files import sha256_bytes, sha256_file, write_json

    folder = tmp_path_factory.mktemp("study") / "set"
    (folder / "shards").mkdir(parents=True)
    rows = []
    for number, text in enumerate(SENTENCES):
        for voice in range(2):
            data = sounds[(number + voice) % len(sounds)]
            row = {
                **dict.fromkeys(shard_schema().names),
                **{
                    "id": f"g{number}-v{voice}",
                    "group_id": f"g{number}",
                    "kind": "s2tt",
                    "voice": f"v{voice}",
                },
                **{"prompt": "translate german to english :", "instruction": "der hund", "response": text},
                **{"source_lang": "de", "target_lang": "en", "topic": "", "difficulty": "", "split": "train"},
                **{
                    "audio": {"bytes": data, "path": f"{number}{voice}.flac"},
                    "audio_sha256": sha256_bytes(data),
                },
                **{"sampling_rate": 16_000, "duration": 1.0},
            }
            rows.append(row)
    shard = folder / "shards" / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=shard_schema()), shard)
    checksums = {"shards/part-00000.parquet": sha256_file(shard)}
    write_json(folder / "manifest.json", {"schema_version": 1, "status": "complete", "checksums": checksums})
    return folder


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory, sounds: list[bytes]) -> Path:
    """A translation task of four items."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.evaluation.task_registry import tasks_dir
    from rba_bench.files import sha256_bytes

    folder = tmp_path_factory.mktemp("task")
    rows = [
        {
            **{"id": f"t{number}", "kind": "s2tt", "topic": "", "instruction": "der hund", "baseline": ""},
            **{"prompt": "translate german to english :", "references": [text], "source_lang": "de"},
            **{"target_lang": "en", "voice": "v", "sampling_rate": 16_000, "duration": 1.0},
            **{
                "audio": {"bytes": sounds[number], "path": "x.flac"},
                "audio_sha256": sha256_bytes(sounds[number]),
            },
        }
        for number, text in enumerate(SENTENCES)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    file = folder / "tiny.yaml"
    file.write_text(TASK.format(tasks=tasks_dir(), data=folder / "test.parquet"))
    return file


@pytest.fixture
def tiny_study() -> Callable[..., StudyRecipe]:
    """Builds the recipe of two methods, two seeds, three steps; of names only, for tests that train nothing."""

    def build(**changes: Any) -> StudyRecipe:
        short = {"groups_per_step": 2, "voices_per_group": 2, "max_new_tokens": 4, "warmup_steps": 0}
        values: dict[str, Any] = {
            "methods": ["sft", "rba-single"],
            "common": {**short, "learning_rate": 3e-3, "refresh_every": 1},
            "seeds": [1, 2],
            "steps": 3,
            "time": {"like": "rba-single"},
            "tasks": {"micro_covost2": "bleu"},
        }
        return StudyRecipe.model_validate({**values, **changes})

    return build


@pytest.fixture
def real_study(
    tiny_study: Callable[..., StudyRecipe], alignment_dir: Path, tiny_composite_dir: Path, tiny_task: Path
) -> Callable[..., StudyRecipe]:
    """The same on the tiny model, alignment set and task."""
    places = {
        "base": str(tiny_composite_dir),
        "alignment_set": str(alignment_dir),
        "tasks": {str(tiny_task): "bleu"},
    }
    return lambda **changes: tiny_study(**{**places, **changes})
