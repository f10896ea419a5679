"""The test sets of the track `small`, spoken on first use and cached: texts of `texts.py`, in voices of their own.

Half of the clips are of the natural voice, the others of espeak-ng voices that no training here has heard; the voices
come in turn, so that each meets every level and form. `small_consistency` says every text in VOICES voices. All clips
follow from text and voice alone: where espeak-ng, Piper and the processor are the same, so are the bytes. Piper's last
bits depend on the processor; records therefore hold the hash of all clips, and no board mixes two builds.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rba_bench import files, progress
from rba_bench.audio import clips
from rba_bench.audio.speech_engines import VOICE_BANKS, SpeechEngine, engine_of_bank
from rba_bench.errors import UserError
from rba_bench.small.texts import DATA, REPEAT, VERSION, VOICES, Item, load_items

BANKS = ("natural", "clear-test")
DEV_BANKS = ("clear-dev",)  # of all splits but test, so that nobody tunes on the voices of the test
BASELINE = (
    DATA / "baseline.jsonl"
)  # what the text model answers to the open-ended test instructions, for win rates
PROMPTS = {"asr": REPEAT}  # beside the clip, by kind of item
ROW_GROUP = 64


def load_testset(name: str, split: str = "test", cache: Path | None = None, bank: str = "") -> Path:
    """Folder that holds `test.parquet` of a set, spoken now if it is not in the cache.

    Args:
        name: A key of `texts.SPLITS`.
        split: One of its splits.
        cache: Folder for the sets; by default `small` under `files.cache_dir()`.
        bank: Voice bank that says the texts instead of the split's own; "" for these.

    Raises:
        UserError: Unknown set, split or bank.
        MissingPrerequisite: An engine is not installed (extra `tts`), or its voice cannot be fetched.
    """
    items = load_items(name, split)
    spoken = list(_spoken(name, split, items, bank))
    folder = (cache or files.cache_dir() / "small") / _content_hash(spoken) / f"{name}-{split}"
    if not (folder / "test.parquet").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(folder, f"{name} {split}", spoken)
    return folder


def testset_texts(name: str, split: str = "test", bank: str = "") -> list[dict[str, Any]]:
    """The rows of a set without its clips, for machines that cannot speak. Errors as of `texts.load_items`."""
    return [_text_row(*utterance) for utterance in _spoken(name, split, load_items(name, split), bank)]


def _spoken(name: str, split: str, items: list[Item], bank: str = "") -> Iterator[tuple[Item, str, Any, int]]:
    """Items with the bank, the voice and the number of the repetition, in which each is spoken."""
    if bank and bank not in VOICE_BANKS:
        raise UserError(f"no voice bank {bank!r}; there are {', '.join(VOICE_BANKS)}")
    banks = (bank,) if bank else BANKS if split == "test" else DEV_BANKS
    if name == "small_consistency":
        voices = [(bank, voice) for bank in banks for voice in VOICE_BANKS[bank]]
        for item in items:
            for number, (bank, voice) in enumerate(voices[:VOICES]):
                yield item, bank, voice, number
        return
    for number, item in enumerate(items):
        bank = banks[number % len(banks)]
        voices_of_bank = VOICE_BANKS[bank]
        yield item, bank, voices_of_bank[number // len(banks) % len(voices_of_bank)], 0


def _text_row(item: Item, bank: str, voice: Any, repetition: int) -> dict[str, Any]:
    return {
        "id": f"{item.key}-{repetition}" if repetition else item.key,
        "group_id": item.key,
        "kind": item.kind,
        "instruction": item.text,
        "references": list(item.references),
        "level": item.level,
        "subject": item.subject,
        "open_ended": item.open_ended,
        "constraints": files.canonical_json(item.constraints).decode() if item.checks else "",
        "voice": voice.name,
    }


def _content_hash(spoken: list[tuple[Item, str, Any, int]]) -> str:
    """Hash of all that the clips and rows depend on."""
    engines = {bank: engine_of_bank(bank) for _, bank, _, _ in spoken}
    versions = {bank: [engine.name, engine.version()] for bank, engine in sorted(engines.items())}
    rows = [[_text_row(*utterance), asdict(utterance[2])] for utterance in spoken]
    return files.sha256_json([VERSION, versions, rows])[:16]


def _write(folder: Path, label: str, spoken: list[tuple[Item, str, Any, int]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    strings = ("id", "group_id", "kind", "instruction")
    schema = pa.schema([
        *((name, pa.string()) for name in strings),
        ("references", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("level", "subject")),
        ("open_ended", pa.bool_()),
        *((name, pa.string()) for name in ("constraints", "voice")),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("sampling_rate", pa.int32()),
        ("duration", pa.float64()),
        ("audio_sha256", pa.string()),
    ])  # fmt: skip
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        rows = []
        with progress.bar(f"speak {label}", len(spoken), unit="clips") as advance:
            for item, bank, voice, repetition in spoken:
                row = _text_row(item, bank, voice, repetition)
                rows.append(row | _clip(engine_of_bank(bank), item.text, voice, row["id"]))
                advance(1)
        pq.write_table(
            pa.Table.from_pylist(rows, schema), temporary / "test.parquet", row_group_size=ROW_GROUP
        )
        os.replace(temporary, folder)
    except OSError:  # another process finished first: its folder holds the same bytes
        if not (folder / "test.parquet").exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _clip(engine: SpeechEngine, text: str, voice: Any, name: str) -> dict[str, Any]:
    wave = engine.speak(text, "en", voice)
    data = clips.encode_flac(wave, clips.SAMPLING_RATE)
    return {
        "audio": {"bytes": data, "path": f"{name}.flac"},
        "sampling_rate": clips.SAMPLING_RATE,
        "duration": len(wave) / clips.SAMPLING_RATE,
        "audio_sha256": files.sha256_bytes(data),
    }
