"""Sets of existing speech: manifests and corpora in their own layout, translated by the teacher."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from fake_teacher import FakeTeacher
from stages_of import candidates

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json, sha256_file
from rba_bench.recipes import load_recipe
from rba_bench.synthesis.corpora import read_utterances
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.synthesis_recipe import SourceOptions, SynthesisRecipe
from rba_bench.textlm.text_model import Decoding, Generation


class Translator(FakeTeacher):
    """Answers with the words it was given, backwards; `Stumm` leaves it speechless."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        self.asked += user_texts
        return [self._translate(text.split("\n\n")[1]) for text in user_texts]

    def _translate(self, text: str) -> Generation:
        words = " ".join(reversed(text.split()))
        return Generation("", 0, "empty") if text == "Stumm" else Generation(words, 3, "ok")


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return (0.2 * np.sin(np.arange(int(seconds * rate)) / 11)).astype(np.float32)


SENTENCES = ["Der Hund schläft", "Die Katze läuft", "Stumm", "Wir gehen heim", "", "Zu lang", "Kaputt"]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "speech"
    folder.mkdir()
    lines = []
    for number, sentence in enumerate(SENTENCES):
        sf.write(folder / f"{number}.wav", tone(2.0 if sentence == "Zu lang" else 0.2, 22_050), 22_050)
        line = {"audio": f"{number}.wav", "transcript": sentence, "source_lang": "de", "target_lang": "en"}
        lines.append({**line, "voice": f"spk{number % 2}"})
    (folder / "6.wav").write_bytes(b"no sound at all")
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def recipe_for(**source: Any) -> SynthesisRecipe:
    options = {"max_seconds": 1.0, **source}
    return SynthesisRecipe.model_validate(
        {"tagger": None, "round_size": 3, "shard_size": 2, "source": options}
    )


def contents(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): sha256_file(path) for path in out.rglob("*.parquet")}


def test_a_manifest_becomes_an_alignment_set(tmp_path: Path, manifest: Path) -> None:
    teacher = Translator()
    out = synthesize(recipe_for(manifest=str(manifest)), tmp_path / "set", teacher=teacher)
    rows = AlignmentSet.open(out).rows()
    assert [row.instruction for row in rows] == ["Der Hund schläft", "Die Katze läuft", "Wir gehen heim"]
    assert [row.response for row in rows] == ["schläft Hund Der", "läuft Katze Die", "heim gehen Wir"]
    assert [row.voice for row in rows] == ["spk0", "spk1", "spk1"]
    assert len({row.group_id for row in rows}) == 3 and {row.kind for row in rows} == {"s2tt"}
    assert {row.prompt for row in rows} == {"Translate the speech into English. Write only the translation."}
    assert teacher.asked[0].startswith("Translate the following German text into English.")
    for row in rows:
        assert row.duration == pytest.approx(0.2, abs=1e-3)
        assert len(clips.load_clip(row.audio)) == pytest.approx(3_200, abs=16)
    found = read_json(out / "manifest.json")
    dropped = found["filters"]["answers"]["dropped"]
    assert (dropped["empty"]["n"], dropped["no_transcript"]["n"]) == (1, 1)
    assert found["counts"]["clips"] == 3 and found["counts"]["left_out_speech"] == 2
    assert found["tts"]["engine"] == "recorded"


def test_a_rerun_resumes_wherever_it_stopped(tmp_path: Path, manifest: Path) -> None:
    recipe = recipe_for(manifest=str(manifest))
    whole = synthesize(recipe, tmp_path / "whole", teacher=Translator())
    assert [record["index"] for record in candidates(whole)] == list(range(len(SENTENCES)))
    torn = synthesize(recipe, tmp_path / "torn", teacher=Translator())
    for shards in (0, 1, 2, 3):  # of three utterances each, whose translation survived
        (torn / "manifest.json").unlink()
        (torn / "shards" / "part-00001.parquet").unlink()
        shutil.rmtree(torn / "filter")
        for file in sorted((torn / "done").glob("ask-*"))[shards:]:
            file.unlink()
        teacher = Translator()
        synthesize(recipe, torn, teacher=teacher)
        assert contents(torn) == contents(whole)
        assert len(teacher.asked) == sum(bool(sentence) for sentence in SENTENCES[shards * 3 :])
    idle = Translator()
    synthesize(recipe, torn, teacher=idle)
    assert not idle.asked


def test_other_speech_is_another_set(tmp_path: Path, manifest: Path) -> None:
    out = synthesize(recipe_for(manifest=str(manifest)), tmp_path / "set", teacher=Translator())
    moved = manifest.parent.rename(tmp_path / "moved") / manifest.name
    assert synthesize(recipe_for(manifest=str(moved)), out, teacher=Translator()) == out
    moved.write_text(moved.read_text().replace("Hund", "Wolf"))
    with pytest.raises(UserError, match="source_sha256"):
        synthesize(recipe_for(manifest=str(moved)), out, teacher=Translator())


def test_csv_and_parts_of_a_longer_file(tmp_path: Path) -> None:
    sf.write(tmp_path / "talk.wav", np.concatenate([tone(1.0), np.zeros(16_000, np.float32)]), 16_000)
    head = "audio,transcript,source_lang,target_lang,offset,duration\n"
    (tmp_path / "list.csv").write_text(head + "talk.wav,Eins,de,en,0.5,0.25\ntalk.wav,Zwei,de,en,1.5,0.5\n")
    out = synthesize(recipe_for(manifest=str(tmp_path / "list.csv")), tmp_path / "set", teacher=Translator())
    one, two = AlignmentSet.open(out).rows()
    np.testing.assert_allclose(clips.load_clip(one.audio), tone(1.0)[8_000:12_000], atol=1e-4)
    assert two.duration == 0.5 and not clips.load_clip(two.audio).any()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio": "a.wav", "source_lang": "de", "target_lang": "en"}', r"list\.jsonl:1: lacks transcript"),
        (
            '{"audio": "a", "transcript": "b", "source_lang": "de", "target_lang": "en", "speaker": "x"}',
            "speaker",
        ),
        (
            '{"audio": "a", "transcript": "b", "source_lang": "xx", "target_lang": "en"}',
            "unknown language 'xx'",
        ),
        (
            '{"audio": "a", "transcript": "b", "source_lang": "de", "target_lang": "en", "row": "q"}',
            "jsonl:1: invalid",
        ),
        ("[1]", "not a JSON object"),
        ("{", "cannot read"),
        ("", "no utterances"),
    ],
)
def test_bad_manifests(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read_utterances(SourceOptions(manifest=str(path)))


def test_ids_must_differ_and_the_file_must_be_there(tmp_path: Path) -> None:
    line = {"id": "a", "audio": "a.wav", "transcript": "b", "source_lang": "de", "target_lang": "en"}
    (tmp_path / "list.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(line)}\n")
    with pytest.raises(UserError, match="'a' occurs twice"):
        read_utterances(SourceOptions(manifest=str(tmp_path / "list.jsonl")))
    for absent in (tmp_path / "no.csv", tmp_path / "no.jsonl"):
        with pytest.raises(MissingPrerequisite, match=r"no source\.manifest"):
            read_utterances(SourceOptions(manifest=str(absent)))
    with pytest.raises(UserError, match=r"\.jsonl or \.csv"):
        read_utterances(SourceOptions(manifest=str(tmp_path / "list.txt")))


def test_nothing_usable(tmp_path: Path, manifest: Path) -> None:
    manifest.write_text(manifest.read_text().splitlines()[2] + "\n")
    with pytest.raises(RbaError, match="none of 1 transcripts"):
        synthesize(recipe_for(manifest=str(manifest)), tmp_path / "set", teacher=Translator())


def audio(path: Path, kind: str, rate: int) -> bytes:
    sf.write(path, tone(0.3, rate), rate, format=kind)
    return path.read_bytes()


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, SourceOptions]:
    """Two utterances each in the layout of CoVoST 2, FLEURS and MuST-C."""
    sound = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    covost, fleurs = tmp_path / "covost2" / "de_en", tmp_path / "fleurs" / "de_de" / "train"
    mustc = tmp_path / "mustc" / "en-de" / "data" / "train"
    for folder in (covost, fleurs, mustc / "txt", mustc / "wav"):
        folder.mkdir(parents=True)
    mp3 = {"bytes": audio(tmp_path / "a.mp3", "MP3", 48_000), "path": "a.mp3"}
    wav = {"bytes": audio(tmp_path / "a.wav", "WAV", 16_000), "path": "a.wav"}
    lines = [
        {
            "client_id": "c" * 128,
            "file": "a.mp3",
            "audio": mp3,
            "sentence": text,
            "translation": "x",
            "id": f"cv_{i}",
        }
        for i, text in enumerate(['"Ein ""Haus"" hier"', "Zwei Bäume"])
    ]
    table = pa.Table.from_pylist(lines).cast(
        pa.schema([(n, sound if n == "audio" else pa.string()) for n in lines[0]])
    )
    pq.write_table(table, covost / "train-00000-of-00001.parquet")
    texts = {"transcription": "x", "gender": 1}
    pq.write_table(
        pa.Table.from_pylist(
            [
                {"id": 7, "path": f"{i}.wav", "audio": wav, "raw_transcription": f"Satz {i}", **texts}
                for i in range(2)
            ]
        ),
        fleurs / "0000.parquet",
    )
    sf.write(mustc / "wav" / "ted_1.wav", tone(3.0), 16_000)
    segment = "- {duration: 0.5, offset: %s, rW: 2, uW: 0, speaker_id: spk.1, wav: ted_1.wav}\n"
    (mustc / "txt" / "train.yaml").write_text(segment % "0.1" + segment % "1.5")
    (mustc / "txt" / "train.en").write_text("Hello there\nGood night\n")
    named = {"covost2": "de_en", "fleurs": "de_fr", "mustc": "en_de"}
    return {
        name: SourceOptions.model_validate({"corpus": name, "path": str(tmp_path / name), "pairs": [pair]})
        for name, pair in named.items()
    }


@pytest.mark.parametrize(
    ("name", "texts", "languages", "seconds"),
    [
        ("covost2", ['Ein "Haus" hier', "Zwei Bäume"], ("de", "en"), 0.3),
        ("fleurs", ["Satz 0", "Satz 1"], ("de", "fr"), 0.3),
        ("mustc", ["Hello there", "Good night"], ("en", "de"), 0.5),
    ],
)
def test_corpora_in_their_own_layout(
    tmp_path: Path,
    corpora: dict[str, SourceOptions],
    name: str,
    texts: list[str],
    languages: tuple[str, str],
    seconds: float,
) -> None:
    recipe = recipe_for(**{**corpora[name].model_dump(), "max_seconds": 1.0})
    out = synthesize(recipe, tmp_path / "set", teacher=Translator())
    rows = AlignmentSet.open(out).rows()
    assert [row.instruction for row in rows] == texts
    assert {(row.source_lang, row.target_lang) for row in rows} == {languages}
    for row in rows:
        assert row.duration == pytest.approx(seconds, abs=0.06) and len(clips.load_clip(row.audio))


def test_a_corpus_that_is_not_there(tmp_path: Path, corpora: dict[str, SourceOptions]) -> None:
    for options in corpora.values():
        with pytest.raises(MissingPrerequisite, match="name the folder"):
            read_utterances(options.model_copy(update={"path": str(tmp_path / "elsewhere")}))


def test_limit(corpora: dict[str, SourceOptions]) -> None:
    assert len(read_utterances(corpora["fleurs"].model_copy(update={"limit": 1}))) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source={}", "either `manifest` or `corpus`"),
        ("source={corpus: fleurs}", "needs `path` and `pairs`"),
        ("source={corpus: fleurs, path: a, pairs: [en]}", "two language codes"),
        ("source={manifest: a.csv, teacher_prompt: hello}", "must say where the {text} goes"),
        ("topics=[birds]", "belong together"),
        ("instruction_prompt=ask about {topic}", "belong together"),
    ],
)
def test_mistakes_in_the_recipe(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(SynthesisRecipe, None, [override])
