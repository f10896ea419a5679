"""The page of a transfer, `report.md`: the answer in words, then the tables that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rba_bench.leaderboard.judge_transfer.kinds import Kind
from rba_bench.leaderboard.tables import LONGEST, NOTHING, SHORT, TextTable, interval_text
from rba_bench.metrics.interval import Interval
from rba_bench.untrusted import plain

HEAD = """# From judge A to judge B

- A, the judge to be replaced: {a}
- B, the judge that takes its place: {b}
- Chosen with seed {seed}: {n} answers, set `{set}`

Differences are B minus A on the same answers. Intervals are 95 % and draw whole items, with the answers of all models;
`*` marks one without zero, each for itself.
"""
PAIRS_LEGEND = (
    "*Consistency*: the same answer is preferred in both orders. *Answer in front*, *longer answer*: preference for "
    "it, in points of 100. *Doubling*: points for each doubling of the answer's length against the baseline's, within "
    "models."
)
ALONE_LEGEND = (
    "*Consistency*: all votes on an answer say the same. *Doubling*: points for each doubling of the answer's length, "
    "within models."
)
LEGEND = (
    "Long answers may be better: only the difference between judges tells bias from quality. *Own family*: what a "
    "judge gives models of its family more than the other judge does, beyond what it gives the others. A judge that is "
    "only more decided than the other shows the same where its family is better, or worse, than the rest."
)


@dataclass(frozen=True)
class SectionResult:
    """What came out for one metric of one table.

    Attributes:
        name: Of the section.
        kind: Of the verdicts.
        verdict: The answer in words.
        counts: Items, models, answers, verdicts.
        effects: See `effects`.
        facts: Task, hashes, metric and judge A.
    """

    name: str
    kind: Kind
    verdict: Sequence[str]
    counts: Mapping[str, int]
    effects: Mapping[str, Any]
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        parts = {"verdict": list(self.verdict), "counts": dict(self.counts), "effects": dict(self.effects)}
        return {"name": self.name, **parts, **self.facts}


def report_page(facts: Mapping[str, Any], results: Sequence[SectionResult]) -> str:
    """The page.

    Args:
        facts: `a`, `b` (labels), `seed`, `n_pairs`, `pairs_sha256`, `left_out`, `next`.
        results: Of each section.
    """
    head = HEAD.format(
        a=plain(facts["a"]), b=plain(facts["b"]), seed=facts["seed"], n=facts["n_pairs"],
        set=facts["pairs_sha256"][:SHORT],
    )  # fmt: skip
    blocks = [head]
    for result in results:
        blocks += _section(result)
    if facts["left_out"]:
        blocks += [
            "## Not compared, and warnings",
            "\n".join(f"- {plain(reason, LONGEST)}" for reason in facts["left_out"]),
        ]
    if facts["next"]:
        blocks += ["## The board under B", facts["next"]]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _section(result: SectionResult) -> Iterator[str]:
    kind, effects = result.kind, result.effects
    yield f"## {plain(result.name)}"
    yield "\n".join(f"- {sentence}" for sentence in result.verdict)
    yield _counts(kind, result.counts)
    yield "### Scores under both judges"
    yield _scores(kind, effects["scores"]).markdown()
    yield "### Agreement"
    yield _agreement(kind, effects["agreement"]).markdown()
    yield "### What sways the judges"
    yield _biases(kind, effects).markdown()
    yield f"{PAIRS_LEGEND if kind.in_pairs else ALONE_LEGEND} {LEGEND}"


def _counts(kind: Kind, counts: Mapping[str, int]) -> str:
    asked = f"{counts['a_asked']} of A's verdicts were asked for now, {counts['a_stored']} are the records'"
    failed = f"; without a verdict of A {counts['a_failed']}, of B {counts['b_failed']}" if (
        counts["a_failed"] or counts["b_failed"]
    ) else ""  # fmt: skip
    return (
        f"{counts['items']} items, {counts['models']} models, {counts['pairs']} {kind.item}s, {counts['by_rule']} of "
        f"them decided by rule without a judge; {asked}{failed}."
    )


def _scores(kind: Kind, rows: Sequence[Mapping[str, Any]]) -> TextTable:
    shown = (kind.factor, kind.digits)
    lines = [
        [
            row["model"], str(row["rank_a"]), str(row["rank_b"]), _text(row["a"], *shown), _text(row["b"], *shown),
            _text(row["difference"], *shown, signed=True), str(row["n"]),
        ]
        for row in rows
    ]  # fmt: skip
    return TextTable(
        ["model", "place under A", "under B", f"{kind.title} under A", "under B", "B - A", "n"], lines
    )


def _agreement(kind: Kind, facts: Mapping[str, Any]) -> TextTable:
    same = "same grade %" if kind.graded else "same verdict %"
    rows = [
        (same, "raw", 100.0, 1),
        ("at most one grade apart %", "within_one", 100.0, 1),
        ("Cohen's kappa", "kappa", 1.0, 2),
        ("Gwet's AC1", "ac1", 1.0, 2),
        ("kappa with quadratic weights", "weighted_kappa", 1.0, 2),
        ("Pearson's correlation", "pearson", 1.0, 2),
        ("Spearman's correlation", "spearman", 1.0, 2),
        ("mean distance, points", "mean_distance", kind.factor, kind.digits),
        ("same verdict % where both are consistent", "raw_where_consistent", 100.0, 1),
    ]
    lines = [
        [name, _text(facts[key], factor, digits, star=False)]
        for name, key, factor, digits in rows
        if key in facts
    ]
    if "mean_difference" in facts:
        difference = _text(facts["mean_difference"], kind.factor, kind.digits, signed=True)
        lines.append(["mean difference B - A, points", difference])
    for x, row in reversed(facts.get("table", {}).items()):
        lines.append([f"A says {x}: B says", ", ".join(f"{y} {row[y]}" for y in reversed(kind.names))])
    return TextTable(["", f"{facts['n']} {kind.item}s"], lines)


def _biases(kind: Kind, effects: Mapping[str, Any]) -> TextTable:
    votes, length, kin = effects["votes"], effects["length"], effects["self_preference"]
    points = (kind.factor, kind.digits)
    lines = []
    for title, part, key, shown, signed in (
        ("consistency %", votes, "consistency", (100.0, 1), False),
        ("answer in front", votes, "position_bias", points, True),
        ("longer answer", length, "longer_preferred", points, True),
        ("doubling", length, "slope", points, True),
    ):
        if not kind.in_pairs and key in ("position_bias", "longer_preferred"):
            continue
        of_each = [(part.get(who) or {}).get(key) for who in ("a", "b", "difference")]
        signs = (signed, signed, True)
        lines.append(
            [title, *(_text(each, *shown, signed=sign) for each, sign in zip(of_each, signs, strict=True))]
        )
    family = [_text(kin[who].get("gain"), *points, signed=True) for who in ("a", "b")]
    lines.append(["own family", *family, NOTHING])
    return TextTable(["", "A", "B", "B - A"], lines)


def _text(
    interval: Interval | None,
    factor: float = 100.0,
    digits: int = 1,
    signed: bool = False,
    star: bool | None = None,
) -> str:
    if interval is None:
        return NOTHING
    text = interval_text((interval.value, interval.low, interval.high), factor, digits, signed)
    marked = signed if star is None else star
    return text + (" *" if marked and interval.excludes(0.0) else "")
