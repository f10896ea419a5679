"""When a run is given up: too few of the candidates become part of the set, or too few clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt

from rba_bench.errors import RbaError
from rba_bench.synthesis.filtering import FilteredShard
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

LEFT_OUT_IN_A_ROW = 500  # translations, or clips, after which a run without a usable one ends


def check_yield(recipe: SynthesisRecipe, number: int, kept: int, shards: Sequence[FilteredShard]) -> None:
    """End a run that has too few usable instructions, or will not have enough.

    Args:
        recipe: What is wanted.
        number: Shards of candidates so far.
        kept: Usable ones among their candidates.
        shards: These shards.

    Raises:
        RbaError: the most candidates are asked; or so few are usable that the rest would not be enough either.
    """
    candidates = number * recipe.round_size
    if recipe.source is not None:
        if not kept and candidates >= LEFT_OUT_IN_A_ROW:
            raise RbaError(
                f"none of the first {candidates} transcripts has a usable translation ({_reasons(shards)})"
            )
        return
    done = candidates >= recipe.most_candidates
    if not done and not _hopeless(recipe, candidates, kept):
        return
    told = f"{candidates} candidates gave {kept} of {recipe.n_instructions} usable instructions ({_reasons(shards)})"
    rate = "" if done else f"at this rate max_candidates ({recipe.most_candidates}) will not be enough: "
    raise RbaError(
        f"{told}; {rate}lower n_instructions (or kinds), loosen the filters, or raise max_candidates"
    )


def _hopeless(recipe: SynthesisRecipe, candidates: int, kept: int) -> bool:
    """Whether even a rate that is far better than the one seen would not give enough.

    Counts of rare events are Poisson: with a mean above kept + 4 sqrt(kept) + 10, as few as `kept` come less than once
    in 10,000 runs.
    """
    best = (kept + 4 * sqrt(kept) + 10) * recipe.most_candidates
    return candidates > 0 and best < recipe.n_instructions * candidates


def _reasons(shards: Sequence[FilteredShard]) -> str:
    reasons: Counter[str] = Counter()
    for shard in shards:
        reasons.update(shard.instructions)
        reasons.update({f"answer {reason}": n for reason, n in shard.answers.items()})
    told = [(reason, n) for reason, n in reasons.most_common() if reason not in (KEPT, f"answer {KEPT}")]
    return ", ".join(f"{reason} {n}" for reason, n in told)


def check_clips(kept: int, dropped: Mapping[str, int], finished: bool) -> None:
    """End a run all of whose clips are left out.

    Args:
        kept: Shards of clips in which some were kept.
        dropped: Clips that were left out, by reason.
        finished: Whether no more will come.

    Raises:
        RbaError: as above.
    """
    n = sum(dropped.values())
    if kept or not (finished or n >= LEFT_OUT_IN_A_ROW):
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
    raise RbaError(
        f"all {n} clips were left out ({reasons}): a limit of the recipe is too strict, or the voices or recordings "
        "are not what they should be"
    )
