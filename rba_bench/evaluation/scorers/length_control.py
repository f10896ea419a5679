"""Length control of a win rate, and where the difficulties of AlpacaEval's instructions come from.

Forms (`lc:` of a `pairwise` entry; of a list the first whose tables can be found):

    none              no `lc_win_rate`; the default
    difficulty        `length_controlled_v1`: with difficulties, regularised by the gamed baselines; AlpacaEval's board
    difficulty_noreg  `length_controlled_noreg`: with difficulties only
    minimal           length alone

Boards rank by `lc_win_rate` only in the form `difficulty` (`TRUSTED`). The other two estimate the effect of length from
the answers of one system, and a system whose answers are all short has no long ones to estimate it from: what it lacks
in quality is attributed to length. `tasks/alpacaeval/README.md` has the numbers.

Difficulties exist for the 805 instructions of AlpacaEval, by position; a spoken subset is mapped by its text. The files
are options of the entry, else those of the data set `tatsu-lab/alpaca_eval` in the local copy or on the Hub:
`gamed` (`df_gamed.csv`), `difficulty` (`instruction_difficulty.csv`; without it the column in `gamed`), `instructions`
(`alpaca_eval_gpt4_baseline.json`: the 805 in order). An item whose instruction is not among them has no `lc_win_rate`;
more than a tenth of such items is another test set, and refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.evaluation.sources import hub
from rba_bench.evaluation.sources.source import Place
from rba_bench.files import read_json, sha256_file
from rba_bench.metrics.win_rate import (
    Gamed,
    LengthControlled,
    difficulties,
    length_controlled,
    read_difficulty,
    read_gamed,
)
from rba_bench.progress import say

REPO = "tatsu-lab/alpaca_eval"
FILES = {
    "gamed": "df_gamed.csv",
    "difficulty": "instruction_difficulty.csv",
    "instructions": "alpaca_eval_gpt4_baseline.json",
}
NONE = "none"
FORMS = (NONE, "difficulty", "difficulty_noreg", "minimal")
TRUSTED = "difficulty"
KNOWN_SHARE = 0.9  # of the items; below it the instructions are not AlpacaEval's
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
    def from_config(cls, config: Mapping[str, Any], options: ScorerOptions) -> "LengthControl | None":
        """As an entry of `metadata.finish` says; None for `none`.

        Raises:
            UserError: Unknown form, or a file of another layout.
            MissingPrerequisite: A table cannot be found.
        """
        config = choose_form(config, options)
        form = config["lc"]
        if form == NONE:
            return None
        if form == "minimal":
            return cls()
        paths = {name: Path(str(config[name])) for name in _table_names(form, config)}
        for name, path in paths.items():
            if not path.is_file():
                raise MissingPrerequisite(
                    f"no file {path} ({name} of length control): it is {FILES[name]} of {REPO}"
                )
        gamed = read_gamed(paths["gamed"]) if "gamed" in paths else None
        by_index = read_difficulty(paths["difficulty"]) if "difficulty" in paths else None
        if by_index is None and gamed is not None:
            by_index = dict(gamed.by_index)
        instructions = paths["instructions"]
        try:
            texts = [str(row["instruction"]) for row in read_json(instructions)]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{instructions} is no list of instructions as in {REPO}: {error!r}") from error
        # Of equal instructions the first counts
        positions = {_words(text): position for position, text in reversed(list(enumerate(texts)))}
        hashes = {name: sha256_file(path) for name, path in paths.items()}
        return cls(form, by_index, positions, gamed if form == TRUSTED else None, hashes)

    @property
    def signature(self) -> str:
        """What is computed, for the metric."""
        return f"lc:{self.form}|tanh(standardised length difference)|l1 logistic, 5-fold"

    def facts(self) -> dict[str, Any]:
        """JSON form for the protocol."""
        return {"form": self.form, **({"tables_sha256": dict(self.hashes)} if self.hashes else {})}

    def has_difficulty(self, samples: Sequence[Sample]) -> list[bool]:
        """Which items have a difficulty, so that their length can be controlled.

        Raises:
            UserError: too many have none: the instructions are not those of the tables.
        """
        if self.by_index is None:
            return [True] * len(samples)
        has = [self.positions.get(_words(s.instruction)) in self.by_index for s in samples]
        if samples and sum(has) < KNOWN_SHARE * len(samples):
            first = samples[has.index(False)].instruction
            raise UserError(
                f"{len(has) - sum(has)} of {len(has)} instructions are not among AlpacaEval's "
                f"(first: {first[:60]!r}): their difficulty is unknown, use lc: {NONE}"
            )
        return has

    def fit(
        self, samples: Sequence[Sample], preferences: Sequence[float], baselines: Sequence[str]
    ) -> LengthControlled:
        """The length-controlled win rate of judged items, all of which have a difficulty."""
        difficulty = None
        if self.by_index is not None:
            difficulty = difficulties([self.positions[_words(s.instruction)] for s in samples], self.by_index)
        lengths, baseline_lengths = [len(s.extracted) for s in samples], [len(text) for text in baselines]
        return length_controlled(preferences, lengths, baseline_lengths, difficulty, self.gamed)


def choose_form(config: Mapping[str, Any], options: ScorerOptions, aloud: bool = False) -> dict[str, Any]:
    """An entry with one form, and the paths of the tables that it needs.

    Of a list of forms the first whose tables can be found is used, so the last one is best `none`. The choice is part
    of the protocol: runs of different forms never share a table.

    Args:
        config: The entry; a table that it names itself must exist.
        options: Where to look for the others.
        aloud: Say on stderr which form is not used, and how to get its tables.

    Raises:
        UserError: Unknown form.
        MissingPrerequisite: A table of the last form cannot be found.
    """
    listed = config.get("lc", NONE)
    forms = [str(form) for form in (listed if isinstance(listed, list | tuple) else [listed])] or [NONE]
    if unknown := [form for form in forms if form not in FORMS]:
        raise UserError(f"unknown length control lc: {unknown[0]}; known: {', '.join(FORMS)}")
    for form, next_form in zip(forms, forms[1:], strict=False):
        try:
            return _with_tables(form, config, options.data_dir)
        except MissingPrerequisite as error:
            if aloud:
                say(f"length control lc: {form} cannot be used, lc: {next_form} is used instead: {error}")
    return _with_tables(forms[-1], config, options.data_dir)


def _table_names(form: str, config: Mapping[str, Any]) -> list[str]:
    """Names of the tables of a form."""
    if form in (NONE, "minimal"):
        return []
    gamed = ["gamed"] if form == TRUSTED or config.get("gamed") else []
    return ["instructions", *gamed, *(["difficulty"] if config.get("difficulty") or not gamed else [])]


def _with_tables(form: str, config: Mapping[str, Any], data_dir: Path | None) -> dict[str, Any]:
    """The entry with a form and the paths of its tables; one error names all files that are missing."""
    place, paths = Place.of(data_dir), dict[str, str]()
    names = [name for name in _table_names(form, config) if not config.get(name)]
    for name in names:
        try:
            paths[name] = str(hub.find_files(REPO, [FILES[name]], place).paths[0])
        except MissingPrerequisite:
            if place.data_dir is None:
                raise
    if missing := [FILES[name] for name in names if name not in paths]:
        hub.find_files(REPO, missing, place)
    return {**config, "lc": form, **paths}


def _words(text: str) -> str:
    """Spoken sets differ from the written one in case, punctuation and spaces."""
    return " ".join(_WORD.findall(text.casefold()))
