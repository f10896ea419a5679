"""A real record and its samples as JSON values, ways to edit them, and what a careful forger makes consistent again."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rba_bench.evaluation import documents, scoring
from rba_bench.evaluation.plan import identifying_facts, protocol_hash
from rba_bench.evaluation.records import Sample, status_counts
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.seeding import stable_seed
from tests.evaluation.conftest import ScriptedModel

Json = dict[str, Any]
Edit = Callable[[Json, list[Json]], None]


def half_right(testset: str) -> Callable[[Any], str]:
    """Answers to a micro test set, about half of them right."""
    known = {
        documents.user_text(doc): (doc["references"] or [""])[0] for doc in documents.load_documents(testset)
    }

    def answer(request: Any) -> str:
        text = request.user_text()
        return known[text] if stable_seed(text) % 2 else "nobody knows this"

    return answer


def make(
    folder: Path, task: str, answer: Callable[[Any], Any], monkeypatch: Any, **request: Any
) -> tuple[Json, list[Json]]:
    """A record of the real runner on a shipped task."""
    model = ScriptedModel(answer)
    monkeypatch.setattr("rba_bench.speechlm.model_names.load_speech_model", lambda spec, **_: model)
    evaluate(EvalRequest(tasks=(task,), model="scripted", out=folder, **request))
    [found] = folder.glob(f"*/{task}-*")
    record = json.loads((found / "run.json").read_text())
    return record, [json.loads(line) for line in (found / "samples.jsonl").read_text().splitlines()]


def edited(folder: Path, honest: tuple[Json, list[Json]], edit: Edit) -> Path:
    """A copy of a record, edited, with the hash of its samples made to fit."""
    record, samples = copy.deepcopy(honest)
    kept = record["samples_sha256"]
    edit(record, samples)
    return write(folder, record, samples, keep_hash=record["samples_sha256"] != kept)


def write(folder: Path, record: Json, samples: list[Json], keep_hash: bool = False) -> Path:
    data = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples).encode()
    if not keep_hash:
        record["samples_sha256"] = sha256_bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_bytes(data)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def settle(record: Json, samples: list[Json], judged: Any = ()) -> None:
    """Make everything consistent that is computed from the samples, the protocol, the model and the test set."""
    parsed = [Sample.model_validate(sample) for sample in samples]
    found = scoring.summarise_metrics(parsed, judged)
    record["metrics"] = {name: value.model_dump(mode="json") for name, value in found.items()}
    record["n"], record["statuses"] = len(parsed), status_counts(parsed)
    identify(record)


def identify(record: Json) -> None:
    """Protocol hash and run id."""
    record["protocol_hash"] = protocol_hash(record["protocol_spec"])
    key = {
        "protocol": record["protocol_hash"],
        "model": {k: v for k, v in identifying_facts(record["model"]).items() if k != "observed"},
        "data": [record["data"]["items_sha256"], record["data"]["audio_set_sha256"]],
        "limit": record["limit"],
        "seed": None if record["decoding"]["temperature"] == 0 else record["seeds"]["generation"],
    }
    record["run_id"] = f"{record['task']}-{sha256_json(key)[:12]}"


def rehash(record: Json, samples: list[Json]) -> None:
    """Hashes of the test set, from the samples."""
    docs = [
        {**Sample.model_validate(s).model_dump(), "audio": {"sha256": s["audio_sha256"]}} for s in samples
    ]
    record["data"].update(documents.set_fingerprint(docs))


def rescore(samples: list[Json]) -> None:
    """Scores that follow from what the samples now say."""
    for sample in samples:
        scored = scoring.score_item(Sample.model_validate(sample).model_dump(), sample["extracted"])
        sample["scores"] = dict(scored.scores)
        sample.pop("judge", None)
        if scored.judge:
            sample["judge"] = scored.judge
