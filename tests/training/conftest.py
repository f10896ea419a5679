"""A tiny alignment set: seven instructions in up to three voices, with the session's tiny clips as sound."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import AudioRef, encode_flac

TEXTS = [
    ("instruct", "", "give me a plan for a trip to the lake", "pack a map and go early"),
    ("qa", "", "what is the capital of france", "paris"),
    ("s2tt", "translate german to english :", "der hund schläft im garten", "the dog sleeps in the garden"),
    ("instruct", "", "write a short letter to a friend", "dear friend , i miss the lake"),
    ("qa", "", "what is the largest river in the world", "the amazon"),
    ("instruct", "", "give me a plan for the garden", "plant a tree and water the garden"),
    ("s2tt", "translate german to english :", "der hund ist im garten", "the dog is in the garden"),
]


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory, clips: list[np.ndarray]) -> list[AlignmentRow]:
    """Seven groups of three voices."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for number, (kind, prompt, instruction, response) in enumerate(TEXTS):
        for voice in range(3):
            rng = np.random.default_rng([number, voice])
            wave = clips[(number + voice) % len(clips)]
            data = encode_flac((wave + 0.05 * rng.standard_normal(wave.size)).astype(np.float32), 16_000)
            path = folder / f"{number}-{voice}.flac"
            path.write_bytes(data)
            audio = AudioRef.of(data, path)
            made.append(
                AlignmentRow(
                    id=f"g{number}-v{voice}",
                    group_id=f"g{number}",
                    kind=kind,
                    prompt=prompt,
                    instruction=instruction,
                    response=response,
                    source_lang="de" if kind == "s2tt" else "en",
                    target_lang="en",
                    topic="",
                    difficulty="",
                    voice=f"v{voice}",
                    split="validation" if number == 6 else "train",
                    audio=audio,
                    duration=audio.duration,
                )
            )
    return made


@pytest.fixture(scope="session")
def groups(rows: list[AlignmentRow]) -> dict[str, list[AlignmentRow]]:
    """The rows by group."""
    grouped: dict[str, list[AlignmentRow]] = {}
    for row in rows:
        grouped.setdefault(row.group_id, []).append(row)
    return grouped


@pytest.fixture
def family(tiny_composite_dir: Path) -> Any:
    """A fresh tiny composite with its adapter."""
    from rba_bench.speechlm.audiolm.loading import load_family

    return load_family(tiny_composite_dir)


@pytest.fixture
def store_for(groups: dict[str, list[AlignmentRow]]) -> Callable[..., Any]:
    """Builds a ClipStore over the tiny set."""
    from rba_bench.training.data.clips import ClipStore

    return lambda family, **options: ClipStore(family, groups, **options)


@pytest.fixture(scope="session")
def alignment_dir(tmp_path_factory: pytest.TempPathFactory, rows: list[AlignmentRow]) -> Path:
    """The rows as an alignment set on disk."""
    return write_set(tmp_path_factory.mktemp("set"), rows)


@pytest.fixture(scope="session")
def mixed_dir(
    tmp_path_factory: pytest.TempPathFactory, rows: list[AlignmentRow], clips: list[np.ndarray]
) -> Path:
    """Six groups to train on, of four voices and of one, with answers of very unequal lengths, as a set on disk."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "clips").mkdir()
    mixed = []
    for number in range(6):
        for voice in range((4, 1, 1, 4, 1, 4)[number]):
            rng = np.random.default_rng([7, number, voice])
            wave = clips[(number + 2 * voice) % len(clips)]
            data = encode_flac((wave + 0.05 * rng.standard_normal(wave.size)).astype(np.float32), 16_000)
            path = folder / "clips" / f"{number}-{voice}.flac"
            path.write_bytes(data)
            row = replace(
                rows[3 * number], id=f"m{number}-v{voice}", group_id=f"m{number}", voice=f"v{voice}"
            )
            response = " and ".join([row.response] * (1, 4, 1, 2, 3, 1)[number])
            audio = AudioRef.of(data, path)
            mixed.append(replace(row, response=response, audio=audio, duration=audio.duration))
    return write_set(folder / "set", mixed)


def write_set(folder: Path, rows: list[AlignmentRow]) -> Path:
    """Write rows as an alignment set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.audio.alignment_set import shard_schema
    from rba_bench.files import sha256_file, write_json

    names = shard_schema().names
    records = []
    for row in rows:
        given = {name: getattr(row, name) for name in names if name != "audio" and hasattr(row, name)}
        data = Path(row.audio.path).read_bytes()
        sound = {"audio": {"bytes": data, "path": f"{row.id}.flac"}, "audio_sha256": row.audio.sha256}
        records.append({**dict.fromkeys(names), **given, **sound, "sampling_rate": 16_000})
    (folder / "shards").mkdir(parents=True)
    shard = folder / "shards" / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(records, schema=shard_schema()), shard)
    checksums = {"shards/part-00000.parquet": sha256_file(shard)}
    write_json(folder / "manifest.json", {"schema_version": 1, "status": "complete", "checksums": checksums})
    return folder


@pytest.fixture(scope="session")
def recipe_for(alignment_dir: Path, tiny_composite_dir: Path) -> Callable[..., Any]:
    """Builds a short recipe on the tiny set and model."""
    from rba_bench.training.training_recipe import TrainingRecipe

    def build(**changes: Any) -> TrainingRecipe:
        values: dict[str, Any] = {
            "method": "rba-single",
            "base": str(tiny_composite_dir),
            "alignment_set": str(alignment_dir),
            "steps": 6,
            "groups_per_step": 2,
            "voices_per_group": 2,
            "learning_rate": 3e-3,
            "warmup_steps": 2,
            "max_new_tokens": 6,
            "truncated": "keep",  # a random model seldom ends
            "save_every": 2,
            "log_every": 3,
            "reward": {"instruct": "chrf", "qa": "chrf", "s2tt": "bleu"},
            # what there is to see of a run has its own tests, test_seen.py
            "validate_ends": False,
            "report": False,
        }
        return TrainingRecipe(**{**values, **changes})

    return build
