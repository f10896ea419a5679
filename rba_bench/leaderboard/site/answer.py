"""The answer of a board in one sentence, drawn from its paired tests against the baseline; and what it lacks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rba_bench.leaderboard.loaded_runs import CEILING, MODEL
from rba_bench.leaderboard.site.facts import Setting, baseline_name
from rba_bench.leaderboard.tables import interval_text
from rba_bench.metrics.interval import LEVEL

NAMED = 3  # settings, or models, up to which each is named
COMMANDED = 6  # tasks that a command names
EVAL = "rba-bench eval"


@dataclass
class Tally:
    """Outcomes of one model against the baseline: titles of settings by what the test says."""

    label: str
    better: list[str] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of tests."""
        return len(self.better) + len(self.worse) + len(self.open)


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        sentence: The outcome of the paired tests.
        caution: How many tests there were and what chance alone would mark, "" without tests.
    """

    sentence: str
    caution: str = ""


def answer_of(settings: Sequence[Setting]) -> Answer:
    """The outcome of all paired tests of models against the baseline, each on the metric its setting is ranked by."""
    baseline = baseline_name(settings)
    rows = [row for setting in settings for row in setting.group.rows]
    if not any(row.kind == MODEL for row in rows):
        return Answer("All rows are references, so no model is compared.")
    if not any(row.is_baseline for row in rows):
        models = sorted({row.label for row in rows if row.kind == MODEL})
        if len(models) == 1:
            return Answer(_only_model(models[0], settings))
        names = join_words(models[:NAMED], "or") + (" or another row" if len(models) > NAMED else "")
        return Answer(
            f"Nothing was tested, as no row is called {baseline}: build the board again with --baseline and a row of "
            f"it ({names})."
        )
    tallies, p_values = tally(settings)
    if not tallies:
        only = len({row.label for row in rows if row.kind == MODEL}) == 1
        why = "it is the only model" if only else "no other model has the same items"
        return Answer(f"{baseline} is compared with nothing, as {why}.")
    noun = noun_of(settings)
    if len(tallies) <= NAMED:
        text = "; ".join(_few_models(tallies, baseline, noun)) + "."
    else:
        text = _many_models(tallies, baseline, noun)
    return Answer(text, _caution(tallies, p_values))


def _only_model(label: str, settings: Sequence[Setting]) -> str:
    """One model without a baseline is compared with nothing; on one setting, what it scores is the answer."""
    found = [(setting, row) for setting in settings for row in setting.group.rows if row.label == label]
    if len(found) > 1:
        return f"{label} is the only model, so it is compared with nothing."
    [(setting, row)] = found
    value, low, high = setting.score(row)
    score = interval_text((value, low, high), digits=setting.digits)
    return f"{label} is the only model: it scores {score} on {setting.title} ({setting.metric})."


def noun_of(settings: Sequence[Setting]) -> str:
    """`task`, or `setting` where a task stands on the page more than once or in several decodings."""
    records = [setting.group.record for setting in settings]
    once = len({record.task for record in records}) == len(records)
    return "task" if once and len({record.protocol for record in records}) == 1 else "setting"


def tally(settings: Sequence[Setting]) -> tuple[list[Tally], list[float]]:
    """Outcomes by model, those with most differences first, and the p-values of all tests."""
    tallies: dict[str, Tally] = {}
    p_values = []
    for setting in settings:
        for row in setting.group.rows:
            interval = row.versus.get(setting.group.primary)
            if row.kind != MODEL or row.is_baseline or interval is None:
                continue
            each = tallies.setdefault(row.label, Tally(row.label))
            if not interval.excludes(0.0):
                each.open.append(setting.title)
            elif (interval.value > 0) == setting.higher_is_better:
                each.better.append(setting.title)
            else:
                each.worse.append(setting.title)
            p_values.append(interval.p_zero)
    ranked = sorted(tallies.values(), key=lambda each: (-len(each.better), len(each.worse), each.label))
    return ranked, p_values


def remaining_after_holm(p_values: Sequence[float]) -> int:
    """Tests that stay significant at 5 % in Holm's step-down procedure (1979) for all of them together."""
    count = len(p_values)
    for place, p in enumerate(sorted(p_values)):
        if p * (count - place) > 1 - LEVEL:
            return place
    return count


def _few_models(tallies: Sequence[Tally], baseline: str, noun: str) -> Iterator[str]:
    """A clause per model; models that differ nowhere, on equally many settings, share one."""
    alike = [each for each in tallies if len(each.open) == each.total > 1]
    shared = len(alike) > 1 and len({each.total for each in alike}) == 1
    for each in tallies:
        if not (shared and each in alike):
            yield _one_model(each, baseline, noun)
    if shared:
        names = [each.label for each in alike]
        subject = f"neither {names[0]} nor {names[1]}" if len(names) == 2 else f"none of {join_words(names)}"
        clause = f"{subject} can be told apart from {baseline} on any of {alike[0].total} {noun}s"
        yield clause[0].upper() + clause[1:] if len(alike) == len(tallies) else clause


def _one_model(each: Tally, baseline: str, noun: str) -> str:
    name, total = each.label, each.total
    if not each.open:
        if not each.worse:
            return f"{name} is better than {baseline} on {_all_of(each.better, noun)}"
        if not each.better:
            return f"{name} is worse than {baseline} on {_all_of(each.worse, noun)}"
        better, worse = _names(each.better, noun), _names(each.worse, noun)
        return f"{name} is better than {baseline} on {better} and worse on {worse}"
    if len(each.open) == total:
        where = f"any of {total} {noun}s" if total > 1 else each.open[0]
        return f"{name} and {baseline} cannot be told apart on {where}"
    rest = []
    if each.better:
        rest.append(f"better on {_names(each.better, noun)}")
    if each.worse:
        rest.append(f"worse on {_names(each.worse, noun)}")
    start = f"{name} and {baseline} cannot be told apart on {len(each.open)} of {total} {noun}s"
    return f"{start}, and {name} is {' and '.join(rest)}"


def _many_models(tallies: Sequence[Tally], baseline: str, noun: str) -> str:
    better, worse = (sum(bool(getattr(each, name)) for each in tallies) for name in ("better", "worse"))
    alike = sum(not each.better and not each.worse for each in tallies)
    total = max(each.total for each in tallies)
    where = f"on at least one of {total} {noun}s" if total > 1 else f"on the one {noun}"
    if alike == len(tallies):
        nowhere = f"on any of {total} {noun}s" if total > 1 else f"on the one {noun}"
        return f"None of {len(tallies)} models can be told apart from {baseline} {nowhere}."

    def of(count: int, rest: str, none: str) -> str:
        if not count:
            return f"none is {none}"
        number = "all" if count == len(tallies) else str(count)
        return f"{number} {'is' if count == 1 else 'are'} {rest}"

    several = total > 1
    nowhere = f"on any of {total} {noun}s" if several else where
    parts = [
        of(better, f"better than {baseline} {where}", f"better than {baseline} {nowhere}"),
        of(worse, "worse on at least one" if several else "worse", "worse on any" if several else "worse"),
    ]
    if alike:
        parts.append(f"{alike} cannot be told apart from it" + (" on any" if total > 1 else ""))
    return f"Of {len(tallies)} models, {join_words(parts)}."


def _caution(tallies: Sequence[Tally], p_values: Sequence[float]) -> str:
    tests = len(p_values)
    marked = sum(len(each.better) + len(each.worse) for each in tallies)
    if tests == 1:
        return "This is one paired test at the 5 % level."
    chance = f"{tests * (1 - LEVEL):.1f}".removesuffix(".0")
    start = (
        f"These are {tests} paired tests, each at the 5 % level: if all models were equal, up to {chance} would be "
        "marked by chance"
    )
    if not marked:
        return f"{start}; none is."
    remaining = remaining_after_holm(p_values)
    if marked == 1:
        word = "remains" if remaining else "does not remain"
        return f"{start}, and 1 is. After Holm's correction for all {tests}, it {word}."
    left = (
        "none of them remains" if not remaining else "1 remains" if remaining == 1 else f"{remaining} remain"
    )
    if remaining == marked:
        left = "both remain" if marked == 2 else "all of them remain"
    return f"{start}, and {marked} are. After Holm's correction for all {tests}, {left}."


def _names(titles: Sequence[str], noun: str) -> str:
    return join_words(titles) if len(titles) <= NAMED else f"{len(titles)} {noun}s"


def _all_of(titles: Sequence[str], noun: str) -> str:
    if len(titles) == 1:
        return titles[0]
    return f"both {noun}s" if len(titles) == 2 else f"all {len(titles)} {noun}s"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail


@dataclass(frozen=True)
class Missing:
    """A reference row that some settings lack: what it is, where it is missing, and the command that makes it."""

    what: str
    where: str
    command: str


def missing_references(settings: Sequence[Setting]) -> Iterator[Missing]:
    """Kinds of reference rows that are not everywhere: text ceiling, cascade, constant answer, untrained base."""
    micro = settings[0].group.record.track == "micro"
    kinds = {
        CEILING: ("text ceiling (an LLM reads the transcript)", "text" if micro else "text:LLM"),
        "cascade": ("cascade (a recogniser, then an LLM)", "cascade" if micro else "cascade:WHISPER+LLM"),
        "constant": ("constant answer", "constant"),
    }
    lacking: list[tuple[str, str, list[Setting]]] = [
        (what, spec, [each for each in settings if all(row.kind != kind for row in each.group.rows)])
        for kind, (what, spec) in kinds.items()
    ]
    untrained = [each for each in settings if not any(_is_untrained(each))]
    lacking.append(("base (a model as it was before alignment)", "base" if micro else "BASE", untrained))
    noun = noun_of(settings)
    for what, spec, where in lacking:
        if where:
            place = (
                f"any {noun}" if len(where) == len(settings) else _names([each.title for each in where], noun)
            )
            yield Missing(what, place, _command(spec, where))


def _command(spec: str, where: Sequence[Setting]) -> str:
    """Evaluates a reference on the settings that lack it; those with other perturbations need a call of their own."""
    perturbation = where[0].group.perturbation
    tasks = dict.fromkeys(each.group.task for each in where if each.group.perturbation == perturbation)
    named = "".join(f" --task {task}" for task in list(tasks)[:COMMANDED]) + (
        " ..." if len(tasks) > COMMANDED else ""
    )
    return f"{EVAL} --model {spec}{named}" + (f" --perturb {perturbation}" if perturbation else "")


def _is_untrained(setting: Setting) -> Iterator[bool]:
    for row in setting.group.rows:
        model = row.run.record.model
        yield row.kind == MODEL and not (model.get("training") or model.get("run"))
