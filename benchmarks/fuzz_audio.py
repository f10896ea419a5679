"""Damaged clips through the decoder: each must give samples or AudioError, in bounded time and memory.

    PYTHONPATH=. python benchmarks/fuzz_audio.py [NUMBER] [SEED]

Every clip is decoded in a child process that may hold 1.5 GiB more than it does before the first clip; a child that
dies is a crash, named by the clip it died on. Prints a table: how each kind of damage ended, the slowest clip, and the
most memory.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.audio.codec_clips import codec_seeds
from tests.audio.mutations import mutants

ADDRESS = re.compile("0x[0-9a-f]{9,}")  # in a message: equal damage must read equal
ROOM = 1_500 * 2**20  # bytes


def child(folder: Path, first: int, number: int, seed: int) -> None:
    from rba_bench.audio.clips import AudioError, AudioRef, decode_clip

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    cases = list(mutants(number, seed, codec_seeds()))
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    with (folder / "told.jsonl").open("a") as out:
        for index in range(first, number):
            name, data = cases[index]
            out.write(json.dumps({"start": index, "name": name}) + "\n")
            out.flush()
            os.fsync(out.fileno())
            started, ends = time.perf_counter(), []
            for what in (
                lambda data=data: len(decode_clip(data)) > 0,
                lambda data=data: AudioRef.of(data, "x"),
            ):
                try:
                    what()
                    ends.append("heard")
                except AudioError as error:
                    ends.append("refused")
                    assert str(error).isprintable() and not ADDRESS.search(str(error)), error
                except Exception as error:  # noqa: BLE001 - this is what is looked for
                    ends.append(f"CRASH {type(error).__name__}: {error}"[:200])
            told = {"index": index, "name": name, "ends": ends, "s": time.perf_counter() - started}
            told["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            out.write(json.dumps(told) + "\n")


def main(number: int = 1_000, seed: int = 1) -> int:
    found, died, first = [], [], 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        while first < number:
            command = [sys.executable, __file__, "--child", name, str(first), str(number), str(seed)]
            code = subprocess.run(command, cwd=name, stderr=subprocess.DEVNULL).returncode
            lines = [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]
            found = [line for line in lines if "index" in line]
            last = lines[-1]
            if code == 0 and "index" in last and last["index"] == number - 1:
                break
            died.append(f"{last['name']}: exit {code}")
            first = last.get("start", last.get("index", first)) + 1
    table: dict[str, Counter[str]] = {}
    for one in found:
        kind = one["name"].partition(": ")[2]
        table.setdefault(kind, Counter())[one["ends"][0].partition(" ")[0]] += 1
    print("| damage | heard | refused | crashed |\n|---|--:|--:|--:|")
    for kind, ends in table.items():
        print(f"| {kind} | {ends['heard']} | {ends['refused']} | {ends['CRASH']} |")
    slow = max(found, key=lambda one: one["s"])
    rss = [one["rss"] for one in found]
    crashes = [f"{one['name']}: {end}" for one in found for end in one["ends"] if end.startswith("CRASH")]
    print(f"\n{len(found)} clips; slowest {slow['s']:.2f} s ({slow['name']}); ", end="")
    print(
        f"peak memory {max(rss) / 2**20:.0f} MiB, {(max(rss) - rss[0]) / 2**20:.0f} MiB more than after the first clip"
    )
    print("\n".join(crashes + [f"died: {one}" for one in died]) or "no crash")
    return int(bool(crashes or died))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), *map(int, sys.argv[3:6]))
    else:
        sys.exit(main(*map(int, sys.argv[1:3])))
