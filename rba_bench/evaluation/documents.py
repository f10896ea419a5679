"""Test sets as documents that carry their audio by reference.

A test set of ours is a parquet file with the columns of `COLUMNS`; public data sets come from
`rba_bench.evaluation.sources`. A document holds everything but the audio, which becomes `{sha256, sampling_rate,
duration, path, row, transcript}`: small, JSON, hashed by content. So lm-eval can hash, cache, log and shard documents,
and no clip is decoded before the model needs it.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from rba_bench.assets import load_world
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.sources.tables import Clip
from rba_bench.files import canonical_json, sha256_bytes
from rba_bench.metrics.text import is_blank, plain_characters
from rba_bench.progress import say


class Document(TypedDict):
    """One item of a test set; a plain dict, as lm-eval wants it.

    Attributes:
        id: Name of the item, unique in the test set.
        kind: Of `rba_bench.evaluation.metric.KINDS`.
        topic: For breakdowns.
        instruction: What is spoken, "" if the data set does not tell.
        prompt: Text beside the audio.
        references: Right answers.
        source_lang: Language spoken.
        target_lang: Language of the answer.
        voice: Who speaks.
        duration: Of the clip, in seconds.
        baseline: Answer to beat in a win rate, "" if there is none.
        group: What breakdowns and macro averages go by.
        cluster: Items that share it are drawn together by the bootstrap.
        extra: JSON text of further facts that the scorer needs, "" if none.
        audio: The clip by reference; with `prefix`, a reference to a clip that is played before it.
    """

    id: str
    kind: str
    topic: str
    instruction: str
    prompt: str
    references: list[str]
    source_lang: str
    target_lang: str
    voice: str
    duration: float
    baseline: str
    group: str
    cluster: str
    extra: str
    audio: dict[str, Any]


SPLIT = "test"
REFERENCED = ("qa", "s2tt", "asr")  # kinds that are scored against references
# Of a parquet file: what is not made from the other columns, and the facts of the clip
COLUMNS = (
    *(name for name in Document.__annotations__ if name not in ("group", "cluster", "extra", "audio")),
    "sampling_rate",
    "audio_sha256",
)
_FINGERPRINTED = (
    "id", "kind", "prompt", "instruction", "references", "source_lang", "target_lang", "baseline",
)  # fmt: skip


def load_documents(testset: str | None = None, data: str | None = None) -> list[Document]:
    """Documents of a micro test set by name, or of a parquet file or folder of the same columns.

    Args:
        testset: Name of a test set of the micro world; synthesised on first use.
        data: Parquet file, or folder with `test.parquet`; used instead of `testset`.

    Raises:
        UserError: neither is given, or the file lacks columns.
        MissingPrerequisite: the file does not exist, or win rates need baseline answers that it does not hold.
    """
    if data is not None:
        return read_documents(Path(data))
    if testset is None:
        raise UserError("the task names no data: set dataset_kwargs to {testset: NAME} or {data: FILE}")
    return read_documents(load_world("testsets").load_testset(testset))


def read_documents(path: Path) -> list[Document]:
    """Documents of one parquet file (or `test.parquet` in a folder); see `load_documents`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / f"{SPLIT}.parquet" if path.is_dir() else path
    if not file.is_file():
        raise MissingPrerequisite(f"test set {file} does not exist")
    try:
        present = pq.read_schema(file).names
        if missing := [name for name in COLUMNS if name not in present]:
            raise UserError(f"{file} is not a test set: it lacks the columns {', '.join(missing)}")
        rows = pq.read_table(file, columns=list(COLUMNS)).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{file} is damaged ({str(error).splitlines()[0]}); remove it to make it again"
        ) from error
    if not rows:
        raise UserError(f"{file} holds no items")
    if all(row["kind"] == "instruct" for row in rows) and not any(row["baseline"] for row in rows):
        raise MissingPrerequisite(
            f"{file} holds no baseline answers to compare with: run `rba-bench micro build`"
        )
    return unique_ids([_document_of_row(row, file, index) for index, row in enumerate(rows)])


def documents_without_clips(testset: str) -> list[Document]:
    """Documents of a micro test set whose clips have not been synthesised: hash "" and duration 0.

    Raises:
        UserError: unknown name.
    """
    no_clip = {"sampling_rate": 0, "duration": 0.0, "audio_sha256": ""}
    rows = load_world("testsets").testset_texts(testset)
    return [_document_of_row(row | no_clip, Path(testset), index) for index, row in enumerate(rows)]


def _document_of_row(row: Mapping[str, Any], file: Path, index: int) -> Document:
    clip = Clip(row["audio_sha256"], row["sampling_rate"], row["duration"], str(file.resolve()), index)
    fields = {name: row[name] for name in COLUMNS if name in Document.__annotations__ and name != "duration"}
    cluster = text_cluster(row["prompt"], row["instruction"])
    return make_document(**{**fields, "baseline": row["baseline"] or ""}, clip=clip, cluster=cluster)


def make_document(
    *,
    id: str,
    kind: str,
    clip: Clip,
    instruction: str,
    prompt: str = "",
    references: Sequence[str] = (),
    source_lang: str = "en",
    target_lang: str = "en",
    topic: str = "",
    voice: str = "",
    baseline: str = "",
    group: str = "",
    cluster: str = "",
    extra: Mapping[str, Any] | None = None,
) -> Document:
    """One document, with defaults for an English item.

    The arguments are the fields of `Document`, with a clip for its audio and duration. The group is by default the
    direction of a translation (`de-en`), else the topic; the cluster a hash of prompt and instruction, or of the clip
    where the words are unknown.
    """
    direction = f"{source_lang}-{target_lang}"
    return {
        "id": id,
        "kind": kind,
        "topic": topic,
        "instruction": instruction,
        "prompt": prompt,
        "references": list(references),
        "source_lang": source_lang,
        "target_lang": target_lang,
        "voice": voice,
        "duration": clip.duration,
        "baseline": baseline,
        "group": group or (direction if kind == "s2tt" else topic),
        "cluster": cluster
        or (text_cluster(prompt, instruction) if instruction else text_cluster(clip.sha256)),
        "extra": json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else "",
        "audio": clip.reference(instruction),
    }


def changed(document: Document, **changes: Any) -> Document:
    """A copy of a document with other values."""
    return cast(Document, {**document, **changes})


def text_cluster(*texts: str) -> str:
    """Name of the cluster of items with these words."""
    return sha256_bytes(" ".join(texts).strip().encode())[:12]


def unique_ids(documents: Sequence[Document]) -> list[Document]:
    """Documents with names of their own: of equal ones the second is called `NAME-2`, or the next that is free."""
    original = {document["id"] for document in documents}
    used: set[str] = set()
    renamed = []
    for document in documents:
        name, number = document["id"], 2
        while name in used or (name != document["id"] and name in original):
            name, number = f"{document['id']}-{number}", number + 1
        used.add(name)
        renamed.append(document if name == document["id"] else changed(document, id=name))
    return renamed


def with_references(documents: Sequence[Document], name: str) -> tuple[list[Document], int]:
    """Documents that can be scored, without blank references, and the number of those without any reference.

    Args:
        documents: Of any kind; only those of REFERENCED need a reference.
        name: Of the set, for the line on stderr that tells the number.
    """
    scorable = []
    for document in documents:
        references = [text for text in document["references"] if not is_blank(text)]
        if references or document["kind"] not in REFERENCED:
            same = len(references) == len(document["references"])
            scorable.append(document if same else changed(document, references=references))
    left_out = len(documents) - len(scorable)
    if left_out:
        say(
            f"{name}: {left_out} of {len(documents)} items have no reference, or a blank one, and are left out"
        )
    return scorable, left_out


def joined_by_text(documents: Sequence[Document]) -> list[Document]:
    """Documents of which those with the same words share a cluster, and with them all of their clusters.

    Words are the same in one pair of languages if their letters, digits and marks are; case, punctuation and spaces do
    not matter. A cluster that is joined with others keeps the name of the first.
    """
    parents: dict[Any, Any] = {}  # a union-find forest over clusters and texts

    def root(node: Any) -> Any:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = []
    for document in documents:
        nodes.append(("cluster", document["cluster"]))
        if text := same_words(document["instruction"]):
            languages = (document["source_lang"], document["target_lang"])
            parents[root(("text", *languages, text))] = root(nodes[-1])
    names: dict[Any, str] = {}
    for document, node in zip(documents, nodes, strict=True):
        names.setdefault(root(node), document["cluster"])
    return [
        document if names[root(node)] == document["cluster"] else changed(document, cluster=names[root(node)])
        for document, node in zip(documents, nodes, strict=True)
    ]


def same_words(text: str | None) -> str:
    """The letters, digits and marks of a text: equal for wordings that differ in case, punctuation and spaces alone."""
    plain = plain_characters(text or "").casefold()
    return "".join(letter for letter in plain if unicodedata.category(letter)[0] in "LNM")


def user_text(item: Mapping[str, Any]) -> str:
    """The user turn as text: the prompt, then what is spoken; parts that the data set does not tell are left out."""
    return f"{item.get('prompt', '')} {item.get('instruction', '')}".strip()


def set_fingerprint(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Identity of a whole test set: number of items, hash of their texts and hash of their clips, each in order."""
    n, texts, clips = 0, _ListHash(), _ListHash()
    for document in documents:
        n += 1
        extra = [document["extra"]] if document.get("extra") else []
        texts.add([document[name] for name in _FINGERPRINTED] + extra)
        audio = document["audio"]
        prefix = audio.get("prefix")
        clips.add([prefix["sha256"], audio["sha256"]] if prefix else audio["sha256"])
    return {"n_items": n, "items_sha256": texts.hexdigest(), "audio_set_sha256": clips.hexdigest()}


class _ListHash:
    """`sha256_json` of a list whose values come one by one."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256(b"[")
        self._separator = b""

    def add(self, value: Any) -> None:
        self._digest.update(self._separator + canonical_json(value))
        self._separator = b","

    def hexdigest(self) -> str:
        closed = self._digest.copy()
        closed.update(b"]")
        return closed.hexdigest()
