"""What a 95 % interval of a corpus score costs: 1,000 resamples of 15,531 pairs, the test set of CoVoST 2 en->x.

    python benchmarks/bootstrap.py

Prints a Markdown table. Every case runs in a process of its own: ours five times (median), sacrebleu's own
`corpus_score(n_bootstrap=1000)` once, timed around its resampling. Memory is the highest resident size meanwhile, above
the resident size just before. One thread; machines are noisy: compare within one run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PAIRS = 15_531
RESAMPLES = 1_000
REPEATS = 5
GROUPS = 15  # directions, for the macro average
VOICES = 3  # clips of one sentence, for the clustered bootstrap
METRICS = ("bleu", "chrf++")
FORMS = ("items", "clusters", "macro", "macro, clusters", "paired", "paired, clusters")
Case = Callable[[], Any]


def texts(seed: int = 0) -> tuple[list[str], list[str]]:
    """Hypotheses and references of 4 to 18 words; a third of the words differ."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 10))) for _ in range(5_000)]
    references, hypotheses = [], []
    for length in rng.integers(4, 19, PAIRS):
        reference, other = rng.integers(len(words), size=(2, length))
        changed = np.where(rng.random(length) < 1 / 3, other, reference)
        references.append(" ".join(words[index] for index in reference))
        hypotheses.append(" ".join(words[index] for index in changed))
    return hypotheses, references


def ours(metric: str, form: str) -> tuple[Case, float]:
    """What is timed, and the seconds that counting the statistics took before."""
    from rba_bench.metrics.aggregate import MacroScore, macro_rows, score_function
    from rba_bench.metrics.bleu import ChrfPP, CorpusBleu
    from rba_bench.metrics.bootstrap import bootstrap_corpus, paired_difference

    counter = CorpusBleu("de") if metric == "bleu" else ChrfPP("de")
    started = time.perf_counter()
    rows = np.array([counter.statistics(h, [r]) for h, r in zip(*texts(), strict=True)])
    counting = time.perf_counter() - started
    score = score_function(metric)
    clusters = [f"sentence-{index // VOICES}" for index in range(PAIRS)] if "clusters" in form else None
    if form.startswith("macro"):
        groups = [f"direction-{index % GROUPS}" for index in range(PAIRS)]
        average = MacroScore(score, rows.shape[1])
        return lambda: bootstrap_corpus(macro_rows(rows, groups), average, clusters), counting
    if form.startswith("paired"):
        other = np.roll(rows, 1, axis=0)
        return lambda: paired_difference(rows, other, score, clusters), counting
    return lambda: bootstrap_corpus(rows, score, clusters), counting


def sacrebleus(metric: str) -> dict[str, float]:
    """sacrebleu's own score of the texts with its own bootstrap, timed around the latter."""
    from sacrebleu import significance
    from sacrebleu.metrics import BLEU, CHRF

    scorer = BLEU() if metric == "bleu" else CHRF(word_order=2)
    hypotheses, references = texts()
    resample, found = significance._bootstrap_resample, {}

    def timed(*arguments: Any) -> Any:
        result = []
        found.update(measure(lambda: result.append(resample(*arguments)), 1))
        return result[0]

    significance._bootstrap_resample = timed
    started = time.perf_counter()
    scorer.corpus_score(hypotheses, [references], n_bootstrap=RESAMPLES)
    return {**found, "counting": time.perf_counter() - started - found["seconds"]}


def resident(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (highest) of this process in MB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def measure(run: Case, repeats: int) -> dict[str, float]:
    """Median seconds, and the highest memory above what was there."""
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")  # the highest size counts from here
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return {"seconds": statistics.median(times), "megabytes": resident("VmHWM") - before}


def one_case(who: str, metric: str, form: str) -> dict[str, float]:
    """One case in this process."""
    if who == "sacrebleu":
        return sacrebleus(metric)
    run, counting = ours(metric, form)
    return {**measure(run, REPEATS), "counting": counting}


def in_a_process(*case: str) -> dict[str, float]:
    """One case in a fresh process with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--case", *case]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", nargs=3, metavar=("WHO", "METRIC", "FORM"))
    chosen = parser.parse_args().case
    if chosen:
        print(json.dumps(one_case(*chosen)))
        return
    print(f"{RESAMPLES:,} resamples of {PAIRS:,} pairs\n")
    print("| | interval, s | memory above, MB | counting n-grams before, s |\n| --- | ---: | ---: | ---: |")
    for metric in METRICS:
        for who, forms in (("ours", FORMS), ("sacrebleu", ("items",))):
            for form in forms:
                found = in_a_process(who, metric, form)
                cells = [f"{found['seconds']:.2f}", f"{found['megabytes']:.0f}", f"{found['counting']:.1f}"]
                print(f"| {metric}, {who}, {form} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
