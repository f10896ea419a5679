"""An alignment set of existing speech: the teacher translates the transcript, the recording stays as it is.

Paper, stage 1: "S2TT data": source speech of FLEURS, CoVoST 2 and MuST-C; the teacher translates the available
transcript and no human translation is used. One utterance and one target language make one group with one voice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.audio import clips, decoding
from rba_bench.audio.samples import resample
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.metrics.language_names import english_name
from rba_bench.progress import bar, say
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.answers import response_decoding
from rba_bench.synthesis.collect import ANSWERS, Unit
from rba_bench.synthesis.corpora import Utterance
from rba_bench.synthesis.filters import KEPT, judge_answer, normalise, read, tidy
from rba_bench.synthesis.log import Log
from rba_bench.synthesis.recipe import SourceOptions, SynthesisRecipe
from rba_bench.textlm.base import TextLM


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
    return clips.decode(clips.read_bytes(ref))


def _segment(one: Utterance) -> np.ndarray:
    path = Path(one.path)
    if not path.is_file():
        raise MissingPrerequisite(f"no audio at {path}: the corpus was not unpacked whole")
    try:
        wave, rate = decoding.part(path, one.offset or 0.0, one.duration)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return resample(wave, rate, clips.SAMPLING_RATE)
