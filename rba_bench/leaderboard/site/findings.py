"""What else came out, in a sentence each: what speech costs, and what scores owe to it."""

from collections.abc import Iterator, Sequence

from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.site.answer import NAMED, join_words, noun_of
from rba_bench.leaderboard.site.facts import SPEECHLESS, Setting, retained_shares


def findings_of(settings: Sequence[Setting]) -> list[str]:
    """The sentences that the records allow."""
    noun = noun_of(settings)
    return [*_gap_sentence(settings, noun), *_retained_sentence(settings, noun)]


def _gap_sentence(settings: Sequence[Setting], noun: str) -> Iterator[str]:
    """The text ceiling against the model with the best score of each setting."""
    ahead, behind, total = 0, 0, 0
    for setting in settings:
        best = next((row for row in setting.group.rows if row.kind == MODEL), None)
        gap = setting.difference(best.gap.get(setting.group.primary)) if best is not None else None
        if gap is not None:
            total += 1
            ahead += gap[3] > 0
            behind += gap[3] < 0
    if not total:
        return
    where = f"the one {noun} with both" if total == 1 else f"{_count(ahead, total)} of {total} {noun}s"
    if total == 1:
        verb = "is better than" if ahead else "is worse than" if behind else "cannot be told apart from"
        yield f"The LLM that reads the transcript (text ceiling) {verb} the best model on {where}."
        return
    sentence = f"The LLM that reads the transcript (text ceiling) is better than the best model on {where}"
    yield sentence + (f" and worse on {behind}." if behind else ".")


def _retained_sentence(settings: Sequence[Setting], noun: str) -> Iterator[str]:
    """The largest share that each model keeps without any of the speech, over such controls of a setting."""
    shares: dict[str, dict[str, float]] = {}
    for setting in settings:
        for row in setting.group.rows:
            by_control = retained_shares(row, setting.group.primary)
            found = [share[0] for name, share in by_control.items() if name in SPEECHLESS]
            if row.kind == MODEL and found:
                shares.setdefault(row.label, {})[setting.title] = max(found)
    if not shares:
        return
    if len(shares) == 1:
        [(label, by_setting)] = shares.items()
        kept = [
            f"{share:.0f} %{'' if place else ' of its score'} on {title}"
            for place, (title, share) in enumerate(by_setting.items())
        ]
        if len(kept) > NAMED:
            low, high = min(by_setting.values()), max(by_setting.values())
            text = f"between {low:.0f} % and {high:.0f} % of its score, depending on the {noun}"
        else:
            text = join_words(kept)
        yield f"Without the speech, {label} keeps {text}."
        return
    every = [share for by_setting in shares.values() for share in by_setting.values()]
    yield (
        f"Without the speech, {len(shares)} models keep between {min(every):.0f} % and {max(every):.0f} % of their "
        f"scores, depending on the model and the {noun}."
    )


def _count(number: int, total: int) -> str:
    return "all" if number == total else "none" if not number else str(number)
