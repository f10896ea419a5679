"""Each check of `leaderboard verify` finds its own edit: that some other check finds it too would hide a broken one."""

from pathlib import Path
from typing import Any

import pytest

from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard import forging
from tests.leaderboard.forging import Edit, Json

pytest.importorskip("espeakng_loader")
TASK, METRIC = "micro_triviaqa", "asserted_match"
HASH = "ab" * 32
Run = tuple[Json, list[Json]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        return forging.make(tmp_path_factory.mktemp("eval"), TASK, forging.half_right(TASK), patch)


def item(**changes: Any) -> Edit:
    return lambda _, samples: samples[0].update(changes)


def metric(**changes: Any) -> Edit:
    return lambda record, _: record["metrics"][METRIC].update(changes)


def then(edit: Edit, *consistent: Edit) -> Edit:
    """An edit, and what a careful forger does after it."""

    def change(record: Json, samples: list[Json]) -> None:
        for each in (edit, *consistent):
            each(record, samples)

    return change


def identified(record: Json, _: list[Json]) -> None:
    forging.identify(record)


def another_status(record: Json, samples: list[Json]) -> None:
    samples[0]["status"] = "empty"
    record["statuses"]["ok"] -= 1
    record["statuses"]["empty"] += 1


def other_questions(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["instruction"] += " please"


def another_protocol(record: Json, _: list[Json]) -> None:
    record["protocol_spec"]["answer"] = "the last line"


def longer_answers(record: Json, _: list[Json]) -> None:
    record["decoding"]["max_new_tokens"] = record["protocol_spec"]["decoding"]["max_new_tokens"] = 4096


def another_run_id(record: Json, _: list[Json]) -> None:
    record["run_id"] = f"{TASK}-000000000000"


def two_scores_exchanged(_: Json, samples: list[Json]) -> None:
    """Their mean stays."""
    right, wrong = (next(s for s in samples if s["scores"][METRIC] == score) for score in (1.0, 0.0))
    right["scores"], wrong["scores"] = wrong["scores"], right["scores"]


UNHEARD = {
    "status": "not_heard",
    "response": "",
    "extracted": "",
    "scores": {},
    "error": "no sound",
    "n_tokens": 0,
}
EDITS: dict[str, tuple[Edit, str]] = {
    "scores of two items": (two_scores_exchanged, "2 items, each of which has scores that do not follow"),
    "what counts as the answer": (item(extracted="x"), "has an extracted answer that is not its response's"),
    "status of an item": (another_status, "has a status that does not follow from its response"),
    "end of an interval": (metric(low=0.0), f"{METRIC}.low is recorded as 0"),
    "a thousandth": (lambda r, _: r["metrics"][METRIC].update(high=r["metrics"][METRIC]["high"] + 1e-3),
                     f"{METRIC}.high is recorded as"),
    "a metric left out": (lambda r, _: r["metrics"].pop("exact_match"), "its metrics are asserted_match, alias_match;"),
    "uninformed answers": (lambda r, _: r["exploits"].update(n=1), "its exploit table is not what its questions give"),
    "another protocol": (then(another_protocol, identified), "protocol_spec.answer is not what the task says"),
    "another protocol, the old hash": (another_protocol, "protocol_hash is not the hash of protocol_spec"),
    "longer answers": (then(longer_answers, identified), "decoding is not the task's"),
    "run id": (another_run_id, "run_id does not follow from"),
    "an item left out": (then(lambda _, samples: samples.pop(0), forging.settle), "its samples are not items 0 to"),
    "hash of the questions": (then(lambda r, _: r["data"].update(items_sha256=HASH), identified),
                              "data.items_sha256 does not follow from its items"),
    "hash of the clips": (then(lambda r, _: r["data"].update(audio_set_sha256=HASH), identified),
                          "data.audio_set_sha256 does not follow from its items"),
    "other questions": (then(other_questions, forging.rehash, forging.settle),
                        "instruction of 96 items is not that of the test set on this machine"),
    "a clip said to hold no sound": (then(item(**UNHEARD), forging.settle),
                                     "is not_heard, yet its clip can be decoded"),
    "other samples": (lambda r, _: r.update(samples_sha256=HASH), "the samples are not the ones that run.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_each_check_finds_its_edit(honest: Run, tmp_path: Path, name: str) -> None:
    edit, sentence = EDITS[name]
    [verdict] = verify_records([forging.edited(tmp_path / "run", honest, edit)]).verdicts
    assert any(sentence in fault for fault in verdict.faults), verdict.faults
