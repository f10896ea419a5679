"""Marks and attestations beside records, as their commands write them, and as a forger would."""

import json
from pathlib import Path
from typing import Any

from rba_bench.leaderboard.attestation import drawn_items
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.provenance import MARK


def mark(folder: Path) -> Path:
    """The mark of a submission."""
    (folder / "submission.json").write_bytes(MARK)
    return folder


def attestation(folder: Path, n: int = 5, seed: int = 11, **changes: Any) -> dict[str, Any]:
    """What `verify --rerun N --attest` keeps of a record; no model answers here."""
    run = load_checked_run(folder)
    items = [sample.id for sample in drawn_items(run, n, seed)]
    return {
        "schema_version": 1,
        "record_sha256": run.record_sha256,
        "samples_sha256": run.record.samples_sha256,
        "protocol_hash": run.record.protocol_hash,
        "seed": seed,
        "n": len(items),
        "equal": len(items),
        "items": items,
        "compared": "responses, character by character",
        "hardware": {"device": "cpu"},
        "versions": {"rba-bench": "0.1.0"},
        "created": "2026-11-29T20:00:00+00:00",
        "by": "",
        **changes,
    }


def attest(folder: Path, **changes: Any) -> Path:
    """An attestation beside a record; returns its file."""
    file = folder / "attestation.json"
    file.write_text(json.dumps(attestation(folder, **changes), indent=1) + "\n")
    return file
