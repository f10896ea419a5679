"""Transcription of the clips of FLEURS and CoVoST 2."""

from pathlib import Path

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import scoring
from rba_bench.evaluation.sources import asr, covost2
from rba_bench.evaluation.sources.source import Place
from tests.evaluation.sources import speech_sets as sets


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RBA_DATA_DIR", raising=False)


def test_fleurs_transcripts(tmp_path):
    sets.write_fleurs(tmp_path, "zh", (2, 1))
    loaded = asr.load_asr({"corpus": "fleurs", "spoken": "cmn_hans_cn"}, Place(tmp_path))
    docs = loaded.documents
    assert [doc["references"] for doc in docs] == [["山上的小房子建于1921年"]] * 2 + [
        ["她昨天买了三本书和一把蓝色的雨伞"]
    ]
    assert docs[0]["prompt"] == "Transcribe the Chinese speech. Write only the transcript."
    assert {(doc["kind"], doc["group"], doc["source_lang"], doc["target_lang"]) for doc in docs} == {
        ("asr", "zh", "zh", "zh")
    }
    assert [doc["cluster"] for doc in docs] == ["fleurs-1650", "fleurs-1650", "fleurs-1651"]
    assert loaded.origin == {
        "repo": "google/fleurs",
        "revision": "local",
        "config": "cmn_hans_cn",
        "rows": 3,
    }


def test_covost2_transcripts_are_the_clips_of_the_translation_task(tmp_path):
    sets.write_covost2(tmp_path, "de_en")
    heard = asr.load_asr({"corpus": "covost2", "spoken": "de"}, Place(tmp_path)).documents
    translated = covost2.load_covost2({"direction": "de_en"}, Place(tmp_path)).documents
    assert [doc["audio"] for doc in heard] == [doc["audio"] for doc in translated]
    assert [doc["id"] for doc in heard] == [doc["id"] for doc in translated]
    assert [doc["references"] for doc in heard] == [[text] for text in sets.SENTENCES["de"]]


def test_english_of_covost2_comes_from_one_of_its_directions(tmp_path):
    sets.write_covost2(tmp_path, "en_de")
    loaded = asr.load_asr({"corpus": "covost2", "spoken": "en"}, Place(tmp_path))
    assert loaded.origin["direction"] == "en_de" and loaded.origin["published_rows"] == 15531
    assert loaded.documents[0]["references"] == [sets.SENTENCES["en"][0]]


def test_perfect_transcripts_have_no_errors_whatever_case_and_marks(tmp_path):
    sets.write_fleurs(tmp_path, "de")
    for doc in asr.load_asr({"corpus": "fleurs", "spoken": "de"}, Place(tmp_path)).documents:
        answer = doc["references"][0].title() + " !"
        scores = scoring.score_item(doc, answer).scores
        assert scores["wer"][0] == scores["cer"][0] == 0 and scores["wer"][1] > 5
        assert scoring.score_item(doc, "").scores["wer"] == [scores["wer"][1]] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus": "librispeech", "spoken": "en"}, "no transcripts of corpus 'librispeech'"),
        ({"corpus": "covost2", "spoken": "el"}, "CoVoST 2 has no clips in 'el'; it has en, ar"),
        ({"corpus": "fleurs", "spoken": "xx"}, "unknown language 'xx'"),
        ({}, "no transcripts of corpus ''"),
    ],
)
def test_bad_options_get_one_line(options, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        asr.load_asr(options, Place(tmp_path))
    assert "\n" not in str(caught.value)


def test_clips_without_a_transcript_are_left_out_and_names_stay_unique(tmp_path, capsys):
    audio = sets.float_wav(np.full(4000, 0.1, dtype=np.float32))
    texts = [(1, "guten tag"), (1, "guten tag"), (2, " "), (3, "Guten Tag!")]
    rows = [sets.fleurs_row("de_de", number, text, audio, 0) for number, text in texts]
    sets.write_parquet(tmp_path / "de_de" / "test" / "0000.parquet", rows, sets.FLEURS_FEATURES)
    loaded = asr.load_asr({"corpus": "fleurs", "spoken": "de"}, Place(tmp_path))
    assert len(loaded.documents) == 3 and loaded.origin["without_reference"] == 1
    assert len({doc["id"] for doc in loaded.documents}) == 3
    assert {doc["cluster"] for doc in loaded.documents} == {"fleurs-1"}
    assert "FLEURS de_de: 1 of 4 items have no reference" in capsys.readouterr().err
