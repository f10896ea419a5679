"""CoVoST 2 (`fixie-ai/covost2`): one folder a direction, one row a clip of Common Voice 4.

    <direction>/test-00000-of-000NN.parquet   client_id, file, audio {bytes, path} (MP3, 48 kHz), sentence, translation,
                                              id

Transcripts (`sentence`) of many rows still have the quotes of the CSV file that they were taken from; these are
removed. Translations never have them, and are used as they are.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import hub, language_pairs, tables
from rba_bench.evaluation.sources.language_pairs import COVOST2_FROM_ENGLISH, COVOST2_TO_ENGLISH
from rba_bench.evaluation.sources.source import LoadedSet, Place

REPO = "fixie-ai/covost2"
DIRECTIONS = (
    *(f"en_{code}" for code in COVOST2_FROM_ENGLISH),
    *(f"{code}_en" for code in COVOST2_TO_ENGLISH),
)
_FIELD = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)
COLUMNS = ("client_id", "sentence", "translation", "id")
# Rows of the test splits. A copy with fewer is evaluated all the same; the record shows both numbers.
TEST_ROWS = {
    "en": 15531, "ar": 1695, "ca": 12730, "cy": 690, "de": 13511, "es": 13221, "et": 1571, "fa": 3445,
    "fr": 14760, "id": 844, "it": 8951, "ja": 684, "lv": 1629, "mn": 1759, "nl": 1699, "pt": 4023, "ru": 6300,
    "sl": 360, "sv-SE": 1595, "ta": 786, "tr": 1629, "zh-CN": 4898,
}  # fmt: skip


def load_covost2(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Speech translation in one direction.

    Args:
        options: `direction`, such as `en_de` or `zh-CN_en`; `prompt` (optional), with `{language}` for the target.
        place: Where the data is.

    Raises:
        UserError: no such direction, or files of another layout.
        MissingPrerequisite: the data is not there.
    """
    direction = str(options.get("direction", ""))
    if direction not in DIRECTIONS:
        raise UserError(f"CoVoST 2 has no direction {direction!r}; it has {', '.join(DIRECTIONS)}")
    source, target = direction.split("_")
    prompt = language_pairs.task_prompt(language_pairs.TRANSLATE, target, options)
    files = hub.find_files(REPO, [f"{direction}/test-*.parquet"], place)
    counts: Counter[str] = Counter()
    docs = [
        documents.make_document(
            id=row["id"],
            kind="s2tt",
            clip=clip,
            instruction=row["sentence"],
            prompt=prompt,
            references=[row["translation"] or ""],
            source_lang=language_pairs.short(source),
            target_lang=language_pairs.short(target),
            voice=row["client_id"],
        )
        for row, clip in transcript_rows(files, counts)
    ]
    docs, counts["without_translation"] = documents.with_references(docs, f"covost2 {direction}")
    origin = files.origin(direction=direction, **counts, published_rows=TEST_ROWS[source])
    return LoadedSet(documents.joined_by_text(documents.unique_ids(docs)), origin)


def transcript_rows(
    found: hub.HubFiles, counts: Counter[str]
) -> Iterator[tuple[dict[str, Any], tables.Clip]]:
    """Rows with unquoted transcripts and short speaker ids.

    Args:
        found: Files of one direction.
        counts: Takes the number of `transcript_rows`, and of transcripts `unquoted`.
    """
    for row, clip in tables.parquet_rows(found.paths, COLUMNS):
        transcript = unquote(row["sentence"] or "")
        counts["rows"] += 1
        counts["unquoted"] += transcript != row["sentence"]
        voice = str(row["client_id"] or "")[:16]  # of 128 hex digits
        yield {**row, "id": str(row["id"]), "sentence": transcript, "client_id": voice}, clip


def unquote(text: str) -> str:
    """A CSV field as it was before it was written: without the quotes around it, inner ones single.

    Only what a writer of CSV makes is undone: every quote inside is doubled, and what comes out has as many opening as
    closing ones. `"Yes," he said, "of course"` is such a sentence by itself and stays. A sentence that is one quotation
    as a whole loses its marks: the two cannot be told apart. It matters to nothing but the text-only reference row, as
    error rates ignore punctuation.
    """
    field = _FIELD.fullmatch(text)
    inner = field[1].replace('""', '"') if field else ""
    return inner.strip() if field and inner.count('"') % 2 == 0 else text
