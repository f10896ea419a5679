"""The texts of the test sets, without speaking or downloading any."""

from dataclasses import replace
from pathlib import Path

import pytest

from rba_bench.audio.alignment_set import MANIFEST
from rba_bench.evaluation import documents, task_texts
from rba_bench.evaluation.sources.hub import HubUnreachable
from rba_bench.evaluation.sources.source import Place
from rba_bench.evaluation.sources.tables import Clip
from rba_bench.evaluation.task_registry import TaskSpec, list_tasks
from rba_bench.small.texts import load_items

NAMES = (
    "micro_covost2", "micro_covost2_sampled", "micro_speaker_consistency", "small_qa", "small_instruct_open",
    "alpacaeval_199", "rba_topics", "covost2_en_de", "mustc_en_de",
)  # fmt: skip


@pytest.fixture(scope="module")
def specs() -> list[TaskSpec]:
    by_name = {spec.name: spec for spec in list_tasks()}
    return [by_name[name] for name in NAMES]


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """A data folder without data, so that nobody asks the Hub."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_every_set_is_read_or_named_with_a_reason(specs: list[TaskSpec], nothing: Path) -> None:
    sets = list(task_texts.task_texts(nothing, specs, download=False))
    told = {one.name: one for one in sets}
    assert list(told) == [name for name in NAMES if name != "micro_covost2_sampled"], "one set, two decodings"
    for one in sets:
        assert bool(one.texts) != bool(one.problem) and "\n" not in one.problem
    read = [one.name for one in sets if one.texts]
    assert read == ["micro_covost2", "micro_speaker_consistency", "small_qa", "small_instruct_open"]
    assert "covost2" in told["covost2_en_de"].problem and MANIFEST in told["rba_topics"].problem


def test_the_spoken_text_is_given_and_not_the_prompt(specs: list[TaskSpec], nothing: Path) -> None:
    told = {one.name: one.texts for one in task_texts.task_texts(nothing, specs, download=False)}
    assert set(told["small_qa"]) == {item.text for item in load_items("small_qa", "test")}
    items = documents.documents_without_clips("micro_covost2")
    assert set(told["micro_covost2"]) == {item["instruction"] for item in items}
    assert not set(told["micro_covost2"]) & {item["prompt"] for item in items}


def _document(instruction: str, prompt: str) -> documents.Document:
    clip = Clip("", 0, 0.0, "", 0)
    return documents.make_document(id="x", kind="chat", clip=clip, instruction=instruction, prompt=prompt)


def test_an_item_without_its_words_has_its_own_prompt_if_it_has_one() -> None:
    items = [("Who is Ann? ", "Answer."), ("", "Answer."), ("", "Who is Bob?"), ("Who is Ann?", "")]
    texts = task_texts.spoken_texts(_document(*item) for item in items)
    assert texts == ("Who is Ann?", "Who is Bob?")


def test_the_hub_is_asked_no_more_once_it_does_not_answer(
    specs: list[TaskSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def load(source: str, options: dict[str, object], place: Place) -> None:
        asked.append((source, place.offline))
        raise HubUnreachable("no answer")

    monkeypatch.setattr(task_texts, "load_source", load)
    monkeypatch.delenv("RBA_DATA_DIR", raising=False)
    sets = list(task_texts.task_texts(None, specs, download=True))
    assert [one.problem for one in sets if one.problem] == ["no answer"] * len(asked)
    assert [offline for _, offline in asked] == [False] + [True] * (len(asked) - 1) and len(asked) > 2
    asked.clear()
    list(task_texts.task_texts(None, specs, download=False))
    assert all(offline for _, offline in asked)


def test_offline_means_the_cache_of_the_hub_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    from rba_bench.errors import MissingPrerequisite
    from rba_bench.evaluation.sources import hub

    monkeypatch.setenv("RBA_REVISIONS", str(tmp_path / "revisions.json"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("asked the Hub"))
    offline = replace(Place(), offline=True)
    with pytest.raises(MissingPrerequisite, match="not in the cache of the Hub"):
        hub.find_files("owner/name", ["*"], offline)
    wanted: list[dict[str, object]] = []

    def download(repo: str, **options: object) -> str:
        wanted.append(options)
        (tmp_path / "x.parquet").write_bytes(b"")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    hub.find_files("owner/name", ["*.parquet"], offline, "a" * 40)
    hub.find_files("owner/name", ["*.parquet"], Place(), "a" * 40)
    assert [options.get("local_files_only", False) for options in wanted] == [True, False]
