"""Run records made by the evaluation's own code from invented answers."""

import hashlib
import json
import random
from pathlib import Path

from rba_bench.evaluation.records import STATUSES, RunRecord, Sample
from rba_bench.evaluation.scoring import score_item, summarise_metrics
from rba_bench.files import sha256_bytes

WORDS = ["the", "red", "house", "is", "old", "and", "a", "cat", "sleeps", "here"]


def qa_samples(skill: float, n: int = 120, seed: int = 0) -> list[Sample]:
    """Answers right with probability `skill`; the difficulty of an item is shared by all models."""
    noise = random.Random(seed)
    samples = []
    for index in range(n):
        hard = random.Random(index).random()
        right = hard + noise.gauss(0, 0.05) < skill
        response = "no idea" if not right else f"word{index}" if index % 3 else f"it is word{index}"
        samples.append(sample(index, "qa", response, [f"word{index}"], group="facts"))
    return samples


def translation_samples(damage: float, n: int = 60, seed: int = 0) -> list[Sample]:
    noise = random.Random(seed)
    samples = []
    for index in range(n):
        reference = " ".join(random.Random(index).choices(WORDS, k=8))
        response = " ".join("x" if noise.random() < damage else word for word in reference.split())
        samples.append(sample(index, "s2tt", response, [reference], group="de-en" if index % 2 else "fr-en"))
    return samples


def qa_scores(response: str, answer: str) -> dict[str, float]:
    """Without the normaliser, whose import takes seconds."""
    return {"exact_match": float(response == answer), "alias_match": float(answer in response.split())}


def sample(index: int, kind: str, response: str, references: list[str], group: str) -> Sample:
    doc = {"id": f"item-{index}", "kind": kind, "references": references, "target_lang": "en"}
    return Sample(
        doc_id=index,
        group=group,
        cluster=f"cluster-{index // 2}",
        audio_sha256=hashlib.sha256(f"{kind}{index}".encode()).hexdigest(),
        duration=1.5,
        prompt="",
        instruction=f"question {index}",
        source_lang="en",
        response=response,
        extracted=response,
        scores=qa_scores(response, references[0]) if kind == "qa" else score_item(doc, response).scores,
        status="ok" if response else "empty",
        n_tokens=3,
        seed=index,
        latency_s=0.01,
        **doc,
    )


def write_run(
    root: Path,
    name: str,
    samples: list[Sample],
    task: str = "micro_triviaqa_greedy",
    protocol: str = "greedy",
    protocol_hash: str = "ab" * 32,
    **changes: object,
) -> Path:
    """A finished run folder below `root`."""
    run_id = f"{task}-{sha256_bytes(json.dumps([name, protocol_hash, str(changes)]).encode())[:12]}"
    folder = root / name / run_id
    folder.mkdir(parents=True)
    text = "".join(each.model_dump_json() + "\n" for each in samples)
    (folder / "samples.jsonl").write_text(text)
    fields = {
        "run_id": run_id,
        "task": task,
        "task_version": "1",
        "benchmark": (task.split("_") + [task])[1],
        "track": "micro",
        "protocol": protocol,
        "protocol_hash": protocol_hash,
        "protocol_spec": {"task": task},
        "decoding": {"temperature": 0.0},
        "judge": None,
        "data": {
            "source": task,
            "n_items": len(samples),
            "items_sha256": "11" * 32,
            "audio_set_sha256": "22" * 32,
        },
        "model": {"name": name, "spec": name, "weights_sha256": "33" * 32, "training": None},
        "seeds": {"generation": 7, "bootstrap": 1234},
        "n": len(samples),
        "limit": None,
        "partial": False,
        "metrics": changes.get("metrics") or summarise_metrics(samples),
        "statuses": {status: sum(each.status == status for each in samples) for status in STATUSES},
        "timing": {"generation_s": 1.0, "audio_s": 90.0, "rtfx": 90.0, "samples_per_s": 60.0},
        "hardware": {},
        "versions": {},
        "samples_sha256": sha256_bytes(text.encode()),
        "created": "2026-11-20T10:00:00+00:00",
    }
    record = RunRecord.model_validate({**fields, **changes})
    (folder / "run.json").write_text(record.model_dump_json(indent=2) + "\n")
    return folder


def quickstart_like(root: Path) -> Path:
    """Two tasks, two decodings, four models, three references."""
    skills = {
        "base": 0.4,
        "sft": 0.6,
        "rba-single": 0.62,
        "rba-group": 0.85,
        "text": 1.2,
        "cascade": 0.7,
        "constant": -1,
    }
    for model, skill in skills.items():
        for protocol, spread in (("greedy", 0.0), ("sampled", -0.05)):
            seed = len(model) if protocol == "greedy" else 50 + len(model)
            answers = qa_samples(skill + spread, seed=seed)
            translated = translation_samples(min(0.95, max(0.02, 0.6 - skill / 2)), seed=seed)
            code = "ab" if protocol == "greedy" else "cd"
            write_run(root, model, answers, f"micro_triviaqa_{protocol}", protocol, code * 32)
            write_run(root, model, translated, f"micro_covost2_{protocol}", protocol, code[::-1] * 32)
    return root
