"""Alignment sets of existing speech: utterances with transcripts, which the teacher translates.

Paper, stage 1, "S2TT data": source speech of FLEURS, CoVoST 2 and MuST-C; the teacher translates the transcript, and no
human translation is used. The recording stays as it is. One utterance and one target language make one group with one
voice. The utterances come from any data set with audio and text (`speech_datasets`), from a manifest, or from a corpus
in its own layout (those that evaluation reads):

    manifest   FILE.jsonl or FILE.csv, one utterance per line: audio, transcript, source_lang, target_lang; optional:
               id, voice, row and column (the clip is in this row of a parquet file), offset and duration (seconds:
               the clip is this part of a longer file). Paths are relative to the file.
    covost2    <direction>/<split>-*.parquet        client_id, audio {bytes, path}, sentence, id
    fleurs     <config>/<split>/*.parquet           id, path, audio {bytes, path}, raw_transcription, gender
    mustc      en-<target>/data/<split>/txt/<split>.yaml and .en, wav/<talk>.wav
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rba_bench.audio import clips, decoding
from rba_bench.audio.arrow_files import SUFFIX, arrow_clip
from rba_bench.audio.samples import resample
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.metrics.languages import FLEURS, english_name, short
from rba_bench.progress import say
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.filtering import ShardFilter, indexed_units
from rba_bench.synthesis.filters import KEPT, judge_answer, read_reply, tidy
from rba_bench.synthesis.speaking import THREADS, SpokenShard
from rba_bench.synthesis.speech_datasets import dataset_utterances
from rba_bench.synthesis.synthesis_recipe import SourceOptions, SynthesisRecipe
from rba_bench.synthesis.teacher import refuse_silence, response_decoding
from rba_bench.synthesis.units import Unit, split_of, text_id
from rba_bench.synthesis.utterances import Utterance
from rba_bench.textlm.text_model import TextLM

_REQUIRED = ("audio", "transcript", "source_lang", "target_lang")
TRIED = 8  # recordings, where all are broken
_FIELDS = {*_REQUIRED, "id", "voice", "row", "column", "offset", "duration"}


def read_utterances(source: SourceOptions) -> list[Utterance]:
    """All utterances of a source, in its order; those without a transcript too.

    Raises:
        MissingPrerequisite: the file or folder is not there.
        UserError: a line or a file is not of the layout, an id occurs twice, or there is nothing.
    """
    if source.manifest is not None:
        utterances = list(_read_manifest(Path(source.manifest)))
    elif source.dataset:
        utterances = list(dataset_utterances(source))
    else:
        readers = {"covost2": _read_covost2, "fleurs": _read_fleurs, "mustc": _read_mustc}
        folder, utterances = Path(str(source.path)), []
        for pair in source.pairs:
            source_lang, _, target_lang = pair.partition("_")
            utterances += readers[str(source.corpus)](folder, source_lang, target_lang, source.split)
    ids: set[str] = set()
    for utterance in utterances:
        if utterance.id in ids:
            raise UserError(f"utterance {utterance.id!r} occurs twice: give each line an id of its own")
        ids.add(utterance.id)
    if not utterances:
        place = source.manifest or source.path or ", ".join(source.dataset)
        raise UserError(f"no utterances in {place}")
    return utterances[: source.limit]


def check_recordings(utterances: Sequence[Utterance]) -> None:
    """Decode a clip or two before the teacher begins; a few broken ones are no matter.

    Raises:
        MissingPrerequisite: a file is not there.
        UserError: none of some clips can be decoded.
    """
    wanted = [utterance for utterance in utterances if tidy(utterance.transcript)]
    tried = wanted[:: max(1, len(wanted) // TRIED)][:TRIED]
    fault = ""
    for utterance in tried:
        try:
            _decode(utterance)
            return
        except clips.AudioError as error:
            fault = fault or f"{utterance.id}: {error}"
    if tried:
        raise UserError(f"none of {len(tried)} recordings that were tried can be decoded ({fault})")


def _read_manifest(path: Path) -> Iterator[Utterance]:
    for number, line in _lines(path):
        where = f"{path}:{number}"
        fields = {name: value for name, value in line.items() if value not in (None, "")}
        if (missing := [name for name in _REQUIRED if name not in line]) or fields.keys() - _FIELDS:
            names = missing or sorted(fields.keys() - _FIELDS)
            raise UserError(f"{where}: {'lacks' if missing else 'does not know'} {', '.join(names)}")
        try:
            yield Utterance(
                id=str(fields.get("id", number)),
                path=str(path.parent / str(fields.get("audio", ""))),
                transcript=str(fields.get("transcript", "")),
                source_lang=short(str(fields.get("source_lang", ""))),
                target_lang=short(str(fields.get("target_lang", ""))),
                voice=str(fields.get("voice", "")),
                row=int(fields["row"]) if "row" in fields else None,
                column=str(fields.get("column", "audio")),
                offset=float(fields["offset"]) if "offset" in fields else None,
                duration=float(fields["duration"]) if "duration" in fields else None,
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


def _read_covost2(folder: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    for file in _files(folder, f"{source}_{target}/{split}-*.parquet"):
        for row, line in enumerate(_columns(file, ("client_id", "sentence", "id"))):
            text = line["sentence"] or ""
            if len(text) > 1 and text.startswith('"') and text.endswith('"'):
                # many rows keep the quoting of the corpus's CSV file
                text = text[1:-1].replace('""', '"').strip()
            yield Utterance(
                id=f"{line['id']}-{target}",
                path=str(file),
                transcript=text,
                source_lang=short(source),
                target_lang=short(target),
                voice=str(line["client_id"] or "")[:16],
                row=row,
            )


def _read_fleurs(folder: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
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


def _read_mustc(folder: Path, source: str, target: str, split: str) -> Iterator[Utterance]:
    import yaml

    data = folder / f"{source}-{target}" / "data" / split
    table = data / "txt" / f"{split}.yaml"
    if not table.is_file():
        raise MissingPrerequisite(f"no {table}: name the folder that holds {source}-{target} of MuST-C")
    try:
        segments = yaml.load(table.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - strings only
        text = (data / "txt" / f"{split}.{source}").read_text(encoding="utf-8")
        lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
        for number, (segment, line) in enumerate(zip(segments, lines, strict=True)):
            yield Utterance(
                id=f"{Path(segment['wav']).stem}-{number}-{target}",
                path=str(data / "wav" / segment["wav"]),
                transcript=line,
                source_lang=short(source),
                target_lang=short(target),
                voice=segment.get("speaker_id", ""),
                offset=float(segment["offset"]),
                duration=float(segment["duration"]),
            )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"MuST-C in {data} cannot be read: {' '.join(str(error).split())}") from error


def _files(folder: Path, pattern: str) -> list[Path]:
    if files := sorted(folder.glob(pattern)):
        return files
    raise MissingPrerequisite(f"no {pattern} under {folder}: name the folder of the corpus as source.path")


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


@dataclass
class TranslationAsker:
    """Translations of the transcripts by the teacher, `round_size` utterances a shard (an `Asker`).

    Attributes:
        recipe: How they are sampled.
        source: The prompt.
        utterances: All of them.
        teacher: Who translates.
    """

    recipe: SynthesisRecipe
    source: SourceOptions
    utterances: Sequence[Utterance]
    teacher: TextLM

    @property
    def shards(self) -> int:
        """See `Asker`."""
        return -(-len(self.utterances) // self.recipe.round_size)

    def plan(self, number: int) -> Any:
        """See `Asker`."""
        sampling = [self.recipe.seed, asdict(response_decoding(self.recipe)), self.source.teacher_prompt]
        return [sampling, [utterance.content() for utterance in self._batch(number)]]

    def records(self, number: int) -> list[dict[str, Any]]:
        """See `Asker`. Utterances without a transcript are not sent to the teacher."""
        batch, start = self._batch(number), number * self.recipe.round_size
        texts = [tidy(utterance.transcript) for utterance in batch]
        spoken = [index for index, text in enumerate(texts) if text]
        prompts = [
            _fill(self.source.teacher_prompt, batch[index]).replace("{text}", texts[index])
            for index in spoken
        ]
        seeds = [stable_seed("translate", self.recipe.seed, batch[index].id) for index in spoken]
        generations = self.teacher.chat(prompts, response_decoding(self.recipe), seeds) if spoken else []
        refuse_silence(self.recipe, generations)
        nothing = {"response": "", "status": "empty", "reason": "no_transcript"}
        records = [{"index": start + index, "answer": dict(nothing)} for index in range(len(batch))]
        for index, generation in zip(spoken, generations, strict=True):
            response, status = read_reply(generation)
            reason = judge_answer(response, status)
            records[index]["answer"] = {"response": response, "status": status, "reason": reason}
        return records

    def _batch(self, number: int) -> Sequence[Utterance]:
        start = number * self.recipe.round_size
        return self.utterances[start : start + self.recipe.round_size]


@dataclass(frozen=True)
class RecordedUnit:
    """A translated utterance and where its speech lies."""

    unit: Unit
    utterance: Utterance


class TranslationFilter(ShardFilter):
    """Keeps the utterances with a usable translation."""

    enough = False  # all are translated

    def __init__(
        self, recipe: SynthesisRecipe, source: SourceOptions, utterances: Sequence[Utterance]
    ) -> None:
        super().__init__()
        self.recipe, self.source, self.utterances = recipe, source, utterances

    def decide(self, asked: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """See `ShardFilter`."""
        decisions = []
        for record in asked:
            decision: dict[str, Any] = {"index": record["index"], "answer": record["answer"]["reason"]}
            if decision["answer"] == KEPT:
                utterance = self.utterances[record["index"]]
                decision |= asdict(_unit(self.recipe, self.source, utterance, record["answer"]["response"]))
                decision["clip"] = sha256_json(utterance.content())
                self.kinds["s2tt"] += 1
            decisions.append(decision)
        return decisions, {}

    def units(self, out: Path, number: int) -> Iterator[RecordedUnit]:
        """See `ShardFilter`."""
        for index, unit in indexed_units(out, number):
            yield RecordedUnit(unit, self.utterances[index])


def _fill(template: str, utterance: Utterance) -> str:
    """A prompt with the names of the utterance's two languages."""
    with_source = template.replace("{source}", english_name(utterance.source_lang))
    return with_source.replace("{language}", english_name(utterance.target_lang))


def _unit(recipe: SynthesisRecipe, source: SourceOptions, utterance: Utterance, response: str) -> Unit:
    return Unit(
        group_id=sha256_bytes(utterance.id.encode())[:16],
        split=split_of(
            text_id(utterance.transcript), recipe.validation_fraction
        ),  # recordings of one sentence share a split
        kind="s2tt",
        prompt=_fill(source.prompt, utterance),
        instruction=tidy(utterance.transcript),
        response=response,
        source_lang=utterance.source_lang,
        target_lang=utterance.target_lang,
        topic="",
        difficulty="",
    )


class Recordings:
    """Makes the rows of translated utterances: 16 kHz mono FLAC of what the corpus holds (a `RowMaker`).

    Utterances that are too long or hold no usable sound give no row; each is reported, and the manifest counts them.
    """

    name, version = "recorded", "1"

    def __init__(self, source: SourceOptions) -> None:
        self.source = source

    def voice_names(self) -> list[str]:
        """See `RowMaker`."""
        return []

    def round_trip_facts(self) -> None:
        """See `RowMaker`: recordings are not transcribed."""

    def settings(self) -> dict[str, Any]:
        """See `RowMaker`; what is translated has a hash of its clip."""
        return {"max_seconds": self.source.max_seconds}

    def shard(self, units: Sequence[RecordedUnit], first: int) -> SpokenShard:
        """See `RowMaker`. Raises MissingPrerequisite or UserError if a file is not there or cannot be read."""
        del first
        with ThreadPoolExecutor(THREADS) as pool:
            made = list(pool.map(self._row, units))
        rows = [row for row, _ in made if row is not None]
        dropped = [
            {"id": f"{recorded.unit.group_id}-0", "voice": recorded.utterance.voice, "reason": reason}
            for recorded, (row, reason) in zip(units, made, strict=True)
            if row is None
        ]
        return SpokenShard(rows, dropped)

    def _row(self, recorded: RecordedUnit) -> tuple[dict[str, Any] | None, str]:
        """The row, or None and why."""
        unit, utterance = recorded.unit, recorded.utterance
        try:
            wave = _decode(utterance)
        except clips.AudioError as error:
            say(f"{utterance.id} is left out: {error}")
            return None, "silent"
        seconds = len(wave) / clips.SAMPLING_RATE
        if seconds > self.source.max_seconds:
            say(f"{utterance.id} is left out: {seconds:.1f} s, more than source.max_seconds")
            return None, "too_long"
        name = f"{unit.group_id}-0"
        return {"id": name, **vars(unit), "voice": utterance.voice, **clips.clip_columns(wave, name)}, ""


def _decode(utterance: Utterance) -> np.ndarray:
    """Samples of an utterance at 16 kHz, [n]."""
    if utterance.offset is None and utterance.duration is None:
        if utterance.row is not None and utterance.path.endswith(SUFFIX):
            data = arrow_clip(Path(utterance.path), utterance.row, utterance.column)
        else:
            ref = clips.AudioRef("", 0, 0.0, utterance.path, utterance.row, utterance.column)
            data = clips.read_clip_bytes(ref)
        return clips.decode_clip(data)
    path = Path(utterance.path)
    if not path.is_file():
        raise MissingPrerequisite(f"no audio at {path}: unpack the whole corpus")
    try:
        wave, rate = decoding.load_segment(path, utterance.offset or 0.0, utterance.duration)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return resample(wave, rate, clips.SAMPLING_RATE)
