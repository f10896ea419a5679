"""What the trainer reaches on one GPU with a model of Qwen2-Audio-7B's shape: one command, under 8 minutes.

    python benchmarks/gpu.py --out runs/gpu                                     one H100 or H200
    python benchmarks/gpu.py --out runs/gpu --shape tiny --device cpu --budget 60   tries the code path, 1 minute

In this order, each part within its share of the time, and `gpu.json` and `gpu.md` written after each, so that an abort
keeps what was measured: the rate of a plain matrix product (the ceiling); SFT, DPO, RBA-Single and RBA-Group steps by
the trainer's own wiring (LoRA on all linear layers of the LLM and the whole projector, weights in bfloat16, fresh clips
in every step); the rollout engine against transformers' `generate`; a profile of RBA-Single steps (`profile.txt`).

Weights are random, so no answer ends by itself: every 60th token is taken for an end token, which makes sampled answers
geometrically long (mean 60) up to the cap. Operations are counted by torch in one step that is not timed: matrix
products and attention as they are computed, padding and recomputation included. Per timed step the same number is
assumed; sampled lengths, and so operations, vary a little. "Of the ceiling" divides by the measured matrix product.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from gpu_clock import Clock, synchronize  # noqa: E402
from gpu_model import SHAPES, Shape, make_family, write_set  # noqa: E402

METHODS = ("sft", "dpo", "rba-single", "rba-group")
# Share of the time by part; what a part leaves over is nobody's
SHARES = {"matmul": 0.03, **dict.fromkeys(METHODS, 0.12), "generation": 0.2, "profile": 0.25}


class Report:
    """Results on disk, whole after each part.

    Args:
        out: folder.
        facts: what was measured where.
    """

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        self.out = out
        self.found: dict[str, Any] = {"setup": facts}

    def add(self, name: str, values: dict[str, Any]) -> None:
        """Take over a part's results and write everything."""
        self.found[name] = values
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n")
        (self.out / "gpu.md").write_text(self.markdown())
        print(f"{name}: {json.dumps(values)}", file=sys.stderr, flush=True)

    def markdown(self) -> str:
        """The tables for `RESULTS.md`."""
        setup = self.found["setup"]
        lines = [f"`{setup['command']}` on {setup['device']}, torch {setup['torch']}: {setup['shape']}", ""]
        ceiling = self.found.get("matmul", {}).get("tflops")
        if ceiling:
            lines += [f"Matrix product of {setup['dtype']}: {ceiling:.1f} TFLOP/s.", ""]
        lines += [
            "| method | s a step | rollout s | encoder s | clips/s | TFLOP/s | of the ceiling | peak GiB |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for name in METHODS:
            row = self.found.get(name)
            if row is None or "failed" in row:
                lines.append(f"| {name} | {'not run' if row is None else row['failed']} | | | | | | |")
                continue
            share = f"{row['tflops'] / ceiling:.0%}" if ceiling else ""
            lines.append(
                f"| {name} | {row['step_s']:.3f} | {row['rollout_s']:.3f} | {row['encoding_s']:.3f} | "
                f"{row['clips_per_s']:.1f} | {row['tflops']:.2f} | {share} | {row['peak_gib']:.1f} |"
            )
        lines += ["", "| rollout | rows/s | tokens/s |", "|---|---|---|"]
        for name, row in self.found.get("generation", {}).items():
            if isinstance(row, dict):
                lines.append(f"| {name} | {row['rows_per_s']:.2f} | {row['tokens_per_s']:.0f} |")
        return "\n".join(lines) + "\n"


def matmul(device: str, seconds: float, size: int) -> dict[str, Any]:
    """TFLOP/s of square products in bfloat16, the best of several sizes."""
    import torch

    best, at = 0.0, 0
    for n in (size // 2, size):
        a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(2):
            a @ b
        synchronize(device)
        started, times = time.perf_counter(), 0
        while times < 3 or time.perf_counter() - started < seconds / 4:
            a @ b
            times += 1
            if times % 10 == 0:
                synchronize(device)
        synchronize(device)
        rate = 2 * n**3 * times / (time.perf_counter() - started) / 1e12
        best, at = max((best, at), (rate, n))
    return {"tflops": best, "size": at}


class Bench:
    """A model and a set, and runs of the trainer on them.

    Args:
        shape: of the model and the data.
        device: `cuda` or `cpu`.
        out: folder for the set.
    """

    def __init__(self, shape: Shape, device: str, out: Path) -> None:
        from rba_bench.training.data.groups import TrainingData, choices

        self.shape, self.device, self.out = shape, device, out
        self.folder = write_set(out / "set", shape)
        self.data = TrainingData.open(choices([{"path": str(self.folder)}]))

    def run(self, method: str, steps: int) -> Any:
        """The objects of a training run, wired as `rba-bench train` does it, around a fresh random model."""
        import torch

        from rba_bench.training import training_run as run
        from rba_bench.training.model import building as build

        torch.manual_seed(0)
        family = make_family(self.shape, self.device)
        plain, build.load_base = build.load_base, lambda *_, **__: family
        try:
            made = run._Run(
                self.recipe(method, steps), self.out, self.data, self.out, {"base_sha256": "random"}
            )
        finally:
            build.load_base = plain
        return made

    def recipe(self, method: str, steps: int) -> Any:
        """LoRA and projector; DPO on pairs sampled from nothing: RBA-Single with its reference."""
        from rba_bench.training.training_recipe import TrainingRecipe

        shape = self.shape
        return TrainingRecipe.model_validate(
            {
                "method": method,
                "base": "random",
                "alignment_set": str(self.folder),
                "steps": steps,
                "groups_per_step": shape.groups,
                "voices_per_group": shape.voices,
                "accumulate": shape.accumulate,
                "precision": "bfloat16",
                "lora": {"r": 16, "targets": ["all-linear"]},
                "train_parts": ["projector", "llm"],
                "max_new_tokens": shape.new_tokens,
                "rollout_batch": shape.rollout_batch,
                "save_every": 10**6,
                "reward": {"instruct": "chrf", "qa": "chrf", "s2tt": "chrf"},
                "cache_mb": 0,  # fresh clips, as in a first epoch
            }
        )

    def steps(self, method: str, seconds: float) -> dict[str, Any]:
        """Throughput of a method: a step to warm up, one in which operations are counted, then timed ones."""
        import torch

        from rba_bench.training.callbacks.training_callback import TrainingCallback

        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        deadline = time.perf_counter() + seconds
        run = self.run(method, self.shape.steps)
        trainer = run.trainer()
        trainer.add_callback(TrainingCallback(trainer))
        clock = Clock(trainer, run.store, self.device, deadline)
        trainer.add_callback(clock.callback())
        trainer.train()
        found = clock.result(self.shape.groups * self.shape.voices)
        found["parameters"] = sum(p.numel() for p in run.policy.parameters())
        found["trained"] = sum(p.numel() for p in run.policy.parameters() if p.requires_grad)
        found["peak_gib"] = self.peak_gib()
        return found

    def peak_gib(self) -> float:
        """Most memory held, of the device or of the process."""
        from rba_bench.training.machine import peak_memory

        return peak_memory(self.device) / 2**30

    def generation(self, seconds: float) -> dict[str, Any]:
        """Rows and tokens a second of sampling: the rollout of the trainer, and the model's own `generate`."""
        import torch

        run = self.run("rba-single", 1)
        trainer = run.trainer()
        rows = [row for rows in list(run.store.groups.values())[: self.shape.groups] for row in rows]
        clips = run.store.get(rows)
        requests = list(range(len(clips))) * max(1, self.shape.rollout_batch // len(clips))
        found: dict[str, Any] = {"rows": len(requests), "cap": self.shape.new_tokens}
        found["engine"] = self._rate(lambda: engine_rows(trainer, clips, requests), seconds / 2)
        with torch.no_grad():
            found["generate"] = self._rate(
                lambda: stock_rows(run.policy, run.family, clips, requests, self.shape.new_tokens),
                seconds / 2,
            )
        found["times"] = found["engine"]["rows_per_s"] / found["generate"]["rows_per_s"]
        return found

    def _rate(self, draw: Callable[[], list[int]], seconds: float) -> dict[str, float]:
        started = time.perf_counter()
        draw()  # to warm up
        synchronize(self.device)
        rows = tokens = 0
        spent = 0.0
        while not rows or time.perf_counter() - started + spent / max(1, rows) < seconds:
            at = time.perf_counter()
            lengths = draw()
            synchronize(self.device)
            spent += time.perf_counter() - at
            rows, tokens = rows + len(lengths), tokens + sum(lengths)
        return {"rows_per_s": rows / spent, "tokens_per_s": tokens / spent}

    def profile(self, seconds: float) -> dict[str, Any]:
        """Two steps of RBA-Single under torch's profiler: a table of the 20 operations that take longest."""
        from torch.profiler import ProfilerActivity, profile

        from rba_bench.training.callbacks.training_callback import TrainingCallback

        deadline = time.perf_counter() + seconds / 2  # the tables take their time too
        run = self.run("rba-single", 2)
        trainer = run.trainer()
        trainer.add_callback(TrainingCallback(trainer))
        clock = Clock(trainer, run.store, self.device, deadline, counts=False)
        trainer.add_callback(clock.callback())
        kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self.device == "cuda" else [])
        with profile(activities=kinds) as seen:
            trainer.train()
        averages = seen.key_averages()
        key = "self_device_time_total" if self.device == "cuda" else "self_cpu_time_total"
        table = averages.table(sort_by=key.replace("device", "cuda"), row_limit=20, max_name_column_width=60)
        (self.out / "profile.txt").write_text(table + "\n")
        top = sorted(averages, key=lambda one: -getattr(one, key))[:20]
        total = sum(getattr(one, key) for one in averages) or 1
        return {"steps": clock.steps, "top": [[one.key, one.count, getattr(one, key) / total] for one in top]}


def engine_rows(trainer: Any, clips: Any, requests: list[int]) -> list[int]:
    """Lengths of sampled answers, drawn as the trainer draws them."""
    from rba_bench.training.rollouts.rollout import Request

    asked = [Request(clip, seed, 1.0) for seed, clip in enumerate(requests)]
    return [len(draw.tokens) for draw in trainer.rollout_buffer.rollout.draw(clips, asked)]


def stock_rows(policy: Any, family: Any, clips: Any, requests: list[int], cap: int) -> list[int]:
    """The same by transformers' `generate` on the same merged embeddings."""
    import torch

    prompts = [clips[request].prompt_ids.tolist() for request in requests]
    ids, mask = (tensor.to(policy.device) for tensor in family.collate(prompts))
    order = torch.tensor(requests, device=policy.device)

    def draw() -> Any:
        return family.generator.generate(
            inputs_embeds=policy.embed(clips, ids, order),
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=cap,
            eos_token_id=family.stops,
            pad_token_id=family.pad_id,
        )

    ends = torch.isin(policy.inside(draw).cpu(), torch.tensor(family.stops))
    first = torch.where(ends.any(1), ends.int().argmax(1) + 1, ends.shape[1])
    return [int(length) for length in first]


def attempt(work: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    """A part's results, or why there are none: too little memory must not cost the others theirs."""
    import gc

    import torch

    try:
        return work()
    except (torch.OutOfMemoryError, RuntimeError, ValueError) as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    finally:
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    """Measure part after part."""
    import torch

    given = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    given.add_argument("--out", type=Path, required=True)
    given.add_argument("--shape", choices=SHAPES, default="qwen2-audio-7b")
    given.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given.add_argument("--budget", type=float, default=440.0, help="seconds for everything")
    given.add_argument("--parts", nargs="*", choices=list(SHARES), default=list(SHARES))
    options = given.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here: --shape tiny --device cpu tries the code path")
    options.out.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[options.shape]
    name = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    facts = {"device": name, "torch": torch.__version__, "shape": shape.words, "dtype": "bfloat16",
             "command": " ".join(["python benchmarks/gpu.py", *sys.argv[1:]])}  # fmt: skip
    report = Report(options.out, facts)
    ends = time.perf_counter() + options.budget
    bench = Bench(shape, options.device, options.out)
    work: dict[str, Callable[[float], dict[str, Any]]] = {
        "matmul": lambda seconds: matmul(options.device, seconds, shape.matmul),
        **{method: (lambda seconds, method=method: bench.steps(method, seconds)) for method in METHODS},
        "generation": bench.generation,
        "profile": bench.profile,
    }
    for part in options.parts:
        seconds = min(SHARES[part] * options.budget, ends - time.perf_counter())
        if seconds < 0.02 * options.budget:
            report.add(part, {"failed": "no time left"})
            continue
        report.add(part, attempt(lambda part=part, seconds=seconds: work[part](seconds), options.device))
    print(report.markdown())


if __name__ == "__main__":
    main()
