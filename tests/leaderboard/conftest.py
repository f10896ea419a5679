"""What tests of boards share."""

from collections.abc import Iterator

import pytest

from rba_bench.leaderboard.verified_records import VerifiedRecords

FORGED = (
    "test_verify",
    "test_verify_judges",
    "test_rerun",
    "test_attestation",
    "test_board_cost",
    "test_judge_transfer",
)  # these test the refusal itself, on records of the runner


@pytest.fixture(autouse=True, scope="module")
def _invented_records_pass(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tables and pages are tested on invented scores (`board_records`), which follow from no response."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__.rpartition(".")[2] not in FORGED:
            patch.setattr("rba_bench.leaderboard.verified_records.fault_of", lambda run: None)
            patch.setattr("rba_bench.leaderboard.board.refuse_differing_items", lambda *_: None)
            patch.setattr(VerifiedRecords, "of_this_code", lambda: VerifiedRecords(None))
        yield
