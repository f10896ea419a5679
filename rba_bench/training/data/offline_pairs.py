"""Preference pairs that are given instead of sampled.

A JSON line per pair: `{"id": ROW OR GROUP, "chosen": TEXT, "rejected": TEXT, "gap": 1.5}`; `id` names a clip (a row of
the alignment set) or an instruction, whose pair then goes to each of its voices in turn. `gap` (reward of the one less
that of the other) is optional and serves ODPO.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_jsonl, sha256_file
from rba_bench.training.data.pairs import Answer, Pair
from rba_bench.training.methods.outcome import Outcome


@dataclass(frozen=True)
class TextPair:
    """One given pair."""

    chosen: str
    rejected: str
    gap: float = 0.0


class OfflinePairs:
    """Given pairs by clip or instruction.

    Args:
        pairs: by row id or group id.
    """

    def __init__(self, pairs: Mapping[str, Sequence[TextPair]]) -> None:
        self.pairs = pairs

    @classmethod
    def open(cls, path: Path) -> "OfflinePairs":
        """Read a file of pairs.

        Raises:
            UserError: there is none, it is empty, or a line is not a pair.
        """
        if not path.is_file():
            raise UserError(f"no pairs in {path}: pairs_file names a JSON-lines file")
        found: dict[str, list[TextPair]] = {}
        for number, line in enumerate(read_jsonl(path), 1):
            name, pair = _pair(line, f"{path}, line {number}")
            found.setdefault(name, []).append(pair)
        if not found:
            raise UserError(f"{path} holds no pair")
        return cls(found)

    @staticmethod
    def sha256(path: Path) -> str:
        """Identity of a file of pairs. Raises UserError if there is none."""
        if not path.is_file():
            raise UserError(f"no pairs in {path}: pairs_file names a JSON-lines file")
        return sha256_file(path)

    def check(self, known: Sequence[str]) -> None:
        """Refuse groups without a pair.

        Args:
            known: group ids of the training split.

        Raises:
            UserError: none of them has a pair of its own or a clip with one.
        """
        if not any(name in self.pairs or any(key.startswith(name) for key in self.pairs) for name in known):
            raise UserError(
                "no pair of pairs_file names a row or group of the alignment set: check its `id`s"
            )

    def __call__(self, rows: Sequence[AlignmentRow], tokens: Callable[[str], tuple[int, ...]]) -> Outcome:
        """All pairs of one group.

        Args:
            rows: its clips.
            tokens: an answer to its tokens, end token included.
        """
        given = [(row, pair) for row in rows for pair in self.pairs.get(row.id, ())]
        shared = self.pairs.get(rows[0].group_id, ()) if rows else ()
        given += [(rows[number % len(rows)], pair) for number, pair in enumerate(shared)]
        made = [
            Pair(Answer(row, tokens(pair.chosen)), Answer(row, tokens(pair.rejected)), pair.gap)
            for row, pair in given
        ]
        different = [pair for pair in made if pair.chosen.tokens != pair.rejected.tokens]
        return Outcome(len(made), different)


def _pair(line: Any, place: str) -> tuple[str, TextPair]:
    if not isinstance(line, dict) or not all(
        isinstance(line.get(k), str) for k in ("id", "chosen", "rejected")
    ):
        raise UserError(f"{place}: a pair is an object with the texts `id`, `chosen` and `rejected`")
    gap = line.get("gap", 0.0)
    if isinstance(gap, bool) or not isinstance(gap, int | float):
        raise UserError(f"{place}: gap must be a number")
    return line["id"], TextPair(line["chosen"], line["rejected"], float(gap))
