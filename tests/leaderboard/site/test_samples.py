"""Pages of samples: what stands in their files, and that these follow from records alone."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.records import Sample
from rba_bench.leaderboard.board_groups import BoardGroup, group_runs
from rba_bench.leaderboard.loaded_runs import find_runs, load_checked_run
from rba_bench.leaderboard.pages import section_names
from rba_bench.leaderboard.site.sample_sections import board_section, clip_name
from rba_bench.leaderboard.site.samples import LONGEST, sample_files
from tests.leaderboard.board_records import qa_samples, sample, translation_samples, write_run
from tests.leaderboard.site.answered import HOSTILE, hostile_runs


def groups(root: Path) -> dict[str, BoardGroup]:
    found = group_runs([load_checked_run(folder) for folder in find_runs([root])], baseline="base")
    return dict(zip(section_names(found, ()), found, strict=True))


def arguments(script: bytes, function: str) -> list[Any]:
    text = script.decode("ascii")
    assert text.startswith(f"{function}(") and text.endswith(");\n") and not set("<>&") & set(text)
    return json.loads(f"[{text[len(function) + 1 : -3]}]")


def summary(files: dict[str, bytes], section: str) -> dict[str, Any]:
    return arguments(files[f"samples/{section}/summary.js"], "rbaSummary")[0]


def items(files: dict[str, bytes], section: str, place: int = 0) -> list[dict[str, Any]]:
    number, version, found = arguments(files[f"samples/{section}/items-{place:04d}.js"], "rbaItems")
    assert number == place and version == ""
    return found


def test_items_come_in_pieces_of_a_hundred_and_the_summary_counts_them_all(tmp_path: Path) -> None:
    for name, skill in (("base", 0.4), ("sft", 0.8)):
        write_run(tmp_path, name, qa_samples(skill, n=250))
    files = sample_files(groups(tmp_path))
    section = "micro_triviaqa_greedy"
    assert {name for name in files if "items-" in name} == {
        f"samples/{section}/items-000{place}.js" for place in range(3)
    }
    facts = summary(files, section)
    assert (
        facts["numbers"] == list(range(250)) and facts["piece"] == 100 and len(items(files, section, 2)) == 50
    )
    for place, model in enumerate(facts["models"]):
        samples = qa_samples({"base": 0.4, "sft": 0.8}[model["label"]], n=250)
        assert facts["scores"][place] == [100 * each.scores[facts["primary"]] for each in samples]
    assert [model["label"] for model in facts["models"]] == ["sft", "base"]  # the better one first
    assert files == sample_files(groups(tmp_path))


def test_failures_are_the_worse_half_of_means_and_below_the_median_elsewhere(tmp_path: Path) -> None:
    for name, damage in (("base", 0.1), ("sft", 0.6)):
        write_run(tmp_path, name, translation_samples(damage), task="micro_covost2_greedy")
        write_run(tmp_path, name, qa_samples(1 - damage, n=60))
    by_name = groups(tmp_path)
    section = board_section("x", by_name["micro_covost2_greedy"])
    known = sorted(score for scores in section.scores for score in scores.values() if score is not None)
    assert section.failure_limit == pytest.approx((known[59] + known[60]) / 2, abs=0.06)
    verdicts = [section.verdict(place, number) for place in range(2) for number in range(60)]
    assert 40 <= sum(map(bool, verdicts)) <= 60
    questions = board_section("y", by_name["micro_triviaqa_greedy"])
    assert questions.failure_limit == 50
    for place, model in enumerate(questions.models):
        for number, each in model.samples.items():
            assert questions.verdict(place, number) == (each.scores[questions.primary] < 0.5)


def test_an_item_without_a_score_fails_by_its_status(tmp_path: Path) -> None:
    samples = qa_samples(0.5, n=4)
    samples[1] = samples[1].model_copy(update={"status": "not_heard", "response": "", "scores": {}})
    samples[2].scores["alias_match"] = 0.5  # half is no failure
    write_run(tmp_path, "base", samples)
    section = board_section("x", groups(tmp_path)["micro_triviaqa_greedy"])
    assert section.verdict(0, 1) is True and section.verdict(0, 99) is None
    assert section.verdict(0, 2) is False and not section.metric.item_score(samples[1])


def test_an_item_has_all_that_was_asked_answered_and_judged(tmp_path: Path) -> None:
    votes = [{"order": "AB", "preference": 1 / 3, "reason": "shorter"}, {"order": "BA", "preference": 0.0}]
    samples = [
        sample(0, "s2tt", "the red cat is here", ["far away", "the red dog is here"], "de-en"),
        sample(1, "s2tt", "a", ["b"], "de-en"),
    ]
    changes = {
        "prompt": "Translate",
        "heard": "der rote hund",
        "instruction": "der rote Hund",
        "reasoning": "so",
        "response": "<t>the red cat is here",
        "seed": 2**63 - 1,
        "source_lang": "de",
        "judge": {"j": {"votes": votes}},
    }
    samples[0] = samples[0].model_copy(update=changes)
    write_run(tmp_path, "base", samples, task="micro_covost2_greedy")
    found = items(sample_files(groups(tmp_path)), "micro_covost2_greedy")[0]
    assert (found["prompt"], found["languages"], found["references"]) == (
        "Translate",
        "de → en",
        ["far away", "the red dog is here"],
    )
    [answer] = found["answers"]
    assert answer["extracted"] == "the red cat is here" and answer["response"] == changes["response"]
    assert answer["words"] == [["=", "the red"], ["~", "dog", "cat"], ["=", "is here"]]
    assert answer["heardWords"] == [["=", "der rote hund"]] and answer["seed"] == str(2**63 - 1)
    assert answer["judge"]["j"]["votes"][0] == {
        "order": "AB",
        "preference": 0.333333333333,
        "reason": "shorter",
    }
    assert len(answer["scores"]) == 2 and answer["reasoning"] == "so"


def test_a_long_text_shows_its_beginning(tmp_path: Path) -> None:
    write_run(tmp_path, "base", [sample(0, "qa", "y" * (LONGEST + 7), ["x"], "g")])
    [answer] = items(sample_files(groups(tmp_path)), "micro_triviaqa_greedy")[0]["answers"]
    assert answer["response"] == "y" * LONGEST + " … (7 more characters)"


def test_an_aligned_model_names_the_base_beside_it(tmp_path: Path) -> None:
    def model(name: str, base: str | None, spec: str = "") -> dict[str, object]:
        training = {"method": "sft", "base": base, "seed": 1} if base else None
        return {"name": name, "spec": spec or name, "weights_sha256": "33" * 32, "training": training}

    records = {
        "base": None, "by-track": "micro", "by-path": "runs/checkpoints/base", "by-name": "asset:other", "other": None,
        "of-nobody": "gone",
    }  # fmt: skip
    for name, base in records.items():
        write_run(tmp_path, name, qa_samples(0.5, n=4), model=model(name, base))
    shipped = {"small-base": "asset:small-base", "small-aligned-sft": "asset:small-aligned-sft"}
    for name, spec in shipped.items():
        write_run(tmp_path, name, qa_samples(0.5, n=4), model=model(name, None, spec))
    section = board_section("x", groups(tmp_path)["micro_triviaqa_greedy"])
    assert {each.label: each.base for each in section.models} == {
        "base": "", "by-track": "base", "by-path": "base", "by-name": "other", "other": "", "of-nobody": "",
        "small-base": "", "small-aligned-sft": "small-base",
    }  # fmt: skip


def test_texts_of_records_stay_texts(tmp_path: Path) -> None:
    files = sample_files(groups(hostile_runs(tmp_path)))
    page = files["samples/somebodys_task/index.html"].decode()
    assert "<script>alert" not in page and "<img" not in page and "\u202e" not in page
    assert not re.search(r"<[^>]+ (on\w+|style)=", page) and "unsafe-inline" not in page
    found = items(files, "somebodys_task")[0]
    shown = HOSTILE.replace("\u202e", "\ufffd")
    assert found["instruction"] == found["prompt"] == found["extra"] == shown
    assert found["answers"][0]["judge"] == {shown: {"votes": [{"order": shown, "reason": shown}]}}


@pytest.mark.parametrize(
    "name", ["plain-1", "two words; rm -rf ~", "-rf", "$(x)`y`'\"", "a\u202eb", "a\nb", ""]
)
def test_the_command_names_the_item_for_a_shell(tmp_path: Path, name: str) -> None:
    samples: list[Sample] = [sample(7, "qa", "x", ["x"], "g").model_copy(update={"id": name})]
    write_run(tmp_path, "ba se", samples)
    files = sample_files(groups(tmp_path))
    [model], [found] = (
        summary(files, "micro_triviaqa_greedy")["models"],
        items(files, "micro_triviaqa_greedy"),
    )
    *command, folder, weights, item = shlex.split(f"{model['command']} {found['option']}")
    assert command == ["rba-bench", "leaderboard", "verify"] and folder.startswith("records/")
    assert weights == "--model=MODEL"  # which the reader must name
    assert item == f"--item={name if name.isprintable() and name else 7}"


def test_a_board_of_too_many_answers_shows_some_items_of_each_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base", "sft"):
        write_run(tmp_path, name, qa_samples(0.5, n=60))
        write_run(tmp_path, name, qa_samples(0.5, n=60), "micro_triviaqa_sampled", "sampled", "cd" * 32)
        write_run(tmp_path, name, translation_samples(0.5, n=6), "micro_covost2_greedy")
    whole = sample_files(groups(tmp_path))
    monkeypatch.setattr("rba_bench.leaderboard.site.sample_sections.ANSWERS", 6 * 8)
    files = sample_files(groups(tmp_path))
    drawn = summary(files, "micro_triviaqa_greedy")["numbers"]
    assert len(drawn) == 8 and drawn == sorted(drawn) == summary(files, "micro_triviaqa_sampled")["numbers"]
    assert items(files, "micro_triviaqa_greedy") == [items(whole, "micro_triviaqa_greedy")[n] for n in drawn]
    assert b"8 of 60 items" in files["samples/micro_triviaqa_greedy/index.html"]
    other = "samples/micro_covost2_greedy/items-0000.js"
    assert files[other] == whole[other] and len(summary(files, "micro_covost2_greedy")["numbers"]) == 6
    changed = groups(tmp_path)
    with open(next(tmp_path.glob("base/micro_triviaqa_sampled-*/samples.jsonl")), "a") as handle:
        handle.write("\n")
    with pytest.raises(UserError, match="changed meanwhile"):
        sample_files(changed)


def test_the_pages_of_all_protocols_share_a_clip_and_other_clips_have_other_names(tmp_path: Path) -> None:
    for protocol, code in (("greedy", "ab"), ("sampled", "cd")):
        write_run(tmp_path, "base", qa_samples(0.5, n=4), f"micro_triviaqa_{protocol}", protocol, code * 32)
    noisy = {"perturb": {"text": "noise=10dB"}}
    same = qa_samples(0.5, n=4)
    same[1] = same[1].model_copy(update={"audio_sha256": same[0].audio_sha256})  # behind another prefix
    write_run(tmp_path, "base", same, "micro_triviaqa_greedy", protocol_hash="ef" * 32, protocol_spec=noisy)
    sections = [board_section(name, group) for name, group in groups(tmp_path).items()]
    names = [{clip_name(section, number) for number in range(4)} for section in sections]
    assert len(sections) == 3 and len(set().union(*names)) == 8 and sum(map(len, names)) == 12
