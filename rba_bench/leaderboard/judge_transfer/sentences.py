"""What the effects of a new judge mean for the board, in words.

Each sentence says no more than an interval or a test does. A is the old judge, B the new one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rba_bench.leaderboard.tables import interval_text
from rba_bench.metrics.interval import Interval
from rba_bench.untrusted import plain

SHOWN = 4  # pairs of models that a sentence names
USELESS = 0.5  # of pairs with one verdict in both orders; below it a judge mostly contradicts itself


def verdict(effects: Mapping[str, Any], failed: float = 0.0) -> list[str]:
    """The answer first, then what else a reader of the board should know.

    Args:
        effects: Of one section.
        failed: Share of the pairs on which B gave no verdict, and which the effects leave out.
    """
    silent = (
        [f"B gave no verdict on {100 * failed:.0f} % of the pairs, which are left out."] if failed else []
    )
    return [_answer(effects, failed), _agreement(effects), *silent, *_scores(effects), *_biases(effects)]


def _answer(effects: Mapping[str, Any], failed: float) -> str:
    """Whether B can take the place of A, by the order of the models."""
    order = effects["order_of_models"]
    reasons = list(_reasons_against(effects))
    reasons += ["it gives no verdict on most pairs"] if failed > USELESS else []
    if reasons:
        return f"B cannot take the place of A on this board: {'; '.join(reasons)}."
    told_apart = len(order["kept"]) + len(order["lost"]) + len(order["reversed"])
    if order["reversed"]:
        opposite = _listed(order["reversed"], "below")
        return f"B changes the order of the board: it puts {opposite}, where A had the opposite."
    if not told_apart:
        more = f"; B tells {len(order['gained'])} apart" if order["gained"] else ""
        return f"A tells no two models apart on these pairs, so nothing follows for their order{more}: take more pairs."
    orders = f"{told_apart} orders of two models that A finds on these pairs"
    gained = f", and {len(order['gained'])} more" if order["gained"] else ""
    if order["lost"]:
        lost = f"it does not tell apart {_listed(order['lost'], 'and')}"
        return f"B finds {len(order['kept'])} of the {orders}{gained} and reverses none; {lost}."
    return f"B finds all {orders}{gained}."


def _reasons_against(effects: Mapping[str, Any]) -> Iterator[str]:
    agreement = effects["agreement"]
    corrected = [agreement[form] for form in ("kappa", "ac1") if agreement.get(form) is not None]
    if corrected and all(interval.low <= 0 for interval in corrected):
        yield "the two agree no more than by chance, as far as these pairs tell"
    own = effects["order"].get("b")
    if own and own["consistency"].value < USELESS:
        yield f"B prefers the same answer in both orders in only {_percent(own['consistency'])} of the pairs"


def _listed(pairs: Sequence[Sequence[str]], word: str) -> str:
    texts = [f"`{plain(better)}` {word} `{plain(worse)}`" for better, worse in pairs[:SHOWN]]
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return ", ".join(texts) + more


def _agreement(effects: Mapping[str, Any]) -> str:
    facts, tau = effects["agreement"], effects["order_of_models"]["tau"]
    if not facts["n"]:
        return "All pairs are decided by rule, so the judges cannot be compared."
    numbers = [f"{name} {interval_text(_ends(facts[form]), digits=2)}" for form, name in
               (("kappa", "Cohen's kappa"), ("ac1", "Gwet's AC1")) if facts[form] is not None]  # fmt: skip
    order = (
        ""
        if tau is None
        else f" Kendall's tau of the two orders of models is {interval_text(_ends(tau), digits=2)}."
    )
    corrected = f" ({', '.join(numbers)})" if numbers else ""
    return f"Both give one verdict on {_percent(facts['raw'])} of {facts['n']} pairs{corrected}.{order}"


def _scores(effects: Mapping[str, Any]) -> Iterator[str]:
    rows = effects["win_rates"]
    moved = [row for row in rows if row["difference"].excludes(0.0)]
    if moved:
        shifts = [100 * row["difference"].value for row in moved]
        yield (
            f"Win rates under A and B must not share a column: those of {len(moved)} of {len(rows)} models differ, by "
            f"{min(shifts):+.1f} to {max(shifts):+.1f} points."
        )
    elif rows:
        yield f"No win rate of the {len(rows)} models differs between A and B by more than these pairs can tell."


def _biases(effects: Mapping[str, Any]) -> Iterator[str]:
    order, length = effects["order"], effects["length"]
    if "b" in order and order["b"]["position_bias"].excludes(0.0):
        place = "front" if order["b"]["position_bias"].value > 0 else "second place"
        yield f"B prefers the answer in {place} by {_points(order['b']['position_bias'], absolute=True)} points."
    change = order.get("difference")
    if change and change["consistency"].excludes(0.0):
        word = "less" if change["consistency"].value < 0 else "more"
        by = _points(change["consistency"], absolute=True)
        yield f"B prefers the same answer in both orders {word} often than A, by {by} points."
    slope = length.get("difference", {}).get("slope")
    if slope is not None and slope.excludes(0.0):
        word = "more" if slope.value > 0 else "less"
        yield f"B rewards length {word} than A: {_points(slope)} points for each doubling."
    for name, other in (("b", "A"), ("a", "B")):
        gain = effects["self_preference"][name].get("gain")
        if gain is not None and gain.excludes(0.0):
            models = ", ".join(
                f"`{plain(label)}`" for label in effects["self_preference"][name]["models"][:SHOWN]
            )
            word = "more" if gain.value > 0 else "less"
            yield (
                f"Judge {name.upper()} gives models of its own family ({models}) {_points(gain, absolute=True)} points "
                f"{word} than {other} does, beyond what it gives the others."
            )


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _percent(interval: Interval) -> str:
    return f"{interval_text(_ends(interval), 100.0)} %"


def _points(interval: Interval, absolute: bool = False) -> str:
    value, low, high = _ends(interval)
    if absolute and value < 0:
        value, low, high = -value, -high, -low
    return interval_text((value, low, high), 100.0, signed=not absolute)
