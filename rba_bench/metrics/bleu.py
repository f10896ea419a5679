"""BLEU and chrF++ from sacrebleu's own per-sentence sufficient statistics.

A sentence is reduced to a short row of integer counts. The corpus score is a function of the *sum* of the
rows, so a run record can store the rows, and a bootstrap resamples rows instead of scoring text again (1,000
resamples of 15,531 pairs in under a second). `score(sum of rows)` equals sacrebleu's `corpus_score` to the
last digit because sacrebleu computes both ends.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra
from rba_bench.metrics.languages import base_language

BLEU_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}  # else 13a; 13a scores unspaced text as 0
BLEU_WIDTH = 10  # hypothesis length, reference length, 4 matched and 4 total n-gram counts
MOST_KEPT, LONGEST_KEPT = (
    2048,
    1000,
)  # references, and characters of one; about 20 kB are counted in a sentence
CHRF_WIDTH = 24  # (hypothesis, reference, matched) for 6 character and 2 word n-gram orders


def bleu_tokenizer(target_lang: str) -> str:
    """Name of the sacrebleu tokenizer for a target language (`13a` where none is special)."""
    return BLEU_TOKENIZERS.get(base_language(target_lang), "13a")


class CorpusMetric:
    """A corpus score with sufficient statistics.

    Args:
        metric: sacrebleu's metric object.
        n_references: References per item if it is the same everywhere; only then does the signature name it
            (`nrefs:1` instead of `nrefs:var`), and `statistics` checks it.
    """

    name: str
    width: int

    def __init__(self, metric: Any, n_references: int | None = None) -> None:
        self.n_references = n_references
        self._metric = metric
        self._kept: dict[tuple[str, ...], Any] = {}

    def statistics(self, hypothesis: str, references: Sequence[str]) -> list[int]:
        """Sufficient statistics of one item: `width` integers. An empty hypothesis is a valid item.

        Raises:
            ValueError: no references, references given as one string, or another number than `n_references`.
        """
        if isinstance(references, str) or not references:
            raise ValueError("references must be a non-empty list of strings")
        if self.n_references is not None and len(references) != self.n_references:
            raise ValueError(f"expected {self.n_references} references, got {len(references)}")
        self._metric._ref_cache = [self._reference_facts(tuple(references))]
        rows = self._metric._extract_corpus_statistics([hypothesis], None)
        return [int(count) for count in rows[0]]

    def _reference_facts(self, references: tuple[str, ...]) -> Any:
        """What sacrebleu counts in the references of an item; kept, as many models answer the same items."""
        if sum(map(len, references)) > LONGEST_KEPT:
            return self._counted(references)
        if references not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[references] = self._counted(references)
        return self._kept[references]

    def _counted(self, references: tuple[str, ...]) -> Any:
        return self._metric._cache_references([[reference] for reference in references])[0]

    def score(self, total: Iterable[float]) -> float:
        """Corpus score in [0, 100] from the sum of the items' statistics."""
        return corpus_score(self.name, total)

    @property
    def signature(self) -> str:
        """Signature as sacrebleu prints it: tokenizer, smoothing, case, version. Part of the protocol."""
        self._metric.num_refs = -1 if self.n_references is None else self.n_references
        return str(self._metric.get_signature())


class CorpusBleu(CorpusMetric):
    """BLEU with the tokenizer of the target language (zh `zh`, ja `ja-mecab`, ko `ko-mecab`, else `13a`).

    Args:
        target_lang: Language of hypotheses and references, e.g. `de` or `zh-CN`.
        n_references: See `CorpusMetric`.

    Raises:
        MissingPrerequisite: the tokenizer of the language needs a package that is not installed.
    """

    name = "bleu"
    width = BLEU_WIDTH

    def __init__(self, target_lang: str = "en", n_references: int | None = None) -> None:
        super().__init__(_bleu(bleu_tokenizer(target_lang), effective_order=False), n_references)


class ChrfPP(CorpusMetric):
    """chrF++ (6 character orders, 2 word orders): needs no tokenizer, so it is shown beside BLEU in every language."""

    name = "chrf++"
    width = CHRF_WIDTH

    def __init__(self, _target_lang: str = "en", n_references: int | None = None) -> None:
        super().__init__(_chrf(), n_references)


@lru_cache(maxsize=64)
def corpus_metric(name: str, target_lang: str) -> CorpusMetric:
    """The metric called `bleu` or `chrf++` for a target language."""
    return CorpusBleu(target_lang) if name == "bleu" else ChrfPP(target_lang)


def corpus_score(name: str, total: Iterable[float]) -> float:
    """Corpus score in [0, 100] of `bleu` or `chrf++` from summed statistics, whatever the language.

    Raises:
        ValueError: unknown name or wrong number of statistics.
    """
    counts = [int(count) for count in total]
    expected = {"bleu": BLEU_WIDTH, "chrf++": CHRF_WIDTH}.get(name)
    if expected is None:
        raise ValueError(f"no corpus metric is called {name!r}")
    if len(counts) != expected:
        raise ValueError(f"{name} has {expected} statistics, got {len(counts)}")
    metric = corpus_metric(name, "en")  # the language matters to tokens alone, and these are counted
    return float(metric._metric._compute_score_from_stats(counts).score)


def sentence_bleu(hypothesis: str, references: str | Sequence[str], target_lang: str = "en") -> float:
    """Sentence BLEU in [0, 100] as sacrebleu's (effective order, exponential smoothing); for rewards."""
    return _sentence_score(bleu_tokenizer(target_lang), hypothesis, references)


def sentence_chrf(hypothesis: str, references: str | Sequence[str]) -> float:
    """Sentence chrF++ in [0, 100]; for rewards."""
    return _sentence_score("chrf++", hypothesis, references)


def _sentence_score(name: str, hypothesis: str, references: str | Sequence[str]) -> float:
    texts = [references] if isinstance(references, str) else list(references)
    return float(_sentence_metric(name).sentence_score(hypothesis, texts).score)


@lru_cache(maxsize=16)
def _sentence_metric(name: str) -> Any:
    return _chrf() if name == "chrf++" else _bleu(name, effective_order=True)


def _bleu(tokenizer: str, effective_order: bool) -> Any:
    from sacrebleu.metrics import BLEU

    try:
        return BLEU(tokenize=tokenizer, effective_order=effective_order)
    except (ImportError, RuntimeError) as error:
        hint = extra(tokenizer.split("-")[0])
        raise MissingPrerequisite(f"the BLEU tokenizer {tokenizer} is not installed: {hint}") from error


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2)
