"""Where a record on a board comes from: what two small files beside it say.

    submission.json    it was sent in by somebody else, packed by `leaderboard submit`; without this file it was run by
                       those who publish the board
    attestation.json   those who publish the board let its model answer again, see `attestation`

Neither is part of the record, whose bytes stay those of the run. A mark that cannot be read is a fault, and still a
mark: nothing that is wrong in it makes a record one's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rba_bench.evaluation.records import ATTESTATION_FILE, MARK_FILE, first_fault
from rba_bench.leaderboard.attestation import Attestation, attestation_fault, attestation_of
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.tables import json_text
from rba_bench.untrusted import parse_untrusted_json

SUBMITTED, MEASURED, REPRODUCED = "submitted", "measured here", "reproduced"
PROVENANCES = (SUBMITTED, MEASURED, REPRODUCED)  # the weakest first; reported numbers have pages of their own
MEANINGS = {
    MEASURED: "run by those who publish this board",
    SUBMITTED: "sent in by somebody else; every number was computed again from its responses, which nobody has tested",
    REPRODUCED: "those who publish this board let a model with the weights of the record answer some of its items "
    "again, drawn at random after the record was written, and every answer was the same, character by character",
}


class Mark(BaseModel):
    """Content of `submission.json`: no text of the one who sent the record in, who could claim anything there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: Literal[1]
    provenance: Literal["submitted"]


MARK = json_text(Mark(schema_version=1, provenance="submitted").model_dump()).encode()


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from.

    Attributes:
        submitted: Whether somebody else sent it in.
        attestation: That its model answered again, None if nobody tried.
    """

    submitted: bool
    attestation: Attestation | None

    @property
    def label(self) -> str:
        """One of `PROVENANCES`."""
        if self.attestation is not None:
            return REPRODUCED
        return self.origin

    @property
    def origin(self) -> str:
        """`submitted` or `measured here`, also of a record that was reproduced."""
        return SUBMITTED if self.submitted else MEASURED

    @property
    def facts(self) -> str:
        """The facts behind the label, in words that may be shown anywhere."""
        if self.attestation is None:
            return MEANINGS[self.label]
        return f"{self.origin}; {self.attestation.facts()}"

    @property
    def summary(self) -> str:
        """What is worth saying of a run in one line; "" of a run of one's own that nobody repeated."""
        if self.attestation is not None:
            return self.facts
        return SUBMITTED if self.submitted else ""

    def fields(self) -> dict[str, Any]:
        """For a line of a table; empty where nobody tried to reproduce it."""
        found = self.attestation
        return {
            "provenance": self.label,
            "origin": self.origin,
            "answered_again": found.n if found else None,
            "answered_again_equal": found.equal if found else None,
            "answered_again_date": found.created if found else None,
        }


def provenance_of(run: LoadedRun) -> Provenance:
    """Where a record comes from; a void attestation (see `provenance_faults`) counts for nothing."""
    return Provenance(MARK_FILE in run.beside, attestation_of(run))


def provenance_faults(run: LoadedRun) -> Iterator[str]:
    """What is wrong with the files beside a record. Its samples must be those of the record."""
    if (mark := run.beside.get(MARK_FILE)) is not None:
        try:
            Mark.model_validate(parse_untrusted_json(mark))
        except ValueError as error:
            yield f"{MARK_FILE} is not what `leaderboard submit` writes ({first_fault(error)})"
    if ATTESTATION_FILE in run.beside and (fault := attestation_fault(run)):
        yield fault
