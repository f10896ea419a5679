"""The page of a transfer, `report.md`: the answer in words, then the tables that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rba_bench.leaderboard.tables import LONGEST, NOTHING, SHORT, TextTable, interval_text
from rba_bench.metrics.interval import Interval
from rba_bench.untrusted import plain

HEAD = """# From judge A to judge B

- A, the judge to be replaced: {a}
- B, the judge that takes its place: {b}
- Chosen with seed {seed}: {n} pairs, an answer against the baseline's each, set `{set}`

Differences are B minus A on the same pairs. Intervals are 95 % and draw whole items, with the answers of all models;
`*` marks one without zero, each for itself. Biases are in points of preference (0 to 100 for the answer in question).
"""


def report_page(facts: Mapping[str, Any], sections: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        facts: `a`, `b` (labels), `seed`, `n_pairs`, `pairs_sha256`, `left_out`, `next`.
        sections: Results of each section.
    """
    head = HEAD.format(
        a=plain(facts["a"]), b=plain(facts["b"]), seed=facts["seed"], n=facts["n_pairs"],
        set=facts["pairs_sha256"][:SHORT],
    )  # fmt: skip
    blocks = [head]
    for section in sections:
        blocks += _section(section)
    if facts["left_out"]:
        blocks += [
            "## Not compared, and warnings",
            "\n".join(f"- {plain(reason, LONGEST)}" for reason in facts["left_out"]),
        ]
    if facts["next"]:
        blocks += ["## The board under B", facts["next"]]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _section(section: Mapping[str, Any]) -> Iterator[str]:
    effects = section["effects"]
    yield f"## {plain(section['name'])}"
    yield "\n".join(f"- {sentence}" for sentence in section["verdict"])
    yield _counts(section)
    yield "### Win rates under both judges"
    yield _win_rates(effects["win_rates"]).markdown()
    yield "### Agreement"
    yield _agreement(effects["agreement"]).markdown()
    yield "### What sways the judges"
    yield _biases(effects).markdown()
    yield (
        "*Consistency*: the same answer is preferred in both orders. *Doubling*: points of preference for each "
        "doubling of the answer's length against the baseline's, within models; only the difference between judges "
        "tells bias from quality. *Own family*: what a judge gives models of its family more than the other judge "
        "does, beyond what it gives the others."
    )


def _counts(section: Mapping[str, Any]) -> str:
    counts = section["counts"]
    asked = f"{counts['a_asked']} of A's verdicts were asked for now, {counts['a_stored']} are the records'"
    failed = f"; without a verdict of A {counts['a_failed']}, of B {counts['b_failed']}" if (
        counts["a_failed"] or counts["b_failed"]
    ) else ""  # fmt: skip
    return (
        f"{counts['items']} items, {counts['models']} models, {counts['pairs']} pairs, {counts['by_rule']} of them "
        f"decided by rule without a judge; {asked}{failed}."
    )


def _win_rates(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    lines = [
        [
            row["model"], str(row["rank_a"]), str(row["rank_b"]), _text(row["a"]), _text(row["b"]),
            _text(row["difference"], signed=True), str(row["n"]),
        ]
        for row in rows
    ]  # fmt: skip
    return TextTable(
        ["model", "place under A", "under B", "win rate % under A", "under B", "B - A", "n"], lines
    )


def _agreement(facts: Mapping[str, Any]) -> TextTable:
    rows = [
        ("same verdict %", facts.get("raw"), 100.0, 1),
        ("Cohen's kappa", facts.get("kappa"), 1.0, 2),
        ("Gwet's AC1", facts.get("ac1"), 1.0, 2),
        ("mean distance of preferences, points", facts.get("mean_distance"), 100.0, 1),
        ("same verdict % where both are consistent", facts.get("raw_where_consistent"), 100.0, 1),
    ]
    lines = [[name, _text(value, factor, digits, star=False)] for name, value, factor, digits in rows]
    table = facts.get("table")
    for x in ("win", "tie", "loss") if table else ():
        cells = ", ".join(f"{y} {table[x][y]}" for y in ("win", "tie", "loss"))  # type: ignore[index]
        lines.append([f"A says {x}: B says", cells])
    return TextTable(["", f"{facts['n']} pairs"], lines)


def _biases(effects: Mapping[str, Any]) -> TextTable:
    order, length, kin = effects["order"], effects["length"], effects["self_preference"]
    lines = []
    for title, part, key, signed in (
        ("consistency %", order, "consistency", False),
        ("answer in front", order, "position_bias", True),
        ("longer answer", length, "longer_preferred", True),
        ("doubling", length, "slope", True),
    ):
        cells = [
            _text(
                (part.get(who) or {}).get(key),
                signed=signed or who == "difference",
                star=signed or who == "difference",
            )
            for who in ("a", "b", "difference")
        ]
        lines.append([title, *cells])
    lines.append(["own family", *(_text(kin[who].get("gain"), signed=True) for who in ("a", "b")), NOTHING])
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
