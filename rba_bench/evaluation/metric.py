"""The table of metrics: what each metric is, how its item scores become one number, and how that number is shown.

Everything else that lists metrics follows from `METRICS`: what an item kind is scored by (`scoring`), what a scorer of
`metadata.finish` adds (`scorers`), the aggregation functions that task YAMLs name (`hooks`), the metric that a board
ranks by, the number of decimals in its tables, and `docs/metrics.md`. A new metric takes its function with tests (in
`rba_bench.metrics`), a row here, and its name in the `metric_list` of a task YAML.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from rba_bench.evaluation.documents import user_text
from rba_bench.metrics import ifeval, qa, wer
from rba_bench.metrics.bleu import corpus_metric
from rba_bench.metrics.text import VERSION as TEXT_VERSION

Row = list[int]  # sufficient statistics of one item
ItemFunction = Callable[[Mapping[str, Any], str], float | Row | None]


@dataclass(frozen=True)
class ItemScore:
    """What is known of one answer.

    Attributes:
        scores: Per metric a number, or the row of sufficient statistics of a corpus metric. A metric that could not be
            computed for this item is absent, never 0.
        judge: Votes of judges with reasons, merged into `Sample.judge`; None where no judge was asked.
        failure: Why there is no score, "" if there is one; the sample becomes `judge_failed`.
    """

    scores: dict[str, float | Row] = field(default_factory=dict)
    judge: dict[str, Any] | None = None
    failure: str = ""


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        name: Key in `Sample.scores`, in records and in the `metric_list` of task YAMLs.
        aggregation: Name in `rba_bench.metrics.aggregate`.
        scale: 100 if the number is already in percent or points, 1 if it is a share in [0, 1].
        higher_is_better: False for error rates.
        macro: True if the score is the unweighted mean over the items' `group`s.
        signature: What exactly is computed, with versions: part of the protocol. In the table a template of
            `str.format`, see `signed`; empty for the name alone.
        description: One sentence for readers of tables.
        unit: Range of the number, for readers of tables.
        scorer: Item kind that is scored by it (`qa`), or scorer of `metadata.finish` that adds it (`pairwise`).
        score: From an item and the answer to it to its score, or to None where the item has none. Absent where one
            function gives several metrics at once.
        rank: Place in the order in which a task's ranking metric is chosen, 1 first; None if never chosen.
        decimals: Digits behind the point in tables, of percent or points.
        lowest: Score of answers that are worth nothing.
    """

    name: str
    aggregation: str = "mean"
    scale: float = 1.0
    higher_is_better: bool = True
    macro: bool = False
    signature: str = ""
    description: str = ""
    unit: str = "0 to 1"
    scorer: str = ""
    score: ItemFunction | None = field(default=None, compare=False, repr=False)
    rank: int | None = None
    decimals: int = 1
    lowest: float = 0.0

    @property
    def is_corpus(self) -> bool:
        """Whether the score is more than the plain mean of per-item scores."""
        return self.aggregation != "mean" or self.macro


KINDS = ("instruct", "qa", "s2tt", "chat", "asr", "ifeval")  # of items; judges alone score `chat`
_QA = "|rules:" + str(qa.VERSION) + "|lang:{langs}|whisper-spelling:{openai-whisper}"
_TEXT = "|lang:{langs}|whisper-normalizer:{openai-whisper}|text:" + str(TEXT_VERSION) + "|jiwer:{jiwer}"
_SACREBLEU = "{sacrebleu}; macro over directions"

METRICS: tuple[Metric, ...] = (
    # Computed from the answer alone, by kind of item
    Metric(
        "win_rate",
        scorer="instruct",
        description="Share of answers that are better than the stored baseline answer by the rules of the micro world; "
        "a tie counts 0.5.",
        rank=2,
        signature="win_rate|against:stored baseline|tie:0.5",
    ),
    Metric(
        "rating",
        scorer="instruct",
        description="Mean quality of the answers by the rules of the micro world.",
    ),
    Metric(
        "valid_rate",
        scorer="instruct",
        description="Share of answers that the rules of the micro world accept.",
    ),
    Metric(
        "asserted_match",
        scorer="qa",
        score=lambda item, answer: qa.asserted_match(
            answer, item["references"], item["target_lang"], user_text(item)
        ),
        description="Share of answers that assert a right answer and no other candidate.",
        rank=4,
        signature="asserted_match" + _QA,
    ),
    Metric(
        "exact_match",
        scorer="qa",
        score=lambda item, answer: qa.exact_match(answer, item["references"], item["target_lang"]),
        description="Share of answers that are a right answer and nothing else.",
        signature="exact_match" + _QA,
    ),
    Metric(
        "alias_match",
        scorer="qa",
        score=lambda item, answer: qa.alias_match(answer, item["references"], item["target_lang"]),
        description="Share of answers in which a right answer occurs.",
        rank=5,
        signature="alias_match" + _QA,
    ),
    Metric(
        "bleu",
        "bleu",
        scale=100.0,
        macro=True,
        scorer="s2tt",
        score=lambda item, answer: corpus_metric("bleu", item["target_lang"]).statistics(
            answer, item["references"]
        ),
        description="Corpus BLEU of sacrebleu in each direction, then the mean over the directions.",
        unit="0 to 100",
        rank=6,
        signature=_SACREBLEU,
    ),
    Metric(
        "chrf++",
        "chrf++",
        scale=100.0,
        macro=True,
        scorer="s2tt",
        score=lambda item, answer: corpus_metric("chrf++", item["target_lang"]).statistics(
            answer, item["references"]
        ),
        description="Corpus chrF++ of sacrebleu in each direction, then the mean over the directions.",
        unit="0 to 100",
        signature=_SACREBLEU,
    ),
    Metric(
        "wer",
        "error_rate",
        scale=100.0,
        higher_is_better=False,
        macro=True,
        scorer="asr",
        score=lambda item, answer: list(
            wer.word_statistics(answer, item["references"][0], item["target_lang"])
        ),
        description="Word errors per hundred words of the reference in each language, after normalisation; then the "
        "mean over the languages.",
        unit="0 or more",
        rank=7,
        signature="wer" + _TEXT,
    ),
    Metric(
        "cer",
        "error_rate",
        scale=100.0,
        higher_is_better=False,
        macro=True,
        scorer="asr",
        score=lambda item, answer: list(
            wer.character_statistics(answer, item["references"][0], item["target_lang"])
        ),
        description="Character errors per hundred characters of the reference in each language, after normalisation; "
        "then the mean over the languages. Languages written without spaces are ranked by it.",
        unit="0 or more",
        signature="cer" + _TEXT,
    ),
    Metric(
        "if_rate",
        macro=True,
        scorer="ifeval",
        score=lambda item, answer: ifeval.if_rate(json.loads(item["extra"]), answer),
        description="Share of an item's constraints that the answer follows, checked by rules; the mean over the parts "
        "of the test set.",
        rank=8,
        signature=f"if_rate|rules:{ifeval.VERSION}|mean of parts",
    ),
    # Added by scorers after all answers exist; these write their own signatures
    Metric(
        "win_rate",
        scorer="pairwise",
        description="Share of answers that a judge prefers to the baseline answer, asked in both orders.",
        rank=2,
    ),
    Metric(
        "lc_win_rate",
        scorer="pairwise",
        description="Win rate at equal length of answer and baseline (AlpacaEval 2). Boards rank by it only in the "
        "form `difficulty`.",
        rank=1,
    ),
    Metric(
        "rating",
        scale=100.0,  # shown as it is, not as percent
        scorer="rating",
        description="Mean rating by a judge.",
        unit="1 to 5",
        decimals=2,
        lowest=1.0,
    ),
    Metric(
        "judge_accuracy",
        scorer="yesno",
        description="Share of answers that say the same as a reference according to a judge.",
        rank=3,
    ),
    Metric(
        "answer_agreement",
        scorer="consistency",
        description="Share of pairs of answers to one instruction in several voices that are equal after "
        "normalisation.",
        rank=10,
    ),
    Metric(
        "answer_overlap",
        scorer="consistency",
        description="Mean token F1 of pairs of answers to one instruction in several voices.",
    ),
    Metric(
        "answer_cosine",
        scorer="consistency",
        description="Mean cosine of the sentence embeddings of pairs of answers to one instruction in several voices.",
        unit="-1 to 1",
        rank=9,
    ),
    Metric(
        "if_rate_with_cot",
        macro=True,
        scorer="reasoning",
        description="Like `if_rate`, with the part that asks for reasoning, which a judge checks.",
    ),
)
_BY_NAME = {metric.name: metric for metric in reversed(METRICS)}  # of equal names the first counts

# A task is ranked by the first of these that it has. Spoken answers come in sentences ("it is paris"), so questions go
# by the judge's verdict or else by what a sentence asserts: exact match also punishes correct sentences, and alias
# match pays for lists of candidates, but older records have nothing better.
_RANKED = sorted((metric for metric in METRICS if metric.rank), key=lambda metric: metric.rank or 0)
RANKING = tuple(dict.fromkeys(metric.name for metric in _RANKED))


def metrics_of(scorer: str) -> tuple[Metric, ...]:
    """The rows of an item kind or of a scorer of `metadata.finish`, in the order of records."""
    return tuple(metric for metric in METRICS if metric.scorer == scorer)


def metric_named(name: str) -> Metric:
    """The first row of a name, without signature; of an unknown name, a mean of per-item scores."""
    return replace(_BY_NAME.get(name, Metric(name)), signature="")


def shown_decimals(name: str, scale: float) -> int:
    """Digits behind the point of a metric with this scale in tables."""
    return next((metric.decimals for metric in METRICS if (metric.name, metric.scale) == (name, scale)), 1)


def lowest_score(name: str, scale: float) -> float:
    """What answers that are worth nothing get by a metric with this scale."""
    return next((metric.lowest for metric in METRICS if (metric.name, metric.scale) == (name, scale)), 0.0)


def signed(metrics: Iterable[Metric], target_langs: Iterable[str]) -> tuple[Metric, ...]:
    """Metrics with the signature of what exactly is computed for these target languages.

    The templates of the table know `{langs}`, `{sacrebleu}` (sacrebleu's own signatures) and, by name, the version of
    any installed package.
    """
    langs = tuple(sorted(set(target_langs)))
    return tuple(replace(metric, signature=_signature(metric, langs)) for metric in metrics)


@lru_cache(maxsize=256)
def largest_value(name: str, scale: float) -> float:
    """Largest value that an item can have by a metric with this scale, as its unit says: 5 of a rating."""
    unit = next((metric.unit for metric in METRICS if (metric.name, metric.scale) == (name, scale)), "")
    top = unit.rpartition(" ")[2]
    return float(top) if top.isdigit() else scale


@lru_cache(maxsize=256)  # every record of a task has the same
def _signature(metric: Metric, langs: tuple[str, ...]) -> str:
    facts = _Versions(langs=",".join(langs))
    if metric.signature == _SACREBLEU:
        own = [f"{lang} {corpus_metric(metric.name, lang).signature}" for lang in langs]
        facts["sacrebleu"] = "; ".join(own)
    return (metric.signature or metric.name).format_map(facts)


class _Versions(dict[str, str]):
    """Facts by name; of any other name, the version of the package that is called so."""

    def __missing__(self, package: str) -> str:
        return _version(package)


_version = lru_cache(version)  # each time read from a file
