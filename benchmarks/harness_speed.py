"""Items a second of `rba-bench eval`, of a batch-1 `generate` loop and of lm-eval's own audio class.

    python benchmarks/harness_speed.py [--clips 32] [--repeats 5] [--tokens 32]

One tiny random Qwen2-Audio (encoder of the size of Whisper tiny), the same clips of 1 to 12 s, the same prompt, greedy
decoding, one process, all within one run: the contestants take turns, and medians are compared. Every contestant
starts from encoded clips on disk. lm-eval 0.4.13 cannot run its audio class; `lm_eval_class` says what is patched.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RATE = 16_000
PROMPT = "Translate the speech into German. Write only the translation."


def make_model(folder: Path) -> None:
    """A random Qwen2-Audio: 4 encoder layers of width 384, 4 decoder layers of width 256."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    from tests.speechlm.audiolm.conftest import make_tokenizer, save, text_config, whisper_features

    tokenizer = make_tokenizer()
    text = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
    encoder = {"encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "d_model": 384}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 80, **encoder},
        text_config={"model_type": "qwen2", **text_config(tokenizer, **text, initializer_range=0.08)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(whisper_features(), tokenizer)
    save(folder, lambda: Qwen2AudioForConditionalGeneration(config), processor)


def make_set(folder: Path, n: int) -> None:
    """CoVoST 2 layout with `n` spoken clips, 1 to 12 s."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.audio.clips import encode_flac
    from rba_bench.audio.espeak import BANKS, speak

    rng = np.random.default_rng(0)
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "tells",
        "a",
        "long",
        "story",
        "about",
        "rivers",
        "and",
        "mountains",
        "to",
        "every",
        "child",
        "in",
        "town",
    ]
    rows = []
    for i in range(n):
        seconds = rng.uniform(1, 12)
        text = " ".join(rng.choice(words, 60))
        wave = speak(text, "en", BANKS["test"][i % 6])[: int(seconds * RATE)]
        audio = {"bytes": encode_flac(wave), "path": f"{i}.flac"}
        row = {"client_id": "c", "file": f"{i}.flac", "audio": audio, "sentence": text}
        rows.append({**row, "translation": text, "id": str(i)})
    place = folder / "fixie-ai" / "covost2" / "en_de"
    place.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), place / "test-00000-of-00001.parquet", row_group_size=100)


def read_clips(data: Path) -> list[bytes]:
    """Encoded clips in the order of the set."""
    import pyarrow.parquet as pq

    [file] = data.rglob("*.parquet")
    return [row["audio"]["bytes"] for row in pq.read_table(file, columns=["audio"]).to_pylist()]


def rendered(processor: Any) -> str:
    """The prompt as the model's own chat template writes it."""
    content = [{"type": "audio", "audio": ""}, {"type": "text", "text": PROMPT}]
    return str(
        processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    )


def generate_loop(model_dir: Path, data: Path, tokens: int) -> Callable[[], list[str]]:
    """What a model card shows: processor, `generate`, decode, one clip at a time."""
    import torch
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    from rba_bench.audio.clips import decode_clip

    model = Qwen2AudioForConditionalGeneration.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    text = rendered(processor)

    def run() -> list[str]:
        answers = []
        for data_ in read_clips(data):
            inputs = processor(text=text, audio=decode_clip(data_), sampling_rate=RATE, return_tensors="pt")
            with torch.no_grad():
                ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
            fresh = ids[:, inputs["input_ids"].shape[1] :]
            answers.append(processor.batch_decode(fresh, skip_special_tokens=True)[0].strip())
        return answers

    return run


def lm_eval_class(model_dir: Path, data: Path, tokens: int, batch_size: int) -> Callable[[], list[str]]:
    """lm-eval's `hf-audiolm-qwen`, patched where it cannot run.

    (1) Its alias is registered twice, so the import fails: registration is skipped. (2) It passes `audios=`, which
    transformers 5 does not take, and no sampling rate. (3) It moves the input to "cuda" unconditionally.
    """
    import lm_eval.api.registry as registry
    import torch
    from lm_eval.api.instance import Instance

    from rba_bench.audio.clips import decode_clip

    register, registry.register_model = registry.register_model, lambda *names: lambda cls: cls
    from lm_eval.models.hf_audiolm import HFAUDIOLMQWEN

    registry.register_model = register

    class Patched(HFAUDIOLMQWEN):
        def tok_batch_multimodal_encode(self, strings: Any, audios: Any, **_: Any) -> Any:
            encoding = self.processor(
                audio=audios, text=strings, sampling_rate=RATE, padding=True, return_tensors="pt"
            )
            return encoding.to(self.device, self.model.dtype)

    lm = Patched(pretrained=str(model_dir), device="cpu", dtype="float32", batch_size=batch_size)
    context = rendered(lm.processor)
    kwargs = {"until": [], "max_gen_toks": tokens, "do_sample": False}
    original = torch.Tensor.to

    def to(self: Any, *args: Any, **kw: Any) -> Any:
        return self if args == ("cuda",) else original(self, *args, **kw)

    def run() -> list[str]:
        waves = [decode_clip(data_) for data_ in read_clips(data)]
        requests = [
            Instance(
                "generate_until",
                {},
                (context, kwargs, {"audio": [{"array": wave, "sampling_rate": RATE}]}),
                i,
            )
            for i, wave in enumerate(waves)
        ]
        torch.Tensor.to = to
        try:
            return [text.strip() for text in lm.generate_until(requests, disable_tqdm=True)]
        finally:
            torch.Tensor.to = original

    return run


class RbaBench:
    """`rba-bench eval` as a user runs it: documents, clips, answers, scores, samples on disk."""

    def __init__(self, model_dir: Path, data: Path, tokens: int, out: Path, **options: Any) -> None:
        self.model_dir, self.data, self.out, self.options = model_dir, data, out, options
        self.task = out / "task.yaml"
        out.mkdir(parents=True)
        self.task.write_text(
            f"include: {ROOT}/tasks/covost2/covost2_en_de.yaml\ntask: speed\n"
            f"dataset_kwargs: {{source: covost2, direction: en_de, prompt: '{PROMPT}'}}\n"
            f"generation_kwargs: {{protocol: greedy, max_gen_toks: {tokens}, until: []}}\n"
        )
        self.rounds = 0
        self.shares: list[dict[str, float]] = []

    def __call__(self) -> list[str]:
        """One whole run from nothing but the loaded model; loading the model is not timed by anybody."""
        from rba_bench.evaluation import runner
        from rba_bench.evaluation.records import read_samples

        self.rounds += 1
        out = self.out / str(self.rounds)
        request = runner.EvalRequest(
            (str(self.task),),
            str(self.model_dir),
            track="full",
            out=out,
            data_dir=self.data,
            device="cpu",
            use_cache=False,
            model_options=self.options,
        )
        [record] = runner.evaluate(request)
        self.shares.append(record.timing.shares)
        return [sample.extracted for sample in read_samples(out / record.model["name"] / record.run_id)]


def without_loading(contestant: RbaBench) -> Callable[[], tuple[float, list[str]]]:
    """Wall time of a run less the time of loading the model."""
    from rba_bench.speechlm import model_names as loading

    original = loading.load_speech_model
    spent = {"load": 0.0}

    def timed_load(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent["load"] += time.perf_counter() - started

    def run() -> tuple[float, list[str]]:
        spent["load"] = 0.0
        loading.load_speech_model = timed_load
        started = time.perf_counter()
        try:
            answers = contestant()
        finally:
            loading.load_speech_model = original
        return time.perf_counter() - started - spent["load"], answers

    return run


def timed(run: Callable[[], list[str]]) -> Callable[[], tuple[float, list[str]]]:
    """Wall time of a run."""

    def measured() -> tuple[float, list[str]]:
        started = time.perf_counter()
        answers = run()
        return time.perf_counter() - started, answers

    return measured


def main() -> None:
    """Print a Markdown table and what the answers have in common."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument(
        "--overhead-clips", type=int, default=256, help="of the run that shows where time goes"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RBA_CACHE"] = str(folder / "cache")
        make_model(folder / "model")
        make_set(folder / "data", given.clips)
        place = (folder / "model", folder / "data", given.tokens)
        ours = RbaBench(*place, folder / "ours")
        padded = RbaBench(*place, folder / "padded", true_length=False)
        contestants = {
            "`generate`, one clip at a time": timed(generate_loop(*place)),
            "lm-eval's audio class (patched), batch 1": timed(lm_eval_class(*place, 1)),
            "lm-eval's audio class (patched), batch 8": timed(lm_eval_class(*place, 8)),
            "`rba-bench eval --pad` (30 s, as the processor pads)": without_loading(padded),
            "`rba-bench eval`": without_loading(ours),
        }
        if given.repeats:
            compare(contestants, given.clips, given.repeats)
        report(folder, given)


def compare(contestants: dict[str, Any], clips: int, repeats: int) -> None:
    """Let the contestants take turns, and print medians and ratios."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, list[str]] = {}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            seconds, answers[name] = run()
            if turn:  # the first round warms up
                times[name].append(seconds)
    rates = {name: clips / statistics.median(spent) for name, spent in times.items()}
    first = next(iter(rates))
    print("| contestant | items/s (median) | least to most | x first | answers that differ from the first |")
    print("|---|---:|---:|---:|---:|")
    for name, rate in rates.items():
        span = f"{clips / max(times[name]):.2f} to {clips / min(times[name]):.2f}"
        differ = sum(a != b for a, b in zip(answers[name], answers[first], strict=True))
        print(f"| {name} | {rate:.2f} | {span} | {rate / rates[first]:.2f} | {differ} of {clips} |")


def report(folder: Path, given: argparse.Namespace) -> None:
    """Where the time goes in one run of more clips: reading the first batch weighs there what it weighs in life."""
    make_set(folder / "large", given.overhead_clips)
    whole = RbaBench(folder / "model", folder / "large", given.tokens, folder / "whole")
    seconds, _ = without_loading(whole)()
    rate = given.overhead_clips / seconds
    print(f"\n{given.overhead_clips} clips in {seconds:.1f} s, {rate:.2f} items/s; share of the time:\n")
    shares = {name: share for name, share in whole.shares[0].items() if name != "judge"}
    print("| " + " | ".join(shares) + " | outside the model |\n" + "|---:" * (len(shares) + 1) + "|")
    outside = shares["io"] + shares["other"]
    print("| " + " | ".join(f"{share:.1%}" for share in shares.values()) + f" | {outside:.1%} |")


if __name__ == "__main__":
    main()
