"""A text benchmark becomes a spoken one: what is dropped, who speaks, what evaluation reads, resuming, mistakes."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.audio import clips
from rba_bench.audio.clips import AudioRef
from rba_bench.audio.espeak import BANKS
from rba_bench.audio.speech_engines import Speaker, engine_of_bank, find_speakers
from rba_bench.audio.spoken_benchmark import MANIFEST, SpokenBenchmark
from rba_bench.cards import CARD, front_matter
from rba_bench.cli.main import main
from rba_bench.errors import AudioError, MissingPrerequisite, RbaError, UserError
from rba_bench.evaluation.documents import read_documents
from rba_bench.evaluation.sources.source import LoadedSet, Place, load_source
from rba_bench.files import read_json, read_jsonl, sha256_file
from rba_bench.synthesis import speak
from rba_bench.synthesis.benchmark_layouts import TextItem
from rba_bench.synthesis.round_trip import ClipRules, RoundTrip, count_verdicts
from rba_bench.synthesis.speak import SpeakOptions, speak_benchmark

QUESTIONS = [
    {"id": "q1", "question": "Who wrote\nthe book?", "answers": ["Ann"], "topic": "books"},
    {"id": "code", "question": "What does print(x) == y do?", "answers": ["nothing"]},
    {"id": "q2", "question": "Where is the lake?", "answers": ["north", "up north"]},
    {"id": "bare", "question": "Who?", "answers": [" "]},
    {"id": "dots", "question": "...", "answers": ["a"]},
    {"id": "endless", "question": "well " * 17, "answers": ["a"]},
    {"id": "long", "question": "Please tell me once again who the tall lady was", "answers": ["Ann"]},
    {"id": "q3", "question": "Where is the lake?", "answers": ["north"]},
]
OPTIONS = SpeakOptions("jsonl", ("base",), recognizer="none", max_seconds=2.0)


def write(path: Path, entries: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def contents(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): sha256_file(path) for path in out.rglob("*") if path.is_file()}


def without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def loaded(out: Path, kind: str = "qa", **options: Any) -> LoadedSet:
    return load_source("spoken_benchmark", {"kind": kind}, Place.of(out, **options))


def test_what_cannot_be_said_is_dropped_and_evaluation_reads_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = speak_benchmark(write(tmp_path / "my.jsonl", QUESTIONS), out, OPTIONS)
    dropped = {line["text_id"]: line["reason"] for line in read_jsonl(out / "dropped.jsonl")}
    assert dropped == {
        "code": "unspeakable", "bare": "no_reference", "dots": "no_text", "endless": "too_long", "long": "too_long",
    }  # fmt: skip
    counts = made.manifest["counts"]
    assert (counts["texts"], counts["texts_kept"], counts["clips"]) == (8, 3, 3)
    assert counts["dropped"]["n"] == 5 and counts["dropped"]["share"] == 0.625
    assert counts["dropped"]["reasons"]["too_long"]["n"] == 2 and counts["unspeakable"] == {"code": 1}

    items = {item["id"]: item for item in loaded(out).documents}
    assert list(items) == ["q1", "q2", "q3"]
    assert items["q1"]["instruction"] == "Who wrote the book?" and items["q1"]["topic"] == "books"
    assert items["q2"]["references"] == ["north", "up north"]
    assert items["q2"]["cluster"] == items["q3"]["cluster"] != items["q1"]["cluster"]  # the same words
    wave = clips.load_clip(AudioRef(duration=0.0, **without(items["q1"]["audio"], "duration", "transcript")))
    voice = next(voice for voice in BANKS["base"] if voice.name == items["q1"]["voice"])
    said = engine_of_bank("base").speak("Who wrote the book?", "en", voice)
    assert np.abs(wave - said).max() < 2**-15 and items["q1"]["duration"] == len(wave) / 16_000
    assert [row["id"] for row in read_documents(made.files[0])] == ["q1", "q2", "q3"]  # a test set of ours

    origin = loaded(out).origin
    assert (origin["repo"], origin["revision"], origin["recognizer"]) == ("my", made.sha256, "none")
    assert origin["dropped"] == {"no_text": 1, "no_reference": 1, "unspeakable": 1, "too_long": 2}
    card = front_matter(out / CARD)
    assert card["configs"][0]["data_files"] == [{"split": "test", "path": "data/test-*.parquet"}]
    assert "62.5 %" in (out / CARD).read_text() and str(tmp_path) not in (out / MANIFEST).read_text()


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "my.jsonl", [{"instruction": f"Name the number {n}."} for n in range(8)])
    monkeypatch.setattr(speak, "CLIPS_PER_SHARD", 3)
    speak_benchmark(file, tmp_path / "whole", OPTIONS)
    out = tmp_path / "killed"

    spoken: list[str] = []
    engine = engine_of_bank("base")

    def counted(text: str, language: str, voice: Any) -> np.ndarray:
        if len(spoken) == 5:
            raise KeyboardInterrupt
        spoken.append(text)
        return engine.speak(text, language, voice)

    def speakers(names: Sequence[str]) -> list[Speaker]:
        return [Speaker(replace(engine, speak=counted), voice) for voice in BANKS["base"]]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(speak, "find_speakers", speakers)
        speak_benchmark(file, out, OPTIONS)
    assert not (out / MANIFEST).exists() and len(list((out / "data").iterdir())) == 1
    with pytest.raises(MissingPrerequisite, match="no finished spoken benchmark"):
        loaded(out, "chat")

    first = out / "data" / "test-00000-of-00003.parquet"
    untouched = first.stat().st_mtime_ns
    speak_benchmark(file, out, OPTIONS)
    assert first.stat().st_mtime_ns == untouched and contents(out) == contents(tmp_path / "whole")

    first.write_bytes(b"torn")
    with pytest.raises(UserError, match="damaged: run the same `rba-bench speak` again"):
        loaded(out, "chat")
    speak_benchmark(file, out, OPTIONS)
    assert contents(out) == contents(tmp_path / "whole")
    with pytest.raises(UserError, match="belongs to another speak run .* per_text: 1 -> 2"):
        speak_benchmark(file, out, replace(OPTIONS, per_text=2))


def test_a_text_that_the_engine_refuses_is_a_clip_without_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [{"id": f"{n}", "instruction": f"Name the number {n}."} for n in range(4)]
    engine = engine_of_bank("base")

    def picky(text: str, language: str, voice: Any) -> np.ndarray:
        if "2" in text:
            raise AudioError("the server refuses it")
        return engine.speak(text, language, voice)

    monkeypatch.setattr(
        speak,
        "find_speakers",
        lambda names: [Speaker(replace(engine, speak=picky), voice) for voice in BANKS["base"]],
    )
    made = speak_benchmark(write(tmp_path / "my.jsonl", texts), tmp_path / "out", OPTIONS)
    counts = read_json(tmp_path / "out" / MANIFEST)["counts"]
    assert made and counts["texts_kept"] == 3 and counts["dropped"]["reasons"]["silent"]["n"] == 1


def test_voices_come_in_turn_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    file = write(
        tmp_path / "my.jsonl", [{"id": f"{n}", "instruction": f"Name the number {n}."} for n in range(12)]
    )

    def voices(**changes: Any) -> dict[str, set[str]]:
        work = speak._Work.of(file, tmp_path, replace(OPTIONS, **changes))
        spoken = work._with_voices(work.texts.items)
        assert [item.id for item, _ in spoken] == [f"{n}" for n in range(12)]
        return {item.id: {speaker.name for speaker in speakers} for item, speakers in spoken}

    once, again, other = voices(), voices(), voices(seed=1)
    assert once == again != other
    assert set(Counter(name for names in once.values() for name in names).values()) == {3}
    assert [*once.values()][:4] != [{voice.name} for voice in BANKS["base"]]  # not simply as they stand
    assert all(len(names) == 3 for names in voices(per_text=3).values())
    with pytest.raises(UserError, match="--per-text 5 needs as many voices; --voices has 4"):
        voices(per_text=5)


class Given:
    """Transcribes every clip with the next of some given texts."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def identity(self) -> dict[str, Any]:
        return {}

    def fault(self, audio: np.ndarray | None) -> str:
        return ""

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        return [self.texts.pop(0) for _ in waves]


def test_clips_that_are_not_understood_are_dropped_and_counted_by_voice() -> None:
    one, two = (Speaker(engine_of_bank("base"), voice) for voice in BANKS["base"][:2])
    texts = [TextItem("chat", f"Say the word {word}.", word) for word in ("apple", "river")]
    given = Given("say the word apple", "say a bird apple", "he said", "SAY the: word river!")
    trip = RoundTrip(ClipRules("en", 30.0, max_wer=0.5), given, batch_size=3)
    advanced: list[int] = []
    rows, verdicts = trip.rows([(text, (one, two)) for text in texts], advanced.append)
    assert [(row["id"], row["asr_wer"]) for row in rows] == [
        ("apple-0", 0.0),
        ("apple-1", 0.5),
        ("river-1", 0.0),
    ]
    assert rows[1]["asr_text"] == "say a bird apple" and sum(advanced) == 4
    assert [verdict.reason for verdict in verdicts] == ["kept", "kept", "high_wer", "kept"]
    counts = count_verdicts([], verdicts, 2)
    assert counts["wer"] == {"kept": round(2 / 12, 4), "all": round(6 / 16, 4)}
    assert counts["voices"][one.name] == {"clips": 2, "kept": 1, "wer": 0.5}
    assert counts["voices"][two.name] == {"clips": 2, "kept": 2, "wer": 0.25}
    assert counts["texts_kept"] == 2 and counts["dropped"]["share"] == 0.25


def test_answers_of_reference_systems_are_baselines(tmp_path: Path) -> None:
    entries = [
        {"instruction": "Name a\ncolour.", "dataset": "koala", "first": "Red.", "second/v2": "Blue."},
        {"instruction": "Name a tree.", "dataset": "vicuna", "first": "Oak.", "second/v2": "Elm."},
    ]
    out = tmp_path / "out"
    speak_benchmark(
        write(tmp_path / "a.jsonl", entries), out, replace(OPTIONS, layout="alpacaeval", per_text=2)
    )
    own = loaded(out, "chat")
    assert [item["baseline"] for item in own.documents] == ["Red.", "Red.", "Oak.", "Oak."]
    assert own.origin["baseline"]["name"] == "first" and own.documents[0]["group"] == "koala"
    [other] = [file for file in (out / "baselines").iterdir() if file.name.startswith("second-v2")]
    named = loaded(out, "chat", baseline=str(other))
    assert [item["baseline"] for item in named.documents] == ["Blue.", "Blue.", "Elm.", "Elm."]
    assert named.origin["baseline"]["unmatched"] == 0

    bare = write(tmp_path / "b.jsonl", [{"instruction": "Name a tree."}])
    speak_benchmark(bare, tmp_path / "bare", OPTIONS)
    with pytest.raises(MissingPrerequisite, match="holds no answers to beat: .*--baseline none"):
        loaded(tmp_path / "bare", "chat")
    assert len(loaded(tmp_path / "bare", "chat", baseline="none").documents) == 1
    with pytest.raises(UserError, match="is evaluated with --task spoken_instructions"):
        loaded(tmp_path / "bare")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voices": ("bass",)}, "unknown bank of voices 'bass'; did you mean 'base'?"),
        ({"voices": ("base/m3",)}, "the bank base has no voice 'm3'"),
        ({"voices": ("clear-test,test",)}, "two voices of the name 'en-us+m2'"),
        ({"voices": ("mine.onnx",)}, "no Piper voice at mine.onnx"),
        ({"voices": (",",)}, "no voice is named"),
        ({"name": "a/b"}, "--name 'a/b' must consist of letters"),
        (
            {"language": "de", "recognizer": "asset:whisper-tiny.en"},
            "transcribes English only: name a recogniser of 'de'",
        ),
        ({"max_seconds": 0.1}, "no clip of 8 texts is kept: no_reference, no_text, too_long, unspeakable"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "my.jsonl", QUESTIONS)
    with pytest.raises(RbaError) as error:
        speak_benchmark(file, tmp_path / "out", replace(OPTIONS, **changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_voice_of_a_bank_and_one_voice_once() -> None:
    names = [speaker.name for speaker in find_speakers(["base/en+f2,clear-dev", "test/en-us+linda"])]
    assert names == ["en+f2", "en-us+Hugo", "en-us+m5", "en-us+linda"]
    assert [speaker.name for speaker in find_speakers(["base/en+f2", "base"])][:2] == ["en+f2", "en-us+m3"]


def test_the_command_prints_counts_and_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "my.jsonl", QUESTIONS), tmp_path / "out"
    words = ["speak", "--from", str(file), "--layout", "jsonl", "--voices", "base", "--recognizer", "none"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--out", str(out), "--json"])
    assert end.value.code in (None, 0)
    shown = json.loads(capsys.readouterr().out)
    assert (
        shown["counts"] == read_json(out / MANIFEST)["counts"]
        and shown["sha256"] == SpokenBenchmark.open(out).sha256
    )


@pytest.mark.assets
def test_a_real_recogniser_understands_a_natural_voice(tmp_path: Path) -> None:
    for name in ("piper-en_US-joe-medium", "whisper-tiny.en"):
        if not is_cached(ASSETS[name]):
            pytest.skip(f"fetch it with `rba-bench assets fetch {name}`")
    options = SpeakOptions("jsonl", ("natural",))
    made = speak_benchmark(
        write(tmp_path / "my.jsonl", [QUESTIONS[2], QUESTIONS[6]]), tmp_path / "out", options
    )
    assert made.manifest["counts"]["wer"]["all"] < 0.2 and made.manifest["counts"]["clips"] == 2
    recognizer = made.manifest["round_trip"]["recognizer"]
    assert recognizer["name"] == "asset:whisper-tiny.en" and len(recognizer["weights_sha256"]) == 64
