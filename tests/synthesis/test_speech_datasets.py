"""Any data set with audio and text as a source: the schemas of much used sets, saved folders, the Hub, mistakes."""

import io
import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Image, Value
from huggingface_hub import constants
from test_recorded import Translator, contents, recipe_for

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json
from rba_bench.recipes import load_recipe
from rba_bench.synthesis.corpora import read_utterances
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.synthesis_recipe import SourceOptions, SynthesisRecipe
from tests.local_hub import TOKEN, LocalHub, serve

EN_DE = {"source_lang": "en", "target_lang": "de"}
TEXT, NUMBER = Value("string"), Value("int64")
# The features of each set as the Hub's viewer shows them, and a row without its clip.
SCHEMAS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "covost2": (  # fixie-ai/covost2
        {"client_id": TEXT, "file": TEXT, "audio": Audio(48_000), "sentence": TEXT, "translation": TEXT, "id": TEXT},
        {"client_id": "ab" * 64, "file": "x", "sentence": '"She said ""no"" to {n}"', "translation": "x", "id": "x"},
        'She said "no" to {n}',
    ),
    "fleurs": (  # google/fleurs
        {
            "id": Value("int32"), "num_samples": Value("int32"), "path": TEXT, "audio": Audio(16_000),
            "transcription": TEXT, "raw_transcription": TEXT, "gender": ClassLabel(names=["male", "female", "other"]),
            "lang_id": ClassLabel(names=["en_us", "de_de"]), "language": TEXT, "lang_group_id": NUMBER,
        },
        {
            "id": 7, "num_samples": 9, "path": "x.wav", "transcription": "low {n}", "raw_transcription": "Case {n}.",
            "gender": 1, "lang_id": 0, "language": "English", "lang_group_id": 0,
        },
        "Case {n}.",
    ),
    "common_voice": (  # mozilla-foundation/common_voice_17_0
        {
            "client_id": TEXT, "path": TEXT, "audio": Audio(48_000), "sentence": TEXT, "up_votes": NUMBER,
            "down_votes": NUMBER, "age": TEXT, "gender": TEXT, "accent": TEXT, "locale": TEXT, "segment": TEXT,
            "variant": TEXT,
        },
        {
            "client_id": "cd" * 64, "path": "x.mp3", "sentence": "Row {n}", "up_votes": 2, "down_votes": 0, "age": "",
            "gender": "", "accent": "", "locale": "en", "segment": "", "variant": "",
        },
        "Row {n}",
    ),
    "librispeech": (  # openslr/librispeech_asr
        {
            "file": TEXT, "audio": Audio(16_000), "text": TEXT, "speaker_id": NUMBER, "chapter_id": NUMBER, "id": TEXT,
        },
        {"file": "x.flac", "text": "CHAPTER {n}", "speaker_id": 1272, "chapter_id": 128104, "id": "1272-128104-0000"},
        "CHAPTER {n}",
    ),
}  # fmt: skip


def sound(number: int, rate: int = 16_000, seconds: float = 0.3) -> bytes:
    """A tone of its own for each number, as FLAC."""
    buffer = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * (200 + 50 * number) * np.arange(round(seconds * rate)) / rate)
    sf.write(buffer, wave.astype(np.float32), rate, format="FLAC")
    return buffer.getvalue()


def made(name: str, n: int = 5, first: int = 0) -> Dataset:
    """A small data set of a schema."""
    features, line, _ = SCHEMAS[name]
    rows = [
        {
            key: value.replace("{n}", str(number)) if isinstance(value, str) else value
            for key, value in line.items()
        }
        | {"audio": {"bytes": sound(number, features["audio"].sampling_rate), "path": f"clip_{number}.flac"}}
        for number in range(first, first + n)
    ]
    return stored(rows, Features(features))


def stored(rows: list[dict[str, Any]], features: Features) -> Dataset:
    """A data set of rows whose clips are encoded already (`Dataset.from_list` would ask for torchcodec)."""
    return Dataset(pa.Table.from_pylist(rows, schema=features.arrow_schema))


def dataset(place: Path | str | list[str], **more: Any) -> SourceOptions:
    given = {"dataset": str(place) if isinstance(place, Path) else place, **EN_DE, **more}
    return SourceOptions.model_validate(given)


@pytest.mark.parametrize("name", SCHEMAS)
def test_sets_of_the_hub_by_their_own_schemas(tmp_path: Path, name: str) -> None:
    """Two files of one split, row groups of two rows; every row has the clip of its own number."""
    folder = tmp_path / "data"
    folder.mkdir()
    for part in (0, 1):
        file = folder / f"train-0000{part}-of-00002.parquet"
        made(name, first=5 * part).to_parquet(str(file), batch_size=2)
    made(name, n=1).to_parquet(str(folder / "test-00000-of-00001.parquet"))
    out = synthesize(
        recipe_for(dataset=str(tmp_path), **EN_DE, max_seconds=30), tmp_path / "set", teacher=Translator()
    )
    rows = list(AlignmentSet.open(out).rows())
    assert [row.instruction for row in rows] == [SCHEMAS[name][2].replace("{n}", str(i)) for i in range(10)]
    for number, row in enumerate(rows):
        spectrum = np.abs(np.fft.rfft(clips.load_clip(row.audio)))
        assert spectrum.argmax() / row.duration == pytest.approx(200 + 50 * number, abs=4)
    voice = {"covost2": "ab" * 32, "common_voice": "cd" * 32, "librispeech": "1272"}.get(name, "")
    assert {row.voice for row in rows} == {voice} and {row.source_lang for row in rows} == {"en"}
    facts = read_json(out / "manifest.json")["source"]
    assert facts["utterances"] == 10 and facts["columns"]["audio"] == "audio"


def test_a_saved_set_gives_the_rows_of_the_parquet_file(tmp_path: Path) -> None:
    whole = made("librispeech")
    whole.to_parquet(str(tmp_path / "x.parquet"))
    whole.save_to_disk(tmp_path / "saved", num_shards=2)
    DatasetDict({"train": whole, "test": whole.select([1])}).save_to_disk(tmp_path / "splits")
    sets = []
    for number, place in enumerate(("x.parquet", "saved", "splits")):
        recipe = recipe_for(dataset=str(tmp_path / place), **EN_DE)
        out = synthesize(recipe, tmp_path / str(number), teacher=Translator())
        sets.append([row.audio.sha256 for row in AlignmentSet.open(out).rows()])
    assert sets[0] == sets[1] == sets[2] and len(set(sets[0])) == 5
    assert [u.transcript for u in read_utterances(dataset(tmp_path / "splits", split="test"))] == [
        "CHAPTER 1"
    ]


def test_several_targets_and_a_limit(tmp_path: Path) -> None:
    made("common_voice").to_parquet(str(tmp_path / "x.parquet"))
    options = {"source_lang": None, "target_lang": None, "pairs": ["en_de", "en_fr"]}
    found = read_utterances(dataset(tmp_path / "x.parquet", **options))
    assert [u.target_lang for u in found] == ["de"] * 5 + ["fr"] * 5 and len({u.id for u in found}) == 10
    gone = str(tmp_path / "gone.parquet")
    made("common_voice").to_parquet(gone)
    Path(gone).write_bytes(b"x")  # never read
    both = [str(tmp_path / "x.parquet"), gone]
    assert len(read_utterances(dataset(both, limit=3))) == 3
    with pytest.raises(UserError, match=r"gone\.parquet is damaged"):
        read_utterances(dataset(both, limit=6))


def test_a_moved_set_resumes_and_another_clip_column_is_another_set(tmp_path: Path) -> None:
    table = pq.read_table(io.BytesIO(_parquet(made("librispeech"))))
    table = table.append_column(pa.field("far", table.schema.field("audio").type), table.column("audio"))
    (tmp_path / "a").mkdir()
    pq.write_table(table, tmp_path / "a" / "x.parquet")
    recipe = recipe_for(dataset=str(tmp_path / "a"), **EN_DE)
    out = synthesize(recipe, tmp_path / "set", teacher=Translator())
    before = contents(out)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = recipe_for(
        dataset=str(tmp_path / "b" / "x.parquet"), pairs="en_de", audio_column="audio", text_column="text"
    )
    idle = Translator()
    assert contents(synthesize(moved, out, teacher=idle)) == before and not idle.asked
    with pytest.raises(UserError, match=r"audio_column: \"audio\" -> \"far\""):
        synthesize(
            recipe_for(dataset=str(tmp_path / "b"), **EN_DE, audio_column="far"), out, teacher=Translator()
        )


def _parquet(data: Dataset) -> bytes:
    buffer = io.BytesIO()
    data.to_parquet(buffer)
    return buffer.getvalue()


def test_columns_are_found_by_type_and_name_or_asked_for(tmp_path: Path) -> None:
    cell = {"bytes": sound(0), "path": None}

    def source(features: Features, line: dict[str, Any], **more: Any) -> SourceOptions:
        stored([line], features).to_parquet(str(tmp_path / "x.parquet"))
        return dataset(tmp_path / "x.parquet", **more)

    picture = Features({"face": Image(), "noise": Audio(), "words": TEXT, "n": NUMBER})
    [found] = read_utterances(source(picture, {"face": cell, "noise": cell, "words": "Hi", "n": 1}))
    assert (found.column, found.transcript) == ("noise", "Hi")
    two = Features({"near": Audio(), "far": Audio(), "note": TEXT, "Text": TEXT})
    line = {"near": cell, "far": cell, "note": "x", "Text": "Hi"}
    with pytest.raises(UserError, match=r"which column of x\.parquet holds the audio\? it has near \(struct"):
        read_utterances(source(two, line))
    [found] = read_utterances(source(two, line, audio_column="far"))
    assert (found.column, found.transcript) == ("far", "Hi")
    [found] = read_utterances(source(two, line, audio_column="far", text_column="note"))
    assert found.transcript == "x"
    for more, message in (
        ({"audio_column": "mid"}, r"source\.audio_column: x\.parquet has no column 'mid'; it has near"),
        ({"audio_column": "note"}, r"source\.audio_column: x\.parquet has no audio in the column 'note'"),
        (
            {"audio_column": "far", "text_column": "near"},
            r"source\.text_column: .* no text in the column 'near'",
        ),
    ):
        with pytest.raises(UserError, match=message):
            read_utterances(source(two, line, **more))
    with pytest.raises(UserError, match=r"x\.parquet has no audio: it has words \(string\), n \(int64\)"):
        read_utterances(source(Features({"words": TEXT, "n": NUMBER}), {"words": "Hi", "n": 1}))


def test_rows_without_words_or_clips_cost_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = {"bytes": sound(1), "path": "a.flac"}
    lines = [
        {"audio": clip, "text": "Good"},
        {"audio": clip, "text": None},
        {"audio": None, "text": "No clip"},
        {"audio": {"bytes": None, "path": "not-there.wav"}, "text": "Not stored"},
        {"audio": {"bytes": b"no sound", "path": None}, "text": "Not audio"},
    ]
    table = stored(lines, Features({"audio": Audio(), "text": TEXT})).data.table
    pq.write_table(table, tmp_path / "x.parquet")
    out = synthesize(
        recipe_for(dataset=str(tmp_path / "x.parquet"), **EN_DE), tmp_path / "set", teacher=Translator()
    )
    assert [row.instruction for row in AlignmentSet.open(out).rows()] == ["Good"]
    manifest = read_json(out / "manifest.json")
    assert manifest["filters"]["answers"]["dropped"]["no_transcript"]["n"] == 1
    assert manifest["counts"]["left_out_speech"] == 3


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub on this machine; `datasets` and `huggingface_hub` have read their addresses when they were imported."""
    import datasets
    from huggingface_hub import HfFileSystem

    with serve() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        HfFileSystem.clear_instance_cache()
        yield server
        HfFileSystem.clear_instance_cache()


def test_a_set_of_the_hub_at_a_commit_that_is_remembered(hub: LocalHub, tmp_path: Path) -> None:
    files = {
        f"data/train-0000{part}-of-00002.parquet": _parquet(made("librispeech", first=5 * part))
        for part in (0, 1)
    }
    hub.repos["datasets/ann/books"] = {"private": True, "files": dict(files)}
    source = {"dataset": "ann/books", **EN_DE}
    assert len(read_utterances(SourceOptions.model_validate({**source, "limit": 4}))) == 4
    fetched = [line for line in hub.asked if line.startswith("GET") and line.endswith(".parquet")]
    assert len(fetched) == 1 and fetched[0].endswith("train-00000-of-00002.parquet")
    out = synthesize(recipe_for(**source), tmp_path / "set", teacher=Translator())
    assert len(AlignmentSet.open(out).groups()) == 10
    commit = hub.commit("datasets/ann/books")
    assert read_json(out / "manifest.json")["source"]["revision"] == commit
    hub.repos["datasets/ann/books"]["files"]["data/train-00000-of-00002.parquet"] = b"moved on"
    assert hub.commit("datasets/ann/books") != commit
    (out / "manifest.json").unlink()
    before = contents(out)
    assert contents(synthesize(recipe_for(**source), out, teacher=Translator())) == before
    with pytest.raises(MissingPrerequisite, match="cannot get ann/absent from the Hub"):
        read_utterances(SourceOptions.model_validate({**source, "dataset": "ann/absent"}))


def test_code_of_a_data_set_is_never_run(hub: LocalHub, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    script = f"open({str(trap)!r}, 'w').close()\n"
    hub.repos["datasets/ann/code"] = {"private": False, "files": {"code.py": script.encode(), "a.txt": b"x"}}
    with pytest.raises(UserError, match="`datasets` cannot read ann/code"):
        read_utterances(dataset("ann/code"))
    assert not trap.exists()


def test_a_config_that_selects_rows_is_read_as_datasets_reads_it(tmp_path: Path) -> None:
    made("librispeech").to_parquet(str(tmp_path / "x.parquet"))
    filters = "  filters:\n  - - - text\n      - ==\n      - CHAPTER 3\n"
    (tmp_path / "README.md").write_text(
        f"---\nconfigs:\n- config_name: third\n  data_files: x.parquet\n{filters}---\n"
    )
    out = synthesize(recipe_for(dataset=str(tmp_path), **EN_DE), tmp_path / "set", teacher=Translator())
    [row] = AlignmentSet.open(out).rows()
    assert row.instruction == "CHAPTER 3" and clips.load_clip(row.audio).shape == (4800,)


def test_other_formats_are_prepared_by_datasets(tmp_path: Path) -> None:
    """Here a folder of clips with a table of texts beside them, which `datasets` encodes with torchcodec."""
    folder = tmp_path / "clips"
    (folder / "train").mkdir(parents=True)
    lines = []
    for number in range(3):
        (folder / "train" / f"{number}.flac").write_bytes(sound(number))
        lines.append(json.dumps({"file_name": f"{number}.flac", "transcription": f"Text {number}"}) + "\n")
    (folder / "train" / "metadata.jsonl").write_text("".join(lines))
    recipe = recipe_for(dataset=str(folder), **EN_DE)
    if find_spec("torchcodec") is None:
        with pytest.raises(MissingPrerequisite, match=r"torchcodec.*source\.manifest"):
            synthesize(recipe, tmp_path / "set", teacher=Translator())
        return
    out = synthesize(recipe, tmp_path / "set", teacher=Translator())
    assert [row.instruction for row in AlignmentSet.open(out).rows()] == ["Text 0", "Text 1", "Text 2"]


def test_configs_and_splits(tmp_path: Path) -> None:
    for config in ("en_us", "de_de"):
        (tmp_path / config / "train").mkdir(parents=True)
        made("fleurs", n=2).to_parquet(str(tmp_path / config / "train" / "0000.parquet"))
    assert len(read_utterances(dataset(tmp_path, config="en_us"))) == 2
    with pytest.raises(UserError, match=r"source\.split: .* has no 'tset'; valid: train"):
        read_utterances(dataset(tmp_path, config="en_us", split="tset"))
    with pytest.raises(UserError, match="cannot read .*'fr_fr' not found"):
        read_utterances(dataset(tmp_path, config="fr_fr"))
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files: {name}/train/*.parquet\n" for name in ("en_us", "de_de")
    )
    (tmp_path / "README.md").write_text(card + "---\n")
    assert len(read_utterances(dataset(tmp_path, config="de_de"))) == 2
    with pytest.raises(UserError, match=r"Config name is missing.*en_us"):
        read_utterances(dataset(tmp_path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source={dataset: a.parquet}", "needs `source_lang` and `target_lang`, or `pairs`"),
        ("source={dataset: a.parquet, source_lang: en}", "needs `source_lang` and `target_lang`, or `pairs`"),
        ("source={dataset: a.parquet, pairs: [en_de, fr_de]}", "pairs. of one source language"),
        ("source={dataset: a.parquet, pairs: en_de, source_lang: en, target_lang: de}", "or `pairs`"),
        ("source={dataset: a.parquet, pairs: en_xx}", "unknown language 'xx'"),
        ("source={dataset: a.parquet, manifest: b.csv, pairs: en_de}", "either"),
        ("source={manifest: b.csv, text_column: words}", "source.text_column belongs to source.dataset"),
        ("source={dataset: a.parquet, txt_column: words, pairs: en_de}", "did you mean 'text_column'"),
    ],
)
def test_mistakes_in_the_recipe(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(SynthesisRecipe, None, [override])


def test_what_is_not_there_or_torn_is_one_line(tmp_path: Path) -> None:
    made("librispeech").save_to_disk(tmp_path / "saved")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path | str | list[str], dict[str, Any], type[Exception], str]] = [
        (tmp_path / "no.parquet", {}, MissingPrerequisite, r"no file .*no\.parquet"),
        (tmp_path / "nowhere" / "x", {}, MissingPrerequisite, "no data set at"),
        (tmp_path / "empty", {}, UserError, "cannot read"),
        ([str(tmp_path / "saved"), str(tmp_path / "empty")], {}, UserError, "takes one folder"),
        (tmp_path / "saved", {"config": "x"}, UserError, "keeps no configs"),
    ]
    for place, more, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            read_utterances(dataset(place, **more))
        assert "\n" not in str(caught.value)
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(UserError, match=r"\.arrow is damaged"):
        read_utterances(dataset(tmp_path / "saved"))
    shutil.rmtree(tmp_path / "saved")
