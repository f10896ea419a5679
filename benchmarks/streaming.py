"""Memory and time of training data that is larger than memory: open, walk an epoch, fetch groups.

    python benchmarks/streaming.py [--groups 20000] [--shards 8]
    python benchmarks/streaming.py --groups 500000 --shards 50      # 2 million clips, 2.5 GB, some minutes

The set is synthetic: four voices a group, clips of 0.03 s (1 KB), so that what grows is the index and the caches. Each
line is measured in one process; memory is resident memory above what it was after the imports, split into the process's
own and mapped files (which the system takes back when it needs the room).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VOICES, DISTINCT, FETCHED = 4, 4096, 2000


def make_set(folder: Path, n_groups: int, n_shards: int) -> None:
    """An alignment set of noise, sealed by a manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.audio.alignment_set import ROW_GROUP_SIZE, shard_schema
    from rba_bench.audio.clips import encode_flac
    from rba_bench.files import sha256_bytes, sha256_file, write_json

    rng = np.random.default_rng(0)
    sounds = [encode_flac(0.1 * rng.standard_normal(480).astype(np.float32)) for _ in range(DISTINCT)]
    hashes = [sha256_bytes(sound) for sound in sounds]
    words = np.array([f"word{i}" for i in range(5000)])
    fields, checksums = shard_schema(), {}
    texts = [field.name for field in fields if field.type == pa.string()]
    (folder / "shards").mkdir(parents=True)
    for shard, groups in enumerate(np.array_split(np.arange(n_groups), n_shards)):
        ids = np.repeat(
            [f"{number * 2654435761 % 2**64:016x}" for number in groups.tolist()], VOICES
        ).tolist()
        lines = [" ".join(row) for row in words[rng.integers(0, len(words), (len(groups), 40))]]
        places = rng.integers(0, DISTINCT, len(ids))
        columns: dict[str, Any] = {
            "id": [f"{name}-{place % VOICES}" for place, name in enumerate(ids)],
            "group_id": ids,
            "kind": np.repeat(np.array(["instruct", "qa", "s2tt"])[groups % 3], VOICES).tolist(),
            "instruction": np.repeat([line[:90] for line in lines], VOICES).tolist(),
            "response": np.repeat(lines, VOICES).tolist(),
            "voice": [f"voice{place % 2456}" for place in range(len(ids))],
            "split": np.repeat(np.where(groups % 20, "train", "validation"), VOICES).tolist(),
            "audio": [{"bytes": sounds[place], "path": "clip.flac"} for place in places],
            "audio_sha256": [hashes[place] for place in places],
            "sampling_rate": [16_000] * len(ids),
            "duration": [0.03] * len(ids),
        }
        arrays = [
            pa.array(columns.get(field.name, [""] * len(ids) if field.name in texts else None), field.type)
            if field.name in columns or field.name in texts
            else pa.nulls(len(ids), field.type)
            for field in fields
        ]
        name = f"shards/part-{shard:05d}.parquet"
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=fields),
            folder / name,
            row_group_size=ROW_GROUP_SIZE,
            compression="zstd",
            use_dictionary=texts,
        )
        checksums[name] = sha256_file(folder / name)
    write_json(folder / "manifest.json", {"schema_version": 1, "status": "complete", "checksums": checksums})


def resident() -> tuple[float, float]:
    """Resident memory of this process: its own, and mapped files, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(lines[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile"))
    return own, mapped


class Meter:
    """Times and memory of the steps of one process."""

    def __init__(self) -> None:
        self.start = resident()
        self.lines: list[tuple[str, float, float, float, float]] = []

    def __call__(self, label: str, run: Callable[[], Any]) -> Any:
        """Run something and note what it took."""
        began, worked = time.perf_counter(), time.process_time()
        result = run()
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
        own, mapped = resident()
        self.lines.append((label, seconds, processor, own - self.start[0], mapped - self.start[1]))
        return result


def measure(folder: str) -> None:
    """In a process of its own: open, walk, fetch; prints JSON."""
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401 - imported before the first reading, as torch is
    import soundfile  # noqa: F401
    import soxr  # noqa: F401

    from rba_bench.audio.clips import load_clip
    from rba_bench.training.data.groups import TrainingData, choices

    meter = Meter()
    meter("open, checksums and index made", lambda: TrainingData.open(choices(folder)))
    data = meter("open again", lambda: TrainingData.open(choices(folder)))
    n = len(data.train)
    meter(
        "walk an epoch of ids, all shuffled", lambda: sum(len(name) for _, name in walk(data.order(n, 1), n))
    )

    def fetch(names: list[str]) -> int:
        return sum(len(load_clip(row.audio)) for name in names for row in data.train[name])

    data.window = None
    everywhere = [name for _, name in walk(data.order(n, 2), FETCHED)]
    meter(f"fetch {FETCHED:,} groups from everywhere, with audio", lambda: fetch(everywhere))
    windowed = TrainingData.open(choices(folder), shuffle="window")
    near = [name for _, name in walk(windowed.order(n, 3), FETCHED)]
    meter(f"fetch {FETCHED:,} groups in windows, with audio", lambda: fetch(near))
    sys.stdout.write(json.dumps({"groups": n, "lines": meter.lines}) + "\n")


def walk(order: Any, n: int) -> Any:
    """The first `n` positions of an order."""
    return (order[position] for position in range(n))


def main() -> None:
    """Make the set, measure in fresh processes, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_set(Path(folder) / "set", given.groups, given.shards)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet")) / 1e6
        print(
            f"{given.groups:,} groups, {given.groups * VOICES:,} clips, {given.shards} shards, {size:,.0f} MB\n"
        )
        print(
            "| process | step | seconds | processor s | own MB | mapped MB |\n|---|---|---:|---:|---:|---:|"
        )
        for process in ("first", "second"):
            line = [sys.executable, __file__, "--measure", f"{folder}/set"]
            environment = {**os.environ, "RBA_CACHE": f"{folder}/cache"}
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            for label, seconds, processor, own, mapped in json.loads(done.stdout.splitlines()[-1])["lines"]:
                print(
                    f"| {process} | {label} | {seconds:.2f} | {processor:.2f} | {own:.0f} | {mapped:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
