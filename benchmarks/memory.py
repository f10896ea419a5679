"""Peak memory of `rba-bench eval` on a test set of the size of CoVoST 2 from English (15,531 clips).

    python benchmarks/memory.py [--clips 15531]

The set is a local copy of `fixie-ai/covost2` in its own layout, made of MP3 clips of 2 to 9 s. A model that answers
without computing is used, so that what grows is the harness: documents, requests, clips being read, samples, scores and
bootstrap. Memory is read in the process itself before the task is loaded and, as a peak, at the end.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RATE, DISTINCT, ROW_GROUP = 16_000, 60, 100


def make_set(folder: Path, n: int) -> None:
    """`n` clips as parquet; a few sounds, made distinct by a tag behind the last frame."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile as sf

    rng = np.random.default_rng(0)
    sounds = []
    for seconds in rng.uniform(2, 9, DISTINCT):
        buffer = io.BytesIO()
        sf.write(buffer, 0.1 * rng.standard_normal(int(seconds * RATE)), RATE, format="MP3")
        sounds.append(buffer.getvalue())
    place = folder / "fixie-ai" / "covost2" / "en_de"
    place.mkdir(parents=True)
    schema = pa.schema(
        [
            ("client_id", pa.string()),
            ("file", pa.string()),
            ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("sentence", pa.string()),
            ("translation", pa.string()),
            ("id", pa.string()),
        ]
    )
    words = [f"word{i}" for i in range(500)]
    with pq.ParquetWriter(place / "test-00000-of-00001.parquet", schema) as writer:
        for start in range(0, n, ROW_GROUP):
            rows = []
            for i in range(start, min(n, start + ROW_GROUP)):
                text = " ".join(rng.choice(words, 9))
                data = sounds[i % DISTINCT] + f"TAG{i:09d}".encode()
                audio = {"bytes": data, "path": f"{i}.mp3"}
                rows.append(
                    {
                        "client_id": "c" * 64,
                        "file": f"clips/{i}.mp3",
                        "audio": audio,
                        "sentence": text,
                        "translation": f"i do {text}",
                        "id": f"common_voice_en_{i}",
                    }
                )
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=ROW_GROUP)


def resident_mb() -> float:
    """Resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(data: str, out: str) -> None:
    """In a process of its own: evaluate, and print memory and time as JSON."""
    import datasets  # noqa: F401 - libraries of every run with a real model, loaded before the first reading
    import lm_eval.evaluator  # noqa: F401
    import sacrebleu  # noqa: F401
    import transformers  # noqa: F401
    from transformers import WhisperModel  # noqa: F401 - pulls in torch and the modelling code

    from rba_bench.evaluation.runner import EvalRequest, evaluate

    before = resident_mb()
    started = time.perf_counter()
    request = EvalRequest(
        ("covost2_en_de",), "constant", track="full", out=Path(out), data_dir=Path(data), device="cpu"
    )
    [record] = evaluate(request)
    result = {
        "clips": record.n,
        "before_mb": before,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "seconds": time.perf_counter() - started,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def main() -> None:
    """Make the set, measure in a subprocess, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=15_531)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(*given.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_set(Path(folder) / "data", given.clips)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet")) / 1e6
        line = [sys.executable, __file__, "--measure", f"{folder}/data", f"{folder}/out"]
        environment = {**os.environ, "RBA_CACHE": f"{folder}/cache"}
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    print("| clips | data MB | before MB | peak MB | growth MB | seconds |\n|---:|---:|---:|---:|---:|---:|")
    growth = found["peak_mb"] - found["before_mb"]
    cells = (found["clips"], size, found["before_mb"], found["peak_mb"], growth, found["seconds"])
    print("| " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
