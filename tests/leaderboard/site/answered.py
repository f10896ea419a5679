"""Runs on items of a test set that this machine has, and runs with hostile texts, for tests of the pages of samples."""

from pathlib import Path

from rba_bench.evaluation import documents
from rba_bench.evaluation.records import Sample
from tests.leaderboard.board_records import sample, write_run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> </p>\"'&amp; \u202eevil"
TASK = "micro_triviaqa"
NAMES = (
    "id", "kind", "group", "cluster", "prompt", "instruction", "source_lang", "target_lang", "references",
)  # fmt: skip


def micro_samples(right: int, count: int = 8, wrong: str = "no idea") -> list[Sample]:
    """Answers to the first items of a test set: those before `right` are right."""
    made = []
    for index, document in enumerate(documents.load_documents(TASK)[:count]):
        text = document["references"][0] if index < right else wrong
        made.append(
            Sample(
                **{name: document[name] for name in NAMES},
                doc_id=index,
                audio_sha256=document["audio"]["sha256"],
                duration=document["duration"],
                response=f"<think>hm</think>{text}",
                extracted=text,
                heard="what is the thing" if wrong != "no idea" else "",
                scores={"exact_match": float(index < right)},
                status="ok",
                n_tokens=1,
                seed=2**62 + index,
            )
        )
    return made


def micro_runs(root: Path) -> Path:
    """Three runs: a base with 2 right answers, what was aligned from it with 5, and a cascade with none."""
    aligned = {"name": "better", "spec": "runs/better", "weights_sha256": "44" * 32}
    training = {"method": "sft", "base": "micro", "seed": 1}
    write_run(root, "base", micro_samples(2), task=TASK)
    write_run(root, "better", micro_samples(5), task=TASK, model={**aligned, "training": training})
    write_run(root, "cascade", micro_samples(0, wrong="nothing"), task=TASK)
    return root


def hostile_runs(root: Path) -> Path:
    """One run each of whose texts tries to become markup."""
    texts = {"instruction": HOSTILE, "prompt": HOSTILE, "heard": HOSTILE, "response": "x" + HOSTILE,
             "error": HOSTILE, "extra": HOSTILE, "reasoning": HOSTILE,
             "judge": {HOSTILE: {"votes": [{"order": HOSTILE, "reason": HOSTILE}]}}}  # fmt: skip
    asked = [sample(0, "s2tt", HOSTILE, [HOSTILE], HOSTILE), sample(1, "s2tt", HOSTILE, [HOSTILE], "b")]
    changed = [each.model_copy(update={**texts, "id": HOSTILE + str(each.doc_id)}) for each in asked]
    model = {"name": HOSTILE, "spec": HOSTILE, "weights_sha256": "33" * 32, "training": None}
    write_run(root, "model", changed, task="somebodys_task", model=model)
    return root
