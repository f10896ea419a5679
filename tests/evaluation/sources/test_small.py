"""The track small as documents: one kind a task, told from its texts alone; other clips are another test set."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import documents, model_input, task_registry
from rba_bench.evaluation.sources.small import load_small, small_texts
from rba_bench.evaluation.sources.source import LoadedSet, Place, load_source
from rba_bench.leaderboard.test_sets import load_test_set
from rba_bench.small import testsets

ASR_DEV = {"set": "small_asr", "split": "dev"}
TASKS = [spec for spec in task_registry.list_tasks() if spec.track == "small"]


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., LoadedSet]:
    """Loads the first items of the development sentences, spoken with something added to every sample."""
    pytest.importorskip("espeakng_loader")
    load_items, engine_of_bank = testsets.load_items, testsets.engine_of_bank
    monkeypatch.setattr(testsets, "load_items", lambda name, split: load_items(name, split)[:4])

    def load(place: str, added: float = 0.0) -> LoadedSet:
        monkeypatch.setenv("RBA_CACHE", str(tmp_path / place))
        monkeypatch.setattr(
            testsets,
            "engine_of_bank",
            lambda bank: replace(
                engine_of_bank(bank), speak=lambda *said: engine_of_bank(bank).speak(*said) + added
            ),
        )
        return load_source("small", ASR_DEV, Place())

    return load


def test_clips_are_decoded_and_their_texts_are_those_told_without_speaking(speak: Any) -> None:
    loaded = speak("here")
    told = [documents.changed(each, duration=0.0) for each in loaded.documents]
    silent = small_texts(ASR_DEV).documents
    bare = {"audio": None}
    assert [{**each, **bare} for each in told] == [{**each, **bare} for each in silent]
    for document in loaded.documents:
        wave = model_input.load_wave(document["audio"])
        assert len(wave) / 16_000 == pytest.approx(document["duration"])
        assert document["references"] == [document["instruction"]] and document["kind"] == "asr"
    assert loaded.origin == {"set": "small_asr", "split": "dev"}


def test_a_build_that_differs_in_the_last_bit_is_another_test_set(speak: Any) -> None:
    here, again, elsewhere = speak("a"), speak("b"), speak("c", added=2.0**-15)
    prints = [documents.set_fingerprint(loaded.documents) for loaded in (here, again, elsewhere)]
    assert prints[0] == prints[1]
    assert prints[2]["items_sha256"] == prints[0]["items_sha256"]
    assert prints[2]["audio_set_sha256"] != prints[0]["audio_set_sha256"]


@pytest.mark.parametrize("spec", TASKS, ids=lambda spec: spec.name)
def test_every_task_has_items_of_one_kind_whose_texts_a_board_compares(
    spec: task_registry.TaskSpec,
) -> None:
    test_set, note = load_test_set(spec, None)
    assert test_set is not None and not test_set.has_audio and "only its texts" in note
    kinds = {document["kind"] for document in test_set.documents}
    assert len(kinds) == 1 and len({document["id"] for document in test_set.documents}) == len(
        test_set.documents
    )
    if kinds == {"ifeval"}:  # the rate is the mean over parts
        sizes = Counter(document["group"] for document in test_set.documents)
        assert sizes["open"] == sizes["closed"]


def test_judged_instructions_have_an_answer_to_beat_and_no_rule() -> None:
    judged = small_texts({"set": "small_instruct", "judged": True})
    ruled = [each for each in small_texts({"set": "small_instruct"}).documents if each["group"] == "open"]
    assert [each["id"] for each in judged.documents] == [each["id"] for each in ruled]
    assert all(each["kind"] == "chat" and not each["extra"] for each in judged.documents)
    assert all(each["baseline"].strip() for each in judged.documents)
    assert all(json.loads(each["extra"])["instructions"] for each in ruled)
    assert judged.origin["baseline"]["name"] == "smollm2-135m-instruct"
    assert judged.origin["baseline"]["unmatched"] == 0


def test_the_track_runs_whole_without_the_judged_task() -> None:
    names = [spec.name for spec in task_registry.resolve_tasks(["small"], "small")]
    assert "small_instruct_open" not in names and names == [spec.name for spec in TASKS if not spec.variant]
    assert task_registry.DEFAULTS["small"] == ("small",)


def test_unknown_sets_and_splits_are_one_line() -> None:
    for options, message in (
        ({"set": "small_q"}, "no small set 'small_q'"),
        ({"set": "small_asr", "split": "train"}, "no split 'train'"),
        ({}, "dataset_kwargs lack set"),
    ):
        with pytest.raises(UserError, match=message):
            load_small(options, Place())
