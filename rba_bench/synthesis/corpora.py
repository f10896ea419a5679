"""Existing speech with transcripts, as a list of utterances: a manifest of one's own, or a corpus in its own layout.

manifest   FILE.jsonl or FILE.csv, a line an utterance: audio, transcript, source_lang, target_lang; and, if wanted,
               id, voice, row and column (the clip is in this row of a parquet file), offset and duration (seconds: the
               clip is this part of a longer file). Paths are relative to the file.
    covost2    <direction>/<split>-*.parquet        client_id, audio {bytes, path}, sentence, id
    fleurs     <config>/<split>/*.parquet           id, path, audio {bytes, path}, raw_transcription, gender
    mustc      en-<target>/data/<split>/txt/<split>.yaml and .en, wav/<talk>.wav

These are the layouts that evaluation reads. Nothing but audio and transcript is taken: the teacher translates.

An alignment set of existing speech: the teacher translates the transcript, the recording stays as it is.

Paper, stage 1: "S2TT data": source speech of FLEURS, CoVoST 2 and MuST-C; the teacher translates the available
transcript and no human translation is used. One utterance and one target language make one group with one voice.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rba_bench.audio import clips, decoding
from rba_bench.audio.samples import resample
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.metrics.languages import FLEURS, english_name, short
from rba_bench.progress import bar, say
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.collection import ANSWERS, Log, Unit
from rba_bench.synthesis.filters import KEPT, judge_answer, normalise, read, tidy
from rba_bench.synthesis.synthesis_recipe import SourceOptions, SynthesisRecipe
from rba_bench.synthesis.teacher import response_decoding
from rba_bench.textlm.text_model import TextLM

_NEEDED = ("audio", "transcript", "source_lang", "target_lang")
_KNOWN = {*_NEEDED, "id", "voice", "row", "column", "offset", "duration"}


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recorded utterance that is to be translated.

    Attributes:
        id: unique among the utterances of a set.
        path: audio or parquet file.
        transcript: what is said.
        source_lang, target_lang: short codes.
        voice: speaker, "" if unknown.
        row, column: place in a parquet file; row None for an audio file.
        offset, duration: part of a longer file in seconds; None = all of it.
    """

    id: str
    path: str
    transcript: str
    source_lang: str
    target_lang: str
    voice: str = ""
    row: int | None = None
    column: str = "audio"
    offset: float | None = None
    duration: float | None = None

    def content(self) -> list[Any]:
        """What identifies the utterance wherever its file lies."""
        place = [Path(self.path).name, self.row, self.offset, self.duration]
        return [self.id, self.transcript, self.source_lang, self.target_lang, self.voice, *place]


def utterances(source: SourceOptions) -> list[Utterance]:
    """All utterances of a source, in its order; those without a transcript too.

    Raises:
        MissingPrerequisite: the file or folder is not there.
        UserError: a line or a file is not of the layout, an id occurs twice, or there is nothing.
    """
    if source.manifest is not None:
        found = list(_manifest(Path(source.manifest)))
    else:
        read = {"covost2": _covost2, "fleurs": _fleurs, "mustc": _mustc}[str(source.corpus)]
        folder = Path(str(source.path))
        directions = [pair.partition("_") for pair in source.pairs]
        found = [one for heard, _, wanted in directions for one in read(folder, heard, wanted, source.split)]
    seen: set[str] = set()
    for one in found:
        if one.id in seen:
            raise UserError(f"utterance {one.id!r} occurs twice: give each line an id of its own")
        seen.add(one.id)
    if not found:
        raise UserError(f"no utterances in {source.manifest or source.path}")
    return found[: source.limit]


def _manifest(path: Path) -> Iterator[Utterance]:
    for number, line in _lines(path):
        where = f"{path}:{number}"
        given = {name: value for name, value in line.items() if value not in (None, "")}
        if (missing := [name for name in _NEEDED if name not in line]) or given.keys() - _KNOWN:
            names = missing or sorted(given.keys() - _KNOWN)
            raise UserError(f"{where}: {'lacks' if missing else 'does not know'} {', '.join(names)}")
        try:
            yield Utterance(
                id=str(given.get("id", number)),
                path=str(path.parent / str(given.get("audio", ""))),
                transcript=str(given.get("transcript", "")),
                source_lang=short(str(given.get("source_lang", ""))),
                target_lang=short(str(given.get("target_lang", ""))),
                voice=str(given.get("voice", "")),
                row=int(given["row"]) if "row" in given else None,
                column=str(given.get("column", "audio")),
                offset=float(given["offset"]) if "offset" in given else None,
                duration=float(given["duration"]) if "duration" in given else None,
            )
        except (ValueError, TypeError, UserError) as error:
            raise UserError(f"{where}: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix not in (".jsonl", ".csv"):
        raise UserError(f"source.manifest {path} must be a .jsonl or .csv file")
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            if path.suffix == ".csv":
                yield from enumerate(csv.DictReader(handle, restkey="more columns than names"), 2)
                return
            for number, line in enumerate(handle, 1):
                value = json.loads(line) if line.strip() else None
                if value is not None and not isinstance(value, dict):
                    raise UserError(f"{path}:{number}: not a JSON object")
                if value is not None:
                    yield number, value
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"no source.manifest at {path}") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def _covost2(folder: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    for file in _files(folder, f"{source}_{target}/{split}-*.parquet"):
        for row, line in enumerate(_columns(file, ("client_id", "sentence", "id"))):
            yield Utterance(
                id=f"{line['id']}-{target}",
                path=str(file),
                transcript=_unquoted(line["sentence"] or ""),
                source_lang=short(source),
                target_lang=short(target),
                voice=str(line["client_id"] or "")[:16],
                row=row,
            )


def _fleurs(folder: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    config = FLEURS[short(source)][0]
    for file in _files(folder, f"{config}/{split}/*.parquet"):
        for row, line in enumerate(_columns(file, ("id", "path", "raw_transcription"))):
            yield Utterance(
                id=f"fleurs-{source}-{line['id']}-{PurePosixPath(str(line['path'])).stem}-{target}",
                path=str(file),
                transcript=line["raw_transcription"] or "",
                source_lang=short(source),
                target_lang=short(target),
                row=row,
            )


def _mustc(folder: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    import yaml

    place = folder / f"{source}-{target}" / "data" / split
    table = place / "txt" / f"{split}.yaml"
    if not table.is_file():
        raise MissingPrerequisite(f"no {table}: name the folder that holds {source}-{target} of MuST-C")
    try:
        segments = yaml.load(table.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - strings only
        text = (place / "txt" / f"{split}.{source}").read_text(encoding="utf-8")
        lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
        for number, (segment, line) in enumerate(zip(segments, lines, strict=True)):
            yield Utterance(
                id=f"{Path(segment['wav']).stem}-{number}-{target}",
                path=str(place / "wav" / segment["wav"]),
                transcript=line,
                source_lang=short(source),
                target_lang=short(target),
                voice=segment.get("speaker_id", ""),
                offset=float(segment["offset"]),
                duration=float(segment["duration"]),
            )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"MuST-C in {place} cannot be read: {' '.join(str(error).split())}") from error


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise MissingPrerequisite(
            f"no {pattern} under {folder}: name the folder of the corpus as source.path"
        )
    return found


def _columns(file: Path, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            if missing := sorted({*names, "audio"} - set(table.schema_arrow.names)):
                raise UserError(f"{file} lacks the columns {', '.join(missing)}")
            for batch in table.iter_batches(columns=list(names)):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): get it again") from error


def _unquoted(text: str) -> str:
    """CoVoST 2 keeps the quoting of its CSV file in many transcripts."""
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return text[1:-1].replace('""', '"').strip()
    return text


def identity(found: Sequence[Utterance]) -> str:
    """Hash of what is to be translated, wherever it lies."""
    return sha256_json([one.content() for one in found])


def translate(
    recipe: SynthesisRecipe, source: SourceOptions, found: Sequence[Utterance], teacher: TextLM, out: Path
) -> dict[str, tuple[Unit, Utterance]]:
    """Let the teacher translate all transcripts; resumes from the log in `out`.

    Returns:
        Usable ones by group id, in order.

    Raises:
        RbaError: none is usable.
    """
    with (
        Log(out / ANSWERS) as log,
        bar("translations", len(found), len(log.records), "utterances") as advance,
    ):
        # a round that a kill tore is asked for again as a whole: what a batch holds decides its last bits
        first = len(log.records) // recipe.round_size * recipe.round_size
        for start in range(first, len(found), recipe.round_size):
            made = _round(recipe, source, found[start : start + recipe.round_size], start, teacher)
            new = [record for record in made if record["index"] not in log.by_index]
            log.extend(new)
            advance(len(new))
        kept = {}
        for one, record in zip(found, log.records, strict=False):
            if record["reason"] == KEPT:
                unit = _unit(recipe, source, one, record["response"])
                kept[unit.group_id] = (unit, one)
    if not kept:
        raise RbaError(f"none of {len(found)} transcripts has a usable translation; see {out / ANSWERS}")
    return kept


def _round(
    recipe: SynthesisRecipe, source: SourceOptions, part: Sequence[Utterance], start: int, teacher: TextLM
) -> list[dict[str, Any]]:
    texts = [tidy(one.transcript) for one in part]
    asked = [index for index, text in enumerate(texts) if text]
    prompts = [_fill(source.teacher_prompt, part[index]).replace("{text}", texts[index]) for index in asked]
    seeds = [stable_seed("translate", recipe.seed, part[index].id) for index in asked]
    made = (
        dict(zip(asked, teacher.chat(prompts, response_decoding(recipe), seeds), strict=True))
        if asked
        else {}
    )
    records = []
    for index in range(len(part)):
        answer = made.get(index)
        response, status = read(answer) if answer is not None else ("", "empty")
        reason = judge_answer(response, status) if answer is not None else "no_transcript"
        records.append({"index": start + index, "response": response, "status": status, "reason": reason})
    return records


def _fill(template: str, one: Utterance) -> str:
    names = {"{source}": english_name(one.source_lang), "{language}": english_name(one.target_lang)}
    for mark, name in names.items():
        template = template.replace(mark, name)
    return template


def _unit(recipe: SynthesisRecipe, source: SourceOptions, one: Utterance, response: str) -> Unit:
    # The split comes from the words: recordings of one sentence never lie on both sides.
    words = sha256_bytes(normalise(one.transcript).encode())[:16]
    validation = stable_seed("split", words) / 2**63 < recipe.validation_fraction
    return Unit(
        group_id=sha256_bytes(one.id.encode())[:16],
        split="validation" if validation else "train",
        kind="s2tt",
        prompt=_fill(source.prompt, one),
        instruction=tidy(one.transcript),
        response=response,
        source_lang=one.source_lang,
        target_lang=one.target_lang,
        topic="",
        difficulty="",
    )


class Recordings:
    """Makes the rows of translated utterances: 16 kHz mono FLAC of what the corpus holds.

    Utterances that are too long or hold no usable sound give no row; they are said aloud and counted by the manifest.
    """

    name, version = "recorded", "1"

    def __init__(self, made: dict[str, tuple[Unit, Utterance]], source: SourceOptions) -> None:
        self.made = made
        self.source = source

    def plan(self, units: Sequence[Unit]) -> dict[str, Any]:
        """What decides the rows beside the units."""
        return {
            "max_seconds": self.source.max_seconds,
            "clips": [self.made[unit.group_id][1].content() for unit in units],
        }

    def rows(self, unit: Unit) -> list[dict[str, Any]]:
        """One row, or none. Raises MissingPrerequisite or UserError if the file is not there or cannot be read."""
        one = self.made[unit.group_id][1]
        try:
            wave = _heard(one)
        except clips.AudioError as error:
            say(f"{one.id} is left out: {error}")
            return []
        seconds = len(wave) / clips.SAMPLING_RATE
        if seconds > self.source.max_seconds:
            say(f"{one.id} is left out: {seconds:.1f} s, more than source.max_seconds")
            return []
        data = clips.encode_flac(wave)
        name = f"{unit.group_id}-0"
        return [
            {
                "id": name,
                **vars(unit),
                "voice": one.voice,
                "audio": {"bytes": data, "path": f"{name}.flac"},
                "audio_sha256": sha256_bytes(data),
                "sampling_rate": clips.SAMPLING_RATE,
                "duration": seconds,
            }
        ]


def _heard(one: Utterance) -> np.ndarray:
    """Samples of an utterance at 16 kHz, [n]."""
    if one.offset is not None or one.duration is not None:
        return _segment(one)
    ref = clips.AudioRef("", 0, 0.0, one.path, one.row, one.column)
    return clips.decode_clip(clips.read_clip_bytes(ref))


def _segment(one: Utterance) -> np.ndarray:
    path = Path(one.path)
    if not path.is_file():
        raise MissingPrerequisite(f"no audio at {path}: the corpus was not unpacked whole")
    try:
        wave, rate = decoding.load_segment(path, one.offset or 0.0, one.duration)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return resample(wave, rate, clips.SAMPLING_RATE)
