"""Published layouts in, an alignment set out: what is missing or broken is told, a killed run goes on."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from rba_bench.audio import clips
from rba_bench.audio.alignment_index import IndexedSet
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.turns import Turn, turn_clips
from rba_bench.cards import CARD
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.synthesis import import_layouts, importing
from rba_bench.synthesis.import_layouts import json_entries
from rba_bench.synthesis.importing import DROPPED, ImportOptions, import_set

RATE = 22_050  # of the clips of VoiceAssistant-400K


def wave(number: int, seconds: float = 0.2) -> np.ndarray:
    return (0.2 * np.sin(np.arange(round(seconds * RATE)) * (number + 2) / 60)).astype(np.float32)


def wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, RATE, format="WAV")
    return buffer.getvalue()


def voiceassistant(folder: Path) -> Path:
    """Two files with the columns of gpt-omni/VoiceAssistant-400K; the second begins with the end of a dialogue."""
    names = ("split_name", "index", "round", "question", "question_audio", "answer", "answer_snac")

    def line(number: int, index: str, turn: Any, data: bytes | None, **changes: Any) -> dict[str, Any]:
        audio = {"bytes": data, "path": f"{index}.wav"}
        values = (
            "qa_assistant_v1_7k",
            index,
            turn,
            f"question  {number} ?",
            audio,
            f"answer {number}",
            "# 1 2",
        )
        return {**dict(zip(names, values, strict=True)), **changes}

    parts = [
        [
            line(0, "a", 1, wav(wave(0))),
            line(1, "b", 1, wav(wave(1))),
            line(2, "b", 2, wav(wave(2))),
            line(3, "c", 1, None),
            line(4, "d", 1, b"RIFF broken"),
            line(5, "e", 1, wav(np.zeros(4_000, dtype=np.float32))),
            line(6, "f", 1, wav(wave(6, 3.0))),
            line(7, "g", 1, wav(wave(7)), answer=" "),
        ],
        [line(8, "h", 2, wav(wave(8))), line(9, "i", 1, wav(wave(9)), answer="one\n\n\n\ntwo  \n")],
    ]
    (folder / "data").mkdir(parents=True)
    for number, part in enumerate(parts):
        path = folder / "data" / f"train-{number:05d}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=3)
    return folder


VOICEASSISTANT_REASONS = {
    "broken_clip": 2,  # one without bytes, one that is no audio
    "silent": 1,
    "too_long": 1,
    "no_answer": 1,
    "layout": 1,
}


def instructs2s(folder: Path) -> Path:
    """A JSON list as of ICTNLP/InstructS2S-200K, with speech below a folder of the authors' machine."""
    (folder / "wav").mkdir(parents=True)

    def turn(who: str, number: int, text: str, **changes: Any) -> dict[str, Any]:
        path = folder / "wav" / f"{number}.wav"
        path.write_bytes(wav(wave(number)))
        speech = f"data/multiturn_instruction/en/wav/{number}.wav"
        unit = {"unit": "12 7"} if who == "gpt" else {}
        return {"from": who, "speech": speech, "text": text, **unit, **changes}

    entries = [
        {
            "id": "helpful/1",
            "conversation": [
                *(turn("human", 0, "Hey, what  is a lake?"), turn("gpt", 1, "Water.")),
                *(turn("human", 2, "And a sea?"), turn("gpt", 3, "More water.")),
                *(turn("human", 4, "Thanks."), turn("gpt", 5, "You are welcome.")),
            ],
        },
        {
            "id": "helpful/2",
            "conversation": [
                turn("human", 6, "Gone?", speech="data/multiturn_instruction/en/wav/gone.wav"),
                *(turn("gpt", 7, "It is gone."), turn("human", 8, "Still there?"), turn("gpt", 9, "Yes.")),
            ],
        },
        {"id": "odd", "conversation": [turn("gpt", 10, "I speak first.")]},
        {
            "id": "climbs",
            "conversations": [turn("human", 11, "Up?", speech="../../etc/x.wav"), turn("gpt", 12, "No.")],
        },
        {"id": "none"},
    ]
    (folder / "instruct_en.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
    return folder


def desta(folder: Path) -> Path:
    """Lines as of DeSTA-AQA5M and its training guide, with the audio of two corpora."""
    (folder / "LibriTTS_R").mkdir(parents=True)
    (folder / "LibriTTS_R" / "93_1.wav").write_bytes(wav(wave(1)))
    (folder / "ESC50").mkdir()
    (folder / "ESC50" / "1-100.wav").write_bytes(wav(wave(2)))

    def line(path: str, text: str, answer: str, content: str, **changes: Any) -> dict[str, Any]:
        user = {"role": "user", "content": content, "audios": [{"audio": path, "text": text}]}
        system = {"role": "system", "content": "Focus on the audio clips and instructions.", "audios": []}
        names = {
            "id": path,
            "dataset": path.split("/")[0],
            "seed_description": f"[00:00-00:02] {text}(Sound: bell)",
        }
        return {**names, "prompt": content, "response": answer, "messages": [system, user], **changes}

    tagged = "<start_audio><|AUDIO|><end_audio>\n"
    entries = [
        line("LibriTTS_R/93_1.wav", "Hello, how are you?", "A person greets.", f"{tagged}What is said?"),
        line("LibriTTS_R/93_1.flac", "Hello, how are you?", "Polite.", "Rate the tone. <|AUDIO|>"),
        line("ESC50/1-100.wav", " ", "A bell rings.", f"{tagged}What is this?"),
        line("ESC50/9-999.wav", " ", "Nothing.", f"{tagged}What is this?"),
        line("ESC50/1-100.wav", " ", "Two.", f"{tagged}{tagged}Compare."),
        {"id": "x", "messages": "text", "response": "y"},
    ]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "audio.0.jsonl").write_text(text, encoding="utf-8")
    return folder


def reasons(out: Path) -> Counter[str]:
    lines = (out / DROPPED).read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["reason"] for line in lines)


def test_voiceassistant(tmp_path: Path) -> None:
    source = voiceassistant(tmp_path / "source")
    made = import_set(source, tmp_path / "out", ImportOptions("voiceassistant-400k", max_seconds=2.0))
    rows = made.rows()
    assert [row.instruction for row in rows] == [f"question {number} ?" for number in (0, 1, 2, 9)]
    assert rows[3].response == "one\n\ntwo" and rows[0].topic == "qa_assistant_v1_7k"
    assert rows[2].turns == (Turn("question 1 ?", "answer 1"),) and not rows[1].turns
    assert made.manifest["schema_version"] == 2
    found = clips.load_clip(rows[0].audio)
    assert len(found) == round(0.2 * 16_000) and rows[0].audio.sampling_rate == 16_000
    np.testing.assert_allclose(found, clips.decode_clip(wav(wave(0))), atol=4e-5)
    assert reasons(made.path) == VOICEASSISTANT_REASONS
    dropped = {k: one["n"] for k, one in made.manifest["imported"]["dropped"].items() if one["n"]}
    assert dropped == reasons(made.path)
    card = (made.path / CARD).read_text()
    assert "imported by `rba-bench synth import`" in card and "left out, too_long" in card


def test_instructs2s_gives_a_row_for_each_exchange(tmp_path: Path) -> None:
    made = import_set(instructs2s(tmp_path / "source"), tmp_path / "out", ImportOptions("instructs2s-200k"))
    rows = made.rows()
    first = Turn("Hey, what is a lake?", "Water.")
    assert [(row.instruction, row.response, row.turns) for row in rows] == [
        (first.instruction, first.response, ()),
        ("And a sea?", "More water.", (first,)),
        ("Thanks.", "You are welcome.", (first, Turn("And a sea?", "More water."))),
        ("Still there?", "Yes.", (Turn("Gone?", "It is gone."),)),
    ]
    assert len({row.split for row in rows[:3]}) == 1  # a dialogue lies on one side
    earlier = [None if data is None else clips.decode_clip(data) for data in turn_clips(rows[2].audio)]
    np.testing.assert_array_equal(earlier[0], clips.load_clip(rows[0].audio))
    np.testing.assert_array_equal(earlier[1], clips.load_clip(rows[1].audio))
    assert turn_clips(rows[3].audio) == (None,)  # its clip is gone, its words are known
    assert reasons(made.path) == {"missing_clip": 1, "layout": 2, "no_clip": 1}
    assert len(IndexedSet(made).index.ids) == 4


def test_desta(tmp_path: Path) -> None:
    made = import_set(desta(tmp_path / "source"), tmp_path / "out", ImportOptions("desta-aqa5m"))
    assert [(row.prompt, row.instruction, row.response) for row in made.rows()] == [
        ("What is said?", "Hello, how are you?", "A person greets."),
        ("Rate the tone.", "Hello, how are you?", "Polite."),  # found with the ending .wav
        ("What is this?", "[00:00-00:02] (Sound: bell)", "A bell rings."),
    ]
    assert made.manifest["schema_version"] == 1 and made.rows()[2].topic == "ESC50"
    assert reasons(made.path) == {"missing_clip": 1, "layout": 2}


def test_audio_may_lie_elsewhere_and_ids_stay(tmp_path: Path) -> None:
    source = desta(tmp_path / "source")
    whole = import_set(source, tmp_path / "a", ImportOptions("desta-aqa5m"))
    lines = shutil.copy(source / "audio.0.jsonl", tmp_path / "audio.0.jsonl")
    shutil.move(source, tmp_path / "moved")
    apart = import_set(Path(lines), tmp_path / "b", ImportOptions("desta-aqa5m", audio=tmp_path / "moved"))
    assert apart.sha256 == whole.sha256
    with pytest.raises(MissingPrerequisite, match="--audio names where"):
        import_set(Path(lines), tmp_path / "c", ImportOptions("desta-aqa5m", audio=tmp_path / "nothing"))


def test_a_killed_import_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "DIALOGUES", 3)
    source, options = voiceassistant(tmp_path / "source"), ImportOptions("voiceassistant-400k")
    whole = import_set(source, tmp_path / "whole", options)
    write, written = importing.write_shard, list[str]()

    def killed(out: Path, name: str, *given: Any, **facts: Any) -> dict[str, Any]:
        if len(written) == 2:
            written.append("killed")
            raise KeyboardInterrupt
        written.append(name)
        return write(out, name, *given, **facts)

    monkeypatch.setattr(importing, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        import_set(source, tmp_path / "out", options)
    made = import_set(source, tmp_path / "out", options)
    assert [Path(name).stem for name in written] == [
        *("part-00000", "part-00001", "killed", "part-00002", "part-00003")
    ]
    assert made.sha256 == whole.sha256
    assert (made.path / DROPPED).read_bytes() == (whole.path / DROPPED).read_bytes()
    assert import_set(source, tmp_path / "out", options).sha256 == whole.sha256 and len(written) == 5


def test_a_recording_that_comes_later_is_found_by_an_unfinished_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, options = desta(tmp_path / "source"), ImportOptions("desta-aqa5m")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "seal_alignment_set", killed)
        with pytest.raises(KeyboardInterrupt):
            import_set(source, tmp_path / "out", options)
    (source / "ESC50" / "9-999.wav").write_bytes(wav(wave(3)))
    assert len(import_set(source, tmp_path / "out", options).rows()) == 4


def test_the_split_follows_from_the_words(tmp_path: Path) -> None:
    options = ImportOptions("instructs2s-200k", validation=0.5)
    entries = [
        {"id": f"{number}", "conversation": [
            {"from": "human", "text": f"question {number % 20}", "speech": "0.wav"}, {"from": "gpt", "text": "yes"},
        ]}
        for number in range(40)
    ]  # fmt: skip
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "0.wav").write_bytes(wav(wave(0)))
    (tmp_path / "source" / "a.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    rows = import_set(tmp_path / "source", tmp_path / "out", options).rows()
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row.instruction, set()).add(row.split)
    assert len(rows) == 40 and all(len(split) == 1 for split in sides.values())
    assert {split for each in sides.values() for split in each} == {"train", "validation"}
    limited = ImportOptions("instructs2s-200k", validation=0.5, limit=5)
    assert len(import_set(tmp_path / "source", tmp_path / "few", limited).rows()) == 5


@pytest.mark.parametrize(
    ("make", "layout", "message"),
    [
        (voiceassistant, "voice-assistant-400k", "did you mean 'voiceassistant-400k'"),
        (desta, "voiceassistant-400k", "no .parquet files below"),
        (instructs2s, "desta-aqa5m", "no clip of the set can be used: layout 5"),
        (desta, "instructs2s-200k", "no clip of the set can be used: layout 6"),
    ],
)
def test_a_set_of_another_layout(
    tmp_path: Path, make: Callable[[Path], Path], layout: str, message: str
) -> None:
    source = make(tmp_path / "source")
    with pytest.raises(RbaError, match=message):
        import_set(source, tmp_path / "out", ImportOptions(layout))
    if "no clip" in message:
        assert sum(reasons(tmp_path / "out").values()) == int(message.split()[-1])


def test_the_output_may_lie_in_the_folder_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, options = voiceassistant(tmp_path / "source"), ImportOptions("voiceassistant-400k")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "seal_alignment_set", killed)
        with pytest.raises(KeyboardInterrupt):
            import_set(source, source / "out", options)
    assert len(import_set(source, source / "out", options).rows()) == 5


def test_what_is_no_set_and_no_place_for_one(tmp_path: Path) -> None:
    options = ImportOptions("voiceassistant-400k")
    with pytest.raises(MissingPrerequisite, match="download the set first"):
        import_set(tmp_path / "nothing", tmp_path / "out", options)
    source = voiceassistant(tmp_path / "source")
    with pytest.raises(UserError, match="is the folder of the source"):
        import_set(source, source, options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        import_set(source, tmp_path / "mine", options)
    with pytest.raises(UserError, match="a validation share of 1"):
        import_set(source, tmp_path / "out", ImportOptions("voiceassistant-400k", validation=1.0))
    pq.write_table(pa.table({"question": ["a"]}), source / "data" / "train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="lacks the columns answer, question_audio"):
        import_set(source, tmp_path / "out", options)


def test_names_and_words_that_no_file_can_hold_cost_their_row(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "0.wav").write_bytes(wav(wave(0)))
    said = [
        ("fine", "0.wav"),
        ("half \ud800 a pair", "0.wav"),
        ("long", "x" * 300 + ".wav"),
        ("nul", "a\0b.wav"),
        ("number", 7),
        ("half", "\udfff.wav"),
        (None, "0.wav"),
    ]
    entries = [
        {
            "id": "\ud800",
            "conversation": [{"from": "human", "text": text, "speech": path}, {"from": "gpt", "text": "b"}],
        }
        for text, path in said
    ]
    (tmp_path / "source" / "a.json").write_text(json.dumps(entries))
    made = import_set(tmp_path / "source", tmp_path / "out", ImportOptions("instructs2s-200k"))
    assert [row.instruction for row in made.rows()] == ["fine"]
    assert reasons(made.path) == {"no_instruction": 2, "no_clip": 3, "missing_clip": 1}


@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_a_long_list_is_read_entry_by_entry(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_layouts, "CHUNK", chunk)
    entries = [{"id": number, "text": 'a "]}, {" b ünï' * number} for number in range(9)]
    for name, text in (
        ("list.json", json.dumps(entries, indent=2)),
        ("tight.json", json.dumps(entries, separators=(",", ":"), ensure_ascii=False)),
        ("lines.jsonl", "\n" + "\n\n".join(json.dumps(entry) for entry in entries)),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert list(json_entries(tmp_path / name)) == entries
    for text, message in (
        (json.dumps(entries)[:-9], "cannot read"),
        ("[1, 2]", "entry 1 is not a JSON object"),
        ('{"a": 1}\n{', "cannot read"),
    ):
        (tmp_path / "torn.json").write_text(text)
        with pytest.raises(UserError, match=message):
            list(json_entries(tmp_path / "torn.json"))


def test_an_imported_set_opens_from_its_folder_alone(tmp_path: Path) -> None:
    made = import_set(instructs2s(tmp_path / "source"), tmp_path / "out", ImportOptions("instructs2s-200k"))
    shutil.rmtree(tmp_path / "source")
    moved = shutil.move(made.path, tmp_path / "moved")
    assert len(AlignmentSet.open(moved).rows()) == 4
