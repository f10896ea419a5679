"""How fast a local model labels topics and difficulties, and how well it agrees with labels by hand.

    python benchmarks/labels.py --model asset:smollm2-135m-instruct [--texts 100] [--passes]

`tests/synthesis/labelled_topics.tsv` holds topic and difficulty of 100 instructions of the track `small`, labelled by
one author before any model's labels were seen; where two topics fit, both count as right. What a model is worth shows
beside whoever always says the most frequent label. `--passes` also measures the speed of one pass for each label, on
the first 12 texts.
"""

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import rba_bench
from rba_bench.synthesis.tagging import LEVELS, QUESTIONS, LikelihoodLabeller, load_labeller

LABELS = Path(__file__).resolve().parent.parent / "tests" / "synthesis" / "labelled_topics.tsv"
INSTRUCTIONS = Path(rba_bench.__file__).parent / "small" / "data" / "alignment.jsonl"
FEW = 12


def read_labels(n: int) -> list[tuple[str, set[str], str]]:
    """Texts with the topics that fit and their difficulty."""
    with open(INSTRUCTIONS, encoding="utf-8") as lines:
        texts = {row["id"]: row["instruction"] for row in map(json.loads, lines)}
    with open(LABELS, encoding="utf-8", newline="") as handle:
        rows = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(texts[row["id"]], set(row["topics"].split(",")), row["difficulty"]) for row in rows][:n]


def share(hits: Sequence[bool]) -> str:
    return f"{sum(hits) / len(hits):.2f}"


def most_frequent(labels: Sequence[set[str]]) -> str:
    """Agreement of whoever always says the label that fits most texts."""
    label, _ = Counter(label for fitting in labels for label in fitting).most_common(1)[0]
    return share([label in fitting for fitting in labels])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="asset:smollm2-135m-instruct")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--passes", action="store_true")
    args = parser.parse_args()
    rows = read_labels(args.texts)
    texts = [text for text, _, _ in rows]
    labeller = load_labeller(args.model, "cpu", 64)
    began = time.process_time()
    found = labeller.label(texts)
    seconds = time.process_time() - began
    print(f"{len(texts) / seconds:.2f} texts a second of processor time")
    if args.passes and isinstance(labeller, LikelihoodLabeller):
        began = time.process_time()
        for prompt, labels in QUESTIONS:
            turns = [prompt.replace("{text}", text) for text in texts[:FEW] for _ in labels]
            labeller.model.logprobs(turns, [label for _ in texts[:FEW] for label in labels])
        print(f"{FEW / (time.process_time() - began):.2f} with a pass for each label")
    levels = list(LEVELS)
    steps = [
        abs(levels.index(one.difficulty) - levels.index(row[2])) for one, row in zip(found, rows, strict=True)
    ]
    topics = [one.topic in row[1] for one, row in zip(found, rows, strict=True)]
    print(f"topics: {share(topics)} agree (always the same label: {most_frequent([row[1] for row in rows])})")
    print(f"difficulty: {share([step == 0 for step in steps])} agree", end=" ")
    print(f"(always the same label: {most_frequent([{row[2]} for row in rows])})")
    print(f"topics said: {dict(Counter(one.topic for one in found).most_common())}")
    print(f"difficulties said: {dict(Counter(one.difficulty for one in found).most_common())}")


if __name__ == "__main__":
    main()
