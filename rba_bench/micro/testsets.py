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
from rba_bench.audio.espeak import BANKS, Voice
from rba_bench.errors import UserError
from rba_bench.micro import world
from rba_bench.seeding import stable_seed

VERSION = 1  # raise it whenever texts, voices or noise change
ROW_GROUP = 64


@dataclass(frozen=True)
class Spec:
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


SPECS = {
    spec.name: spec
    for spec in (
        Spec("micro_alpacaeval", "instruct", 160),
        Spec("micro_triviaqa", "qa", 96, "triviaqa"),
        Spec("micro_webquestions", "qa", 96, "webquestions"),
        Spec("micro_covost2", "s2tt", 120, "covost2"),
        Spec("micro_fleurs", "s2tt", 120, "fleurs"),
    )
}
# Not among SPECS: it measures no quality, so a build of the micro weights does not look at it.
CONSISTENCY = Spec("micro_speaker_consistency", "instruct", 24, voices=4)
# For `rba-bench study`, which looks for differences of a few points: larger, and of other texts than SPECS draws first.
STUDY = {
    spec.name: spec
    for spec in (
        Spec("micro_study_instruct", "instruct", 480, distinct=True),
        Spec("micro_study_qa", "qa", 240, distinct=True),
        Spec("micro_study_s2tt", "s2tt", 480),
        Spec("micro_study_consistency", "instruct", 64, voices=4),
    )
}
MANY_DRAWS = (
    3000  # after these, a text that was not drawn does not exist (114 questions, 28 texts of one topic)
)


def _items(spec: Spec) -> list[world.Item]:
    rng = random.Random(stable_seed("testset", VERSION, spec.name))
    if spec.voices > 1:
        return [item for item in _distinct(spec, rng) for _ in range(spec.voices)]
    if spec.distinct:
        topics = world.TOPICS if spec.kind == "instruct" else (None,)
        return [item for topic in topics for item in _spread(spec, rng, topic, spec.n // len(topics))]
    if spec.kind == "instruct":
        each = spec.n // len(world.TOPICS)
        return [
            world.sample_item(rng, topic=t, kind="instruct", split="test")
            for t in world.TOPICS
            for _ in range(each)
        ]
    drawn: list[world.Item] = []
    wanted = {True: spec.n // 2, False: spec.n - spec.n // 2}  # out of English, into English
    while len(drawn) < spec.n:
        item = world.sample_item(rng, kind=spec.kind, source=spec.source, split="test")
        if spec.kind == "s2tt":
            if wanted[item.source_lang == "en"] == 0 or any(d.user_text == item.user_text for d in drawn):
                continue
            wanted[item.source_lang == "en"] -= 1
        drawn.append(item)
    return drawn


def _distinct(spec: Spec, rng: random.Random) -> list[world.Item]:
    """Instructions of different words, the same number of every topic."""
    drawn: dict[str, world.Item] = {}
    for topic in world.TOPICS:
        end = len(drawn) + spec.n // len(world.TOPICS)
        while len(drawn) < end:
            item = world.sample_item(rng, topic=topic, kind=spec.kind, split="test")
            drawn.setdefault(item.user_text, item)
    return list(drawn.values())


def _spread(spec: Spec, rng: random.Random, topic: str | None, n: int) -> list[world.Item]:
    """`n` items of a topic, no text a second time before every text was there once."""
    found: dict[str, world.Item] = {}
    for _ in range(MANY_DRAWS):
        item = world.sample_item(rng, kind=spec.kind, topic=topic, source=spec.source, split="test")
        found.setdefault(item.user_text, item)
        if len(found) == n:
            break
    drawn: list[world.Item] = []
    while len(drawn) < n:
        drawn += rng.sample(list(found.values()), len(found))
    return drawn[:n]


def _speak(item: world.Item, voice: Voice, snr_db: float | None, colour: str, seed: int) -> np.ndarray:
    wave = espeak.speak(item.instruction, item.source_lang, voice)
    if snr_db is None:
        return wave
    return perturbations.add_noise(wave, snr_db, np.random.default_rng(seed), colour)


def _rows(spec: Spec, voices: str, noise: Noise) -> Iterator[dict[str, Any]]:
    items = _items(spec)
    texts = _texts(spec, items, voices)
    with progress.bar(f"speak {spec.name}", len(items), unit="clips") as advance:
        for index, (item, text) in enumerate(zip(items, texts, strict=True)):
            voice = BANKS[voices][index % len(BANKS[voices])]
            # the ratio changes slower than the voice, so that every voice meets every ratio
            snr_db = noise.snr_db[(index // len(BANKS[voices])) % len(noise.snr_db)]
            wave = _speak(
                item, voice, snr_db, noise.colour, stable_seed("test-noise", VERSION, spec.name, index)
            )
            data = clips.encode_flac(wave, espeak.SAMPLING_RATE)
            yield text | {
                "snr_db": snr_db,
                "audio": {"bytes": data, "path": f"{text['id']}.flac"},
                "sampling_rate": espeak.SAMPLING_RATE,
                "duration": len(wave) / espeak.SAMPLING_RATE,
                "audio_sha256": files.sha256_bytes(data),
            }
            advance(1)


def _texts(spec: Spec, items: list[world.Item], voices: str) -> list[dict[str, Any]]:
    """The columns that need no voice."""
    baseline = _baseline()
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


def testset_texts(name: str) -> list[dict[str, Any]]:
    """The rows of a micro test set without its clips, for machines that cannot speak.

    Raises:
        UserError: unknown name.
    """
    spec = _known(name)
    return _texts(spec, _items(spec), "test")


def _baseline() -> dict[str, str]:
    path = weights_folder() / "baseline.json"
    return files.read_json(path) if path.exists() else {}


def _key(spec: Spec, voices: str, noise: Noise) -> str:
    """Hash of all that the clips and rows depend on."""
    compared = spec.kind == "instruct" and spec.voices == 1
    baseline = {k: v for k, v in _baseline().items() if compared and k.startswith(f"{spec.name}-")}
    described = asdict(spec)
    for name, usual in (("voices", 1), ("distinct", False)):
        if described[name] == usual:
            del described[name]  # sets made before there was a choice keep their folders
    parts = [
        VERSION,
        described,
        [asdict(v) for v in BANKS[voices]],
        asdict(noise),
        espeak.espeak_version(),
        baseline,
    ]
    return files.sha256_json(parts)[:16]


def load_testset(
    name: str, cache: Path | None = None, voices: str = "test", noise: Noise | None = None
) -> Path:
    """Folder that holds `test.parquet` of a micro test set, spoken now if it is not in the cache.

    Args:
        name: a key of SPECS or STUDY, or the name of CONSISTENCY.
        cache: folder for the sets; by default `micro` under `files.cache_dir()`.
        voices: a bank of `rba_bench.audio.espeak`.
        noise: conditions; by default clean, 25 dB and 20 dB of pink noise in turn.

    Raises:
        UserError: unknown name.
        MissingPrerequisite: no espeak-ng (extra `tts`).
    """
    spec, noise = _known(name), noise or Noise()
    folder = (cache or files.cache_dir() / "micro") / _key(spec, voices, noise) / name
    if not (folder / "test.parquet").exists():
        folder.parent.mkdir(
            parents=True, exist_ok=True
        )  # what cannot be written is found before the speaking
        _write(folder, list(_rows(spec, voices, noise)))
    return folder


def _known(name: str) -> Spec:
    known = {**SPECS, CONSISTENCY.name: CONSISTENCY, **STUDY}
    if name not in known:
        raise UserError(f"no micro test set {name!r}; there are {', '.join(known)}")
    return known[name]


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        pq.write_table(
            pa.Table.from_pylist(rows, _schema()), temporary / "test.parquet", row_group_size=ROW_GROUP
        )
        os.replace(temporary, folder)
    except OSError:  # another process finished first: its folder holds the same bytes
        if not (folder / "test.parquet").exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _schema() -> Any:
    import pyarrow as pa

    text = ("id", "group_id", "kind", "topic", "task", "instruction", "prompt")
    return pa.schema(
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
