"""Length control of a win rate, and where the difficulties of AlpacaEval's instructions come from.

Forms (`lc:` of a `pairwise` entry):

    minimal           length alone; the default, for it fits any instructions
    difficulty        `length_controlled_v1`: with difficulties, drawn towards the gamed baselines; AlpacaEval's board
    difficulty_noreg  `length_controlled_noreg`: with difficulties only
    none              no `lc_win_rate`

Difficulties exist for the 805 instructions of AlpacaEval, by position; a spoken subset is mapped by its text. The files
are options of the entry, else those of the data set `tatsu-lab/alpaca_eval` in the local copy or on the Hub:
`gamed` (`df_gamed.csv`), `difficulty` (`instruction_difficulty.csv`; without it the column in `gamed`), `instructions`
(`alpaca_eval_gpt4_baseline.json`: the 805 in order).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.finishers.base import FinishOptions
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.sources import hub
from rba_bench.evaluation.sources.base import Place
from rba_bench.files import read_json, sha256_file
from rba_bench.metrics.lc_winrate import (
    Gamed,
    LengthControlled,
    difficulties,
    length_controlled,
    read_difficulty,
    read_gamed,
)

REPO = "tatsu-lab/alpaca_eval"
FILES = {
    "gamed": "df_gamed.csv",
    "difficulty": "instruction_difficulty.csv",
    "instructions": "alpaca_eval_gpt4_baseline.json",
}
FORMS = ("minimal", "difficulty", "difficulty_noreg", "none")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class LengthControl:
    """A form of length control with its tables.

    Attributes:
        form: See the module.
        by_index: Difficulty by position in the 805, None in the minimal form.
        positions: Position by the words of an instruction.
        gamed: Comparisons to regularise with, form `difficulty` only.
        hashes: SHA-256 of the tables read: part of the protocol.
    """

    form: str = "minimal"
    by_index: Mapping[int, float] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    gamed: Gamed | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Mapping[str, Any], options: FinishOptions) -> "LengthControl | None":
        """As an entry of `metadata.finish` says; None for `none`.

        Raises:
            UserError: Unknown form, or a file of another layout.
            MissingPrerequisite: A table is not to be had.
        """
        form = str(config.get("lc", "minimal"))
        if form not in FORMS:
            raise UserError(f"unknown length control lc: {form}; known: {', '.join(FORMS)}")
        if form == "none":
            return None
        if form == "minimal":
            return cls()
        names = ["instructions"]
        names += ["gamed"] if form == "difficulty" or config.get("gamed") else []
        names += ["difficulty"] if config.get("difficulty") or "gamed" not in names else []
        paths = {name: _find(name, config, options) for name in names}
        gamed = read_gamed(paths["gamed"]) if "gamed" in paths else None
        by_index = read_difficulty(paths["difficulty"]) if "difficulty" in paths else None
        if by_index is None and gamed is not None:
            by_index = dict(gamed.by_index)
        hashes = {name: sha256_file(path) for name, path in paths.items()}
        return cls(
            form, by_index, _positions(paths["instructions"]), gamed if form == "difficulty" else None, hashes
        )

    @property
    def signature(self) -> str:
        """What is computed, for the metric."""
        return f"lc:{self.form}|tanh(standardised length difference)|l1 logistic, 5-fold"

    def facts(self) -> dict[str, Any]:
        """JSON form for the protocol."""
        return {"form": self.form, **({"tables_sha256": dict(self.hashes)} if self.hashes else {})}

    def check(self, samples: Sequence[Sample]) -> None:
        """Raises UserError if an instruction is not among the 805, before anything is asked."""
        self._difficulties(samples)

    def fit(
        self, samples: Sequence[Sample], preferences: Sequence[float], baselines: Sequence[str]
    ) -> LengthControlled:
        """The length-controlled win rate of judged items."""
        return length_controlled(
            preferences,
            [len(sample.response) for sample in samples],
            [len(baseline) for baseline in baselines],
            self._difficulties(samples),
            self.gamed,
        )

    def _difficulties(self, samples: Sequence[Sample]) -> Any:
        if self.by_index is None:
            return None
        unknown = [s.instruction for s in samples if _words(s.instruction) not in self.positions]
        if unknown:
            raise UserError(
                f"{len(unknown)} of {len(samples)} instructions are not among AlpacaEval's "
                f"(first: {unknown[0][:60]!r}): their difficulty is unknown, use lc: minimal"
            )
        return difficulties([self.positions[_words(s.instruction)] for s in samples], self.by_index)


def _find(name: str, config: Mapping[str, Any], options: FinishOptions) -> Path:
    if not config.get(name):
        return hub.files(REPO, [FILES[name]], Place.of(options.data_dir)).paths[0]
    path = Path(str(config[name]))
    if not path.is_file():
        raise MissingPrerequisite(f"no file {path} ({name} of length control): it is {FILES[name]} of {REPO}")
    return path


def _positions(path: Path) -> dict[str, int]:
    """Position by words; of equal instructions the first counts."""
    try:
        texts = [str(row["instruction"]) for row in read_json(path)]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of instructions as in {REPO}: {error!r}") from error
    return {_words(text): position for position, text in reversed(list(enumerate(texts)))}


def _words(text: str) -> str:
    """Spoken sets differ from the written one in case, punctuation and spaces."""
    return " ".join(_WORD.findall(text.casefold()))
