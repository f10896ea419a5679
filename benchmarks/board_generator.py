"""Run records of invented models that `rba-bench leaderboard verify` accepts, many and soon written.

A task is a test set of `items` invented items and a few answers to each, from right to none at all. Each answer is
scored once by the evaluation's own code, and its line of `samples.jsonl` is made once. A model is a skill: it draws one
of the answers for each item, so a record is a choice of lines with the metrics that follow from them. Hashes, seeds,
run ids, votes of the judge, reports and the table of exploits are those of real records.

Kinds of tasks, in turn: questions (right-or-wrong scores of independent items), translations (corpus BLEU and chrF++
of two directions), transcripts (word and character errors), and answers that a judge compares with stored ones (win
rates between 0 and 1). Of transcripts and translations, two items in a row are one speaker's and lie in one cluster.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.evaluation import documents, scoring
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.plan import identifying_facts, protocol_hash
from rba_bench.evaluation.records import (
    PACKED_FILE,
    RUN_FILE,
    SCHEMA_VERSION,
    RunRecord,
    Sample,
    pack_samples,
    status_counts,
)
from rba_bench.evaluation.scorers.judge import JudgeSettings
from rba_bench.evaluation.scorers.pairwise import PairwiseJudge, read_pair_vote
from rba_bench.evaluation.scorers.registry import add_scores
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.metrics.bootstrap import SEED
from rba_bench.seeding import stable_seed
from rba_bench.textlm.judging import JudgeModel, Question, Reply

KINDS = ("qa", "s2tt", "asr", "chat")
ANSWERS = 5  # to each item, from the best to the worst
DECODING = {"max_new_tokens": 64, "temperature": 0.0, "top_p": 1.0}
WORDS = (
    "river", "castle", "silver", "garden", "window", "morning", "teacher", "bridge", "forest", "letter",
    "summer", "winter", "kitchen", "market", "painter", "soldier", "village", "mountain", "harbor",
    "island", "candle", "mirror", "basket", "ladder", "orange", "yellow", "purple", "simple", "narrow",
    "quiet",
)  # fmt: skip
FIRST, CEILING = "sft", "text-large"  # names of the baseline and of the text ceiling


class InventedJudge(JudgeModel):
    """Prefers by a hash of what it is asked, with log-probabilities."""

    name = "invented-judge"

    def identity(self) -> dict[str, Any]:
        """As a judge that runs on this machine."""
        return {"kind": "text", "weights_sha256": sha256_bytes(b"invented judge")}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """One token each."""
        for place, question in enumerate(questions):
            first = 0.05 + 0.9 * (stable_seed(question.messages[-1].content) % 1000) / 1000
            odds = (("m", round(math.log(first), 6)), ("M", round(math.log(1 - first), 6)))
            yield place, Reply("m" if first > 0.5 else "M", odds)


@dataclass(frozen=True)
class Task:
    """A test set with the answers that models choose from.

    Attributes:
        name: Of the task.
        samples: `ANSWERS` samples for each item.
        lines: The same as lines of `samples.jsonl`.
        protocol: The protocol's specification.
        data: Identity of the test set.
        judge: Scores the answers of `chat`; else None.
    """

    name: str
    samples: list[list[Sample]]
    lines: list[list[bytes]]
    protocol: dict[str, Any]
    data: dict[str, Any]
    judge: PairwiseJudge | None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those that the judge adds."""
        return self.judge.metrics if self.judge else ()


def make_task(number: int, items: int, cache: Path) -> Task:
    """Task number `number`.

    Args:
        number: Decides kind, texts and clips.
        items: Size of its test set.
        cache: Folder for the votes of the judge.
    """
    kind = KINDS[number % len(KINDS)]
    name = f"invented_{kind}_{number:02d}"
    docs = [_document(name, kind, index) for index in range(items)]
    samples = [[_sample(doc, index, answer) for answer in range(ANSWERS)] for index, doc in enumerate(docs)]
    judge = None
    if kind == "chat":
        judge = PairwiseJudge(
            InventedJudge(), JudgeSettings.from_config({}, **PairwiseJudge.default_settings({})), cache
        )
        flat, _, _ = add_scores([each for several in samples for each in several], [judge])
        samples = [flat[start : start + ANSWERS] for start in range(0, len(flat), ANSWERS)]
    langs = sorted({doc["target_lang"] for doc in docs})
    protocol = {
        "task": name,
        "version": "1",
        "decoding": {"name": "greedy", **DECODING, "until": []},
        "metrics": scoring.signatures(kind, langs),
        "judge": None,
        **({"finish": [judge.describe()]} if judge else {}),
    }
    prints = documents.set_fingerprint([{**doc, "audio": {"sha256": doc["audio_sha256"]}} for doc in docs])
    lines = [[each.line().encode() for each in several] for several in samples]
    return Task(name, samples, lines, protocol, {"source": "invented", **prints}, judge)


def _document(task: str, kind: str, index: int) -> dict[str, Any]:
    draw = np.random.default_rng(stable_seed(task, index) % 2**32)
    words = [WORDS[place] for place in draw.integers(len(WORDS), size=int(draw.integers(6, 16)))]
    text = f"{' '.join(words)} {index}"
    references = {"qa": [f"{words[0]} {words[1]}"], "chat": []}.get(kind, [text])
    lang = "de" if kind == "s2tt" and index % 3 == 0 else "en"
    return {
        "id": f"{task}-{index:05d}",
        "kind": kind,
        "group": f"en-{lang}" if kind == "s2tt" else f"topic {index % 4}",
        "cluster": f"{task}-{index // 2 if kind in ('s2tt', 'asr') else index}",
        "prompt": "",
        "instruction": f"what is told of the {text}",
        "references": references,
        "source_lang": "en",
        "target_lang": lang,
        "baseline": f"a stored answer about the {words[2]}" if kind == "chat" else "",
        "audio_sha256": sha256_bytes(f"{task}/{index}".encode()),
        "duration": round(1.0 + 0.3 * len(words), 3),
    }


def _sample(doc: dict[str, Any], index: int, answer: int) -> Sample:
    """Answer number `answer` to an item, scored."""
    right = (doc["references"] or [doc["baseline"] + " and more"])[0]
    words = right.split()
    worse = [word if place % ANSWERS >= answer else WORDS[-1 - place % 9] for place, word in enumerate(words)]
    response = " ".join(worse)
    if doc["kind"] == "qa":
        response = (right, f"it is {right}", f"the {worse[0]}", "i do not know", "nothing of the kind")[
            answer
        ]
    if answer == ANSWERS - 1 and index % 5 == 0:
        response = ""
    return Sample(
        **doc,
        doc_id=index,
        response=response,
        extracted=response,
        scores=scoring.score_item(doc, response).scores,
        status="ok" if response else "empty",
        error="" if response else "empty answer",
        n_tokens=min(len(response) // 4 + 1, DECODING["max_new_tokens"]),
        seed=stable_seed("eval", SEED, doc["prompt"], doc["audio_sha256"], 0),
    )


def model_names(count: int) -> list[str]:
    """The baseline, the text ceiling, and models by number."""
    return [FIRST, CEILING, *(f"model-{number:03d}" for number in range(2, count))][:count]


def write_record(root: Path, task: Task, number: int, packed: bool = True) -> Path:
    """The record of model number `number` below `root`.

    Args:
        root: Folder of all records.
        task: What it answered.
        number: The model; number 0 is the baseline, number 1 the text ceiling.
        packed: Samples as published; else as an evaluation leaves them.
    """
    name = model_names(number + 1)[number]
    chosen = _choice(task, number)
    samples = [task.samples[index][answer] for index, answer in enumerate(chosen)]
    text = b"".join([task.lines[index][answer] for index, answer in enumerate(chosen)])
    model = _model(name)
    key = {
        "protocol": protocol_hash(task.protocol),
        "model": identifying_facts(model),
        "data": [task.data["items_sha256"], task.data["audio_set_sha256"]],
        "limit": None,
        "seed": None,
    }
    audio = round(sum(sample.duration for sample in samples), 3)
    record = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"{task.name}-{sha256_json(key)[:12]}",
        task=task.name,
        task_version="1",
        benchmark=task.name,
        track="invented",
        protocol="greedy",
        protocol_hash=key["protocol"],
        protocol_spec=task.protocol,
        decoding=DECODING,
        judge=None,
        data=task.data,
        model=model,
        seeds={"generation": SEED, "bootstrap": SEED},
        n=len(samples),
        limit=None,
        partial=False,
        metrics=scoring.summarise_metrics(samples, task.metrics),
        statuses=status_counts(samples),
        timing={
            "generation_s": 10.0,
            "audio_s": audio,
            "rtfx": round(audio / 10.0, 3),
            "samples_per_s": round(len(samples) / 10.0, 3),
        },
        hardware={"device": "none"},
        versions={},
        finish={task.judge.name: _report(task.judge, samples)} if task.judge else {},
        exploits=scoring.exploit_table(samples),
        samples_sha256=sha256_bytes(text),
        created="2026-11-20T10:00:00+00:00",
    )
    folder = root / name / record.run_id
    folder.mkdir(parents=True)
    (folder / PACKED_FILE if packed else folder / PACKED_FILE.removesuffix(".gz")).write_bytes(
        pack_samples(text) if packed else text
    )
    (folder / RUN_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder


def _choice(task: Task, number: int) -> list[int]:
    """Which answer the model gives to each item: the same items are hard for all."""
    hard = np.random.default_rng(stable_seed(task.name) % 2**32).random(len(task.lines))
    draw = np.random.default_rng(stable_seed(task.name, number) % 2**32)
    skill = 0.9 if number == 1 else 0.3 + 0.5 * (stable_seed("skill", number) % 997) / 997
    worse = hard - skill + draw.normal(0.3, 0.2, len(hard))
    return np.clip((worse * ANSWERS).astype(int), 0, ANSWERS - 1).tolist()


def _model(name: str) -> dict[str, Any]:
    weights = sha256_bytes(name.encode())
    if name == CEILING:
        return {"kind": "text-oracle", "weights_sha256": weights, "name": name, "spec": f"text:{name}"}
    return {
        "kind": "composite",
        "weights_sha256": weights,
        "n_parameters": 1_000_000,
        "dtype": "float32",
        "name": name,
        "spec": f"models/{name}",
        "training": None,
    }


def _report(judge: PairwiseJudge, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the judge says of its votes on these answers; calls were made once for all models."""
    judged: list[Sample] = []
    votes = []
    for sample in samples:
        own = (sample.judge or {}).get(judge.name) or {}
        if "votes" in own:
            replies = [
                Reply(vote["reply"], tuple((token, value) for token, value in vote["top_logprobs"]))
                for vote in own["votes"]
            ]
            votes.append([vote for reply in replies if (vote := read_pair_vote(reply)) is not None])
            judged.append(sample)
    return {
        "n": len(samples),
        "n_judged": len(judged),
        "n_failed": 0,
        "calls": 0,
        "cached": 2 * len(judged),
        "prompt_tokens": 0,
        "completion_tokens": 0,
        **judge.summary(judged, votes),
    }
