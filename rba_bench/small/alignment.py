"""The alignment set of the track `small`: texts of `data/alignment.jsonl`, spoken on first use and cached.

The texts are what SmolLM2-135M-Instruct asked itself (Magpie) and the train splits of `small_qa` and `small_instruct`,
each with its greedy answer (`data/README.md`). Questions also have the right answers, and instructions the constraints
that a program checks, for the rewards `alias` and `checks`. Each is said by VOICES_PER_TEXT voices of the bank
`clear-train`, which no test or development set has. All follows from the texts and the voices: where espeak-ng is the
same, so are the bytes. `asset:small-alignment` stands for the folder wherever an alignment set is named.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import MANIFEST, SCHEMA_VERSION
from rba_bench.audio.espeak import Voice
from rba_bench.audio.speech_engines import VOICE_BANKS, engine_of_bank
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import cache_dir, canonical_json, read_jsonl, sha256_file, sha256_json, write_json
from rba_bench.outputs import claim, release
from rba_bench.seeding import stable_seed
from rba_bench.synthesis.manifest import count_clips
from rba_bench.synthesis.speaking import speak_units
from rba_bench.synthesis.speech import SpokenClips
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.units import Unit

VERSION = 1  # raise it whenever the clips of a text change
TEXTS = Path(__file__).parent / "data" / "alignment.jsonl"
KINDS = ("instruct", "qa", "ifeval", "asr")
BANK = "clear-train"
VOICES_PER_TEXT = 4
HELD_OUT = 0.05  # share of the texts in the split `validation`
TEACHER = "asset:smollm2-135m-instruct"


@dataclass(frozen=True)
class ScoredUnit(Unit):
    """A text with what its answers are judged by: see `audio.alignment_set.AlignmentRow`."""

    references: tuple[str, ...] = ()
    constraints: str = ""


def load_alignment_set(texts: Path | None = None, cache: Path | None = None) -> Path:
    """Folder of the set, spoken now where it is not in the cache; a killed run goes on shard by shard.

    Args:
        texts: Lines of `id`, `kind` (one of KINDS), `instruction`, `answer`, and, where there are some, `prompt`
            (beside the clip), `references` and `constraints`; by default those that ship.
        cache: Folder of sets; by default `small` under `files.cache_dir()`.

    Raises:
        MissingPrerequisite: No texts, or no espeak-ng (extra `tts`).
        UserError: A line of the texts is wrong.
    """
    units = read_units(texts or TEXTS)
    recipe = SynthesisRecipe.model_validate(
        {"voice_bank": BANK, "voices_per_instruction": VOICES_PER_TEXT, "snr_db": None}
    )
    maker = SpokenClips(recipe, engine_of_bank(BANK))
    voices = [asdict(voice) for voice in VOICE_BANKS[BANK]]
    content = {
        "version": VERSION,
        "units": sha256_json([asdict(unit) for unit in units]),
        "voices": voices,
        "speech": [maker.name, maker.version],
    }
    folder = (cache or cache_dir() / "small") / f"alignment-{sha256_json(content)[:16]}"
    if (folder / MANIFEST).is_file():
        return folder
    claim(folder, "small alignment set", content)
    try:
        checksums = speak_units(units, recipe.shard_size, maker, folder)
        write_json(folder / MANIFEST, _manifest(texts or TEXTS, maker, checksums, folder))
    finally:
        release(folder)
    return folder


def read_units(texts: Path) -> list[ScoredUnit]:
    """The texts as they are to be spoken. Errors as of `load_alignment_set`."""
    if not texts.is_file():
        raise MissingPrerequisite(f"no texts of the alignment set in {texts}: restore the file")
    units = [_unit(number, line, texts) for number, line in enumerate(read_jsonl(texts), start=1)]
    if len({unit.group_id for unit in units}) < len(units):
        raise UserError(f"{texts}: an id occurs twice")
    return units


def _unit(number: int, line: dict[str, Any], texts: Path) -> ScoredUnit:
    kind, constraints = line.get("kind"), line.get("constraints")
    lacking = [key for key in ("id", "instruction", "answer") if not str(line.get(key) or "").strip()]
    if kind not in KINDS or lacking:
        fault = f"lacks {', '.join(lacking)}" if lacking else f"is of kind {kind!r}, not {', '.join(KINDS)}"
        raise UserError(f"{texts}, line {number} {fault}")
    held_out = stable_seed("small validation", line["id"]) % 10**6 < HELD_OUT * 10**6
    return ScoredUnit(
        group_id=line["id"],
        split="validation" if held_out else "train",
        kind=kind,
        prompt=line.get("prompt") or "",
        instruction=line["instruction"],
        response=line["answer"],
        source_lang="en",
        target_lang="en",
        topic="",
        difficulty="",
        references=tuple(line.get("references") or ()),
        constraints=canonical_json(constraints).decode() if constraints else "",
    )


def _manifest(texts: Path, maker: SpokenClips, checksums: dict[str, str], folder: Path) -> dict[str, Any]:
    voices: Sequence[Voice] = VOICE_BANKS[BANK]
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "teacher": {"name": TEACHER, "decoding": "greedy"},
        "texts": {"file": texts.name, "sha256": sha256_file(texts)},
        "tts": {"engine": maker.name, "version": maker.version, "voices": [voice.name for voice in voices]},
        "counts": count_clips(folder, checksums),
        "checksums": checksums,
    }
