"""DOWIS from a local copy with its real schema, around FLEURS: spoken and written instructions of the same items."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Audio, Features, Value

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.runner import evaluate
from rba_bench.evaluation.sources.source import Place, load_source
from rba_bench.leaderboard.compare_runs import compare_runs
from tests.evaluation.sources import speech_sets
from tests.evaluation.sources.speech import audio_cell, encoded

VOICES = ("female_1", "female_2", "male_1", "male_2")
STYLES = ("basic", "formal", "informal", "detailed", "short")
SCHEMA = Features(
    {
        "text_prompt": Value("string"),
        **{f"audio_prompt_{voice}": Audio(sampling_rate=None) for voice in VOICES},
        **{name: Value("string") for name in ("language", "task", "prompt_type")},
    }
)
WORDS = {
    ("de", "st"): "Bitte übersetze das auf Deutsch, Fassung {}.",
    ("en", "st"): "Please translate the recording into English, wording {}.",
    ("en", "asr"): "Please transcribe clip {}.",
    ("en", "sqa"): "Listen and answer number {}: <question>.",
}
RECORDED = {"de": VOICES, "en": ("female_1", "male_1")}  # as in DOWIS: not every language has four people


def rows() -> list[dict[str, Any]]:
    found = []
    for (language, task), words in WORDS.items():
        for number in range(10):
            text = words.format(number)
            cells = {
                f"audio_prompt_{voice}": audio_cell(
                    encoded(f"{text} {voice}", "WAV", "PCM_16"), f"{voice}.wav"
                )
                if voice in RECORDED[language]
                else None
                for voice in VOICES
            }
            facts = {"language": language, "task": task, "prompt_type": STYLES[number // 2]}
            found.append({"text_prompt": text, **cells, **facts})
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DOWIS in two shards beside FLEURS, as `hf download` lays them out."""
    root = tmp_path_factory.mktemp("data")
    every = rows()
    for shard, part in enumerate((every[:15], every[15:])):
        path = root / "maikezu" / "dowis" / "data" / f"test-0000{shard}-of-00002.parquet"
        speech_sets.write_parquet(path, part, SCHEMA)
    for code in ("en", "de"):
        speech_sets.write_fleurs(root / "google" / "fleurs", code)
    return root


def items(place: Path, **options: Any) -> list[dict[str, Any]]:
    return load_source("dowis", {"task": "fleurs_en_de", **options}, Place(place)).documents


def test_the_instruction_is_heard_and_not_read(place: Path) -> None:
    plain = load_source("fleurs", {"pair": "en_us-de_de"}, Place(place)).documents
    found = items(place)
    assert len(found) == len(plain) > 5
    for before, after in zip(plain, found, strict=True):
        kept = ("id", "kind", "references", "source_lang", "target_lang", "group", "cluster", "instruction")
        assert {name: before[name] for name in kept} == {name: after[name] for name in kept}
        assert before["prompt"] and after["prompt"] == ""
        prefix = after["audio"]["prefix"]
        assert prefix["transcript"].startswith(
            "Bitte übersetze"
        )  # into German: the target chooses the language
        assert prefix["column"].startswith("audio_prompt_")
        heard, alone = model_input.load_wave(after["audio"]), model_input.load_wave(before["audio"])
        np.testing.assert_array_equal(heard[-len(alone) :], alone)
        assert len(heard) == pytest.approx(after["duration"] * 16_000, abs=3)
        assert model_input.spoken_text(after["audio"]) == f"{prefix['transcript']} {before['instruction']}"


def test_spoken_and_written_differ_in_the_form_alone(place: Path) -> None:
    spoken, written = items(place), items(place, form="written")
    for heard, read in zip(spoken, written, strict=True):
        assert heard["id"] == read["id"] and heard["audio"]["sha256"] == read["audio"]["sha256"]
        assert read["prompt"] == heard["audio"]["prefix"]["transcript"]
        assert "prefix" not in read["audio"]
        facts = [json.loads(doc["extra"])["dowis"] for doc in (heard, read)]
        assert [fact.pop("form") for fact in facts] == ["spoken", "written"] and facts[0] == facts[1]


def test_wordings_styles_and_voices_vary_with_the_seed_and_obey_the_options(place: Path) -> None:
    def facts(**options: Any) -> list[tuple[str, str]]:
        told = [json.loads(doc["extra"])["dowis"] for doc in items(place, **options)]
        return [(fact["style"], fact["voice"]) for fact in told]

    assert facts() == facts() != facts(seed=7)
    assert len({style for style, _ in facts()}) > 1 and len({voice for _, voice in facts()}) > 1
    assert set(facts(styles="short", voices=["male_2"])) == {("short", "male_2")}


def test_a_voice_that_did_not_record_is_never_drawn(place: Path) -> None:
    docs = load_source("dowis", {"task": "fleurs_de_en"}, Place(place)).documents
    assert {json.loads(doc["extra"])["dowis"]["voice"] for doc in docs} <= set(RECORDED["en"])
    with pytest.raises(UserError, match="no recorded st prompt in 'en'"):
        load_source("dowis", {"task": "fleurs_de_en", "voices": ["male_2"]}, Place(place))


def test_transcription_has_prompts_of_its_own(place: Path) -> None:
    loaded = load_source("dowis", {"task": "asr_fleurs_en"}, Place(place))
    assert {doc["kind"] for doc in loaded.documents} == {"asr"}
    assert loaded.documents[0]["audio"]["prefix"]["transcript"].startswith("Please transcribe")
    assert loaded.origin["prompts"] == {"en": 10} and loaded.origin["published_items"] == 1320
    assert loaded.origin["items"]["repo"] == "google/fleurs"
    assert str(place) not in json.dumps(loaded.origin)


def test_the_question_is_not_in_the_words_of_its_prompt() -> None:
    from rba_bench.evaluation.sources.dowis import _as_spoken

    assert _as_spoken("Listen and answer: <question>.") == "Listen and answer"
    assert _as_spoken("tell me the answer to <question> ?") == "tell me the answer to"
    assert _as_spoken(" In English, please. ") == "In English, please."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "lack task"),
        ({"task": "no_such_task"}, "no task 'no_such_task'"),
        ({"task": "dowis_fleurs_en_de"}, "spoken already"),
        ({"task": "micro_alpacaeval"}, "of kind instruct"),
        ({"task": "fleurs_en_de", "form": "sung"}, "spoken or written"),
        ({"task": "fleurs_en_de", "styles": ["curt"]}, "styles are some of"),
        ({"task": "fleurs_en_de", "language": "zh"}, "its languages are cs, de"),
    ],
)
def test_what_cannot_be_spoken_is_said(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source("dowis", options, Place(place))


def test_without_dowis_the_message_says_how_to_get_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "google").symlink_to(place / "google")
    with pytest.raises(MissingPrerequisite, match="hf download maikezu/dowis"):
        items(tmp_path)


def test_the_two_forms_are_compared_item_by_item(place: Path, tmp_path: Path) -> None:
    tasks = ("dowis_fleurs_en_de", "dowis_fleurs_en_de_written")
    request = EvalRequest(
        tasks=tasks, model="constant", track="full", out=tmp_path, device="cpu", data_dir=place
    )
    evaluate(request)
    spoken, written = (next(tmp_path.glob(f"*/{task}-*")) for task in tasks)
    with pytest.raises(UserError, match="different tasks"):
        compare_runs(spoken, written)
    (comparison,) = compare_runs(spoken, written, across=True).comparisons
    assert {contrast.metric for contrast in comparison.metrics} == {"bleu", "chrf++"}
    for contrast in comparison.metrics:  # a model that hears nothing loses nothing by listening
        assert contrast.difference.value == 0 and contrast.ties == contrast.n == comparison.first.record.n
    assert "different tasks" in "\n".join(comparison.heading())
    assert "different tasks" in comparison.to_dict()["across"]
