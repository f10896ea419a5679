"""What a record says of its items, apart from the answers: the same in all records on one test set.

Hundreds of records share a test set, so what follows from its items alone (hashes, scores of an answer that was given
before) is computed once for all of them in one process. Nothing is taken on trust for that: the facts of each record
are read from its own samples, and a result is found again only under equal facts.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from rba_bench.evaluation import documents, scoring
from rba_bench.evaluation.metric import ItemScore
from rba_bench.evaluation.records import Sample
from rba_bench.files import sha256_json

TEST_SETS = 8  # of which results are kept
LONGEST_KEPT = 2000  # characters of an answer whose score is kept
MOST_KEPT = 2**14  # scores; with answers and items of a few hundred characters 20 MB


class ItemFacts(NamedTuple):
    """Of one item; see `Sample`."""

    id: str
    kind: str
    group: str
    cluster: str
    prompt: str
    instruction: str
    source_lang: str
    target_lang: str
    baseline: str
    extra: str
    references: tuple[str, ...]
    doc_id: int
    audio_sha256: str
    duration: float

    @classmethod
    def of(cls, sample: Sample) -> "ItemFacts":
        """What a sample says of its item."""
        return cls(
            sample.id, sample.kind, sample.group, sample.cluster, sample.prompt, sample.instruction,
            sample.source_lang, sample.target_lang, sample.baseline, sample.extra, tuple(sample.references),
            sample.doc_id, sample.audio_sha256, sample.duration,
        )  # fmt: skip

    def as_document(self) -> dict[str, Any]:
        """As scorers and hashes of test sets take it."""
        audio = {"sha256": self.audio_sha256}
        return {**self._asdict(), "references": list(self.references), "audio": audio}


Items = tuple[ItemFacts, ...]


def facts_of_items(samples: Iterable[Sample]) -> Items:
    """Facts of all items; of equal ones, one object for all records."""
    return _shared(tuple(map(ItemFacts.of, samples)))


@lru_cache(maxsize=TEST_SETS)
def _shared(items: Items) -> Items:
    return items


@lru_cache(maxsize=TEST_SETS)
def as_documents(items: Items) -> list[dict[str, Any]]:
    """All items as documents; not to be changed."""
    return [item.as_document() for item in items]


@lru_cache(maxsize=TEST_SETS)
def fingerprint(items: Items) -> dict[str, Any]:
    """`documents.set_fingerprint` of the items."""
    return documents.set_fingerprint(as_documents(items))


@lru_cache(maxsize=TEST_SETS)
def items_sha256(items: Items) -> str:
    """Hash of what all items say, in order."""
    return sha256_json([item._replace(duration=round(item.duration, 6)) for item in items])


@lru_cache(maxsize=TEST_SETS)
def split_text(items: Items) -> str:
    """Id of the first item whose text also occurs in another cluster, "" if there is none."""
    clusters: dict[tuple[str, ...], str] = {}
    for item in items:
        text = (item.source_lang, item.target_lang, item.prompt, item.instruction)
        if item.instruction and clusters.setdefault(text, item.cluster) != item.cluster:
            return item.id
    return ""


def score_answer(item: ItemFacts, answer: str) -> ItemScore:
    """`scoring.score_item`; many models give the same short answer to one item. Not to be changed."""
    return _score_once(item, answer) if len(answer) <= LONGEST_KEPT else _score(item, answer)


def _score(item: ItemFacts, answer: str) -> ItemScore:
    return scoring.score_item(item.as_document(), answer)


_score_once = lru_cache(maxsize=MOST_KEPT)(_score)
