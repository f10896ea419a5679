"""Answers a second of the generation engine beside transformers' `generate`, and what sampling costs.

    python benchmarks/generation_speed.py [--model FOLDER] [--batch 32 64] [--rows-per-slot 4] [--rounds 1]
    python benchmarks/generation_speed.py --sampling [--vocabulary 49152 151936]

A text model of SmolLM2-135M's shape (random weights, unless a folder is given), prompts of 25 to 60 tokens that begin
with the same 20, answers of given lengths: geometric with mean 60, cut at 256. Both contestants decode greedily, end
each row at its given length, and must draw the same tokens; `generate` gets batches of prompts of like length. They
take turns, and the median of `--rounds` counts. The second form times tokens of the engine alone: greedy, sampled,
sampled from a nucleus.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from rba_bench.textlm.draws import TokenSampler
from rba_bench.textlm.engine_support import causal_lm_decoder
from rba_bench.textlm.generation import GenerationRequest, generate_tokens, prompts_of_ids

SHAPE = {  # HuggingFaceTB/SmolLM2-135M-Instruct, config.json
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
}
VOCABULARY = 49152
MEAN, CAP = 60, 256
START, REST = 20, (5, 40)
SAMPLED_ROWS, SAMPLED_TOKENS = 32, 12
SETTINGS = {"greedy": (0.0, 1.0), "T = 1": (1.0, 1.0), "T = 0.7, p = 0.9": (0.7, 0.9)}  # temperature, top_p


def make_model(folder: Path | None, vocabulary: int = VOCABULARY) -> Any:
    """The model of a folder, or random weights."""
    if folder is not None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=vocabulary, **SHAPE))
    model.generation_config = GenerationConfig()
    return model.eval()


def make_work(n: int, vocabulary: int) -> tuple[list[list[int]], list[int]]:
    """Prompts, and how many tokens each answer has."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randint(vocabulary, (START,), generator=generator).tolist()
    sizes = torch.randint(REST[0], REST[1] + 1, (n,), generator=generator).tolist()
    prompts = [start + torch.randint(vocabulary, (size,), generator=generator).tolist() for size in sizes]
    lengths = torch.empty(n).geometric_(1 / MEAN, generator=generator).clamp_(2, CAP).long().tolist()
    return prompts, lengths


class GivenLengths(StoppingCriteria):
    """Ends each row of a batch after its own number of tokens."""

    def __init__(self, start: int, lengths: list[int]) -> None:
        self.ends = start + torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """[B] whether a row is done."""
        return input_ids.shape[1] >= self.ends.to(input_ids.device)


def by_generate(model: Any, prompts: list[list[int]], lengths: list[int], batch: int) -> list[list[int]]:
    """Tokens of all rows, batch by batch, prompts of like length together."""
    drawn: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in rows]).to(model.device)
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows])
        given = [lengths[i] for i in rows]
        output = model.generate(
            input_ids=ids,
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=max(given),
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([GivenLengths(width, given)]),
        )
        for i, row in zip(rows, output[:, width:].tolist(), strict=True):
            drawn[i] = row[: lengths[i]]
    return drawn


def by_engine(
    model: Any,
    prompts: list[list[int]],
    lengths: list[int],
    batch: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> list[list[int]]:
    """The same by the engine."""
    decoder = causal_lm_decoder(model)
    if decoder is None:
        raise SystemExit("the engine cannot drive this model")
    # the engine draws one token more than an answer may have, to see whether it ends
    asked = [GenerationRequest(i, i, length - 1) for i, length in enumerate(lengths)]
    found = generate_tokens(
        decoder,
        prompts_of_ids(prompts, decoder.words, model.device),
        asked,
        TokenSampler(temperature, top_p),
        CAP,
        (),
        batch,
    )
    return [one.tokens for one in found]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    made = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, made


def compare(model: Any, batch: int, rows: int, rounds: int) -> str:
    """One line of the table: rows a second of both contestants."""
    prompts, lengths = make_work(rows, model.config.vocab_size)
    contestants = {"generate": by_generate, "engine": by_engine}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    tokens: dict[str, list[list[int]]] = {}
    for contestant in contestants.values():
        contestant(model, prompts[:2], [3, 3], 2)
    for _ in range(rounds):
        for name, contestant in contestants.items():
            spent, tokens[name] = timed(partial(contestant, model, prompts, lengths, batch))
            seconds[name].append(spent)
    # the engine keeps one token less: it draws one more than an answer may have
    pairs = zip(tokens["generate"], tokens["engine"], strict=True)
    equal = sum(stock[: len(ours)] == ours for stock, ours in pairs)
    slow, fast = (statistics.median(seconds[name]) for name in contestants)
    return (
        f"| {batch} | {rows} | {sum(lengths)} | {rows / slow:.2f} | {rows / fast:.2f} | {slow / fast:.2f} | "
        f"{equal} of {rows} |"
    )


def sampling(vocabulary: int, folder: Path | None, rounds: int) -> str:
    """One line of the table: a token of all rows, greedy, sampled, and sampled from a nucleus."""
    model = make_model(folder if vocabulary == VOCABULARY else None, vocabulary)
    prompts = [prompt[: START + REST[0]] for prompt in make_work(SAMPLED_ROWS, vocabulary)[0]]
    lengths = [SAMPLED_TOKENS] * SAMPLED_ROWS
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    by_engine(model, prompts, [2] * SAMPLED_ROWS, SAMPLED_ROWS)
    for _ in range(rounds):
        for name, (temperature, top_p) in SETTINGS.items():
            work = partial(by_engine, model, prompts, lengths, SAMPLED_ROWS, temperature, top_p)
            found[name].append(timed(work)[0] / SAMPLED_TOKENS * 1e3)
    middle = {name: statistics.median(values) for name, values in found.items()}
    times = " | ".join(f"{value / middle['greedy']:.2f}" for value in list(middle.values())[1:])
    return f"| {vocabulary} | " + " | ".join(f"{value:.0f}" for value in middle.values()) + f" | {times} |"


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--rows-per-slot", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sampling", action="store_true")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[VOCABULARY, 151936])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        if options.sampling:
            names = list(SETTINGS)
            head = [
                "vocabulary",
                *(f"{name}, ms" for name in names),
                *(f"{name}, times greedy" for name in names[1:]),
            ]
            lines = (sampling(size, options.model, options.rounds) for size in options.vocabulary)
        else:
            head = ["batch", "rows", "tokens", "`generate` rows/s", "engine rows/s", "times", "equal answers"]
            model = make_model(options.model).to(options.device)
            sizes = ((batch, batch * options.rows_per_slot) for batch in options.batch)
            lines = (compare(model, batch, rows, options.rounds) for batch, rows in sizes)
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
