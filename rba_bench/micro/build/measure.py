"""What the build achieved: the base and the teacher on the micro test sets, by the rule judge."""

from pathlib import Path
from typing import Any

import torch

from rba_bench.audio import clips
from rba_bench.errors import RbaError
from rba_bench.micro import testsets, world
from rba_bench.micro.build import base, encoder, speech, textlms

COMPARED = ("micro_alpacaeval", "micro_study_instruct")  # sets with win rates


def spoken_testset(name: str) -> list[speech.Utterance]:
    """A micro test set as the build's own utterances."""
    import pyarrow.parquet as pq

    rows = pq.read_table(testsets.load(name) / "test.parquet").to_pylist()
    spoken = []
    for row in rows:
        item = world.parse(f"{row['prompt']} {row['instruction']}".strip())
        if item is None:
            raise RbaError(
                f"{name} holds {row['instruction']!r}, which the world did not write: remove its cache folder"
            )
        spoken.append(
            speech.Utterance(item, row["voice"], speech.log_mel(clips.decode(row["audio"]["bytes"])))
        )
    return spoken


def _base(out: Path) -> tuple[Any, Any]:
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor

    model = CompositeForConditionalGeneration.from_pretrained(out / "base", dtype=torch.float32).eval()
    return model, CompositeProcessor.from_pretrained(out / "base").tokenizer


def baseline_answers(out: Path) -> dict[str, str]:
    """The base's greedy answers to the spoken instructions: what win rates are measured against."""
    model, tokenizer = _base(out)
    found: dict[str, str] = {}
    for name in COMPARED:
        data = spoken_testset(name)
        answers = base.answer(model, tokenizer, data, base.States(model, data))
        found |= {f"{name}-{i:03d}": text for i, text in enumerate(answers)}
    return found


def base_validity(model: Any, tokenizer: Any) -> dict[str, float]:
    """Percent of valid greedy answers over all test sets, in all and by kind."""
    data = [utterance for name in testsets.SPECS for utterance in spoken_testset(name)]
    found = base.validity(data, base.answer(model, tokenizer, data, base.States(model, data)))
    return {name: round(value, 1) for name, value in found.items()}


def measure(out: Path) -> dict[str, Any]:
    """Percent of valid answers on each test set (base greedy and sampled, teacher on the text); the ear's errors."""
    from transformers import AutoModelForCausalLM

    from rba_bench.speechlm.composite.ctc import CTCRecognizer

    model, tokenizer = _base(out)
    teacher = AutoModelForCausalLM.from_pretrained(out / "teacher", dtype=torch.float32).eval()
    head = CTCRecognizer.load(out / "asr")
    found: dict[str, Any] = {}
    for name in testsets.SPECS:
        data = spoken_testset(name)
        states = base.States(model, data)
        torch.manual_seed(0)
        found[name] = {
            "base_greedy": base.validity(data, base.answer(model, tokenizer, data, states))["all"],
            "base_sampled": base.validity(data, base.answer(model, tokenizer, data, states, sample=True))[
                "all"
            ],
            "teacher_text": 100 * textlms.valid_share(teacher, tokenizer, [u.item for u in data]),
            **encoder.error_rates(model.model.audio_tower, head, data),
        }
    return {name: {k: round(v, 1) for k, v in row.items()} for name, row in found.items()}
