"""An append-only JSON-lines log that a killed run leaves readable and the next run continues."""

from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import JsonlAppender, read_jsonl


class Log:
    """Records of a JSON-lines file, each with an `index`, in memory and on disk; a context manager."""

    def __init__(self, path: Path) -> None:
        try:
            self.records: list[dict[str, Any]] = list(read_jsonl(path))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete {path.parent} and run again") from error
        self.by_index: dict[int, dict[str, Any]] = {record["index"]: record for record in self.records}
        self._file = JsonlAppender(path)

    def extend(self, records: list[dict[str, Any]]) -> None:
        """Append `records`; they are on disk when this returns."""
        if records:
            self._file.write(*records)
            self.records += records
            self.by_index |= {record["index"]: record for record in records}

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
