"""Speed of the parts of synthesis with real voices, recogniser and teacher.

    python benchmarks/synthesis_speed.py [--part espeak piper whisper ask all] [--repeats 3] [--clips 64]

    espeak, piper   the whole way of a clip: voice, checks, speed, noise, FLAC, parquet and its marker; in this process,
                    then with 1 and 2 workers. `features` is apart: log-mel is computed in training, and not stored.
    whisper         the round trip of these clips through asset:whisper-tiny.en in batches of 16,
                    in float32 and bfloat16, with whole windows and with 10 s of silence behind the clip
    ask             instructions (sampled) and answers (greedy) of asset:smollm2-135m-instruct, by our engine and by
                    `generate` of transformers on padded batches of the same size with the same settings
    all             recipes/synth-small.yaml from start to end: usable instructions an hour

Each part runs alone, and prints one line of JSON for each measurement and a table at the end; the median of the repeats
counts. `x real time` is seconds of speech by seconds: of the wall, and of the processor, where other work on the
machine disturbs little. Run it on an idle machine, with OMP_NUM_THREADS=1 for figures of one core. Assets must be there
(`rba-bench assets fetch`).
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from rba_bench.files import read_json
from rba_bench.recipes import load_recipe, recipe_file
from rba_bench.synthesis.shards import clips_name
from rba_bench.synthesis.speaking import RowMaker, ShardSpeaker, SpeakJob, speak_shard
from rba_bench.synthesis.speech import SpokenClips
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.units import Unit, text_id

TEXTS = (
    "What is the capital of France, and how did it become so important in the history of Europe?",
    "Give me three tips for better sleep.",
    "Can you explain how photosynthesis works to a child of ten years?",
    "I paid $1,200 on 3/15/2024 for a flight of 5 hours: was that too much?",
    "Write a short story about a dog who finds an old map in the garden.",
    "How do I ask my neighbour to turn the music down without being rude?",
)
VOICES = {"espeak": "clear-train", "piper": "natural"}
WORKERS = (1, 2)
UNITS_A_SHARD = 16
MODEL = "asset:smollm2-135m-instruct"
COLUMNS = ("part", "what", "wall s", "CPU s", "result", "unit")


class Clock:
    """Wall and processor time of some work, the median of several turns."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats

    def take(self, work: Callable[[], Any]) -> tuple[float, float]:
        """Seconds on the wall, and of the processor in this process."""
        found = []
        for _ in range(self.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            found.append((time.perf_counter() - wall, time.process_time() - cpu))
        walls, cpus = zip(*found, strict=True)
        return statistics.median(walls), statistics.median(cpus)


def units(n: int) -> list[Unit]:
    """Instructions to speak; a number behind each keeps them apart."""
    texts = [f"{TEXTS[i % len(TEXTS)]} {i}." for i in range(n)]
    return [Unit(text_id(text), "train", "instruct", "", text, "", "en", "en", "", "") for text in texts]


def speaking_recipe(voices: str) -> SynthesisRecipe:
    """One clip for each instruction, with the checks and the noise of `synth-small`, without round trip."""
    changes = (f"voices=[{voices}]", "voices_per_instruction=1", "round_trip=null")
    return load_recipe(SynthesisRecipe, recipe_file("synth-small"), changes)


def speak_here(maker: RowMaker, said: list[Unit], out: Path) -> None:
    """All shards in this process."""
    for number, start in enumerate(range(0, len(said), UNITS_A_SHARD)):
        part = tuple(said[start : start + UNITS_A_SHARD])
        speak_shard(SpeakJob(out, clips_name(number), "", part, start), maker)


def speak_in_workers(maker: RowMaker, said: list[Unit], out: Path, workers: int) -> float:
    """Seconds from when all workers have spoken once to the end."""
    with ShardSpeaker(maker, workers, lambda *_: None) as speaker:
        for number in range(2 * workers):  # loads voices in each; a fast one may take two
            speaker.hand_in(SpeakJob(out, clips_name(9000 + number), "", tuple(said[:4]), 0))
        speaker.finish()
        began = time.perf_counter()
        for number, start in enumerate(range(0, len(said), UNITS_A_SHARD)):
            part = tuple(said[start : start + UNITS_A_SHARD])
            speaker.hand_in(SpeakJob(out, clips_name(number), "", part, start))
        speaker.finish()
        return time.perf_counter() - began


def seconds_in(out: Path) -> float:
    """Of speech in the shards of a folder."""
    import pyarrow.parquet as pq

    files = out.rglob("part-0[0-8]*.parquet")
    return sum(sum(pq.read_table(file, columns=["duration"])["duration"].to_pylist()) for file in files)


def speech_part(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """An engine."""
    maker, said = SpokenClips(speaking_recipe(VOICES[name])), units(options.clips)
    out, found = Path(tempfile.mkdtemp()), []
    try:
        maker.shard(said[:8], 0)
        wall, cpu = Clock(options.repeats).take(lambda: speak_here(maker, said, out))
        speech = seconds_in(out)
        found.append(row(name, "whole way, this process, wall", wall, cpu, speech / wall, "x real time"))
        found.append(row(name, "whole way, a core", wall, cpu, speech / cpu, "x real time"))
        for workers in WORKERS:
            turns = [speak_in_workers(maker, said, out, workers) for _ in range(options.repeats)]
            wall = statistics.median(turns)
            found.append(row(name, f"whole way, {workers} workers", wall, None, speech / wall, "x real time"))
        if name == "espeak":
            found.append(features_row(said, options))
    finally:
        shutil.rmtree(out)
    return found


@cache
def waves(n: int, voices: str) -> list[Any]:
    """Clips as the recogniser gets them."""
    from rba_bench.audio.clips import decode_clip

    rows = SpokenClips(speaking_recipe(voices)).shard(units(n), 0).rows
    return [decode_clip(row["audio"]["bytes"]) for row in rows]


def features_row(said: list[Unit], options: argparse.Namespace) -> dict[str, Any]:
    """Log-mel features of the clips, in batches, as training computes them."""
    from rba_bench.speechlm.composite.processing import LogMelFeatureExtractor

    clips, mel = waves(len(said), VOICES["espeak"]), LogMelFeatureExtractor()
    batches = [clips[start : start + UNITS_A_SHARD] for start in range(0, len(clips), UNITS_A_SHARD)]
    wall, cpu = Clock(options.repeats).take(lambda: [mel(batch) for batch in batches])
    speech = sum(map(len, clips)) / 16_000
    return row("espeak", "log-mel features, apart", wall, cpu, speech / cpu, "x real time")


def whisper_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The recogniser on clips of both voices."""
    from rba_bench.speechlm.recognizers import load_recognizer

    half = options.clips // 2
    clips = [*waves(half, VOICES["espeak"]), *waves(half, VOICES["piper"])]
    speech, found = sum(map(len, clips)) / 16_000, []
    for dtype, silence_s in product((None, "bfloat16"), (None, 10.0)):
        recognizer = load_recognizer("asset:whisper-tiny.en", batch_size=16, dtype=dtype, silence_s=silence_s)
        recognizer.transcribe(clips[:2])
        wall, cpu = Clock(options.repeats).take(partial(recognizer.transcribe, clips))
        window = "30 s" if silence_s is None else f"clip and {silence_s:g} s"
        name = f"{len(clips)} clips of {speech / len(clips):.1f} s, {dtype or 'float32'}, window {window}"
        found.append(row("whisper", f"{name}, wall", wall, cpu, speech / wall, "x real time"))
        found.append(row("whisper", f"{name}, a core", wall, cpu, speech / cpu, "x real time"))
    return found


def ask_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Our engine beside `generate`: instructions from the template alone, then answers to them."""
    from rba_bench.synthesis.teacher import load_teacher, response_decoding, sample_candidates
    from rba_bench.textlm.text_model import Decoding

    recipe = load_recipe(SynthesisRecipe, recipe_file("synth-small"), (f"round_size={options.rows}",))
    teacher = load_teacher(recipe)
    sampling = Decoding(
        recipe.instruction_max_new_tokens, recipe.instruction_temperature, recipe.instruction_top_p
    )
    opening, seeds = teacher.pre_query_template(), list(range(options.rows))
    turns = [
        f"{one['text']}{recipe.answer_prompt}"
        for one in sample_candidates(teacher, recipe, 0)
        if one["status"] == "ok"
    ]
    greedy, clock, found = response_decoding(recipe), Clock(options.repeats), []
    contests: list[tuple[str, int, Callable[[], Any], Callable[[], Any]]] = [
        ("instructions", options.rows, lambda: teacher.complete([opening] * options.rows, sampling, seeds),
         lambda: stock(teacher, [opening] * options.rows, sampling, recipe.batch_size)),
        ("answers", len(turns), lambda: teacher.chat(turns, greedy, seeds[: len(turns)]),
         lambda: stock(teacher, [teacher._render([turn]) for turn in turns], greedy, recipe.batch_size)),
    ]  # fmt: skip
    total = {"engine": 0.0, "generate": 0.0}
    for what, rows, ours, theirs in contests:
        times = {name: clock.take(work) for name, work in (("engine", ours), ("generate", theirs))}
        for name, (wall, cpu) in times.items():
            found.append(row("ask", f"{what}, {name}", wall, cpu, rows / wall, "rows/s"))
            total[name] += wall
        ratio = times["generate"][0] / times["engine"][0]
        found.append(row("ask", f"{what}, engine by generate", None, None, ratio, "times"))
    ratio = total["generate"] / total["engine"]
    return [*found, row("ask", "candidates, engine by generate", None, None, ratio, "times")]


def stock(teacher: Any, prompts: list[str], decoding: Any, batch: int) -> None:
    """The same by transformers alone: batches padded on the left, ended where the last row ends."""
    import torch

    rows = sorted((teacher._ids(prompt) for prompt in prompts), key=len)
    asked = (
        {"do_sample": False}
        if decoding.greedy
        else {
            "do_sample": True,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": 0,
        }
    )
    torch.manual_seed(0)
    for start in range(0, len(rows), batch):
        with torch.inference_mode():
            teacher.model.generate(
                **teacher.pad(rows[start : start + batch]),
                max_new_tokens=decoding.max_new_tokens,
                eos_token_id=teacher.chat_stops,
                pad_token_id=teacher.pad_id,
                **asked,
            )


def whole_part(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The recipe `synth-small` for fewer instructions, as the command runs it."""
    from rba_bench.stages import make_set

    out = Path(tempfile.mkdtemp()) / "set"
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        changes = [f"n_instructions={options.instructions}", *options.set]
        make_set("synth-small", changes, out, options.workers)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu  # without that of the workers
        groups = read_json(out / "manifest.json")["counts"]["groups"]
    finally:
        shutil.rmtree(out.parent)
    return [
        row("all", f"{groups} instructions, {options.workers} workers", wall, cpu, groups / wall * 3600,
            "usable instructions an hour")
    ]  # fmt: skip


def row(
    part: str, what: str, wall: float | None, cpu: float | None, result: float, unit: str
) -> dict[str, Any]:
    """One measurement, printed at once."""
    made = dict(zip(COLUMNS, (part, what, wall, cpu, result, unit), strict=True))
    print(json.dumps(made), flush=True)
    return made


def main() -> None:
    """Parse and run."""
    parts = {"espeak": lambda o: speech_part("espeak", o), "piper": lambda o: speech_part("piper", o),
             "whisper": whisper_part, "ask": ask_part, "all": whole_part}  # fmt: skip
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rows", type=int, default=64, help="candidates of the part ask")
    parser.add_argument("--instructions", type=int, default=60, help="of the part all")
    parser.add_argument("--workers", type=int, default=2, help="of the part all")
    parser.add_argument("--set", nargs="+", default=[], help="of the part all: other keys of the recipe")
    options = parser.parse_args()
    found = [line for name in options.part for line in parts[name](options)]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for line in found:
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell or "") for cell in line.values()]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
