"""A million rows by simulation: what the pipeline of synthesis costs where teacher and voices cost nothing.

    python benchmarks/synthesis_scale.py [--rows 1000000] [--voices 4] [--workers 2] [--out FOLDER] [--keep]

The teacher answers from a table at once: instructions and answers of a realistic length, put together from words by the
candidate's seed; 8 % repeat another candidate's, 6 % hold code or a formula, 3 % are refused. The speech engine gives
the same seconds of a quiet tone for every text, of which FLAC and parquet make files as of speech, but small: the
million must fit on a disk. All text filters of the recipe `synth-small` are on (rules, near duplicates, test sets); no
labels and no round trip, because they are models. The rest is the recipe `full/synth-instruct`.

Three things are measured:

1. each stage alone, on `--stage-rows` rows: rows a second, and processor time a row without the table's own;
2. the whole, as `rba-bench synth --workers` runs it: wall time, and the most memory of driver and workers;
3. starting again: the manifest and the last shard are taken away, and the same command must find that the rest is done.

What counts as overhead: the processor time of the pipeline for a row (a clip with its share of an instruction, of the
candidates that were dropped, and of all files), against what teacher and voice take for it. For that, `--teacher-ms`
and `--tts-ms` give the time of one core (or of the server) a row: by default none for the teacher, and 340 ms for the
voice, which is a clip of 6.5 s by Piper at 19 times real time.
"""

import argparse
import json
import math
import multiprocessing
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from synthesis_texts import ANSWERS, ENDINGS, MIDDLES, OPENINGS, fill

# Workers import this file too: what they do not need is imported in functions, as in the package.
from rba_bench.audio.espeak import BANKS
from rba_bench.audio.speech_engines import SpeechEngine
from rba_bench.recipes import load_recipe, recipe_file
from rba_bench.synthesis.stopwatch import Stopwatch
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.textlm.text_model import Decoding, Generation, TextLM

RATE, SECONDS = 16_000, 6.5  # Hz and length of a clip
SAMPLED_S = 0.5  # memory is looked at so often
REPEATED, CODE, REFUSED = 0.08, 0.06, 0.03


class TableTeacher(TextLM):
    """Writes by the seed alone, at once."""

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Instructions."""
        return [self._instruction(seed) for seed in seeds]

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        """Answers of four sentences."""
        return [self._answer(random.Random(seed)) for seed in seeds]

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Not asked for."""
        raise NotImplementedError

    def pre_query_template(self) -> str:
        """Of nobody."""
        return "<user>"

    def identity(self) -> dict[str, Any]:
        """A table."""
        return {"name": "table", "weights_sha256": "0", "setup_sha256": "0"}

    def _instruction(self, seed: int) -> Generation:
        rng = random.Random(seed)
        lot = rng.random()
        if lot < REPEATED:
            rng = random.Random(rng.randrange(5000))
        text = f"{fill(OPENINGS, rng)} {fill(MIDDLES, rng)} {fill(ENDINGS, rng)}?"
        if REPEATED < lot < REPEATED + CODE:
            text = f"{text} def f(x): return x**2 + {rng.random():.3f}"
        return Generation(text, 24, "ok")

    def _answer(self, rng: random.Random) -> Generation:
        if rng.random() < REFUSED:
            return Generation("I'm sorry, but I cannot help with that.", 11, "ok")
        return Generation(" ".join(fill(ANSWERS, rng) for _ in range(4)), 80, "ok")


def quiet_tone(text: str, language: str, voice: Any) -> np.ndarray:
    """A tone of a few quantisation steps, whose pitch depends on text and voice."""
    return tone(100 + len(text) + sum(map(ord, voice.name)) % 50)


@cache
def tone(pitch: int) -> np.ndarray:
    """Of a pitch in Hz; it is made once, and never changed."""
    wave = np.sin(np.arange(round(RATE * SECONDS), dtype=np.float32) * (2 * math.pi * pitch / RATE))
    return (wave * (16 / 32768)).astype(np.float32)


def engine_version() -> str:
    """Of the engine below."""
    return "1"


TABLE = SpeechEngine("table", engine_version, quiet_tone, BANKS)


def make_recipe(options: argparse.Namespace, rows: int) -> SynthesisRecipe:
    """The paper's recipe with all text filters, for so many rows."""
    changes = (
        f"n_instructions={rows // options.voices}", f"voices_per_instruction={options.voices}",
        f"round_size={options.round_size}", f"shard_size={options.shard_size}", "teacher=asset:smollm2-135m-instruct",
        "text_filters={rules: {}, near_duplicates: {}, decontaminate: true}",
    )  # fmt: skip
    return load_recipe(SynthesisRecipe, recipe_file("full/synth-instruct"), changes)


def test_sets() -> Any:
    """Texts of the shipped tasks."""
    from rba_bench.evaluation.task_texts import task_texts

    return task_texts(download=False)


def resident_mb(pid: int | str = "self") -> float:
    """Memory that a process holds; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0.0
    return int(fields[1]) * 4096 / 1e6


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """The most memory of this process, and of the largest worker, while the block runs."""
    most, ended = {"driver MB": 0.0, "largest worker MB": 0.0}, threading.Event()

    def look() -> None:
        going_on = True
        while going_on:
            going_on = not ended.wait(SAMPLED_S)
            most["driver MB"] = max(most["driver MB"], resident_mb())
            workers = [resident_mb(child.pid) for child in multiprocessing.active_children() if child.pid]
            most["largest worker MB"] = max([most["largest worker MB"], *workers])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def by_stage(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Milliseconds of the processor a row, and rows a second, of each stage alone in one process."""
    from rba_bench.synthesis.asking import ask_shard
    from rba_bench.synthesis.filtering import filter_shard
    from rba_bench.synthesis.pipeline import prepare_stages
    from rba_bench.synthesis.probe import MeasuredTeacher
    from rba_bench.synthesis.shards import clips_name
    from rba_bench.synthesis.speaking import SpeakJob, speak_shard

    recipe, watch = make_recipe(options, options.stage_rows), Stopwatch()
    teacher = MeasuredTeacher(TableTeacher(), watch)
    asker, shards, maker = prepare_stages(recipe, teacher, None, [], TABLE, test_sets=test_sets)
    before, candidates, number = None, 0, 0
    units: list[Any] = []
    while not shards.enough:
        with watch.timing("ask"):
            asked = {number: ask_shard(out, asker, number)}
        with watch.timing("filter"):
            before = filter_shard(out, shards, {}, before, number, asked.__getitem__)
            units += shards.units(out, number)
        candidates, number = candidates + recipe.round_size, number + 1
    for number, start in enumerate(range(0, len(units), recipe.shard_size)):
        part = tuple(units[start : start + recipe.shard_size])
        with watch.timing("speak"):
            speak_shard(SpeakJob(out, clips_name(number), "", part, start), maker)
    rows = len(units) * options.voices
    table = sum(watch.cpu_s.get(name, 0.0) for name in ("instructions", "answers"))
    spent = {"ask": watch.cpu_s["ask"] - table, "filter": watch.cpu_s["filter"]}
    spoken = maker.watch  # type: ignore[attr-defined]
    spent["speak"] = watch.cpu_s["speak"] - spoken.cpu_s["speech"]
    each = {stage: seconds / rows * 1e3 for stage, seconds in spent.items()}
    total, real = sum(each.values()), options.teacher_ms + options.tts_ms
    return {
        "rows": rows,
        "candidates": candidates,
        "usable": len(units),
        "CPU ms a row": each,
        "of these clips": spoken.cpu_s["clips"] / rows * 1e3,
        "rows/s of one core": {stage: 1e3 / ms for stage, ms in each.items()},
        "CPU ms a row, all": total,
        "overhead %": 100 * total / real,
    }


def timed(work: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Seconds on the wall, with processor time of this process and memory, of some work."""
    with watched() as most:
        began, cpu = time.perf_counter(), time.process_time()
        work()
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return seconds, {"driver CPU s": used, **most}


def whole(options: argparse.Namespace, out: Path) -> Iterator[dict[str, Any]]:
    """The run, then starting again without the last shard, then on the finished set."""
    from rba_bench.synthesis.pipeline import synthesize

    recipe = make_recipe(options, options.rows)

    def run() -> None:
        synthesize(
            recipe, out, teacher=TableTeacher(), engine=TABLE, workers=options.workers, test_sets=test_sets
        )

    seconds, most = timed(run)
    files = [file for file in out.rglob("*") if file.is_file()]
    disk = {"files": len(files), "GB": sum(file.stat().st_size for file in files) / 1e9}
    yield {
        "what": "the whole",
        "seconds": seconds,
        "rows/s": options.rows / seconds,
        **most,
        **disk,
    }
    (out / "manifest.json").unlink()
    max((out / "done").glob("part-*.json")).unlink()
    seconds, most = timed(run)
    yield {"what": "again, without the last shard", "seconds": seconds, **most}
    seconds, most = timed(run)
    yield {"what": "again, finished", "seconds": seconds, **most}


def main() -> None:
    """Parse and run; one line of JSON for each measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--voices", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stage-rows", type=int, default=20_000, help="0 leaves the first part out")
    parser.add_argument("--round-size", type=int, default=256)
    parser.add_argument("--shard-size", type=int, default=250)
    parser.add_argument("--teacher-ms", type=float, default=0.0, help="time of teacher a row")
    parser.add_argument("--tts-ms", type=float, default=SECONDS / 19 * 1e3)
    parser.add_argument("--out", type=Path, help="by default a temporary folder")
    parser.add_argument("--keep", action="store_true", help="do not remove the set")
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="synthesis-scale-"))
    try:
        if options.stage_rows:
            print(json.dumps(by_stage(options, folder / "stages")), flush=True)
            shutil.rmtree(folder / "stages")
        if options.rows:
            for line in whole(options, folder / "set"):
                print(json.dumps(line), flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
