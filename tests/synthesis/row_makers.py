"""Makers of rows that go wrong in a worker; a module of its own, because workers import it by name."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.synthesis.speaking import SpokenShard


@dataclass(frozen=True)
class FaultyMaker:
    """Makes one row a unit.

    Attributes:
        fault: `killed` ends the worker, once for each unit "kill" that has no file in `folder` yet; `always` does so
            every time; `refuses` raises; `sleeps` takes a minute.
        folder: Where it notes what it did.
    """

    fault: str
    folder: Path
    name: str = "faulty"
    version: str = "1"

    def voice_names(self) -> list[str]:
        return []

    def round_trip_facts(self) -> None:
        return None

    def settings(self) -> dict[str, Any]:
        return {}

    def shard(self, units: Sequence[str], first: int) -> SpokenShard:
        note = self.folder / f"{first}.note"
        dies = self.fault == "always" or (self.fault == "killed" and not note.exists())
        if "kill" in units and dies:
            note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "refuses":
            raise UserError("no voice of that name")
        if self.fault == "sleeps":
            note.write_text(str(os.getpid()))
            time.sleep(60)
        return SpokenShard([{"id": f"{first + i}", "instruction": unit} for i, unit in enumerate(units)], [])
