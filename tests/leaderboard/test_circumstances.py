"""What a record says of its model, dates and speed: what contradicts itself or what everybody has is found."""

from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.records import read_record
from rba_bench.files import sha256_json
from rba_bench.leaderboard.checks import teacher_sha256
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard import forging
from tests.leaderboard.forging import Edit, Json

TASK = "micro_triviaqa"
TEACHER = "7eef88cdb5fff50e27aa8788d7ec6e0b5ef6a10819b76368d0276cdb1d1de3c1"  # sha256sum of its weights
BEFORE = {"rba_bench": "0.1.0", "judge": "", "from_version": "1", "from_samples": "cd" * 32}
LATER, LATEST = "2030-01-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> tuple[Json, list[Json]]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("eval")
        record, samples = forging.make(folder, TASK, forging.half_right(TASK), patch)
    record["model"].update(kind="composite", spec="runs/mine", name="mine")
    forging.identify(record)
    return record, samples


def model(**changes: Any) -> Edit:
    def change(record: Json, _: list[Json]) -> None:
        record["model"].update(changes)
        forging.identify(record)

    return change


def timing(**changes: Any) -> Edit:
    def change(record: Json, _: list[Json]) -> None:
        found = record["timing"]
        found.update(changes)
        found["rtfx"] = round(found["audio_s"] / max(found["generation_s"], 1e-9), 3)

    return change


def all_samples(**changes: Any) -> Edit:
    def change(record: Json, samples: list[Json]) -> None:
        for sample in samples:
            sample.update(changes)
        forging.settle(record, samples)

    return change


def rescored(*entries: tuple[str, str]) -> Edit:
    """Rescoring notes of (moment, version before), and the run id that follows from them."""

    def change(record: Json, _: list[Json]) -> None:
        record["rescored"] = [
            {**BEFORE, "at": at, "from_version": version, "from_protocol": record["protocol_hash"]}
            for at, version in entries
        ]

    return change


def as_server(**changes: Any) -> Edit:
    server = {"kind": "endpoint", "url": "https://host/v1", "model": "m", "weights_known": False}
    hashed = {"weights_sha256": sha256_json(["https://host/v1", "m"]), "spec": "openai:https://host/v1#m"}
    return model(**{**server, **hashed, **changes})


def no_replies(record: Json, samples: list[Json]) -> None:
    """Wrong answers blamed on a server that the spec does not name."""
    for sample in [s for s in samples if not s["scores"]["asserted_match"]][:4]:
        sample.update(status="no_reply", error="HTTP 502", scores={}, response="", extracted="")
    forging.settle(record, samples)
    as_server(spec="runs/mine")(record, samples)


HONEST: dict[str, Edit] = {
    "as it is": lambda *_: None,
    "a server": as_server(),
    "scored again later": rescored((LATER.replace("2030", "2026"), "1")),
    "variables of the chat template": model(
        kind="text-oracle", spec="text", name="text+enable_thinking=false", weights_sha256=TEACHER
    ),
    "a recipe that fits": model(training={"method": "sft", "recipe": {"method": "sft", "steps": 3}}),
}
EDITS: dict[str, Edit] = {
    "a checkpoint poses as the ceiling": model(kind="text-oracle", spec="text", name="text"),
    "a checkpoint is called as a reference": model(name="Text"),
    "a constant with other weights": model(kind="constant", spec="constant", name="constant", answer="yes"),
    "a cascade of other parts": model(
        kind="cascade", spec="cascade:a+b", asr_sha256="ab" * 32, text={"weights_sha256": "cd" * 32}
    ),
    "no weights": model(weights_sha256=None),
    "a server's weights as if they were known": as_server(weights_known=True),
    "a server's weights of another model": as_server(model="n"),
    "a server that the spec does not name": no_replies,
    "a recipe of another method": model(training={"method": "rba", "recipe": {"method": "sft"}}),
    "a recipe of another seed": model(training={"seed": 2, "recipe": {"seed": 1}}),
    "more audio than there is": timing(audio_s=1e5),
    "stages that are no parts": timing(seconds={"decoder": 1.0}, shares={"decoder": 0.5}),
    "stages shorter than the whole": timing(
        generation_s=9.0, seconds={"decoder": 1.0}, shares={"decoder": 1.0}
    ),
    "scored again before it was made": rescored(("2025-02-01T00:00:00+00:00", "1")),
    "scored again in times to come": rescored((LATEST, "1")),
    "scored again in no order": rescored(("2026-12-02T00:00:00+00:00", "1"), ("2026-12-01T00:00:00+00:00", "1")),
    "scored again from a version to come": rescored(("2026-12-02T00:00:00+00:00", "99")),
    "no exploit table": lambda record, _: record.update(exploits=None),
    "an answer of no tokens": all_samples(n_tokens=0),
    "truncated long before the limit": all_samples(status="truncated"),
    "words that only a cascade hears": all_samples(heard="paris"),
    "thinking that only a server sends apart": all_samples(reasoning="so it must be paris"),
}  # fmt: skip


def write(folder: Path, honest: tuple[Json, list[Json]], edit: Edit) -> Path:
    def dated(record: Json, samples: list[Json]) -> None:
        record["created"] = "2025-12-01T00:00:00+00:00"
        edit(record, samples)

    return forging.edited(folder, honest, dated)


@pytest.mark.parametrize("edit", HONEST)
def test_what_may_be_passes(honest, tmp_path, edit):
    [verdict] = verify_records([write(tmp_path / "run", honest, HONEST[edit])]).verdicts
    assert verdict.faults == ()


@pytest.mark.parametrize("edit", EDITS)
def test_what_cannot_be_is_found(honest, tmp_path, edit):
    [verdict] = verify_records([write(tmp_path / "run", honest, EDITS[edit])]).verdicts
    assert verdict.faults, edit


@pytest.mark.parametrize("schema", [0, 3, 99, -1])
def test_a_record_of_no_known_schema_is_not_read(honest, tmp_path, schema):
    folder = write(tmp_path / "run", honest, lambda record, _: record.update(schema_version=schema))
    with pytest.raises(UserError, match="schema_version"):
        read_record(folder)


def test_the_shipped_teacher_is_known_by_its_hash():
    assert teacher_sha256() == TEACHER
