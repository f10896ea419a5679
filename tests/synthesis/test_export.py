"""An export is what the readers of ms-swift and LLaMA-Factory accept, and holds every clip of the set."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import AlignmentSet, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes
from rba_bench.synthesis import export
from rba_bench.synthesis.export import PARTS, SUMMARY, export_set
from rba_bench.synthesis.shards import parquet_bytes

WAVE = (0.2 * np.sin(np.arange(1_600) / 9)).astype(np.float32)


def encoded(kind: str, factor: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, WAVE * factor, 16_000, format=kind)
    return buffer.getvalue()


def row(number: int, data: bytes | None = None, **changes: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("prompt", "source_lang", "target_lang", "topic", "difficulty", "voice"), "")
    data = data or clips.encode_flac((WAVE * (number + 1) / 50).astype(np.float32))
    spoken = {"kind": "qa", "instruction": f"question {number}", "response": f"answer {number}\n\nline two"}
    sound = {
        "audio": {"bytes": data, "path": "x"},
        "audio_sha256": sha256_bytes(data),
        "sampling_rate": 16_000,
    }
    ids = {"id": f"c/{number}", "group_id": f"g{number}", "split": "train"}
    return {**texts, **ids, **spoken, **sound, "duration": 0.1, **changes}


def turn(number: int, data: bytes | None) -> dict[str, Any]:
    audio = None if data is None else {"bytes": data, "path": "x"}
    return {"instruction": f"earlier {number}", "response": f"reply {number}", "audio": audio}


def rows() -> list[list[dict[str, Any]]]:
    """Two shards: FLAC, WAV and Ogg, a prompt, a dialogue, held-out rows, and rows that cannot be exported."""
    tagged = row(4, response="put <audio> here")
    dialogue = row(6, turns=[turn(0, encoded("WAV", 0.5)), turn(1, None)])
    return [
        [
            row(0),
            row(1, encoded("WAV")),
            row(2, encoded("OGG"), prompt="translate :"),
            row(3, split="validation"),
        ],
        [tagged, row(5, response=""), dialogue, row(7, split="validation")],
    ]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, part in enumerate(rows()):
        (folder / f"part-{number}.parquet").write_bytes(parquet_bytes(part, shard_schema(turns=True)))
    seal_alignment_set(folder)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_ms_swift(path: Path) -> Iterator[tuple[list[tuple[str, str]], list[Path]]]:
    """By the rules of ms-swift 4.6.0 (`RowPreprocessor`, `Template`).

    Messages have roles and contents; `audios` are paths below ROOT_IMAGE_DIR, as many as there are `<audio>` tags.
    """
    for record in lines(path):
        assert record.keys() == {"messages", "audios"}
        messages = [(message["role"], message["content"]) for message in record["messages"]]
        assert {role for role, _ in messages} == {"user", "assistant"} and messages[-1][0] == "assistant"
        assert all(isinstance(content, str) for _, content in messages)
        assert sum(content.count("<audio>") for _, content in messages) == len(record["audios"])
        yield messages, [path.parent / name for name in record["audios"]]


def read_llama_factory(folder: Path, name: str) -> Iterator[tuple[list[tuple[str, str]], list[Path]]]:
    """By the rules of LLaMA-Factory 0.9.5 (`DatasetAttr.join`, `SharegptDatasetConverter`, `_validate_messages`)."""
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    assert entry["formatting"] == "sharegpt" and Path(entry["file_name"]).suffix in (".json", ".jsonl")
    columns, tags = entry["columns"], entry["tags"]
    for record in lines(folder / entry["file_name"]):
        messages = [(one[tags["role_tag"]], one[tags["content_tag"]]) for one in record[columns["messages"]]]
        assert [role for role, _ in messages] == [tags["user_tag"], tags["assistant_tag"]] * (
            len(messages) // 2
        )
        audios = record[columns["audios"]]
        assert sum(content.count("<audio>") for _, content in messages) == len(audios)
        yield messages, [folder / audio for audio in audios]  # media_dir is the folder by default


def check(found: list[tuple[list[tuple[str, str]], list[Path]]]) -> None:
    """The training rows of `rows`, with the sound of each clip."""
    assert [messages for messages, _ in found] == [
        [("user", "<audio>"), ("assistant", "answer 0\n\nline two")],
        [("user", "<audio>"), ("assistant", "answer 1\n\nline two")],
        [("user", "<audio>translate :"), ("assistant", "answer 2\n\nline two")],
        [
            *[("user", "<audio>"), ("assistant", "reply 0"), ("user", "earlier 1"), ("assistant", "reply 1")],
            *[("user", "<audio>"), ("assistant", "answer 6\n\nline two")],
        ],
    ]
    audios = [[audio.read_bytes() for audio in audios] for _, audios in found]
    assert audios[0] == [row(0)["audio"]["bytes"]] and audios[1] == [encoded("WAV")]
    assert audios[3] == [encoded("WAV", 0.5), row(6)["audio"]["bytes"]]
    assert {audio.suffix for _, audios in found for audio in audios} == {".flac", ".wav"}
    np.testing.assert_allclose(clips.decode_clip(audios[2][0]), clips.decode_clip(encoded("OGG")), atol=2e-5)


def test_ms_swift_reads_it(sealed: Path, tmp_path: Path) -> None:
    made = export_set(sealed, "ms-swift", tmp_path / "out")
    check(list(read_ms_swift(made.path / "train.jsonl")))
    held_out = [messages[-1][1] for messages, _ in read_ms_swift(made.path / "validation.jsonl")]
    assert held_out == ["answer 3\n\nline two", "answer 7\n\nline two"]
    assert made.summary["rows"] == {"train": 4, "validation": 2} and made.summary["clips"] == 7
    assert {reason: one["n"] for reason, one in made.summary["left_out"].items() if one["n"]} == {
        "no_answer": 1,
        "tag": 1,
    }
    assert str(tmp_path) not in (made.path / "train.jsonl").read_text()


def test_llama_factory_reads_it(sealed: Path, tmp_path: Path) -> None:
    made = export_set(sealed, "llama-factory", tmp_path / "out")
    check(list(read_llama_factory(made.path, "alignment_train")))
    assert len(list(read_llama_factory(made.path, "alignment_validation"))) == 2


def test_the_datasets_library_reads_the_lines(sealed: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    export_set(sealed, "ms-swift", tmp_path / "out")
    found = load_dataset(
        "json", data_files=str(tmp_path / "out" / "train.jsonl"), cache_dir=str(tmp_path / "cache")
    )
    assert len(found["train"]) == 4 and len(found["train"][3]["audios"]) == 2


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_killed_export_goes_on_and_ends_as_one_that_was_not(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tree(export_set(sealed, "ms-swift", tmp_path / "whole").path)
    read, seen = export._records, list[str]()

    def killed(shard: Path) -> Iterator[dict[str, Any]]:
        seen.append(shard.name)
        for number, record in enumerate(read(shard)):
            if shard.name == "part-1.parquet" and number == 3 and len(seen) == 2:
                raise KeyboardInterrupt
            yield record

    monkeypatch.setattr(export, "_records", killed)
    with pytest.raises(KeyboardInterrupt):
        export_set(sealed, "ms-swift", tmp_path / "out")
    assert not (tmp_path / "out" / SUMMARY).exists() and not (tmp_path / "out" / "train.jsonl").exists()
    export_set(sealed, "ms-swift", tmp_path / "out")
    assert seen == [
        "part-0.parquet",
        "part-1.parquet",
        "part-1.parquet",
    ]  # the finished shard is not read again
    assert tree(tmp_path / "out") == whole and not (tmp_path / "out" / PARTS).exists()


def test_a_finished_export_is_left_alone(
    sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = export_set(sealed, "ms-swift", tmp_path / "out")
    clip = next((tmp_path / "out" / "clips").rglob("*.flac"))
    before = clip.stat().st_mtime_ns
    assert export_set(sealed, "ms-swift", tmp_path / "out").summary == first.summary
    assert clip.stat().st_mtime_ns == before and "complete already" in capsys.readouterr().err


def test_what_is_no_place_for_it_is_refused(sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'ms-swift'"):
        export_set(sealed, "msswift", tmp_path / "out")
    with pytest.raises(UserError, match="no finished alignment set"):
        export_set(tmp_path / "nothing", "ms-swift", tmp_path / "out")
    with pytest.raises(UserError, match="is the alignment set itself"):
        export_set(sealed, "ms-swift", sealed)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        export_set(sealed, "ms-swift", tmp_path / "mine")
    export_set(sealed, "ms-swift", tmp_path / "out")
    with pytest.raises(UserError, match="another export run"):
        export_set(sealed, "llama-factory", tmp_path / "out")


def test_a_replaced_clip_ends_the_export(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "x.wav").write_bytes(encoded("WAV"))
    beside = row(0, encoded("WAV"), audio={"bytes": None, "path": "x.wav"})
    pq.write_table(pa.Table.from_pylist([beside], schema=shard_schema()), folder / "a.parquet")
    seal_alignment_set(folder)
    (folder / "x.wav").write_bytes(encoded("WAV", 0.3))
    assert AlignmentSet.open(folder).rows()
    with pytest.raises(UserError, match="the clip of c/0 in .* was replaced"):
        export_set(folder, "ms-swift", tmp_path / "out")
