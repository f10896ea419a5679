"""Held-out instructions in four voices: which are drawn, how they are grouped, and a run of the micro task."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rba_bench.audio import clips
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources.source import Place, load_source
from rba_bench.files import sha256_bytes
from tests.evaluation.sources.speech import said
from tests.evaluation.sources.test_topics import write_set

NAME = "micro_speaker_consistency"


def rows(n: int, voices: int, split: str = "validation", prefix: str = "i") -> Iterator[dict[str, Any]]:
    for number in range(n):
        text = f"{split} question number {number}"
        for voice in range(voices):
            wave = said(text, voice)[: 8_000 + 1_600 * voice]
            data = clips.encode_flac(wave, 16_000)
            yield {
                **dict.fromkeys(("prompt", "difficulty"), ""),
                "id": f"{prefix}{number}-{voice}",
                "group_id": f"{prefix}{number}",
                "kind": "instruct",
                "instruction": text,
                "response": "the teacher's",
                "source_lang": "en",
                "target_lang": "en",
                "topic": "planning" if number % 2 else "others",
                "voice": f"voice-{voice}",
                "split": split,
                "audio": {"bytes": data, "path": "x.flac"},
                "audio_sha256": sha256_bytes(data),
                "sampling_rate": 16_000,
                "duration": len(wave) / 16_000,
            }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six held-out instructions in six voices, one in three, and what must not be drawn."""
    few = [row for row in rows(1, 3, prefix="few") for row in ({**row, "instruction": "hardly heard"},)]
    other = [{**row, "kind": "qa", "instruction": "who is it"} for row in rows(1, 6, prefix="qa")]
    everything = [*rows(6, 6), *few, *other, *rows(2, 6, "train", "t")]
    return write_set(tmp_path_factory.mktemp("sets") / "set", everything)


def groups(documents: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for document in documents:
        found[document["cluster"]].append(document)
    return dict(found)


def test_every_drawn_instruction_comes_in_as_many_voices(folder: Path) -> None:
    loaded = load_source("consistency", {"n_instructions": 4, "n_voices": 4}, Place(folder))
    found = groups(loaded.documents)
    assert len(loaded.documents) == 16 and [len(members) for members in found.values()] == [4] * 4
    for members in found.values():
        assert len({m["instruction"] for m in members}) == 1
        assert len({m["voice"] for m in members}) == 4
        assert {m["kind"] for m in members} == {"chat"}
        assert all(m["instruction"].startswith("validation") for m in members)
    assert loaded.origin["instructions"] == 4 and loaded.origin["voices"] == 4
    assert loaded.origin["split"] == "validation" and len(loaded.origin["revision"]) == 64
    assert str(folder) not in json.dumps(loaded.origin)
    heard = model_input.load_wave(loaded.documents[0]["audio"])
    assert len(heard) == pytest.approx(loaded.documents[0]["duration"] * 16_000, abs=1)
    voices = {frozenset(m["voice"] for m in members) for members in found.values()}
    assert len(voices) > 1  # not the same four for every instruction


def test_the_draw_is_seeded_and_grows_from_the_same_start(folder: Path) -> None:
    def drawn(n: int, seed: int = 1) -> list[str]:
        options = {"n_instructions": n, "n_voices": 2, "seed": seed}
        return [d["id"] for d in load_source("consistency", options, Place(folder)).documents]

    assert drawn(3) == drawn(3) == drawn(6)[:6]
    assert drawn(3) != drawn(3, seed=2)


def test_fewer_instructions_than_asked_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_source("consistency", {}, Place(folder))
    assert loaded.origin["instructions"] == 6 and len(loaded.documents) == 24
    assert "6 instructions in 4 voices, 500 are asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_voices": 9}, r"9 voices \(at most 6\)"),
        ({"n_voices": 1}, "at least 2"),
        ({"n_voice": 4}, "did you mean 'n_voices'"),
        ({"split": "test"}, "splits there: train, validation"),
    ],
)
def test_wrong_options_are_named(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source("consistency", options, Place(folder))


def test_without_a_set_the_message_says_how_to_make_one(tmp_path: Path) -> None:
    for place in (Place(), Place(tmp_path)):
        with pytest.raises(MissingPrerequisite, match="rba-bench synth"):
            load_source("consistency", {}, place)


def test_the_micro_task_runs_and_its_score_is_that_of_its_samples(tmp_path: Path) -> None:
    from rba_bench.evaluation.plan import EvalRequest
    from rba_bench.evaluation.records import read_samples
    from rba_bench.evaluation.runner import evaluate

    request = EvalRequest(tasks=(NAME,), model="constant", out=tmp_path, limit=12, device="cpu")
    evaluate(request)
    (run,) = (file.parent for file in tmp_path.rglob("run.json"))
    record = json.loads((run / "run.json").read_text())
    assert (
        record["metrics"]["answer_agreement"]["value"] == 1.0
    )  # who always says the same agrees with himself
    assert set(record["metrics"]) == {"answer_agreement", "answer_overlap"}
    samples = read_samples(run)
    assert len(samples) == 12 and len({sample.cluster for sample in samples}) == 3
    assert len({sample.audio_sha256 for sample in samples}) == 12
