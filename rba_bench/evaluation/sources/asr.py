"""Transcription of the clips of FLEURS and CoVoST 2.

The reference of FLEURS is `transcription`, its text for speech recognition; of CoVoST 2 it is `sentence`. Both sides
are normalised before errors are counted, so case and punctuation do not matter.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import covost2, fleurs, hub, language_pairs, tables
from rba_bench.evaluation.sources.language_pairs import COVOST2_TO_ENGLISH
from rba_bench.evaluation.sources.source import LoadedSet, Place

ENGLISH_FROM = "en_de"  # every en_* direction of CoVoST 2 has the same English clips


def load_asr(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Transcription in one language.

    Args:
        options: `corpus` (`fleurs` or `covost2`); `spoken`, a configuration of FLEURS (or a short code) or a code of
            CoVoST 2; `prompt` (optional), with `{language}` for the language.
        place: Where the data is.

    Raises:
        UserError: no such corpus or language, or files of another layout.
        MissingPrerequisite: the data is not there.
    """
    corpus, language = str(options.get("corpus", "")), str(options.get("spoken", ""))
    if corpus == "fleurs":
        language = language_pairs.fleurs_config(language)
        files = fleurs.test_files(language, place)
        docs = [
            _document(
                language,
                options,
                clip,
                id=fleurs.recording_id(row),
                text=row["transcription"] or "",
                voice=fleurs.gender(row),
                cluster=f"fleurs-{row['id']}",
            )
            for row, clip in tables.parquet_rows(files.paths, ("id", "path", "transcription", "gender"))
        ]
        origin = files.origin(config=language, rows=len(docs))
    elif corpus == "covost2":
        if language not in ("en", *COVOST2_TO_ENGLISH):
            languages = ", ".join(COVOST2_TO_ENGLISH)
            raise UserError(f"CoVoST 2 has no clips in {language!r}; it has en, {languages}")
        direction = ENGLISH_FROM if language == "en" else f"{language}_en"
        files = hub.find_files(covost2.REPO, [f"{direction}/test-*.parquet"], place)
        counts: Counter[str] = Counter()
        docs = [
            _document(language, options, clip, id=row["id"], text=row["sentence"], voice=row["client_id"])
            for row, clip in covost2.transcript_rows(files, counts)
        ]
        facts = {**counts, "published_rows": covost2.TEST_ROWS[language]}
        origin = files.origin(direction=direction, **facts)
    else:
        raise UserError(f"no transcripts of corpus {corpus!r}; known: fleurs, covost2")
    name = f"FLEURS {language}" if corpus == "fleurs" else f"covost2 {origin['direction']}"
    docs, left_out = documents.with_references(docs, name)
    origin |= {"without_reference": left_out} if left_out else {}
    return LoadedSet(documents.joined_by_text(documents.unique_ids(docs)), origin)


def _document(
    language: str,
    options: Mapping[str, Any],
    clip: tables.Clip,
    *,
    id: str,
    text: str,
    voice: str,
    cluster: str = "",
) -> documents.Document:
    code = language_pairs.short(language)
    return documents.make_document(
        id=id,
        kind="asr",
        clip=clip,
        instruction=text,
        prompt=language_pairs.task_prompt(language_pairs.TRANSCRIBE, language, options),
        references=[text],
        source_lang=code,
        target_lang=code,
        voice=voice,
        group=code,
        cluster=cluster,
    )
