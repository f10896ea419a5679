"""FLEURS (`google/fleurs`) as speech translation: the clips of one language, the sentences of another, joined on `id`.

    refs/convert/parquet: <config>/test/0000.parquet ...   id, num_samples, path, audio {bytes, path} (WAV, 16 kHz,
        float), transcription, raw_transcription, gender, lang_id, language, lang_group_id

An `id` is one sentence of FLORES. A language has it in one to three recordings, or not at all: recordings whose
sentence the other language lacks are left out and counted. Texts are `raw_transcription`, with case and punctuation
and, in Chinese, without the spaces that `transcription` has between all characters.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import hub, language_pairs, tables
from rba_bench.evaluation.sources.source import LoadedSet, Place
from rba_bench.metrics.text import is_blank
from rba_bench.progress import say

REPO = "google/fleurs"
REVISION = "refs/convert/parquet"
GENDERS = ("male", "female", "other")


def load_fleurs(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Speech translation between two languages.

    Args:
        options: `pair`, such as `en_us-de_de` (or `en-de`); `prompt` (optional), with `{language}` for the target.
        place: Where the data is.

    Raises:
        UserError: no such pair, files of another layout, or no sentence in common.
        MissingPrerequisite: the data is not there.
    """
    source, target = _pair(str(options.get("pair", "")))
    spoken, written = test_files(source, place), test_files(target, place)
    sentences, differing = _sentences(written)
    prompt = language_pairs.task_prompt(language_pairs.TRANSLATE, target, options)
    docs, recordings = [], 0
    for row, clip in tables.parquet_rows(spoken.paths, ("id", "path", "raw_transcription", "gender")):
        recordings += 1
        if row["id"] in sentences:
            docs.append(
                documents.make_document(
                    id=recording_id(row),
                    kind="s2tt",
                    clip=clip,
                    instruction=row["raw_transcription"] or "",
                    prompt=prompt,
                    references=[sentences[row["id"]]],
                    source_lang=language_pairs.short(source),
                    target_lang=language_pairs.short(target),
                    voice=gender(row),
                    cluster=f"fleurs-{row['id']}",
                )
            )
    if recordings > len(docs):
        say(
            f"FLEURS {source}-{target}: {recordings - len(docs)} of {recordings} recordings have no translation"
        )
    if not docs:
        raise UserError(f"FLEURS {source} and {target} have no sentence in common: is a copy incomplete?")
    joined = {doc["cluster"] for doc in docs}
    docs = documents.joined_by_text(documents.unique_ids(docs))
    facts = {
        "pair": f"{source}-{target}",
        "revision_of_target": written.revision,
        "recordings": recordings,
        "left_out_without_target": recordings - len(docs),
        "target_sentences": len(sentences),
        "target_sentences_unheard": len(sentences) - len(joined),
        "target_sentences_in_several_wordings": differing,
    }
    return LoadedSet(docs, spoken.origin(**facts))


def test_files(config: str, place: Place) -> hub.HubFiles:
    """Test files of one language. Raises MissingPrerequisite if they are not there."""
    return hub.find_files(REPO, [f"{config}/test/*.parquet"], place, REVISION)


def recording_id(row: Mapping[str, Any]) -> str:
    """Name of a recording: the id of its sentence and its file name."""
    return f"{row['id']}-{PurePosixPath(str(row['path'])).stem}"


def gender(row: Mapping[str, Any]) -> str:
    """All that FLEURS tells of a speaker."""
    number = row["gender"]
    return GENDERS[number] if isinstance(number, int) and 0 <= number < len(GENDERS) else ""


def _pair(pair: str) -> tuple[str, str]:
    codes = pair.split("-")
    if len(codes) != 2:
        raise UserError(f"pair {pair!r} is not two languages of FLEURS, such as en_us-de_de")
    source, target = (language_pairs.fleurs_config(code) for code in codes)
    if source == target:
        raise UserError(f"pair {pair!r} is one language twice: that is transcription, see the asr tasks")
    return source, target


def _sentences(files: hub.HubFiles) -> tuple[dict[int, str], int]:
    """The sentence of each id, and the number of ids whose recordings have more than one wording (the first counts)."""
    sentences: dict[int, str] = {}
    differing: set[int] = set()
    for file in files.paths:
        for row in tables.read_columns(file, ("id", "raw_transcription")):
            text = row["raw_transcription"]
            if not is_blank(text) and sentences.setdefault(row["id"], text) != text:
                differing.add(row["id"])
    return sentences, len(differing)
