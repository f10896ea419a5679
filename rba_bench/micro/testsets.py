"""The micro test sets: held-out texts, unseen voices, noise of an unseen colour, spoken on first use and cached.

Everything is drawn from fixed seeds and espeak-ng renders each utterance from a fresh state, so the clips, and with
them the audio-set hash in every run record, are the same on every machine that has the same espeak-ng.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench import files, progress
from rba_bench.assets import weights_folder
from rba_bench.audio import clips, espeak, perturbations
from rba_bench.audio.espeak import BANKS
from rba_bench.errors import UserError
from rba_bench.micro import world
from rba_bench.seeding import stable_seed

VERSION = 1  # raise it whenever texts, voices or noise change
ROW_GROUP = 64


@dataclass(frozen=True)
class SetSpec:
    """One test set: `n` items of `kind` from `source`, each in `voices` voices.

    Items are balanced over topics or over the two translation directions. With `distinct` a text comes again, in
    another voice, only once the held-out texts of its kind are used up.
    """

    name: str
    kind: str
    n: int
    source: str | None = None
    voices: int = 1
    distinct: bool = False


@dataclass(frozen=True)
class Noise:
    """Conditions of the clips: the signal-to-noise ratios taken in turn (None: clean) and the colour of the noise."""

    snr_db: tuple[float | None, ...] = (None, 25.0, 20.0)
    colour: str = "pink"


TEST_SETS = {
    spec.name: spec
    for spec in (
        SetSpec("micro_alpacaeval", "instruct", 160),
        SetSpec("micro_triviaqa", "qa", 96, "triviaqa"),
        SetSpec("micro_webquestions", "qa", 96, "webquestions"),
        SetSpec("micro_covost2", "s2tt", 120, "covost2"),
        SetSpec("micro_fleurs", "s2tt", 120, "fleurs"),
    )
}
# Not among TEST_SETS: it measures no quality, so a build of the micro weights does not look at it.
CONSISTENCY = SetSpec("micro_speaker_consistency", "instruct", 24, voices=4)
# For `rba-bench study`, which looks for differences of a few points: larger, and of other texts than the first draws.
STUDY_SETS = {
    spec.name: spec
    for spec in (
        SetSpec("micro_study_instruct", "instruct", 480, distinct=True),
        SetSpec("micro_study_qa", "qa", 240, distinct=True),
        SetSpec("micro_study_s2tt", "s2tt", 480),
        SetSpec("micro_study_consistency", "instruct", 64, voices=4),
    )
}
# After so many draws, a text that was not drawn does not exist (114 questions, 28 texts of one topic).
MANY_DRAWS = 3000


def load_testset(
    name: str, cache: Path | None = None, voices: str = "test", noise: Noise | None = None
) -> Path:
    """Folder that holds `test.parquet` of a micro test set, spoken now if it is not in the cache.

    Args:
        name: a key of TEST_SETS or STUDY_SETS, or the name of CONSISTENCY.
        cache: folder for the sets; by default `micro` under `files.cache_dir()`.
        voices: a bank of `rba_bench.audio.espeak`.
        noise: conditions; by default clean, 25 dB and 20 dB of pink noise in turn.

    Raises:
        UserError: unknown name.
        MissingPrerequisite: no espeak-ng (extra `tts`).
    """
    spec, noise = _find_spec(name), noise or Noise()
    folder = (cache or files.cache_dir() / "micro") / _content_hash(spec, voices, noise) / name
    if not (folder / "test.parquet").exists():
        # the folder comes first, so that one that cannot be written is found before the speaking
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(folder, list(_spoken_rows(spec, voices, noise)))
    return folder


def testset_texts(name: str) -> list[dict[str, Any]]:
    """The rows of a micro test set without its clips, for machines that cannot speak.

    Raises:
        UserError: unknown name.
    """
    spec = _find_spec(name)
    return _text_rows(spec, _draw_items(spec), "test")


def _find_spec(name: str) -> SetSpec:
    specs = {**TEST_SETS, CONSISTENCY.name: CONSISTENCY, **STUDY_SETS}
    if name not in specs:
        raise UserError(f"no micro test set {name!r}; there are {', '.join(specs)}")
    return specs[name]


def _draw_items(spec: SetSpec) -> list[world.WorldItem]:
    """The items of a set, drawn from a seed of its name."""
    rng = random.Random(stable_seed("testset", VERSION, spec.name))
    per_topic = spec.n // len(world.TOPICS)
    items: list[world.WorldItem] = []
    if spec.voices > 1:  # instructions of different words
        by_text: dict[str, world.WorldItem] = {}
        for topic in world.TOPICS:
            end = len(by_text) + per_topic
            while len(by_text) < end:
                item = world.sample_item(rng, topic=topic, kind=spec.kind, split="test")
                by_text.setdefault(item.user_text, item)
        return [item for item in by_text.values() for _ in range(spec.voices)]
    if spec.distinct:
        topics, n = (world.TOPICS, per_topic) if spec.kind == "instruct" else ((None,), spec.n)
        return [item for topic in topics for item in _draw_distinct(spec, rng, topic, n)]
    if spec.kind == "instruct":
        for topic in world.TOPICS:
            items += [
                world.sample_item(rng, topic=topic, kind="instruct", split="test") for _ in range(per_topic)
            ]
        return items
    room = {True: spec.n // 2, False: spec.n - spec.n // 2}  # out of English, into English
    while len(items) < spec.n:
        item = world.sample_item(rng, kind=spec.kind, source=spec.source, split="test")
        if spec.kind == "s2tt":
            from_english = item.source_lang == "en"
            if room[from_english] == 0 or any(each.user_text == item.user_text for each in items):
                continue
            room[from_english] -= 1
        items.append(item)
    return items


def _draw_distinct(spec: SetSpec, rng: random.Random, topic: str | None, n: int) -> list[world.WorldItem]:
    """`n` items of a topic; no text comes a second time before every text has come once."""
    by_text: dict[str, world.WorldItem] = {}
    for _ in range(MANY_DRAWS):
        item = world.sample_item(rng, kind=spec.kind, topic=topic, source=spec.source, split="test")
        by_text.setdefault(item.user_text, item)
        if len(by_text) == n:
            break
    items: list[world.WorldItem] = []
    while len(items) < n:
        items += rng.sample(list(by_text.values()), len(by_text))
    return items[:n]


def _spoken_rows(spec: SetSpec, voices: str, noise: Noise) -> Iterator[dict[str, Any]]:
    items, bank = _draw_items(spec), BANKS[voices]
    with progress.bar(f"speak {spec.name}", len(items), unit="clips") as advance:
        for index, (item, row) in enumerate(zip(items, _text_rows(spec, items, voices), strict=True)):
            # the ratio changes slower than the voice, so that every voice meets every ratio
            snr_db = noise.snr_db[(index // len(bank)) % len(noise.snr_db)]
            wave = espeak.speak(item.instruction, item.source_lang, bank[index % len(bank)])
            if snr_db is not None:
                seed = stable_seed("test-noise", VERSION, spec.name, index)
                wave = perturbations.add_noise(wave, snr_db, np.random.default_rng(seed), noise.colour)
            data = clips.encode_flac(wave, espeak.SAMPLING_RATE)
            yield row | {
                "snr_db": snr_db,
                "audio": {"bytes": data, "path": f"{row['id']}.flac"},
                "sampling_rate": espeak.SAMPLING_RATE,
                "duration": len(wave) / espeak.SAMPLING_RATE,
                "audio_sha256": files.sha256_bytes(data),
            }
            advance(1)


def _text_rows(spec: SetSpec, items: list[world.WorldItem], voices: str) -> list[dict[str, Any]]:
    """The columns that need no voice."""
    baseline = _baseline_answers()
    rows = []
    for index, item in enumerate(items):
        key = f"{spec.name}-{index:03d}"
        rows.append(
            {
                "id": key,
                "group_id": files.sha256_bytes(item.user_text.encode())[:16],
                "kind": item.kind,
                "topic": item.topic,
                "task": spec.name,
                "instruction": item.instruction,
                "prompt": item.prompt,
                "references": world.references(item),
                "source_lang": item.source_lang,
                "target_lang": item.target_lang,
                "voice": BANKS[voices][index % len(BANKS[voices])].name,
                "baseline": baseline.get(key, ""),
            }
        )
    return rows


def _baseline_answers() -> dict[str, str]:
    path = weights_folder() / "baseline.json"
    return files.read_json(path) if path.exists() else {}


def _content_hash(spec: SetSpec, voices: str, noise: Noise) -> str:
    """Hash of all that the clips and rows depend on."""
    baseline = _baseline_answers() if spec.kind == "instruct" and spec.voices == 1 else {}
    baseline = {key: answer for key, answer in baseline.items() if key.startswith(f"{spec.name}-")}
    fields = asdict(spec)
    for name, usual in (("voices", 1), ("distinct", False)):
        if fields[name] == usual:
            del fields[name]  # sets made before there was a choice keep their folders
    bank = [asdict(voice) for voice in BANKS[voices]]
    parts = [VERSION, fields, bank, asdict(noise), espeak.espeak_version(), baseline]
    return files.sha256_json(parts)[:16]


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = ("id", "group_id", "kind", "topic", "task", "instruction", "prompt")
    schema = pa.schema(
        [
            *((name, pa.string()) for name in text),
            ("references", pa.list_(pa.string())),
            *((name, pa.string()) for name in ("source_lang", "target_lang", "voice")),
            ("snr_db", pa.float32()),
            ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("sampling_rate", pa.int32()),
            ("duration", pa.float64()),
            ("audio_sha256", pa.string()),
            ("baseline", pa.string()),
        ]
    )
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(table, temporary / "test.parquet", row_group_size=ROW_GROUP)
        os.replace(temporary, folder)
    except OSError:  # another process finished first: its folder holds the same bytes
        if not (folder / "test.parquet").exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
