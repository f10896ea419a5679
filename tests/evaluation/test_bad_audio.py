"""Every kind of bad audio through a real model: a status for each item, no crash, nothing dropped."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from rba_bench.evaluation.records import UNANSWERED, read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate

RATE = 16_000


def tone(seconds, rate=RATE, channels=1):
    t = np.arange(int(seconds * rate)) / rate
    wave = 0.2 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 3 * t)) / 2
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(wave, rate=RATE, kind="WAV", subtype=None):
    buffer = io.BytesIO()
    sf.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def with_nan():
    wave = tone(1.0)
    wave[500] = np.nan
    return encoded(wave, subtype="FLOAT")


# name -> (bytes, name in the data set, statuses that are right)
HEARD, LOST = {"ok", "truncated", "empty"}, {"not_heard"}
CLIPS = {
    "good": (encoded(tone(1.0)), "a.wav", HEARD),
    "empty file": (b"", "b.wav", LOST),
    "no file": (None, "c.wav", LOST),
    "truncated": (encoded(tone(2.0))[:9000], "d.wav", LOST),
    "not a number": (with_nan(), "e.wav", LOST),
    "wrong extension": (encoded(tone(1.0), kind="FLAC"), "f.mp3", HEARD),
    "8 kHz": (encoded(tone(1.0, 8_000), 8_000), "g.wav", HEARD),
    "48 kHz stereo": (encoded(tone(1.0, 48_000, 2), 48_000), "h.wav", HEARD),
    "mp3": (encoded(tone(1.5), kind="MP3"), "i.mp3", HEARD),
    "10 minutes": (encoded(tone(600.0), kind="FLAC"), "j.flac", HEARD | {"error"}),
    "20 ms": (encoded(tone(0.02)), "k.wav", HEARD | LOST),
    "one sample": (encoded(tone(1.5 / RATE)), "l.wav", HEARD | LOST),
    "silence": (encoded(np.zeros((RATE, 1), np.float32)), "m.wav", HEARD),
}


@pytest.fixture
def data_dir(tmp_path):
    """CoVoST 2, English to German, with these clips."""
    rows = [
        {
            "client_id": "c",
            "file": name,
            "audio": {"bytes": data, "path": name},
            "sentence": f"This is {label}.",
            "translation": f"Das ist {label}.",
            "id": f"common_voice_en_{number}",
        }
        for number, (label, (data, name, _)) in enumerate(CLIPS.items())
    ]
    folder = tmp_path / "data" / "fixie-ai" / "covost2" / "en_de"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet", row_group_size=4)
    return tmp_path / "data"


@pytest.mark.parametrize("perturb", ["", "noise=10dB,reverb=small,speed=1.2,telephone"])
def test_every_bad_clip_gets_a_status(tmp_path, data_dir, tiny_composite_dir, monkeypatch, perturb):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    request = EvalRequest(
        ("covost2_en_de",),
        str(tiny_composite_dir),
        track="full",
        out=tmp_path / "out",
        data_dir=data_dir,
        batch_size=4,
        device="cpu",
        perturb=perturb,
    )
    [record] = evaluate(request)
    samples = read_samples(tmp_path / "out" / record.model["name"] / record.run_id)
    unheard = record.statuses["not_heard"]
    assert record.n == len(CLIPS) == sum(record.statuses.values()) and unheard >= 4
    assert (record.metrics["bleu"].n, record.metrics["bleu"].n_missing) == (len(CLIPS) - unheard, unheard)
    found = dict(zip(CLIPS, samples, strict=True))
    wrong = {label: (found[label].status, found[label].error) for label in CLIPS}
    assert all(found[label].status in CLIPS[label][2] for label in CLIPS), wrong
    assert all(sample.error for sample in samples if sample.status in UNANSWERED)
    assert not any(sample.scores for sample in samples if sample.status == "not_heard")
    assert record.protocol_spec.get("perturb", {}).get("text", "") == perturb
    text = (tmp_path / "out" / record.model["name"] / record.run_id / "samples.jsonl").read_text()
    assert str(tmp_path) not in text, "a record names no folder of this machine"


def test_a_perturbation_is_another_protocol_and_other_answers(
    tmp_path, data_dir, tiny_composite_dir, monkeypatch
):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    common = {"track": "full", "out": tmp_path / "out", "data_dir": data_dir, "device": "cpu", "limit": 1}
    [plain] = evaluate(EvalRequest(("covost2_en_de",), str(tiny_composite_dir), **common))
    [noisy] = evaluate(
        EvalRequest(("covost2_en_de",), str(tiny_composite_dir), perturb="noise=0dB", **common)
    )
    assert plain.protocol_hash != noisy.protocol_hash and plain.run_id != noisy.run_id
    assert plain.data == noisy.data, "the test set is the same, what is done to it is the protocol"
