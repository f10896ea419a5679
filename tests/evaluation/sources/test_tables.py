"""Clips by reference: nothing decoded too early, nothing unreadable lost, nothing read twice."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from rba_bench.audio import clips
from rba_bench.errors import UserError
from rba_bench.evaluation.model_input import load_wave
from rba_bench.evaluation.sources import tables


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encoded(seconds=0.5, rate=16_000, kind="WAV", channels=1):
    sound = 0.1 * np.random.default_rng(int(seconds * 100)).standard_normal((int(seconds * rate), channels))
    buffer = io.BytesIO()
    sf.write(buffer, sound, rate, format=kind)
    return buffer.getvalue()


def write(path, audios, column="audio", **columns):
    rows = [{column: {"bytes": data, "path": f"{i}.wav"}, "id": i} for i, data in enumerate(audios)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_rows_carry_columns_and_clips_over_several_files(tmp_path):
    audios = [
        encoded(0.5),
        encoded(1.0, 48_000, channels=2),
        encoded(0.7, 8_000),
        encoded(2.0, 24_000, "MP3"),
    ]
    files = [write(tmp_path / "0.parquet", audios[:3]), write(tmp_path / "1.parquet", audios[3:])]
    found = list(tables.parquet_rows(files, ["id"]))
    assert [row for row, _ in found] == [{"id": 0}, {"id": 1}, {"id": 2}, {"id": 0}]
    assert [clip.row for _, clip in found] == [0, 1, 2, 0]
    assert [clip.sampling_rate for _, clip in found] == [16_000, 48_000, 8_000, 24_000]
    for (_, clip), seconds in zip(found, (0.5, 1.0, 0.7, 2.0), strict=True):
        assert clip.duration == pytest.approx(seconds, abs=0.06)
        assert len(load_wave(clip.reference("said"))) == pytest.approx(16_000 * seconds, abs=1000)


def test_a_column_of_another_name(tmp_path):
    file = write(tmp_path / "x.parquet", [encoded()], column="speech")
    [(_, clip)] = tables.parquet_rows([file], [], audio="speech")
    assert clip.reference()["column"] == "speech" and len(load_wave(clip.reference())) == 8000


@pytest.mark.parametrize("broken", [b"", b"RIFFnonsense", None], ids=["empty", "garbage", "null"])
def test_unreadable_audio_is_still_an_item(tmp_path, broken):
    file = write(tmp_path / "x.parquet", [encoded(), broken])
    _, bad = [clip for _, clip in tables.parquet_rows([file], ["id"])]
    assert bad.duration == 0 and bad.fault
    with pytest.raises(clips.AudioError):
        load_wave(bad.reference())


def test_the_index_is_made_once_and_again_when_the_file_changes(tmp_path, cache, monkeypatch):
    file = write(tmp_path / "x.parquet", [encoded(0.5), encoded(0.6)])
    first = [clip for _, clip in tables.parquet_rows([file], [])]
    monkeypatch.setattr(tables, "_audio_cells", lambda *_: pytest.fail("read again"))
    assert [clip for _, clip in tables.parquet_rows([file], [])] == first
    monkeypatch.undo()
    monkeypatch.setenv("RBA_CACHE", str(cache))
    write(file, [encoded(0.9)])
    assert [clip.duration for _, clip in tables.parquet_rows([file], [])] == [pytest.approx(0.9)]


def test_a_torn_index_is_made_again(tmp_path, cache):
    file = write(tmp_path / "x.parquet", [encoded()])
    first = list(tables.parquet_rows([file], ["id"]))
    [index] = (cache / "index").iterdir()
    index.write_text("[[")
    assert list(tables.parquet_rows([file], ["id"])) == first


def test_wrong_files_get_one_line(tmp_path):
    file = write(tmp_path / "x.parquet", [encoded()])
    with pytest.raises(UserError, match="lacks the columns sentence; it has"):
        list(tables.parquet_rows([file], ["sentence"]))
    with pytest.raises(UserError, match="no column 'context'"):
        list(tables.parquet_rows([file], ["id"], audio="context"))
    (tmp_path / "y.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="get it again"):
        list(tables.parquet_rows([tmp_path / "y.parquet"], []))


def test_archives_are_unpacked_once_and_never_outside(tmp_path, cache):
    good, evil = tmp_path / "good.tar.gz", tmp_path / "evil.tar"
    data = encoded()
    for path, name in ((good, "a/b.wav"), (evil, "../../escaped.wav")):
        with tarfile.open(path, "w:gz" if path == good else "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    folder = tables.unpack_archive(good)
    assert tables.file_clip(folder / "a" / "b.wav").duration == pytest.approx(0.5)
    assert tables.unpack_archive(good) == folder
    with pytest.raises(UserError, match="cannot unpack"):
        tables.unpack_archive(evil)
    assert not list(tmp_path.glob("**/escaped.wav"))


def test_file_clip_of_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read audio file"):
        tables.file_clip(tmp_path / "no.wav")


def test_clips_named_by_path_are_looked_for_again_each_time(tmp_path, cache):
    """The parquet file does not change when they come, go or are replaced: no index of them is kept."""
    place = tmp_path / "x.parquet"
    cells = pa.array(
        [{"bytes": None, "path": "a.wav"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"audio": cells}), place)

    def clip():
        [(_, found)] = tables.parquet_rows([place], [])
        return found

    missing = clip()
    assert "the file 'a.wav' is not beside it" in missing.fault and missing.duration == 0
    (tmp_path / "a.wav").write_bytes(encoded(0.5))
    assert (clip().fault, clip().duration) == ("", 0.5)
    (tmp_path / "a.wav").write_bytes(encoded(0.75))
    assert clip().duration == 0.75 and clip().sha256 != missing.sha256
    assert clips.load_clip(clips.AudioRef.from_dict(reference(clip()))).shape == (12_000,)


def reference(clip):
    return {name: part for name, part in clip.reference().items() if name != "transcript"}
