"""Store the answers that `small_instruct_open` compares with: `python dev/make_small_baseline.py RUN_FOLDER`.

RUN_FOLDER is a complete run of the text model, which answers without being compared:
`rba-bench eval --task small_instruct_open --model text:asset:smollm2-135m-instruct --baseline none --judge none`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
GENERATOR = "text:asset:smollm2-135m-instruct"


def main(run: Path) -> None:
    """Write `rba_bench/small/data/baseline.jsonl`: one answer for every open-ended test instruction."""
    from rba_bench.evaluation.records import read_record, read_samples
    from rba_bench.files import canonical_json, write_atomic
    from rba_bench.small.testsets import BASELINE
    from rba_bench.small.texts import load_items

    record = read_record(run)
    if record.task != "small_instruct_open" or record.partial or record.model["spec"] != GENERATOR:
        raise SystemExit(f"{run} is not a complete run of small_instruct_open by {GENERATOR}")
    answers = {sample.id: sample.extracted for sample in read_samples(run)}
    rows = [
        {"id": item.key, "generator": GENERATOR.rpartition(":")[2], "output": answers[item.key]}
        for item in load_items("small_instruct")
        if item.open_ended
    ]
    write_atomic(BASELINE, b"".join(canonical_json(row) + b"\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
