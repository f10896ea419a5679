"""CoVoST 2 from a local copy with the schema of the Hub."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import hooks, model_input
from rba_bench.evaluation.sources import covost2
from rba_bench.evaluation.sources.source import Place, load_source
from tests.evaluation.sources import speech_sets as sets


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RBA_DATA_DIR", raising=False)


def write(folder: Path, rows: list[dict], direction: str = "en_de") -> Place:
    sets.write_parquet(folder / direction / "test-00000-of-00001.parquet", rows, sets.COVOST2)
    return Place(folder)


def row(number: int = 0, sentence: str = "Good morning.", translation: str = "Guten Morgen.", audio=None):
    data = audio if audio is not None else sets.mp3(np.full(8000, 0.1, dtype=np.float32))
    return sets.covost2_row(number, "en", sentence, translation, data)


def test_documents_hold_everything_but_the_audio(tmp_path):
    sets.write_covost2(tmp_path / "fixie-ai" / "covost2", "en_zh-CN")
    loaded = load_source("covost2", {"direction": "en_zh-CN"}, Place(tmp_path))
    doc = loaded.documents[0]
    assert len(loaded.documents) == 6
    assert doc | {"audio": {}, "cluster": "", "duration": 0} == {
        "id": "common_voice_en_18540000",
        "kind": "s2tt",
        "topic": "",
        "instruction": sets.SENTENCES["en"][0],
        "prompt": "Translate the speech into Chinese. Write only the translation.",
        "references": [sets.SENTENCES["zh"][0]],
        "source_lang": "en",
        "target_lang": "zh",
        "voice": "005e5e5e5e5e5e5e",
        "baseline": "",
        "group": "en-zh",
        "extra": "",
        "audio": {},
        "cluster": "",
        "duration": 0,
    }
    assert loaded.origin == {
        "repo": "fixie-ai/covost2",
        "revision": "local",
        "direction": "en_zh-CN",
        "rows": 6,
        "unquoted": 0,
        "without_translation": 0,
        "published_rows": 15531,
    }


def test_mp3_at_48_khz_is_heard_at_16(tmp_path):
    sets.write_covost2(tmp_path / "covost2", "de_en")
    doc = covost2.load_covost2({"direction": "de_en"}, Place(tmp_path)).documents[1]
    spoken = sets.spoken(doc["instruction"], "de", 1)
    heard = model_input.load_wave(doc["audio"])
    assert doc["audio"]["sampling_rate"] == 48_000
    assert len(heard) == pytest.approx(len(spoken), rel=0.05) and doc["duration"] == pytest.approx(
        len(spoken) / 16_000, abs=0.2
    )
    span = min(len(heard), len(spoken))
    lag = max(range(0, 2400, 8), key=lambda shift: float(heard[shift:span] @ spoken[: span - shift]))
    assert np.corrcoef(heard[lag:span], spoken[: span - lag])[0, 1] > 0.9


def test_shards_are_one_test_set_in_order(tmp_path):
    sets.write_covost2(tmp_path, "zh-CN_en", shards=3)
    docs = covost2.load_covost2({"direction": "zh-CN_en"}, Place(tmp_path)).documents
    assert [doc["references"][0] for doc in docs] == sets.SENTENCES["en"]
    assert len({doc["audio"]["path"] for doc in docs}) == 3
    assert {doc["group"] for doc in docs} == {"zh-en"}
    assert all(len(model_input.load_wave(doc["audio"])) > 8000 for doc in docs)


def test_quoting_of_the_csv_file_is_undone_in_transcripts_alone(tmp_path):
    rows = [
        row(0, '"A ""chanson"", by contrast, is a song."', '"Ein ""Chanson"" ist ein Lied."'),
        row(1, 'He said "no" to it.', "„Nein“"),
        row(2, '"', "Ein Zeichen"),
    ]
    loaded = covost2.load_covost2({"direction": "en_de"}, write(tmp_path, rows))
    spoken = [doc["instruction"] for doc in loaded.documents]
    assert spoken == ['A "chanson", by contrast, is a song.', 'He said "no" to it.', '"']
    assert loaded.documents[0]["references"] == ['"Ein ""Chanson"" ist ein Lied."']
    assert loaded.origin["unquoted"] == 1


def test_rows_without_a_translation_are_left_out_and_counted(tmp_path):
    rows = [row(0), {**row(1), "translation": None}, {**row(2), "translation": ""}, row(3)]
    loaded = covost2.load_covost2({"direction": "en_de"}, write(tmp_path, rows))
    assert [doc["id"][-1] for doc in loaded.documents] == ["0", "3"]
    assert loaded.origin["without_translation"] == 2 and loaded.origin["rows"] == 4
    assert [doc["audio"]["row"] for doc in loaded.documents] == [0, 3]


def test_clips_of_one_sentence_are_one_cluster_and_ids_stay_unique(tmp_path):
    docs = covost2.load_covost2(
        {"direction": "en_de"}, write(tmp_path, [row(0), row(0), row(1, "Good night.")])
    ).documents
    assert docs[0]["cluster"] == docs[1]["cluster"] != docs[2]["cluster"]
    assert len({doc["id"] for doc in docs}) == 3


def test_unreadable_clips_keep_their_item(tmp_path):
    rows = [row(0, audio=b""), row(1, audio=b"no sound at all"), row(2), {**row(3), "audio": None}]
    docs = covost2.load_covost2({"direction": "en_de"}, write(tmp_path, rows)).documents
    assert [doc["duration"] > 0 for doc in docs] == [False, False, True, False]


def test_prompt_of_the_task_is_its_own(tmp_path):
    wording = "Detect the language and translate the speech into {language}: <|en|>"
    docs = covost2.load_covost2({"direction": "en_de", "prompt": wording}, write(tmp_path, [row()])).documents
    assert docs[0]["prompt"] == "Detect the language and translate the speech into German: <|en|>"


def test_all_36_directions_of_the_paper():
    assert len(covost2.DIRECTIONS) == len(set(covost2.DIRECTIONS)) == 36
    assert {d.split("_")[0] for d in covost2.DIRECTIONS} == covost2.TEST_ROWS.keys()


def test_through_the_hook_of_the_task_files(tmp_path, monkeypatch):
    sets.write_covost2(tmp_path, "ja_en")
    monkeypatch.setenv("RBA_DATA_DIR", str(tmp_path))
    data = hooks.load_dataset(
        source="covost2", direction="ja_en", version=1, benchmark="covost2", config_source="x"
    )
    assert data["test"][3]["references"] == [sets.SENTENCES["en"][3]]
    assert '"revision": "local"' in data["test"].info.description


def test_absent_data_names_the_download(tmp_path):
    with pytest.raises(MissingPrerequisite) as caught:
        covost2.load_covost2({"direction": "en_de"}, Place(tmp_path))
    assert "hf download fixie-ai/covost2 --repo-type dataset --include 'en_de/test-*.parquet'" in str(
        caught.value
    )
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


@pytest.mark.parametrize("direction", ["en_fr", "de_fr", "", "../en_de", "en_zh"])
def test_unknown_direction_lists_the_known(direction, tmp_path):
    with pytest.raises(UserError, match="CoVoST 2 has no direction .* it has en_ar, .*en_zh-CN"):
        covost2.load_covost2({"direction": direction}, Place(tmp_path))


def test_files_of_another_layout_are_refused(tmp_path):
    file = tmp_path / "en_de" / "test-00000-of-00001.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), file)
    with pytest.raises(UserError, match="lacks the columns client_id, sentence, translation"):
        covost2.load_covost2({"direction": "en_de"}, Place(tmp_path))
    file.write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="is damaged"):
        covost2.load_covost2({"direction": "en_de"}, Place(tmp_path))


@pytest.mark.parametrize(
    ("stored", "spoken"),
    [
        ('"A plain sentence."', "A plain sentence."),
        ('"He said ""no"" to it."', 'He said "no" to it.'),
        ('"""Come in!"" she said."', '"Come in!" she said.'),
        ('"Yes," he said, "of course"', '"Yes," he said, "of course"'),
        ('"Go," "stay," "wait"', '"Go," "stay," "wait"'),
        ('"Oh!""Really?"', '"Oh!""Really?"'),  # undone it would open a quotation that never closes
        ('"Half of it', '"Half of it'),
        ('He said "no"', 'He said "no"'),
        ('"', '"'),
        ('""', ""),
        ("", ""),
    ],
)
def test_only_a_field_as_csv_writes_it_is_unquoted(stored, spoken):
    assert covost2.unquote(stored) == spoken


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\t \n", "\u200b", "\ufeff \u2060"])
def test_a_blank_translation_is_none(tmp_path, capsys, blank):
    loaded = covost2.load_covost2(
        {"direction": "en_de"}, write(tmp_path, [row(0), row(1, translation=blank)])
    )
    assert len(loaded.documents) == 1 and loaded.origin["without_translation"] == 1
    assert (
        "covost2 en_de: 1 of 2 items have no reference, or a blank one, and are left out"
        in capsys.readouterr().err
    )


def test_equal_words_are_one_cluster_whatever_their_case(tmp_path):
    rows = [row(0, "Good morning."), row(1, "good morning"), row(2, "Good night.")]
    clusters = [
        doc["cluster"]
        for doc in covost2.load_covost2({"direction": "en_de"}, write(tmp_path, rows)).documents
    ]
    assert clusters[0] == clusters[1] != clusters[2]
