"""Judged records: the recorded replies are read again by the judges' own code, and must add up to the scores."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rba_bench.evaluation.metric import Metric, metrics_of
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.recompute import check_scores, recompute
from rba_bench.leaderboard.verify import verify_records
from rba_bench.seeding import stable_seed
from rba_bench.textlm.judging import JudgeModel, Question, Reply
from tests.evaluation import conftest as tiny
from tests.leaderboard import forging
from tests.leaderboard.forging import Edit, Json

FINISH = {
    "qa": [{"name": "yesno", "votes": 3}, {"name": "rating", "votes": 2}],
    "chat": [{"name": "pairwise", "lc": "none"}],
    "odds": [{"name": "yesno", "weighted": True}],
    "lengths": [{"name": "pairwise", "lc": "minimal"}],
    "voices": [{"name": "consistency", "embedding": "none"}],
}


class Dice(JudgeModel):
    """A judge that answers by a hash of what it is asked; one question in six it refuses at first, one for good."""

    name = "dice"

    def identity(self) -> dict[str, Any]:
        return {"kind": "text", "weights_sha256": "cd" * 32, "path": "/somewhere"}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        for position, question in enumerate(questions):
            yield position, self._reply(question)

    def _reply(self, question: Question) -> Reply:
        text = question.messages[-1].content
        drawn = stable_seed(text, question.seed)
        if "never heard" in text or "which river" in text or drawn % 6 == 0:
            return Reply("", status="refused", error="I would rather not")
        if "Yes or No" in text or "yes or no" in text.casefold():
            words = ("Yes", "No")
        elif "1 to 5" in text:
            words = ("1", "2", "3", "4", "5")
        else:
            words = ("m", "M")
        odds = (
            tuple((word, -0.5 - index) for index, word in enumerate(words)) if question.top_logprobs else ()
        )
        return Reply(words[drawn % len(words)], odds)


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, tuple[Json, list[Json]]]:
    made = {}
    for name, finish in FINISH.items():
        folder = tmp_path_factory.mktemp(name)
        benchmark = "alpacaeval" if name in ("chat", "lengths") else "triviaqa"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rba_bench.evaluation.scorers.judge._loaded", lambda *_: Dice())
            if benchmark == "alpacaeval":
                patch.setitem(tiny.KINDS, benchmark, "chat")
            metadata = {"version": 1, "benchmark": benchmark, "track": "micro", "finish": finish}
            task = tiny.write_task(folder / "task", benchmark, metadata=metadata, metric_list=[])
            model = tiny.ScriptedModel(lambda request: f"castle {stable_seed(request.key) % 3}")
            patch.setattr(
                "rba_bench.speechlm.model_names.load_speech_model", lambda spec, model=model, **_: model
            )
            evaluate(EvalRequest(tasks=(str(task),), model="scripted", out=folder / "eval", judge="dice"))
        [run] = (folder / "eval").glob("*/tiny*")
        lines = (run / "samples.jsonl").read_text().splitlines()
        made[name] = json.loads((run / "run.json").read_text()), [json.loads(line) for line in lines]
    return made


def resettle(record: Json, samples: list[Json]) -> None:
    """Everything that follows from the samples, judged metrics included."""
    own = {metric.name for metric in metrics_of(samples[0]["kind"])}
    keys = ("aggregation", "scale", "higher_is_better", "macro", "signature")
    judged = [
        Metric(name, **{key: value[key] for key in keys})
        for name, value in record["metrics"].items()
        if name not in own
    ]
    forging.settle(record, samples, judged)


@pytest.mark.parametrize("name", FINISH)
def test_an_honest_judged_record_passes(honest, tmp_path, name):
    [verdict] = verify_records([forging.write(tmp_path / "run", *honest[name])]).verdicts
    assert verdict.faults == ()
    [verdict] = verify_records([forging.edited(tmp_path / "again", honest[name], resettle)]).verdicts
    assert verdict.faults == ()


def test_the_records_hold_what_is_tested(honest):
    """Votes of the second attempt, and items that no judge could score."""
    record, samples = honest["qa"]
    assert record["statuses"]["judge_failed"] == 2 and record["metrics"]["judge_accuracy"]["n_missing"] == 2
    seeds = {vote["seed"] for s in samples for vote in s["judge"]["yesno"]["votes"] if "seed" in vote}
    assert len(seeds) > 3 and "lc_win_rate" in honest["lengths"][0]["metrics"]


def votes_of(samples: list[Json], judge: str) -> Iterator[Json]:
    for sample in samples:
        yield from ((sample.get("judge") or {}).get(judge) or {}).get("votes") or ()


def all_yes(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        if "judge_accuracy" in sample["scores"]:
            sample["scores"]["judge_accuracy"] = 1.0


def other_words(record: Json, samples: list[Json]) -> None:
    for vote in votes_of(samples, "yesno"):
        if "reply" in vote:
            vote["reply"] = "Yes"


def other_seed(record: Json, samples: list[Json]) -> None:
    next(vote for vote in votes_of(samples, "yesno") if "seed" in vote)["seed"] = 5


def fewer_votes(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        del sample["judge"]["yesno"]["votes"][1:]


def no_votes(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["judge"] = None


def failed_without_failures(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        if sample["scores"].get("judge_accuracy") == 0.0:
            del sample["scores"]["judge_accuracy"]
            sample.update(status="judge_failed", error="yesno: HTTP 500")


def failed_with_votes(record: Json, samples: list[Json]) -> None:
    sample = next(s for s in samples if s["status"] == "judge_failed")
    sample["scores"]["judge_accuracy"] = 1.0
    sample.update(status="ok", error="")


def rating_of_ten(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        if "rating" in sample["scores"]:
            sample["scores"]["rating"] = 10.0


EDITS: dict[str, tuple[str, Edit]] = {
    "scores": ("qa", all_yes),
    "words of the votes": ("qa", other_words),
    "seed of a vote": ("qa", other_seed),
    "fewer votes": ("qa", fewer_votes),
    "no votes": ("qa", no_votes),
    "wrong answers judge_failed": ("qa", failed_without_failures),
    "a failure scored": ("qa", failed_with_votes),
    "ratings": ("qa", rating_of_ten),
    "number of votes": ("qa", lambda r, s: r["protocol_spec"]["finish"][0].update(votes=1)),
    "prompt of the judge": ("qa", lambda r, s: r["protocol_spec"]["finish"][0].update(prompt="ab" * 32)),
    "a judge left out": ("qa", lambda r, s: r["protocol_spec"]["finish"].pop()),
    "agreement": ("qa", lambda r, s: r["finish"]["yesno"].update(unanimous=1.0, vote_sd=0.0)),
    "number judged": ("qa", lambda r, s: r["finish"]["yesno"].update(n_failed=0)),
    "a report left out": ("qa", lambda r, s: r["finish"].pop("yesno")),
    "preferences": ("chat", lambda r, s: [x["scores"].update(win_rate=1.0) for x in s if "win_rate" in x["scores"]][0]),
    "order bias": ("chat", lambda r, s: r["finish"]["pairwise"]["order_bias"].update(value=0.0, low=0.0)),
    "what a vote is shown as": ("qa", lambda r, s: next(v for v in votes_of(s, "yesno") if "yes" in v).update(yes=0.5)),
    "a rating beside its reply": (
        "qa",
        lambda r, s: next(v for v in votes_of(s, "rating") if "rating" in v).update(rating=6),
    ),
    "odds": ("odds", lambda r, s: next(v for v in votes_of(s, "yesno") if "top_logprobs" in v)["top_logprobs"].clear()),
    "odds of certainty": (
        "odds",
        lambda r, s: next(v for v in votes_of(s, "yesno") if "top_logprobs" in v).update(top_logprobs=[["Yes", 0.0]]),
    ),
    "length control": (
        "lengths",
        lambda r, s: [x["scores"].update(lc_win_rate=1.0) for x in s if "lc_win_rate" in x["scores"]][0],
    ),
    "form of length control": ("lengths", lambda r, s: r["protocol_spec"]["finish"][0]["lc"].update(form="none")),
    "agreement over voices": ("voices", lambda r, s: [x["scores"].update(answer_agreement=1.0) for x in s][0]),
    "votes of another form": ("qa", lambda r, s: s[0].update(judge={"yesno": {"votes": ["Yes", 1, None]}})),
    "votes that are no list": ("qa", lambda r, s: s[0].update(judge={"yesno": 3})),
    "a finisher that is none": ("qa", lambda r, s: r["protocol_spec"]["finish"].append({"name": "magic"})),
    "finish of another form": ("qa", lambda r, s: r["protocol_spec"].update(finish=[3])),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_votes_is_found(honest, tmp_path, edit):
    name, change = EDITS[edit]

    def careful(record: Json, samples: list[Json]) -> None:
        change(record, samples)
        resettle(record, samples)

    [verdict] = verify_records([forging.edited(tmp_path / "run", honest[name], careful)]).verdicts
    assert verdict.faults, edit


def without_scorers(*names: str) -> Edit:
    """Scorers that leave no trace: no entry, no report, no votes, no scores, no metric."""

    def edit(record: Json, samples: list[Json]) -> None:
        record["protocol_spec"]["finish"] = [
            entry for entry in record["protocol_spec"]["finish"] if entry["name"] not in names
        ]
        metrics = {metric.name for name in names for metric in metrics_of(name)}
        for name in names:
            record["finish"].pop(name)
        record["metrics"] = {name: value for name, value in record["metrics"].items() if name not in metrics}
        for sample in samples:
            sample["scores"] = {
                name: value for name, value in sample["scores"].items() if name not in metrics
            }
            votes = {name: value for name, value in (sample.get("judge") or {}).items() if name not in names}
            sample["judge"] = votes or None
            if not votes and sample["status"] == "judge_failed":
                sample.update(status="ok", error="")
        resettle(record, samples)

    return edit


@pytest.mark.parametrize(
    ("name", "left_out", "fault"),
    [
        ("qa", (), ""),
        ("qa", ("yesno", "rating"), ""),  # as by `--judge none`
        ("qa", ("rating",), "finished by ['yesno'], the task says ['yesno', 'rating']"),
        ("voices", (), ""),
        ("voices", ("consistency",), "finished by nothing, the task says ['consistency']"),
    ],
)
def test_what_the_task_finishes_by_is_there_or_only_the_judges_are_not(
    honest, tmp_path, name, left_out, fault
):
    folder = forging.edited(tmp_path / "run", honest[name], without_scorers(*left_out))
    run = load_checked_run(folder)
    found = list(check_scores(run, recompute(run, FINISH[name])))
    assert found == ([fault] if fault else [])


def test_what_a_judge_is_said_to_have_failed_at_cannot_be_known(honest, tmp_path):
    def failing(record: Json, samples: list[Json]) -> None:
        for sample in samples:
            if sample["scores"].get("judge_accuracy") == 0.0:
                del sample["scores"]["judge_accuracy"]
                sample["judge"]["yesno"] = {"votes": [{"failures": ["error: HTTP 500"]}] * 3}
                sample.update(status="judge_failed", error="yesno: error: HTTP 500")
        resettle(record, samples)
        record["finish"] = {}

    folder: Path = forging.edited(tmp_path / "run", honest["qa"], failing)
    [verdict] = verify_records([folder]).verdicts
    assert [fault for fault in verdict.faults if "finish" not in fault] == []
