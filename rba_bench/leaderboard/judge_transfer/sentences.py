"""What the effects of a new judge mean for the board, in words.

Each sentence says no more than an interval or a test does. A is the old judge, B the new one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rba_bench.leaderboard.judge_transfer.kinds import Kind
from rba_bench.leaderboard.tables import interval_text
from rba_bench.metrics.interval import LEVEL, Interval
from rba_bench.untrusted import plain

SHOWN = 4  # pairs of models that a sentence names
USELESS = 0.5  # of pairs with one verdict in both orders; below it a judge mostly contradicts itself


def verdict(effects: Mapping[str, Any], kind: Kind, failed: float = 0.0) -> list[str]:
    """The answer first, then what else a reader of the board should know.

    Args:
        effects: Of one section.
        kind: Of its verdicts.
        failed: Share of the answers on which B gave no verdict, and which the effects leave out.
    """
    return [
        _answer(effects, kind, failed),
        _agreement(effects, kind),
        *_silent(effects, kind, failed),
        *_scores(effects, kind),
        *_biases(effects, kind),
    ]


def _answer(effects: Mapping[str, Any], kind: Kind, failed: float) -> str:
    """Whether B can take the place of A, by the order of the models."""
    order = effects["order_of_models"]
    reasons = list(_reasons_against(effects, kind))
    reasons += [f"it gives no verdict on most {kind.item}s"] if failed > USELESS else []
    if reasons:
        return f"B cannot take the place of A on this board: {'; '.join(reasons)}."
    told_apart = len(order["kept"]) + len(order["lost"]) + len(order["reversed"])
    if order["reversed"]:
        opposite = _listed(order["reversed"], "below")
        return f"B changes the order of the board: it puts {opposite}, where A had the opposite."
    if not told_apart:
        more = f"; B tells {len(order['gained'])} apart" if order["gained"] else ""
        return (
            f"A tells no two models apart on these {kind.item}s, so nothing follows for their order{more}: take more "
            f"{kind.item}s."
        )
    orders = f"{told_apart} orders of two models that A finds on these {kind.item}s"
    gained = f", and {len(order['gained'])} more" if order["gained"] else ""
    if order["lost"]:
        lost = f"it does not tell apart {_listed(order['lost'], 'and')}"
        return f"B finds {len(order['kept'])} of the {orders}{gained} and reverses none; {lost}."
    return f"B finds all {orders}{gained}."


def _reasons_against(effects: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    agreement, forms = effects["agreement"], ["kappa", "ac1"]
    if (
        kind.graded
    ):  # a judge that gives one grade only has a weighted kappa of 0, which says nothing of the other
        forms = ["weighted_kappa"] if agreement.get("pearson") is not None else []
    corrected = [agreement[form] for form in forms if agreement.get(form) is not None]
    if corrected and all(interval.low <= 0 for interval in corrected):
        yield f"the two agree no more than by chance, as far as these {kind.item}s tell"
    own = effects["votes"].get("b")
    if kind.in_pairs and own and own["consistency"].value < USELESS:
        yield f"B prefers the same answer in both orders in only {_percent(own['consistency'])} of the pairs"


def _listed(pairs: Sequence[Sequence[str]], word: str) -> str:
    texts = [f"`{plain(better)}` {word} `{plain(worse)}`" for better, worse in pairs[:SHOWN]]
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return ", ".join(texts) + more


def _agreement(effects: Mapping[str, Any], kind: Kind) -> str:
    facts, tau = effects["agreement"], effects["order_of_models"]["tau"]
    if not facts["n"]:
        return f"All {kind.item}s are decided by rule, so the judges cannot be compared."
    if kind.graded:
        forms = {"weighted_kappa": "kappa with quadratic weights", "spearman": "Spearman's correlation"}
        same = (
            f"Both give one grade to {_percent(facts['raw'])} of {_count(facts['n'], kind.item)}, and grades at most "
            f"one apart to {_percent(facts['within_one'])}"
        )
    else:
        forms = {"kappa": "Cohen's kappa", "ac1": "Gwet's AC1"}
        same = f"Both give one verdict on {_percent(facts['raw'])} of {_count(facts['n'], kind.item)}"
    numbers = [
        f"{name} {interval_text(_ends(facts[form]), digits=2)}"
        for form, name in forms.items()
        if facts[form] is not None
    ]
    corrected = f" ({', '.join(numbers)})" if numbers else ""
    if tau is None:
        return f"{same}{corrected}."
    order = interval_text(_ends(tau), digits=2)
    return f"{same}{corrected}. Kendall's tau of the two orders of models is {order}."


def _silent(effects: Mapping[str, Any], kind: Kind, failed: float) -> Iterator[str]:
    """What B did not judge, and whether that was chance."""
    if not failed:
        return
    gap = effects.get("missing", {}).get("a_difference")
    text = f"B gave no verdict on {100 * failed:.0f} % of the {kind.item}s, which are left out"
    if gap is not None and gap.excludes(0.0):
        word = "more" if gap.value > 0 else "less"
        text += (
            f"; not at random: A gives these {_points(gap, kind, absolute=True)} points {word} than the others, so the "
            "scores above hold for what is left"
        )
    yield f"{text}."


def _scores(effects: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    rows = effects["scores"]
    plural = f"{kind.plural[0].upper()}{kind.plural[1:]}"
    moved = _told_apart(rows)
    if moved:
        shifts = [kind.factor * row["difference"].value for row in moved]
        ends = dict.fromkeys(f"{end:+.{kind.digits}f}" for end in (min(shifts), max(shifts)))
        yield (
            f"{plural} under A and B must not share a column: those of {len(moved)} of {_count(len(rows), 'model')} "
            f"differ, by {' to '.join(ends)} points."
        )
    elif rows:
        yield (
            f"No difference between the {kind.plural} of {_count(len(rows), 'model')} under A and under B is larger "
            f"than these {kind.item}s can tell."
        )


def _told_apart(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Models whose scores differ; with probability 0.95 none of equal scores is among them (Holm 1979)."""
    found = []
    for place, row in enumerate(sorted(rows, key=lambda row: float(row["difference"].p))):
        if row["difference"].p * (len(rows) - place) > 1 - LEVEL:
            break
        found.append(row)
    return found


def _biases(effects: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    votes, length = effects["votes"], effects["length"]
    front = votes.get("b", {}).get("position_bias")
    if front is not None and front.excludes(0.0):
        place = "front" if front.value > 0 else "second place"
        yield f"B prefers the answer in {place} by {_points(front, kind, absolute=True)} points."
    change = votes.get("difference", {}).get("consistency")
    if change is not None and change.excludes(0.0):
        word = "less" if change.value < 0 else "more"
        does = "prefers the same answer in both orders" if kind.in_pairs else "says the same in all its votes"
        by = interval_text(_ends_of_size(change), 100.0)
        yield f"B {does} {word} often than A, by {by} points of 100."
    slope = length.get("difference", {}).get("slope")
    if slope is not None and slope.excludes(0.0):
        word = "more" if slope.value > 0 else "less"
        yield f"B rewards length {word} than A: {_points(slope, kind)} points for each doubling."
    for name, other in (("b", "A"), ("a", "B")):
        family = effects["self_preference"][name]
        gain = family.get("gain")
        if gain is not None and gain.excludes(0.0):
            models = ", ".join(f"`{plain(label)}`" for label in family["models"][:SHOWN])
            word = "more" if gain.value > 0 else "less"
            yield (
                f"Judge {name.upper()} gives models of its own family ({models}) "
                f"{_points(gain, kind, absolute=True)} points {word} than {other} does, beyond what it gives the "
                "others."
            )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _ends_of_size(interval: Interval) -> tuple[float, float, float]:
    """Without the sign."""
    value, low, high = _ends(interval)
    return (-value, -high, -low) if value < 0 else (value, low, high)


def _percent(interval: Interval) -> str:
    return f"{interval_text(_ends(interval), 100.0)} %"


def _points(interval: Interval, kind: Kind, absolute: bool = False) -> str:
    ends = _ends_of_size(interval) if absolute else _ends(interval)
    return interval_text(ends, kind.factor, kind.digits, signed=not absolute)
