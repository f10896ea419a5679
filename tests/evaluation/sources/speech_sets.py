"""Small local copies of CoVoST 2, FLEURS and MuST-C with the schema, layout and audio encodings of the real sets."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
from datasets import Audio, ClassLabel, Features, Value

from rba_bench.audio.espeak import BANKS, speak
from rba_bench.evaluation.sources.language_pairs import FLEURS

# The same six sentences, as CoVoST 2 and FLEURS have them: cased, with punctuation.
SENTENCES: dict[str, list[str]] = {
    "en": [
        "The small house on the hill was built in 1921.",
        "She bought three books and a blue umbrella yesterday.",
        "Nobody knows why the river changed its course.",
        "Could you please tell me when the next train leaves?",
        "The children were playing in the garden behind the school.",
        "He said: it is too late, we have to go home now.",
    ],
    "de": [
        "Das kleine Haus auf dem Hügel wurde 1921 gebaut.",
        "Sie kaufte gestern drei Bücher und einen blauen Regenschirm.",
        "Niemand weiß, warum der Fluss seinen Lauf geändert hat.",
        "Könnten Sie mir bitte sagen, wann der nächste Zug fährt?",
        "Die Kinder spielten im Garten hinter der Schule.",
        "Er sagte: Es ist zu spät, wir müssen jetzt nach Hause gehen.",
    ],
    "zh": [
        "山上的小房子建于1921年。",
        "她昨天买了三本书和一把蓝色的雨伞。",
        "没有人知道这条河为什么改变了河道。",
        "请问下一班火车什么时候开？",
        "孩子们在学校后面的花园里玩耍。",
        "他说：太晚了，我们现在必须回家。",
    ],
    "ja": [
        "丘の上の小さな家は1921年に建てられました。",
        "彼女は昨日、本を三冊と青い傘を買いました。",
        "川の流れがなぜ変わったのか、誰も知りません。",
        "次の電車は何時に出発するか教えていただけますか。",
        "子供たちは学校の裏の庭で遊んでいました。",
        "彼は「もう遅い、今すぐ家に帰らなければならない」と言った。",
    ],
    "es": [
        "La casita de la colina fue construida en 1921.",
        "Ayer compró tres libros y un paraguas azul.",
        "Nadie sabe por qué el río cambió su curso.",
        "¿Podría decirme cuándo sale el próximo tren?",
        "Los niños jugaban en el jardín detrás de la escuela.",
        "Él dijo: es demasiado tarde, tenemos que irnos a casa.",
    ],
    "fr": [
        "La petite maison sur la colline a été construite en 1921.",
        "Elle a acheté trois livres et un parapluie bleu hier.",
        "Personne ne sait pourquoi la rivière a changé de cours.",
        "Pourriez-vous me dire quand part le prochain train ?",
        "Les enfants jouaient dans le jardin derrière l'école.",
        "Il a dit : c'est trop tard, nous devons rentrer.",
    ],
    "it": [
        "La piccola casa sulla collina fu costruita nel 1921.",
        "Ieri ha comprato tre libri e un ombrello blu.",
        "Nessuno sa perché il fiume ha cambiato il suo corso.",
        "Potrebbe dirmi quando parte il prossimo treno?",
        "I bambini giocavano nel giardino dietro la scuola.",
        "Disse: è troppo tardi, dobbiamo tornare a casa.",
    ],
}
ESPEAK = {"zh": "cmn"}

COVOST2 = Features(
    {
        "client_id": Value("string"),
        "file": Value("string"),
        "audio": Audio(sampling_rate=16_000),
        "sentence": Value("string"),
        "translation": Value("string"),
        "id": Value("string"),
    }
)
FLEURS_GROUPS = (
    "western_european_we", "eastern_european_ee", "central_asia_middle_north_african_cmn",
    "sub_saharan_african_ssa", "south_asian_sa", "south_east_asian_sea", "chinese_japanase_korean_cjk",
)  # fmt: skip
FLEURS_CONFIGS = sorted(config for config, _ in FLEURS.values())
FLEURS_FEATURES = Features(
    {
        "id": Value("int32"),
        "num_samples": Value("int32"),
        "path": Value("string"),
        "audio": Audio(sampling_rate=16_000),
        "transcription": Value("string"),
        "raw_transcription": Value("string"),
        "gender": ClassLabel(names=["male", "female", "other"]),
        "lang_id": ClassLabel(names=[*FLEURS_CONFIGS, "all"]),
        "language": Value("string"),
        "lang_group_id": ClassLabel(names=list(FLEURS_GROUPS)),
    }
)


def spoken(text: str, language: str, voice: int = 0) -> np.ndarray:
    """Speech of espeak-ng: float32 mono at 16 kHz."""
    return speak(text, ESPEAK.get(language, language), BANKS["test"][voice])


def encode(wave: np.ndarray, rate: int, kind: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def mp3(wave: np.ndarray) -> bytes:
    """As Common Voice stores its clips: MP3, mono, 48 kHz."""
    return encode(np.repeat(wave, 3), 48_000, "MP3", "MPEG_LAYER_III")


def float_wav(wave: np.ndarray) -> bytes:
    """As FLEURS stores its recordings: WAV, mono, 16 kHz, 32-bit float."""
    return encode(wave, 16_000, "WAV", "FLOAT")


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], features: Features) -> None:
    """As `datasets` writes it: its schema, its metadata, row groups of 100."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=features.arrow_schema)
    pq.write_table(table, path, row_group_size=100)


def covost2_row(number: int, source: str, sentence: str, translation: str, audio: bytes) -> dict[str, Any]:
    name = f"common_voice_{source}_{18_540_000 + number}"
    return {
        "client_id": f"{number % 4:02d}" + 63 * "5e",
        "file": f"/data/cv-corpus-4/{source}/clips/{name}.mp3",
        "audio": {"bytes": audio, "path": f"{name}.mp3"},
        "sentence": sentence,
        "translation": translation,
        "id": name,
    }


def write_covost2(root: Path, direction: str, shards: int = 1) -> Path:
    """`<root>/<direction>/test-*.parquet`: the sentences, spoken in the source language."""
    source, target = (code.split("-")[0] for code in direction.split("_"))
    texts = zip(SENTENCES[source], SENTENCES[target], strict=True)
    rows = [
        covost2_row(number, source, sentence, translation, mp3(spoken(sentence, source, number % 4)))
        for number, (sentence, translation) in enumerate(texts)
    ]
    for shard in range(shards):
        file = root / direction / f"test-{shard:05d}-of-{shards:05d}.parquet"
        size = -(-len(rows) // shards)
        write_parquet(file, rows[shard * size : (shard + 1) * size], COVOST2)
    return root


def fleurs_row(config: str, sentence_id: int, text: str, audio: bytes, recording: int) -> dict[str, Any]:
    code = next(code for code, (known, _) in FLEURS.items() if known == config)
    name = f"{10_000_000_000_000_000_000 + 7 * sentence_id + recording}.wav"
    with sf.SoundFile(io.BytesIO(audio)) as sound:
        samples = sound.frames
    return {
        "id": sentence_id,
        "num_samples": samples,
        "path": f"/cache/downloads/extracted/0a1b/{name}",
        "audio": {"bytes": audio, "path": f"test/{name}"},
        "transcription": text.lower().strip(".?。？"),
        "raw_transcription": text,
        "gender": recording % 2,
        "lang_id": FLEURS_CONFIGS.index(config),
        "language": FLEURS[code][1],
        "lang_group_id": 0,
    }


def write_fleurs(root: Path, code: str, takes: Sequence[int] = (1, 1, 1, 1, 1, 1)) -> Path:
    """`<root>/<config>/test/0000.parquet`: sentence n in `takes[n]` recordings, ids from 1650."""
    config, rows = FLEURS[code][0], []
    for number, count in enumerate(takes):
        text = SENTENCES[code][number]
        for take in range(count):
            audio = float_wav(spoken(text, code, take))
            rows.append(fleurs_row(config, 1650 + number, text, audio, take))
    write_parquet(root / config / "test" / "0000.parquet", rows, FLEURS_FEATURES)
    return root


def write_mustc(root: Path, target: str, talks: Sequence[int] = (3, 3), split: str = "tst-COMMON") -> Path:
    """`<root>/en-<target>/data/<split>`: talks of so many segments with pauses between them."""
    folder = root / f"en-{target}" / "data" / split
    for name in ("txt", "wav"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines, number = [], 0
    for talk, count in enumerate(talks, start=767):
        parts, position = [np.zeros(8000, dtype=np.float32)], 8000
        for _ in range(count):
            wave = spoken(SENTENCES["en"][number], "en", talk % 4)
            lines.append(
                f"- {{duration: {len(wave) / 16_000:.6f}, offset: {position / 16_000:.6f}, rW: 9, uW: 0, "
                f"speaker_id: spk.{talk}, wav: ted_{talk}.wav}}"
            )
            parts += [wave, np.zeros(4000, dtype=np.float32)]
            position += len(wave) + 4000
            number += 1
        sf.write(folder / "wav" / f"ted_{talk}.wav", np.concatenate(parts), 16_000, subtype="PCM_16")
    (folder / "txt" / f"{split}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for code in ("en", target):
        text = "\n".join(SENTENCES[code][:number]) + "\n"
        (folder / "txt" / f"{split}.{code}").write_text(text, encoding="utf-8")
    return root
