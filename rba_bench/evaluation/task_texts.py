"""What the test sets of the tasks say, for checks that training data does not repeat it.

No clip is spoken for this. A set of the Hub is read from a local copy or from the Hub's cache; a download, if wanted,
brings its clips with it, as for an evaluation: tens of gigabytes for all tasks. A set that cannot be read is named with
the reason.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rba_bench.errors import RbaError, first_line
from rba_bench.evaluation.documents import Document, documents_without_clips
from rba_bench.evaluation.sources import baselines
from rba_bench.evaluation.sources.hub import HubUnreachable
from rba_bench.evaluation.sources.small import small_texts
from rba_bench.evaluation.sources.source import Place, load_source
from rba_bench.evaluation.task_registry import TaskSpec, list_tasks
from rba_bench.files import sha256_json


class TaskTexts(NamedTuple):
    """The texts of a test set.

    Attributes:
        name: Of the first task that uses the set.
        texts: What its items say, each once; where a set does not tell that, the prompts, if they differ by item.
        problem: Why there are none, else "".
    """

    name: str
    texts: Sequence[str]
    problem: str


def task_texts(
    data_dir: Path | str | None = None, tasks: Iterable[TaskSpec] | None = None, *, download: bool
) -> Iterator[TaskTexts]:
    """The texts of every test set, in the order of the tasks; tasks that share a set give it once.

    Args:
        data_dir: Folder with local copies of data sets; None for that of RBA_DATA_DIR, or else the Hub.
        tasks: Those to read; None for all that are shipped.
        download: Get what the cache of the Hub lacks. Once the Hub does not answer, only the cache is read.
    """
    # only the words are wanted, and they need no answers to compare with
    place = replace(Place.of(data_dir, baseline=baselines.NONE), offline=not download)
    seen = set()
    for spec in list_tasks() if tasks is None else tasks:
        options = dict(spec.config.get("dataset_kwargs") or {})
        key = sha256_json(options)
        if key in seen:
            continue
        seen.add(key)
        try:
            texts = spoken_texts(_documents(options, place))
        except RbaError as error:
            if isinstance(error, HubUnreachable):
                place = replace(place, offline=True)
            yield TaskTexts(spec.name, (), first_line(error))
        else:
            yield TaskTexts(spec.name, texts, "" if texts else "its items do not tell what is said")


def _documents(options: dict[str, Any], place: Place) -> list[Document]:
    source = str(options.pop("source", ""))
    if "testset" in options:
        return documents_without_clips(str(options["testset"]))
    if source == "small":
        return small_texts(options).documents
    if options.get("micro"):
        return documents_without_clips(str(options["micro"]))
    return load_source(source, options, place).documents


def spoken_texts(documents: Iterable[Document]) -> tuple[str, ...]:
    """What documents say, each text once and in their order.

    An item without its words has its prompt instead, unless other items have the same one: that is the task's, and no
    item.
    """
    items = [(document["instruction"].strip(), document["prompt"].strip()) for document in documents]
    prompts = Counter(prompt for _, prompt in items)
    texts = (said or (prompt if prompts[prompt] == 1 else "") for said, prompt in items)
    return tuple(dict.fromkeys(text for text in texts if text))
