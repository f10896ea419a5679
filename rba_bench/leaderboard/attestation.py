"""`attestation.json` beside a record: the model of this very record answered some of its items again, all the same.

`leaderboard verify --rerun N --attest` writes it, and only when every answer was equal, character by character: there
is no attestation of a failure. It holds for one record, named by its hash; one other byte in the record makes it void.
Its items are not chosen by anybody: they follow from a seed that was drawn after the record was written, and the hash
of the record. So whoever has the weights can repeat it, and a file that names other items, or counts that do not fit,
is void.

It is not signed. What it is worth depends on who could write it; `docs/submitting.md` says what it proves and what not.
"""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from rba_bench.errors import UserError
from rba_bench.evaluation.records import (
    ATTESTATION_FILE,
    RUN_FILE,
    UNANSWERED,
    Hash,
    Moment,
    Sample,
    first_fault,
)
from rba_bench.files import write_atomic
from rba_bench.leaderboard.loaded_runs import LoadedRun, open_run
from rba_bench.leaderboard.tables import json_text
from rba_bench.seeding import stable_seed
from rba_bench.untrusted import parse_untrusted_json, plain

SEEDS = 2**32  # JavaScript, too, reads such a number exactly
LONGEST_NAME = 80  # characters of `by`
AGAIN = "remove it, or attest again with: rba-bench leaderboard verify {folder} --rerun N --attest"


class Attestation(BaseModel):
    """Content of the file.

    Attributes:
        record_sha256: Hash of `run.json`, byte for byte.
        samples_sha256: Hash of `samples.jsonl`, unpacked.
        protocol_hash: Protocol of the record, by which the items were asked again.
        seed: What the items were drawn by, see `drawn_items`.
        n: Number of items that were answered again.
        equal: Number of those with the very response of the record: all of them.
        items: Their ids, in the order of the test set.
        compared: What was compared.
        hardware: Of the machine that answered again.
        versions: Of rba-bench and what it computes with, on that machine.
        created: When.
        by: Who did it, as they call themselves; "" if not stated.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    schema_version: Literal[1]
    record_sha256: Hash
    samples_sha256: Hash
    protocol_hash: Hash
    seed: int = Field(ge=0, lt=SEEDS)
    n: int = Field(ge=1)
    equal: int
    items: list[str]
    compared: Literal["responses, character by character"]
    hardware: dict[str, Any]
    versions: dict[str, str]
    created: Moment
    by: Annotated[str, StringConstraints(max_length=LONGEST_NAME)] = ""

    @model_validator(mode="after")
    def _counted(self) -> "Attestation":
        if not self.n == self.equal == len(self.items):
            raise ValueError(
                f"{self.equal} of {self.n} answers are equal, and {len(self.items)} items are named"
            )
        return self

    def facts(self) -> str:
        """What was found, in words that may be shown anywhere."""
        by = f", by {plain(self.by, LONGEST_NAME)}" if self.by.strip() else ""
        return f"{self.equal} of {self.n} items answered again with the same answers, {self.created[:10]}{by}"


def draw_seed() -> int:
    """A seed that nobody could foresee, so that no record can be made for the items that it draws."""
    return secrets.randbelow(SEEDS)


def drawn_items(run: LoadedRun, n: int, seed: int) -> list[Sample]:
    """`n` of the answered items at random, all if there are fewer, in the order of the test set.

    They are those of the smallest hashes of seed, record and item, which no version of Python draws differently.
    """
    answered = [sample for sample in run.samples if sample.status not in UNANSWERED]
    by_hash = sorted(
        answered, key=lambda sample: stable_seed("rerun", seed, run.record_sha256, sample.doc_id)
    )
    return sorted(by_hash[:n], key=lambda sample: sample.doc_id)


def attestation_of(run: LoadedRun) -> Attestation | None:
    """The attestation beside a record, None where there is none, or one that does not belong to these bytes."""
    data = run.beside.get(ATTESTATION_FILE)
    if data is None:
        return None
    try:
        found = _parsed(data)
    except ValueError:
        return None
    return found if _belongs(found, run) else None


def attestation_fault(run: LoadedRun) -> str:
    """Why the attestation beside a record is void, "" where it is not, or where there is none."""
    data, again = run.beside.get(ATTESTATION_FILE), AGAIN.format(folder=run.folder)
    if data is None:
        return ""
    try:
        found = _parsed(data)
    except ValueError as error:
        return f"{ATTESTATION_FILE} is damaged ({first_fault(error)}): {again}"
    if not _belongs(found, run):
        return f"{ATTESTATION_FILE} is of another record, or this one was changed since: {again}"
    if found.items != [sample.id for sample in drawn_items(run, found.n, found.seed)]:
        return f"{ATTESTATION_FILE} names other items than its seed draws from this record: {again}"
    return ""


def write_attestation(run: LoadedRun, items: list[str], seed: int, device: str, by: str = "") -> Attestation:
    """Keep beside a record that its model gave the same answers again to `items`, which `seed` drew.

    Args:
        run: The record.
        items: Ids of all items that were answered again; every answer was equal.
        seed: See `drawn_items`.
        device: Torch device that answered.
        by: Who did it, "" to leave that out.

    Raises:
        UserError: the record was changed meanwhile, or `by` is too long.
    """
    from rba_bench.evaluation import environment

    found = Attestation(
        schema_version=1,
        record_sha256=run.record_sha256,
        samples_sha256=run.record.samples_sha256,
        protocol_hash=run.record.protocol_hash,
        seed=seed,
        n=len(items),
        equal=len(items),
        items=items,
        compared="responses, character by character",
        hardware=environment.hardware(device),
        versions=environment.versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        by=checked_name(by),
    )
    if open_run(run.folder).record_sha256 != run.record_sha256:
        raise UserError(f"{run.folder / RUN_FILE} was changed meanwhile: repeat the command")
    write_atomic(Path(run.folder, ATTESTATION_FILE), json_text(found.model_dump(mode="json")))
    return found


def checked_name(by: str) -> str:
    """`by` as it will be shown.

    Raises:
        UserError: it is too long, or holds what no table or page may show.
    """
    if len(by) > LONGEST_NAME or plain(by, LONGEST_NAME) != by:
        raise UserError(
            f"--by takes at most {LONGEST_NAME} characters of plain text, without markup or addresses"
        )
    return by


def _parsed(data: bytes) -> Attestation:
    """Raises ValueError for what is no attestation."""
    try:
        return Attestation.model_validate(parse_untrusted_json(data))
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error


def _belongs(found: Attestation, run: LoadedRun) -> bool:
    record = run.record
    mine = (found.record_sha256, found.samples_sha256, found.protocol_hash)
    return mine == (run.record_sha256, record.samples_sha256, record.protocol_hash)
