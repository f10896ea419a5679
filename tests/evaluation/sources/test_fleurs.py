"""FLEURS as speech translation: two configurations of the parquet revision joined on `id`."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources import fleurs, language_pairs
from rba_bench.evaluation.sources.source import Place
from tests.evaluation.sources import speech_sets as sets


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RBA_DATA_DIR", raising=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """German in 2, 1, 0, 3, 1, 1 recordings; Japanese lacks the second sentence."""
    root = tmp_path / "data" / "google" / "fleurs"
    sets.write_fleurs(root, "de", (2, 1, 0, 3, 1, 1))
    sets.write_fleurs(root, "ja", (1, 0, 2, 1, 1, 1))
    return Place(tmp_path / "data")


def test_join_keeps_every_recording_whose_sentence_both_have(place):
    loaded = fleurs.load_fleurs({"pair": "de_de-ja_jp"}, place)
    docs = loaded.documents
    assert [doc["cluster"] for doc in docs] == [
        f"fleurs-{number}" for number in (1650, 1650, 1653, 1653, 1653, 1654, 1655)
    ]
    for doc in docs:
        number = int(doc["cluster"].split("-")[1]) - 1650
        assert doc["instruction"] == sets.SENTENCES["de"][number]
        assert doc["references"] == [sets.SENTENCES["ja"][number]]
    assert loaded.origin == {
        "repo": "google/fleurs",
        "revision": "local",
        "pair": "de_de-ja_jp",
        "revision_of_target": "local",
        "recordings": 8,
        "left_out_without_target": 1,
        "target_sentences": 5,
        "target_sentences_unheard": 1,
        "target_sentences_in_several_wordings": 0,
    }


def test_items_are_recordings(place):
    docs = fleurs.load_fleurs({"pair": "de-ja"}, place).documents
    assert docs[0]["id"] == "1650-10000000000000011550"
    assert len({doc["id"] for doc in docs}) == len(docs)
    assert [doc["voice"] for doc in docs[:2]] == ["male", "female"]
    assert docs[0]["prompt"] == "Translate the speech into Japanese. Write only the translation."
    assert {(doc["source_lang"], doc["target_lang"], doc["group"]) for doc in docs} == {("de", "ja", "de-ja")}


def test_float_wav_is_heard_as_it_was_written(place):
    doc = fleurs.load_fleurs({"pair": "de_de-ja_jp"}, place).documents[1]
    np.testing.assert_array_equal(
        model_input.load_wave(doc["audio"]), sets.spoken(doc["instruction"], "de", 1)
    )
    assert sf.info(fleurs_audio(place, "de_de", 1)).subtype == "FLOAT"


def fleurs_audio(place: Place, config: str, row: int):
    import io

    import pyarrow.parquet as pq

    [file] = fleurs.test_files(config, place).paths
    return io.BytesIO(pq.read_table(file)["audio"][row]["bytes"].as_py())


def test_reference_is_the_first_wording_and_others_are_counted(tmp_path):
    config = language_pairs.fleurs_config("de")
    audio = sets.float_wav(np.full(4000, 0.1, dtype=np.float32))
    rows = [sets.fleurs_row(config, 1650, text, audio, take) for take, text in enumerate(("Eins.", "Ein."))]
    sets.write_parquet(tmp_path / config / "test" / "0000.parquet", rows, sets.FLEURS_FEATURES)
    sets.write_fleurs(tmp_path, "en")
    loaded = fleurs.load_fleurs({"pair": "en-de"}, Place(tmp_path))
    assert [doc["references"] for doc in loaded.documents] == [["Eins."]]
    assert loaded.origin["target_sentences_in_several_wordings"] == 1


def test_large_languages_have_several_files(tmp_path):
    sets.write_fleurs(tmp_path, "en")
    sets.write_fleurs(tmp_path, "de")
    folder = tmp_path / "de_de" / "test"
    (folder / "0000.parquet").rename(folder / "0001.parquet")
    audio = sets.float_wav(np.full(4000, 0.1, dtype=np.float32))
    first = [sets.fleurs_row("de_de", 1649, "Nur auf Deutsch.", audio, 0)]
    sets.write_parquet(folder / "0000.parquet", first, sets.FLEURS_FEATURES)
    loaded = fleurs.load_fleurs({"pair": "de-en"}, Place(tmp_path))
    assert loaded.origin["recordings"] == 7 and loaded.origin["left_out_without_target"] == 1
    assert {Path(doc["audio"]["path"]).name for doc in loaded.documents} == {"0001.parquet"}


def test_nothing_in_common_is_an_error(tmp_path):
    sets.write_fleurs(tmp_path, "de", (1, 1))
    sets.write_fleurs(tmp_path, "ja", (0, 0, 1))
    with pytest.raises(UserError, match="de_de and ja_jp have no sentence in common"):
        fleurs.load_fleurs({"pair": "de-ja"}, Place(tmp_path))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("", "is not two languages"),
        ("de_de", "is not two languages"),
        ("de-de_de", "is one language twice"),
        ("de-xx", "unknown language 'xx'; known: af"),
    ],
)
def test_bad_pairs_get_one_line(pair, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        fleurs.load_fleurs({"pair": pair}, Place(tmp_path))
    assert "\n" not in str(caught.value)


def test_absent_language_names_the_download_at_the_parquet_revision(place):
    with pytest.raises(MissingPrerequisite) as caught:
        fleurs.load_fleurs({"pair": "de-fr"}, place)
    assert "--revision refs/convert/parquet --include 'fr_fr/test/*.parquet'" in str(caught.value)


def test_every_pair_of_the_102_languages_has_a_name():
    assert len(language_pairs.FLEURS) == 102
    assert language_pairs.dataset_kwargs("fleurs_sw_yue") == {"source": "fleurs", "pair": "sw_ke-yue_hant_hk"}
    assert language_pairs.dataset_kwargs("asr_fleurs_kea") == {
        "source": "asr",
        "corpus": "fleurs",
        "spoken": "kea_cv",
    }
    for name in (
        "fleurs_en_en",
        "fleurs_en_xx",
        "fleurs_en",
        "covost2_en_fr",
        "asr_fleurs_xx",
        "mustc_en_hi",
        "x",
    ):
        assert language_pairs.dataset_kwargs(name) is None and language_pairs.yaml_text(name) is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("zh-CN", "zh"),
        ("sv-SE", "sv"),
        ("cmn_hans_cn", "zh"),
        ("yue_hant_hk", "yue"),
        ("es_419", "es"),
        ("de", "de"),
    ],
)
def test_codes_of_all_sets_have_one_short_form(code, expected):
    assert language_pairs.short(code) == expected


def written(root: Path, code: str, sentences: list[tuple[int, str, int]]) -> None:
    """Recordings `(id, text, take)` of one language; equal takes have equal file names."""
    config = language_pairs.fleurs_config(code)
    audio = sets.float_wav(np.full(4000, 0.1, dtype=np.float32))
    rows = [sets.fleurs_row(config, number, text, audio, take) for number, text, take in sentences]
    sets.write_parquet(root / config / "test" / "0000.parquet", rows, sets.FLEURS_FEATURES)


def test_sentences_of_several_ids_that_say_the_same_are_one_cluster(tmp_path):
    written(
        tmp_path, "de", [(1, "Guten Tag.", 0), (2, "Gute Nacht.", 0), (3, "guten  tag", 0), (3, "Hallo.", 1)]
    )
    written(tmp_path, "en", [(1, "Good day.", 0), (2, "Good night.", 0), (3, "Good day.", 0)])
    docs = fleurs.load_fleurs({"pair": "de-en"}, Place(tmp_path)).documents
    assert [doc["cluster"] for doc in docs] == ["fleurs-1", "fleurs-2", "fleurs-1", "fleurs-1"]


def test_one_path_in_two_rows_gives_two_items_with_names_of_their_own(tmp_path):
    written(tmp_path, "de", [(1, "Guten Tag.", 0), (1, "Guten Tag.", 0)])
    written(tmp_path, "en", [(1, "Good day.", 0)])
    ids = [doc["id"] for doc in fleurs.load_fleurs({"pair": "de-en"}, Place(tmp_path)).documents]
    assert len(ids) == 2 and ids[1] == f"{ids[0]}-2"


def test_a_blank_translation_is_none(tmp_path, capsys):
    written(tmp_path, "de", [(1, "Guten Tag.", 0), (2, "Gute Nacht.", 0)])
    written(tmp_path, "en", [(1, "Good day.", 0), (2, " \u200b", 0)])
    loaded = fleurs.load_fleurs({"pair": "de-en"}, Place(tmp_path))
    assert [doc["references"] for doc in loaded.documents] == [["Good day."]]
    assert loaded.origin["left_out_without_target"] == 1
    assert "1 of 2 recordings have no translation" in capsys.readouterr().err
