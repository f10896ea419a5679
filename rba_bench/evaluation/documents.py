"""Test sets as documents that carry their audio by reference.

A test set is a parquet file with the columns of `COLUMNS`. The documents made from it hold everything but the audio,
which becomes `{sha256, sampling_rate, duration, path, row, transcript}`: small, JSON, hashed by content. So lm-eval can
hash, cache, log and shard documents without a single clip being decoded before the model wants it.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.assets import load_world
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.sources.tables import Clip
from rba_bench.files import canonical_json, sha256_bytes
from rba_bench.metrics.text import is_blank, plain_characters
from rba_bench.progress import say

SPLIT = "test"
REFERENCED = ("qa", "s2tt", "asr")  # kinds that are scored against references
COLUMNS = (
    "id", "kind", "topic", "instruction", "prompt", "references", "source_lang", "target_lang",
    "voice", "sampling_rate", "duration", "audio_sha256", "baseline",
)  # fmt: skip


def load_documents(testset: str | None = None, data: str | None = None) -> list[dict[str, Any]]:
    """Documents of a micro test set by name, or of a parquet file or folder of the same columns.

    Args:
        testset: Name of a test set of the micro world; synthesised on first use.
        data: Parquet file, or folder with `test.parquet`; wins over `testset`.

    Raises:
        UserError: neither is given, or the file lacks columns.
        MissingPrerequisite: the file does not exist, or win rates need baseline answers that it does not hold.
    """
    if data is not None:
        return read_documents(Path(data))
    if testset is None:
        raise UserError("the task names no data: set dataset_kwargs to {testset: NAME} or {data: FILE}")
    return read_documents(load_world("testsets").load_testset(testset))


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Documents of one parquet file (or `test.parquet` in a folder); see `load_documents`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / f"{SPLIT}.parquet" if path.is_dir() else path
    if not file.is_file():
        raise MissingPrerequisite(f"test set {file} does not exist")
    try:
        present = pq.read_schema(file).names
        missing = [name for name in COLUMNS if name not in present]
        if missing:
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
    return unique_ids([_document(row, file, index) for index, row in enumerate(rows)])


def documents_without_clips(testset: str) -> list[dict[str, Any]]:
    """Documents of a micro test set whose clips nobody has spoken: hash "" and duration 0.

    Raises:
        UserError: unknown name.
    """
    silent = {"sampling_rate": 0, "duration": 0.0, "audio_sha256": ""}
    rows = load_world("testsets").testset_texts(testset)
    return [_document(row | silent, Path(testset), index) for index, row in enumerate(rows)]


def _document(row: Mapping[str, Any], file: Path, index: int) -> dict[str, Any]:
    translated = row["kind"] == "s2tt"
    text = user_text(row)
    return {
        **{name: row[name] for name in COLUMNS if name not in ("sampling_rate", "audio_sha256")},
        "baseline": row["baseline"] or "",
        "group": f"{row['source_lang']}-{row['target_lang']}" if translated else row["topic"],
        "cluster": sha256_bytes(text.encode())[:12],
        "extra": "",
        "audio": {
            "sha256": row["audio_sha256"],
            "sampling_rate": row["sampling_rate"],
            "duration": row["duration"],
            "path": str(file.resolve()),
            "row": index,
            "transcript": row["instruction"],
        },
    }


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
) -> dict[str, Any]:
    """One document of a public test set.

    Args:
        id: Name of the item in the data set, unique in the test set.
        kind: `chat`, `qa`, `s2tt`, `asr` or `ifeval`.
        clip: What is heard.
        instruction: What is spoken, "" if the data set does not tell.
        prompt: Text beside the audio.
        references: Answers that are right.
        source_lang: Language spoken.
        target_lang: Language of the answer.
        topic: For breakdowns.
        voice: Who speaks.
        baseline: Answer to beat in a win rate.
        group: What breakdowns and macro averages go by; by default the direction, or the topic.
        cluster: Items that share it are drawn together; by default a hash of prompt and instruction (of the clip
            where the words are unknown).
        extra: JSON facts that the scorer needs beside these.
    """
    spoken = f"{prompt} {instruction}".strip() if instruction else clip.sha256
    translated = kind == "s2tt"
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
        "group": group or (f"{source_lang}-{target_lang}" if translated else topic),
        "cluster": cluster or sha256_bytes(spoken.encode())[:12],
        "extra": json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else "",
        "audio": clip.reference(instruction),
    }


def unique_ids(docs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Documents with names of their own: of equal ones the second is called `NAME-2`, or the next that is free."""
    taken = {doc["id"] for doc in docs}
    seen: set[str] = set()
    found = []
    for doc in docs:
        name, number = doc["id"], 2
        while name in seen or (name != doc["id"] and name in taken):
            name, number = f"{doc['id']}-{number}", number + 1
        seen.add(name)
        found.append(doc if name == doc["id"] else {**doc, "id": name})
    return found


def with_references(docs: Sequence[dict[str, Any]], name: str) -> tuple[list[dict[str, Any]], int]:
    """Documents that can be scored, without blank references, and how many have none to be compared with.

    Args:
        docs: Of any kind; only those of REFERENCED need a reference.
        name: Of the set, for the line on stderr that tells the number.
    """
    kept = []
    for doc in docs:
        references = [text for text in doc["references"] if not is_blank(text)]
        if references or doc["kind"] not in REFERENCED:
            same = len(references) == len(doc["references"])
            kept.append(doc if same else {**doc, "references": references})
    left_out = len(docs) - len(kept)
    if left_out:
        say(f"{name}: {left_out} of {len(docs)} items have no reference, or a blank one, and are left out")
    return kept, left_out


def joined_by_text(docs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Documents of which those that say the same share a cluster, and with them all of their clusters.

    The same is said in one pair of languages by the same letters, digits and marks; case, punctuation and spaces do not
    matter. A cluster that is joined with others keeps the name of the first.
    """
    parents: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = []
    for doc in docs:
        nodes.append(("cluster", doc["cluster"]))
        if said := same_words(doc["instruction"]):
            parents[root(("text", doc["source_lang"], doc["target_lang"], said))] = root(nodes[-1])
    names: dict[Any, str] = {}
    for doc, node in zip(docs, nodes, strict=True):
        names.setdefault(root(node), doc["cluster"])
    return [
        doc if names[root(node)] == doc["cluster"] else {**doc, "cluster": names[root(node)]}
        for doc, node in zip(docs, nodes, strict=True)
    ]


def same_words(text: str | None) -> str:
    """What two wordings have in common that differ in case, punctuation and spaces alone."""
    plain = plain_characters(text or "").casefold()
    return "".join(letter for letter in plain if unicodedata.category(letter)[0] in "LNM")


def user_text(doc: Mapping[str, Any]) -> str:
    """The user turn as text: the prompt, then what is spoken; parts that the data set does not tell are left out."""
    return f"{doc.get('prompt', '')} {doc.get('instruction', '')}".strip()


def set_fingerprint(docs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Identity of a whole test set: number of items, hash of their texts and hash of their clips, each in order."""
    n, texts, clips = 0, _ListHash(), _ListHash()
    for doc in docs:
        n += 1
        texts.add([doc[name] for name in _FINGERPRINTED] + ([doc["extra"]] if doc.get("extra") else []))
        clips.add(_clip_hash(doc["audio"]))
    return {"n_items": n, "items_sha256": texts.hexdigest(), "audio_set_sha256": clips.hexdigest()}


_FINGERPRINTED = (
    "id", "kind", "prompt", "instruction", "references", "source_lang", "target_lang", "baseline",
)  # fmt: skip


class _ListHash:
    """`sha256_json` of a list that is never held."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256(b"[")
        self._gap = b""

    def add(self, value: Any) -> None:
        self._digest.update(self._gap + canonical_json(value))
        self._gap = b","

    def hexdigest(self) -> str:
        closed = self._digest.copy()
        closed.update(b"]")
        return closed.hexdigest()


def _clip_hash(audio: Mapping[str, Any]) -> Any:
    """Hash of a clip; with the one that is heard before it, where there is one."""
    return [audio["prefix"]["sha256"], audio["sha256"]] if audio.get("prefix") else audio["sha256"]
