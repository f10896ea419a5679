"""What one score keeps of another: their ratio on the same items, with its interval.

Resamples of the items, drawn alike for both, give the spread of the ratio; so what both scores share cancels. Where
nearly all items agree the resamples know too little. Then one of two intervals has room for what was not seen: that of
the lesser score (if it is near nothing) or that of the difference (if both are alike), each over the greater score. The
ratio's interval is at least as wide as the narrower of them, and 1 belongs to it exactly where the difference of the
scores is not significant. Coverage in simulation: `benchmarks/retained.py`.
"""

import math

import numpy as np

from rba_bench.metrics.bootstrap import bootstrap_error, stretched_ends
from rba_bench.metrics.interval import Clusters, Difference, Floats, Interval, Scale, score_ends

METHOD = "ratio of the scores, middle 95 % of paired resamples, room for the unseen"


def retained_share(
    part: tuple[float, Floats],
    whole: tuple[float, Floats],
    clusters: Clusters,
    limits: Scale,
    difference: Difference,
    error_scale: float | None = None,
    nothing: float = 0.0,
) -> Interval | None:
    """`part` as a share of `whole`, with its 95 % interval.

    Args:
        part: A score, and that of each resample `[resamples]`.
        whole: The score that it is a share of, and that of each resample on the same draws.
        clusters: What both rest on.
        limits: Where a score can lie.
        difference: Part minus whole.
        error_scale: For error rates, what 100 % errors are: the share is then that of what is not wrong, `error_scale`
            minus the rate, which has no lower end. None where higher is better.
        nothing: Score of answers that are worth nothing, such as 1 of ratings from 1 to 5: the share is that of what is
            above it.

    Returns:
        None where the whole is nothing, or is drawn as nothing: then there is nothing to take a share of.
    """
    (a, draws_a), (b, draws_b) = part, whole
    own = score_ends(a, bootstrap_error(draws_a, clusters), clusters, limits)
    apart, lowest = (difference.low, difference.high), limits.low
    if error_scale is not None:
        a, b, draws_a, draws_b = (error_scale - each for each in (a, b, draws_a, draws_b))  # type: ignore[assignment]
        own, lowest = (error_scale - own[1], error_scale - own[0]), -math.inf
        apart = -apart[1], -apart[0]
    elif nothing:
        a, b, draws_a, draws_b = (each - nothing for each in (a, b, draws_a, draws_b))  # type: ignore[assignment]
        own, lowest = (own[0] - nothing, own[1] - nothing), max(lowest - nothing, 0.0)
    scored = ~(np.isnan(draws_a) | np.isnan(draws_b))
    if b <= 0 or not scored.any() or draws_b[scored].min() <= 0:
        return None
    value = a / b
    low, high = stretched_ends(value, draws_a[scored] / draws_b[scored], clusters)
    low = min(low, value, max(own[0] / b, 1 + apart[0] / b))
    high = max(high, value, min(own[1] / b, 1 + apart[1] / b))
    if not difference.excludes(0.0):
        low, high = min(low, 1.0), max(high, 1.0)
    elif value < 1:
        high = min(high, 1.0)
    else:
        low = max(low, 1.0)
    return Interval(value, max(low, lowest / b), high, clusters.n, f"{METHOD}; {clusters}")
