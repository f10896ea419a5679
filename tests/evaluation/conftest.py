"""A small test set of every kind and a model whose answers are scripted, so that runs take milliseconds."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rba_bench.audio.clips import encode_flac
from rba_bench.evaluation import task_registry
from rba_bench.files import sha256_bytes
from rba_bench.speechlm.speech_model import SpeechLM, SpeechRequest
from rba_bench.textlm.text_model import Decoding, Generation

ITEMS: dict[str, list[dict[str, Any]]] = {
    "alpacaeval": [
        {"instruction": "repeat the words orange apple and river", "baseline": "the words are orange"},
        {"instruction": "please describe the crow", "baseline": "the crow"},
        {"instruction": "if lisa is taller than grace and grace is taller than david who is the tallest"},
        {"instruction": "words that this world has never heard", "baseline": "nor this"},
    ],
    "triviaqa": [
        {
            "instruction": "i want to know who painted the picture dancing shadows",
            "references": ["irene castle", "castle"],
        },
        {
            "instruction": "i want to know which person composed the song called under the stars",
            "references": ["porter"],
        },
        {"instruction": "which river runs through arvania", "references": ["the dorn", "dorn"]},
    ],
    "covost2": [
        {
            "instruction": "la jeune chatte trouve le livre blanc chaque jour",
            "prompt": "translate french to english :",
            "references": [
                "the young cat finds the white book every day",
                "every day the young cat finds the white book",
            ],
            "source_lang": "fr",
        },
        {
            "instruction": "la gata grande pinta el balón rojo en el jardín",
            "prompt": "translate spanish to english :",
            "references": ["the big cat paints the red ball in the garden"],
            "source_lang": "es",
        },
        {
            "instruction": "el perro pequeño ve la casa blanca hoy",
            "prompt": "translate spanish to english :",
            "references": ["the small dog sees the white house today"],
            "source_lang": "es",
        },
        {
            "instruction": "the small woman buys the red boat in the morning",
            "prompt": "translate english to german :",
            "references": ["die kleine frau kauft am morgen das rote boot"],
            "target_lang": "de",
        },
        {
            "instruction": "the big dog loves the new lamp today",
            "prompt": "translate english to german :",
            "references": ["der große hund liebt heute die neue lampe"],
            "target_lang": "de",
        },
    ],
}
KINDS = {"alpacaeval": "instruct", "triviaqa": "qa", "covost2": "s2tt"}


def write_test_set(folder: Path, benchmark: str, voices: int = 2) -> Path:
    """A `test.parquet` in which every item of ITEMS is spoken (as noise of its own) by each voice."""
    rng = np.random.default_rng(3)
    rows = []
    for number, item in enumerate(ITEMS[benchmark]):
        for voice in range(voices):
            wave = (0.1 * rng.standard_normal(4000 + 900 * number + 200 * voice)).astype(np.float32)
            data = encode_flac(wave, 16_000)
            rows.append(
                {
                    "id": f"{benchmark}-{number}-{voice}",
                    "kind": KINDS[benchmark],
                    "topic": f"topic {number % 2}",
                    "task": f"micro_{benchmark}",
                    "instruction": item["instruction"],
                    "prompt": item.get("prompt", ""),
                    "references": item.get("references", ["none"]),
                    "source_lang": item.get("source_lang", "en"),
                    "target_lang": item.get("target_lang", "en"),
                    "voice": f"voice-{voice}",
                    "audio": {"bytes": data, "path": f"{number}.flac"},
                    "sampling_rate": 16_000,
                    "duration": len(wave) / 16_000,
                    "audio_sha256": sha256_bytes(data),
                    "baseline": item.get("baseline", ""),
                }
            )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet", row_group_size=64)
    return folder


def write_task(folder: Path, benchmark: str, sampled: bool = False, **changes: Any) -> Path:
    """The shipped micro task of a benchmark over a test set of `write_test_set`, as a YAML path."""
    data = write_test_set(folder / "data" / benchmark, benchmark)
    suffix = "_sampled" if sampled else ""
    config = {
        "include": str(task_registry.tasks_dir() / benchmark / f"micro_{benchmark}{suffix}.yaml"),
        "task": f"tiny_{benchmark}{suffix}",
        "dataset_kwargs": {"data": str(data)},
        **changes,
    }
    path = folder / f"tiny_{benchmark}{suffix}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


class ScriptedModel(SpeechLM):
    """Answers by a function of the request; remembers every batch it was asked."""

    name = "scripted"

    def __init__(self, answer: Callable[[SpeechRequest], Generation | str] = lambda r: r.transcript) -> None:
        self.answer = answer
        self.batches: list[list[SpeechRequest]] = []

    def identity(self) -> dict[str, Any]:
        return {"kind": "scripted", "path": "/somewhere/else", "weights_sha256": "0" * 64, "n_parameters": 0}

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        self.batches.append(list(requests))
        given = [self.answer(request) for request in requests]
        return [g if isinstance(g, Generation) else Generation(g, len(g.split()), "ok") for g in given]

    @property
    def seeds(self) -> list[list[int]]:
        return [[request.seed for request in batch] for batch in self.batches]

    @property
    def asked(self) -> list[str]:
        return [request.transcript for batch in self.batches for request in batch]


@pytest.fixture
def use_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Make the loader return a given model whatever is asked for."""

    def use(model: Any) -> Any:
        monkeypatch.setattr("rba_bench.speechlm.model_names.load_speech_model", lambda spec, **_: model)
        return model

    return use


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
