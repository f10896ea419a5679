"""MuST-C from its archive layout: segments cut out of whole talks."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rba_bench.audio.clips import AudioError
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources import mustc
from rba_bench.evaluation.sources.source import Place
from tests.evaluation.sources import speech_sets as sets


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RBA_DATA_DIR", raising=False)
    mustc._talk.cache_clear()
    return tmp_path / "cache"


def edit(root: Path, name: str, change) -> None:
    path = root / "en-de" / "data" / "tst-COMMON" / "txt" / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def load(root: Path, direction: str = "en_de", **options: str):
    return mustc.load_mustc({"direction": direction, **options}, Place(root))


def test_segments_in_file_order_with_both_texts(tmp_path):
    loaded = load(sets.write_mustc(tmp_path, "de", (2, 4)))
    docs = loaded.documents
    assert [doc["id"] for doc in docs] == [
        *("ted_767_0", "ted_767_1", "ted_768_0", "ted_768_1", "ted_768_2", "ted_768_3")
    ]
    assert [doc["instruction"] for doc in docs] == sets.SENTENCES["en"]
    assert [doc["references"] for doc in docs] == [[text] for text in sets.SENTENCES["de"]]
    assert [doc["cluster"] for doc in docs] == ["ted_767"] * 2 + ["ted_768"] * 4
    assert docs[0]["voice"] == "spk.767" and docs[0]["group"] == "en-de"
    assert loaded.origin == {
        "repo": "MuST-C",
        "revision": "local",
        "direction": "en_de",
        "split": "tst-COMMON",
        "rows": 6,
        "talks": 2,
        "segments_longer_than_talk": 0,
    }


def test_a_segment_is_the_very_samples_of_the_talk(tmp_path):
    root = sets.write_mustc(tmp_path, "de")
    docs = load(root).documents
    talk, rate = sf.read(root / "en-de/data/tst-COMMON/wav/ted_768.wav", dtype="float32")
    start = 8000
    for doc in docs[3:]:
        heard = model_input.load_wave(doc["audio"])
        np.testing.assert_array_equal(heard, talk[start : start + len(heard)])
        assert rate == 16_000 and doc["duration"] == len(heard) / 16_000
        start += len(heard) + 4000


def test_cut_once_shared_by_languages_and_the_same_again(tmp_path, own_cache):
    root = sets.write_mustc(tmp_path, "de")
    sets.write_mustc(root, "ja")
    first = [doc["audio"] for doc in load(root).documents]
    made = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.flac")}
    assert [doc["audio"]["sha256"] for doc in load(root, "en_ja").documents] == [a["sha256"] for a in first]
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.flac")} == made and len(made) == 6
    for path in made:
        path.unlink()
    assert [doc["audio"] for doc in load(root).documents] == first


def test_layouts_under_the_data_folder(tmp_path):
    sets.write_mustc(tmp_path / "data" / "MuST-C", "de")
    assert len(load(tmp_path / "data").documents) == len(load(tmp_path / "data" / "MuST-C").documents) == 6
    sets.write_mustc(tmp_path / "data" / "MuST-C", "de", (1, 1), split="tst-HE")
    assert load(tmp_path / "data", split="tst-HE").origin["rows"] == 2


def test_line_separators_inside_a_sentence_are_no_line_ends(tmp_path):
    root = sets.write_mustc(tmp_path, "de")
    edit(root, "tst-COMMON.de", lambda text: text.replace("kleine Haus", "kleine\u2028Haus\x0b"))
    assert load(root).documents[0]["references"][0].startswith("Das kleine\u2028Haus")


def test_segments_beyond_the_end_of_a_talk(tmp_path):
    root = sets.write_mustc(tmp_path, "de", (2, 1))

    def stretch(text: str) -> str:
        lines = text.splitlines()
        lines[1] = "- {duration: 60.0, offset: 3.0, speaker_id: spk.767, wav: ted_767.wav}"
        lines[2] = "- {duration: 2.0, offset: 99.0, speaker_id: spk.768, wav: ted_768.wav}"
        return "\n".join(lines) + "\n"

    edit(root, "tst-COMMON.yaml", stretch)
    loaded = load(root)
    talk = sf.info(root / "en-de/data/tst-COMMON/wav/ted_767.wav").frames
    assert len(model_input.load_wave(loaded.documents[1]["audio"])) == talk - 48_000
    assert loaded.documents[2]["duration"] == 0.0 and loaded.origin["segments_longer_than_talk"] == 2
    with pytest.raises(AudioError):
        model_input.load_wave(loaded.documents[2]["audio"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "tst-COMMON.de",
            lambda text: text + "Noch eine.\n",
            "do not fit together: 6 in yaml, 6 in en, 7 in de",
        ),
        (
            "tst-COMMON.yaml",
            lambda text: text.replace("offset", "start"),
            "is not a list of segments with duration",
        ),
        ("tst-COMMON.yaml", lambda text: "- [", "cannot read MuST-C"),
        ("tst-COMMON.yaml", lambda text: text.replace("offset: 0", "offset: x"), "no numbers for offset"),
    ],
)
def test_files_that_do_not_fit_get_one_line(name, change, message, tmp_path):
    root = sets.write_mustc(tmp_path, "de")
    edit(root, name, change)
    with pytest.raises(UserError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)


def test_absent_parts_say_where_to_get_them(tmp_path):
    with pytest.raises(MissingPrerequisite, match=r"without --data-dir.*your copy of the archive"):
        mustc.load_mustc({"direction": "en_de"}, Place())
    root = sets.write_mustc(tmp_path, "de")
    with pytest.raises(MissingPrerequisite, match="no en-ja/data/tst-COMMON of MuST-C under"):
        load(root, "en_ja")
    (root / "en-de/data/tst-COMMON/wav/ted_768.wav").unlink()
    with pytest.raises(MissingPrerequisite, match="ted_768.wav"):
        load(root)


def test_damaged_talk_and_bad_options(tmp_path):
    root = sets.write_mustc(tmp_path, "de")
    with pytest.raises(UserError, match="no test split 'train'"):
        load(root, split="train")
    for direction in ("de_en", "en_hi", "en", ""):
        with pytest.raises(UserError, match="MuST-C has en_ to ar, cs"):
            load(root, direction)
    (root / "en-de/data/tst-COMMON/wav/ted_767.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match="ted_767.wav is damaged"):
        load(root)


def texts(first: list[str], second: list[str]):
    """English lines of two talks of three segments."""
    return lambda _: "\n".join((*first, *second)) + "\n"


def test_a_long_sentence_in_two_talks_makes_them_one_cluster(tmp_path):
    root = sets.write_mustc(tmp_path, "de", (3, 3))
    same = "This very sentence was said in two talks."
    edit(
        root, "tst-COMMON.en", texts([same, "One thing.", "Two things."], ["Other.", same.upper(), "Words."])
    )
    assert {doc["cluster"] for doc in load(root).documents} == {"ted_767"}


def test_a_stock_phrase_of_many_speakers_is_a_cluster_of_its_own(tmp_path):
    root = sets.write_mustc(tmp_path, "de", (3, 3))
    edit(
        root,
        "tst-COMMON.en",
        texts(["One thing.", "Two.", "Thank you."], ["Thank you!", "Thanks.", "Thank you"]),
    )
    clusters = [doc["cluster"] for doc in load(root).documents]
    assert clusters[:2] == ["ted_767"] * 2 and clusters[4] == "ted_768"
    assert clusters[2] == clusters[3] == clusters[5] not in ("ted_767", "ted_768")


def test_a_phrase_said_twice_in_one_talk_stays_with_it(tmp_path):
    root = sets.write_mustc(tmp_path, "de", (3, 3))
    edit(root, "tst-COMMON.en", texts(["Thank you.", "Two.", "Thank you."], ["A.", "B.", "C."]))
    assert [doc["cluster"] for doc in load(root).documents] == ["ted_767"] * 3 + ["ted_768"] * 3


def test_segments_with_a_blank_translation_are_left_out_and_counted(tmp_path, capsys):
    root = sets.write_mustc(tmp_path, "de", (3, 3))
    edit(root, "tst-COMMON.de", texts(["Eins", " ", "Drei"], ["Vier", "\u200b", "Sechs"]))
    loaded = load(root)
    assert [doc["id"] for doc in loaded.documents] == ["ted_767_0", "ted_767_2", "ted_768_0", "ted_768_2"]
    assert loaded.origin["without_reference"] == 2 and loaded.origin["rows"] == 6
    assert "MuST-C en_de: 2 of 6 items" in capsys.readouterr().err
