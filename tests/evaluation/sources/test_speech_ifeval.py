"""Speech-IFEval from a local copy of its real layout: JSON lines of the authors' repository, clips in a tar."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.metric import metric_named
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.records import read_samples
from rba_bench.evaluation.runner import evaluate
from rba_bench.evaluation.scorers import reasoning
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.evaluation.sources.source import Place, load_source
from rba_bench.textlm.judging import JudgeModel, Question, Reply
from tests.evaluation.sources.speech import encoded

CLIPS = {
    "Automatic_speech_recognition/1995-1837-0019.flac": ("FLAC", "he sat down weak and bewildered"),
    "Gender_recognition/common_voice_en_20930832.mp3": ("MP3", "and then we went home"),
    "Speech_emotion_recognition/Ses01F_impro01.wav": ("WAV", "yes it is pretty bizarre"),
    "MMAU/ff30f0ea-5c72-4fed-b339-a0bdc7f87a2d.wav": ("WAV", "what are you crying about"),
}
PATHS = list(CLIPS)
ABOUT = "[00:00:00 - 00:00:02] {}(Gender: Female, Emotion: sad)"


def question(path: str, text: str, metric: str) -> dict[str, Any]:
    return {
        "audio_filepath": path,
        "textual_audio": ABOUT.format(CLIPS[path][1]),
        "instruction": text,
        "dataset": path.split("/")[0],
        "metric": metric,
    }


def closed(
    number: int, path: str, text: str, name: str, arguments: dict[str, Any], label: str
) -> dict[str, Any]:
    fields = question(path, text, "wer" if path.endswith("flac") else "accuracy")
    return {"id": number, **fields, "instruction_id_list": [name], "kwargs": [arguments], "label": label}


CLOSED = [
    closed(0, PATHS[0], "Write it down.\nOnly lowercase.", "change_case:english_lowercase", {}, "HE SAT DOWN"),
    closed(1, PATHS[1], "Male or female?\nAnswer in JSON.", "detectable_format:json_format", {}, "Male"),
    closed(2, PATHS[2], 'How does it sound?\nEnd with "so be it".', "startend:end_checker",
           {"end_phrase": "So be it"}, "happy"),
]  # fmt: skip
CREATIVE = [
    {**question(PATHS[0], "Continue with at most three words.", "open"), "key": "length-0",
     "instruction_id_list": ["length_constraints:number_words"],
     "kwargs": [{"num_words": 4, "relation": "less than"}], "id": 934},
    {**question(PATHS[3], "Summarise in 3 bullet points.", "open"), "key": "bullet-points-0",
     "instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": 3}], "id": 935},
]  # fmt: skip
REASONED = [
    question(path, f"Who says so? Case {i}.\nThink step by step.", "cot") for i, path in enumerate(PATHS)
]
PLAIN = [
    {**{k: v for k, v in row.items() if k not in ("instruction_id_list", "kwargs")},
     "instruction": row["instruction"].split("\n")[0]}
    for row in CLOSED
]  # fmt: skip


def write_lines(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' repository with `audios.tar` in `data`, as their README asks."""
    root = tmp_path_factory.mktemp("Speech-IFEval")
    for name, rows in (
        ("closed_ended_questions", CLOSED),
        ("creative_writing", CREATIVE),
        ("chain-of-thought", REASONED),
        ("closed_ended_questions-woprompt", PLAIN),
    ):
        write_lines(root / "data" / "eval_data", name, rows)
    with tarfile.open(root / "data" / "audios.tar", "w") as tar:
        for path, (kind, text) in CLIPS.items():
            data = encoded(text, kind)
            member = tarfile.TarInfo(f"audios/{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return root


def test_all_parts_become_items(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_source("speech_ifeval", {}, Place(clone))
    items = loaded.documents
    assert Counter(item["group"] for item in items) == {
        "closed_ended": 3, "creative_writing": 2, "chain_of_thought": 4,
    }  # fmt: skip
    assert len({item["id"] for item in items}) == len(items) == 9
    first = items[0]
    assert first["id"] == "closed_ended-0000" and first["kind"] == "ifeval"
    assert first["prompt"] == "Write it down.\nOnly lowercase." and first["references"] == ["HE SAT DOWN"]
    assert first["instruction"] == model_input.spoken_text(first["audio"]) == ABOUT.format(CLIPS[PATHS[0]][1])
    assert json.loads(first["extra"])["instructions"] == [
        {"name": "change_case:english_lowercase", "arguments": {}}
    ]
    assert {i["cluster"] for i in items if PATHS[0] in i["cluster"]} == {
        PATHS[0]
    }  # one clip, several questions
    for item in items:  # FLAC, WAV and MP3 are heard
        assert len(model_input.load_wave(item["audio"])) == pytest.approx(item["duration"] * 16_000, abs=1200)
    assert loaded.origin["published_items"] == 1533
    assert "9 items, the published set has 1533" in capsys.readouterr().err


def test_the_data_folder_may_be_unpacked(clone: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "data"
    shutil.copytree(clone / "data" / "eval_data", folder / "eval_data")
    with tarfile.open(clone / "data" / "audios.tar") as tar:
        tar.extractall(folder, filter="data")
    unpacked = load_source("speech_ifeval", {"parts": ["creative_writing"]}, Place(folder)).documents
    packed = load_source("speech_ifeval", {"parts": ["creative_writing"]}, Place(clone)).documents
    assert [d["audio"]["sha256"] for d in unpacked] == [d["audio"]["sha256"] for d in packed]
    (folder / "audios" / PATHS[3]).unlink()
    with pytest.raises(MissingPrerequisite, match=r"1 of 2 clips .* such as MMAU"):
        load_source("speech_ifeval", {"parts": ["creative_writing"]}, Place(folder))


def test_the_plain_questions_are_items_of_their_own_kind(clone: Path) -> None:
    loaded = load_source("speech_ifeval", {"parts": "plain"}, Place(clone))
    assert [item["kind"] for item in loaded.documents] == ["qa", "qa"]
    assert loaded.origin["transcripts_left_out"] == 1
    assert loaded.documents[0]["references"] == ["Male"] and "JSON" not in loaded.documents[0]["prompt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"parts": ["closed"]}, "parts are some of"), ({"parts": ["plain", "closed_ended"]}, "`plain` alone")],
)
def test_wrong_parts(clone: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_source("speech_ifeval", options, Place(clone))


def test_another_version_of_the_set_is_said(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "eval_data", "creative_writing", [{**CREATIVE[0], "instruction_id_list": ["keywords:new"]}]
    )
    with pytest.raises(UserError, match=r"line 1: unknown instruction keywords:new"):
        load_source("speech_ifeval", {"parts": ["creative_writing"]}, Place(tmp_path))
    write_lines(tmp_path / "eval_data", "creative_writing", [{"audio_filepath": "x"}])
    with pytest.raises(UserError, match=r"no textual_audio, instruction"):
        load_source("speech_ifeval", {"parts": ["creative_writing"]}, Place(tmp_path))


def test_without_data_the_message_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match=r"git clone .*audios\.tar"):
        load_source("speech_ifeval", {}, Place(tmp_path))


def test_the_rules_run_without_a_judge(clone: Path, tmp_path: Path) -> None:
    request = EvalRequest(
        tasks=("speech_ifeval_rules",), model="constant", track="full", out=tmp_path / "runs", device="cpu",
        data_dir=clone,
    )  # fmt: skip
    evaluate(request)
    (run,) = (file.parent for file in tmp_path.rglob("run.json"))
    found = json.loads((run / "run.json").read_text())["metrics"]["if_rate"]
    samples = read_samples(run)
    parts = {
        part: [s.scores["if_rate"] for s in samples if s.group == part]
        for part in ("closed_ended", "creative_writing")
    }
    means = [sum(scores) / len(scores) for scores in parts.values()]
    assert len(samples) == 5 and found["value"] == pytest.approx(sum(means) / 2)
    assert found["macro"] and set(found["breakdown"]) == set(parts)


class Clerk(JudgeModel):
    """An asker that says Yes to answers with `because` in them."""

    name = "clerk"

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def identity(self) -> dict[str, Any]:
        return {"kind": "text", "path": "clerk", "weights_sha256": "00"}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        for position, asked in enumerate(questions):
            self.asked.append(asked)
            yield position, Reply("Yes." if "because" in asked.messages[-1].content else "no")


def test_reasoning_is_judged_and_the_rate_is_the_mean_of_the_parts(clone: Path, tmp_path: Path) -> None:
    from rba_bench.evaluation import answering, scoring

    answers = {
        "closed_ended-0000": "he sat down", "closed_ended-0001": "male", "closed_ended-0002": "fine, so be it",
        "creative_writing-0934": "she wept", "creative_writing-0935": "* one\n* two",
    }  # fmt: skip
    thoughts = iter(["They do, because of the voice.", "A.", "", "B, because it is later."])
    samples = []
    for index, doc in enumerate(load_source("speech_ifeval", {}, Place(clone)).documents):
        answer = answers.get(doc["id"])
        text = next(thoughts) if answer is None else answer
        samples.append(answering.unscored_sample(index, doc, text, doc["prompt"]))
    clerk = Clerk()
    scorer = reasoning.ReasoningJudge.from_config({}, ScorerOptions(cache=tmp_path / "votes"), clerk)
    additions = scorer.score(samples)
    assert [a.scores["if_rate_with_cot"] for a in additions] == [1, 0, 1, 1, 0, 1, 0, 0, 1]
    assert len(clerk.asked) == 3  # neither rules nor silence need a judge
    assert "Think step by step" in clerk.asked[0].messages[-1].content
    (metric,) = scorer.metrics
    groups = [sample.group for sample in samples]
    value = scoring.metric_value(metric, [a.scores[metric.name] for a in additions], groups)
    assert value == pytest.approx((2 / 3 + 1 / 2 + 2 / 4) / 3)
    assert metric_named(metric.name).macro
