"""Write the teacher's texts of the track `small`: `instructions.jsonl` and `alignment.jsonl` in `rba_bench/small/data`.

    python dev/make_small_texts.py --work runs/small-texts

SmolLM2-135M-Instruct is asked through a server of llama.cpp (package `xllamacpp`), in three resumable steps: it writes
instructions from its bare query template (Magpie, Xu et al. 2024), and questions from that template and a first word;
filters drop what cannot be said, what is broken, and what stands in a set of the track; it answers. A server that
answers many requests at once rounds differently each time, so another run gives similar texts, not the same: the files
in the repository are the ones that all published results were made with.
"""

import argparse
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx

from rba_bench.files import canonical_json, read_jsonl, sha256_bytes, write_atomic
from rba_bench.metrics.text import normalize
from rba_bench.progress import say
from rba_bench.small.texts import SPLITS, load_items
from rba_bench.small.training_texts import is_told
from rba_bench.synthesis.filters import tidy, tidy_lines
from rba_bench.synthesis.texts.speakable import is_malformed, needs_maths, unspeakable
from rba_bench.textlm.weights import local_folder

DATA = Path(__file__).parents[1] / "rba_bench" / "small" / "data"
MODEL = "asset:smollm2-135m-instruct"
PORT = 8123
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # of its chat template
OPENING = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
ENDING = "<|im_end|>\n<|im_start|>assistant\n"
STARTS = (
    "Who", "What", "When", "Where", "Which", "How many", "How", "Why", "What is the", "Who was the", "In which", "Name",
    "Is", "Does", "What year", "Tell me", "Give me", "List", "Explain", "Write", "Describe", "Can you",
)  # fmt: skip
SAMPLING = {"temperature": 0.9, "top_p": 0.95, "top_k": 0, "min_p": 0, "repeat_penalty": 1.0}
GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0}
BRIEFLY = " Please answer briefly, in at most three sentences."  # what is spoken asks for short answers
LONGEST_ANSWER = 128  # tokens; an answer that has no end by then is dropped
IN_FLIGHT = 16


def start_server(threads: int) -> Any:
    """A server of llama.cpp in this process; it must be kept."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = str(next(Path(local_folder_of_gguf()).glob("*.gguf")))
    params.n_parallel, params.n_ctx, params.port = IN_FLIGHT, 512 * IN_FLIGHT, PORT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    return Server(params)


def local_folder_of_gguf() -> Path:
    """Folder of the asset's GGUF file, fetched if need be."""
    from rba_bench.assets import find_asset

    local_folder(MODEL, "teacher")
    return find_asset(MODEL).folder()


def ask(
    requests: list[dict[str, Any]], path: Path, request: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Send what is not in `path` yet; a line for each reply, with what was asked."""
    done = {row["key"] for row in read_jsonl(path)} if path.exists() else set()
    missing = [row for row in requests if row["key"] not in done]
    lock = threading.Lock()
    with (
        open(path, "a", encoding="utf-8") as log,
        httpx.Client(timeout=600) as client,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
    ):

        def send(row: dict[str, Any]) -> None:
            reply = client.post(
                f"http://127.0.0.1:{PORT}/v1/completions", json=request(row)
            ).raise_for_status()
            choice = reply.json()["choices"][0]
            line = {**row, "text": row.get("start", "") + choice["text"], "finish": choice["finish_reason"]}
            with lock:
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
                log.flush()

        list(pool.map(send, missing))


def instruction_request(row: dict[str, Any]) -> dict[str, Any]:
    """Sample an instruction, or the rest of a question that begins with `start`."""
    start = row.get("start", "")
    stop = ["<|im_end|>", *(["\n"] if start else [])]
    size = {"max_tokens": 32 if start else 64, "seed": row["seed"], "stop": stop, "cache_prompt": True}
    return {"prompt": OPENING + start, **SAMPLING, **size}


def answer_request(row: dict[str, Any]) -> dict[str, Any]:
    """Answer greedily."""
    told = row["instruction"] + (BRIEFLY if row["kind"] == "instruct" else "")
    return {"prompt": OPENING + told + ENDING, "max_tokens": LONGEST_ANSWER, **GREEDY, "stop": ["<|im_end|>"]}


def usable(rows: list[dict[str, Any]]) -> tuple[list[str], Counter[str]]:
    """Instructions that can be said, without repetitions and texts of the track's sets; and why others were dropped."""
    taken = {
        normalize(item.text)
        for name, splits in SPLITS.items()
        for split in splits
        for item in load_items(name, split)
    }
    kept, reasons = [], Counter[str]()
    for row in sorted(rows, key=lambda row: row["seed"]):
        text = tidy(row["text"])
        reason = _fault(text, row["finish"])
        if reason is None and normalize(text) in taken:
            reason = "duplicate"
        reasons[reason or "kept"] += 1
        if reason is None:
            taken.add(normalize(text))
            kept.append(text)
    return kept, reasons


def _fault(text: str, finish: str) -> str | None:
    if finish != "stop":
        return "truncated"
    if is_malformed(text) or not text or not text[0].isupper() or text[-1] not in ".?!":
        return "malformed"
    if not is_told(text):
        return "too_long"
    return unspeakable(text) or ("maths" if needs_maths(text) else None)


def to_answer(instructions: list[str]) -> Iterator[dict[str, Any]]:
    """The lines of the alignment set, still without answers: instructions, and the train splits of the track."""
    for text in instructions:
        key = f"magpie-{sha256_bytes(text.encode())[:12]}"
        yield {"key": key, "id": key, "kind": "instruct", "instruction": text}
    for item in load_items("small_qa", "train"):
        yield {
            "key": item.key,
            "id": item.key,
            "kind": "qa",
            "instruction": item.text,
            "references": list(item.references),
        }
    for item in load_items("small_instruct", "train"):
        yield {
            "key": item.key,
            "id": item.key,
            "kind": "ifeval",
            "instruction": item.text,
            "constraints": item.constraints,
        }


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line of JSON for each row."""
    write_atomic(path, (canonical_json(row).decode() + "\n" for row in rows))


def main() -> None:
    """Ask, filter, answer, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of replies; the same one goes on")
    parser.add_argument("--instructions", type=int, default=3000, help="sampled from the bare query template")
    parser.add_argument("--questions", type=int, default=1500, help="sampled from a first word")
    parser.add_argument("--answered", type=int, default=1800, help="instructions that are answered")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-server", action="store_true", help=f"one listens on port {PORT} already")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    server = None if args.no_server else start_server(args.threads)
    bare = [{"key": f"i{n}", "seed": 1000 + n} for n in range(args.instructions)]
    started = [
        {"key": f"q{n}", "seed": 200_000 + n, "start": STARTS[n % len(STARTS)]} for n in range(args.questions)
    ]
    ask(bare, args.work / "instructions.jsonl", instruction_request)
    ask(started, args.work / "questions.jsonl", instruction_request)
    told, reasons = usable(list(read_jsonl(args.work / "instructions.jsonl")))
    both, all_reasons = usable(
        [*read_jsonl(args.work / "instructions.jsonl"), *read_jsonl(args.work / "questions.jsonl")]
    )
    say(f"instructions {dict(reasons)}, with questions {dict(all_reasons)}")
    write_lines(DATA / "instructions.jsonl", [{"instruction": text} for text in both])
    lines = list(to_answer(told[: args.answered]))
    ask(lines, args.work / "answers.jsonl", answer_request)
    replies = {row["key"]: row for row in read_jsonl(args.work / "answers.jsonl")}
    answered = []
    for line in lines:
        reply = replies[line.pop("key")]
        answer = tidy_lines(reply["text"])
        if reply["finish"] == "stop" and answer and not is_malformed(answer):
            answered.append({**line, "answer": answer})
    say(f"answered {dict(Counter(line['kind'] for line in answered))} of {len(lines)}")
    write_lines(DATA / "alignment.jsonl", answered)
    del server


if __name__ == "__main__":
    main()
