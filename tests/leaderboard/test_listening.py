"""The page with clips and answers: what stands on it, that nothing in a record becomes markup, that it is closed."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.evaluation import documents
from rba_bench.evaluation.records import Sample
from rba_bench.leaderboard.listening import build_listening_page
from tests.leaderboard.board_records import sample, write_run

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> </p>\"'&amp; \u202eevil"


class Page(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        names = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            found
            for each, found in self.elements
            if each == tag and all(found.get(name) == value for name, value in names.items())
        ]


def _micro_samples(answer: str, count: int = 6) -> list[Sample]:
    """Answers to the first items of a test set that this machine has."""
    made = []
    for index, document in enumerate(documents.load_documents("micro_triviaqa")[:count]):
        text = document["references"][0] if answer == "right" else answer
        names = (
            "id",
            "kind",
            "group",
            "cluster",
            "prompt",
            "instruction",
            "source_lang",
            "target_lang",
            "references",
        )
        facts = {name: document[name] for name in names}
        made.append(
            Sample(
                **facts,
                doc_id=index,
                audio_sha256=document["audio"]["sha256"],
                duration=document["duration"],
                response=f"<think>hm</think>{text}",
                extracted=text,
                heard="what he heard",
                scores={"exact_match": float(answer == "right")},
                status="ok",
                n_tokens=1,
                seed=index,
            )
        )
    return made


def test_every_clip_can_be_heard_beside_the_answers_of_all_models(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    runs = tmp_path / "runs"
    for name, answer in (("good", "right"), ("bad", "no idea")):
        write_run(runs, name, _micro_samples(answer), task="micro_triviaqa")
    result = build_listening_page([runs], tmp_path / "page", limit=4)
    page = Page(result.page)
    documents_shown = documents.load_documents("micro_triviaqa")[:4]
    players = [str(each["src"]) for each in page.all("audio")]
    assert len(players) == result.items == 4 and not page.all("script")
    for src, document in zip(players, documents_shown, strict=True):
        wave, rate = soundfile.read(result.page.parent / src)
        assert rate == SAMPLING_RATE and abs(len(wave) / rate - document["duration"]) < 0.01
        assert document["instruction"] in page.text and document["references"][0] in page.text
    assert "what he heard" in page.text and "<think>" in page.text
    assert page.text.count("exact_match ✓") == page.text.count("exact_match ✗") == 4
    assert not page.all("article", class_="same")  # the models differ on every item
    assert "the first 4 items; 2 more are left out" in page.text
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.flac")}
    assert build_listening_page([runs], tmp_path / "page", limit=2).clips == 2 and len(before) == 4


def test_nothing_in_a_record_becomes_markup_and_nothing_can_leave_the_page(tmp_path: Path) -> None:
    samples = [sample(0, "qa", HOSTILE, [HOSTILE], HOSTILE)]
    samples[0] = samples[0].model_copy(
        update={
            "instruction": HOSTILE,
            "prompt": HOSTILE,
            "heard": HOSTILE,
            "response": "x" + HOSTILE,
            "error": HOSTILE,
        }
    )
    write_run(tmp_path / "runs", "model", samples, task="somebodys_task")
    result = build_listening_page([tmp_path / "runs"], tmp_path / "page")
    page = Page(result.page)
    assert not page.all("script") and [each["href"] for each in page.all("link")] == ["data:,"]
    assert not page.all("img") and page.text.count("<script>alert(1)</script>") >= 7
    assert "\u202e" not in result.page.read_text(encoding="utf-8")
    (policy,) = page.all("meta", http_equiv="Content-Security-Policy") or page.all("meta")[1:2]
    assert "default-src 'none'" in str(policy["content"]) and "unsafe-inline" not in str(policy["content"])
    assert "http" not in str(policy["content"])
    assert not any(name.startswith("on") or name == "style" for _, found in page.elements for name in found)
    assert result.clips == 0 and "no clips" in page.text


def test_the_command_gives_the_path_and_what_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rba_bench.cli.main import main

    write_run(tmp_path / "runs", "model", [sample(0, "qa", "word0", ["word0"], "g")], task="somebodys_task")
    with pytest.raises(SystemExit) as end:
        main(["view", str(tmp_path / "runs"), "--out", str(tmp_path / "page"), "--json"])
    out, err = capsys.readouterr()
    assert end.value.code == 0 and "somebodys_task: no clips" in err
    assert json.loads(out)["page"] == str(tmp_path / "page" / "index.html")
    with pytest.raises(SystemExit) as end:
        main(["view", str(tmp_path / "nothing")])
    assert end.value.code == 2 and "does not exist" in capsys.readouterr().err
