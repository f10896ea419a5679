"""The answer in one sentence: what the paired tests say, in correct English for any number of models and tasks."""

from pathlib import Path

import pytest

from rba_bench.leaderboard.site.answer import (
    Tally,
    answer_of,
    join_words,
    missing_references,
    remaining_after_holm,
    tally,
)
from rba_bench.leaderboard.site.facts import Setting
from tests.leaderboard.site.site_boards import load_settings, settings, write_board_records


def sentence(folder: Path, skills: dict[str, float], tasks: int = 1, baseline: str = "sft") -> str:
    return answer_of(settings(folder, skills, tasks, baseline)).sentence


def test_one_model_on_one_task(tmp_path: Path) -> None:
    assert (
        sentence(tmp_path / "a", {"sft": 0.5, "rba": 0.5})
        == "rba and sft cannot be told apart on micro_task0."
    )
    assert sentence(tmp_path / "b", {"sft": 0.4, "rba": 0.8}) == "rba is better than sft on micro_task0."
    assert sentence(tmp_path / "c", {"sft": 0.8, "rba": 0.4}) == "rba is worse than sft on micro_task0."


def test_one_model_on_several_tasks(tmp_path: Path) -> None:
    assert sentence(tmp_path / "a", {"sft": 0.5, "rba": 0.5}, 3) == (
        "rba and sft cannot be told apart on any of 3 tasks."
    )
    assert sentence(tmp_path / "b", {"sft": 0.4, "rba": 0.8}, 2) == "rba is better than sft on both tasks."
    assert sentence(tmp_path / "c", {"sft": 0.8, "rba": 0.4}, 4) == "rba is worse than sft on all 4 tasks."


def test_mixed_outcomes_name_the_tasks(tmp_path: Path) -> None:
    made = settings(tmp_path, {"sft": 0.5, "rba": 0.5}, 5)
    better = settings(tmp_path / "better", {"sft": 0.3, "rba": 0.8})
    worse = settings(tmp_path / "worse", {"sft": 0.8, "rba": 0.3})
    mixed = [*made[:3], Setting("x", "task A", better[0].group), Setting("y", "task B", worse[0].group)]
    assert answer_of(mixed).sentence == (
        "rba and sft cannot be told apart on 3 of 5 settings, and rba is better on task A and worse on task B."
    )
    assert answer_of(mixed[3:]).sentence == "rba is better than sft on task A and worse on task B."


def test_models_that_differ_nowhere_share_a_clause(tmp_path: Path) -> None:
    skills = {"sft": 0.5, "a": 0.5, "b": 0.5}
    assert sentence(tmp_path / "two", skills, 2) == (
        "Neither a nor b can be told apart from sft on any of 2 tasks."
    )
    assert sentence(tmp_path / "three", {**skills, "c": 0.5}, 2) == (
        "None of a, b and c can be told apart from sft on any of 2 tasks."
    )
    assert sentence(tmp_path / "better", {**skills, "c": 0.9}, 2) == (
        "c is better than sft on both tasks; neither a nor b can be told apart from sft on any of 2 tasks."
    )


def test_many_models_are_counted(tmp_path: Path) -> None:
    skills = {"sft": 0.5, "a": 0.5, "b": 0.5, "c": 0.95, "d": 0.05}
    assert sentence(tmp_path / "a", skills, 2) == (
        "Of 4 models, 1 is better than sft on at least one of 2 tasks, 1 is worse on at least one and 2 cannot be told "
        "apart from it on any."
    )
    assert sentence(tmp_path / "b", {"sft": 0.5, "a": 0.9, "b": 0.9, "c": 0.95, "d": 0.9}) == (
        "Of 4 models, all are better than sft on the one task and none is worse."
    )
    alike = dict.fromkeys(("sft", "a", "b", "c", "d"), 0.5)
    assert (
        sentence(tmp_path / "c", alike, 2) == "None of 4 models can be told apart from sft on any of 2 tasks."
    )


def test_without_models_or_baseline_the_sentence_says_so(tmp_path: Path) -> None:
    assert sentence(tmp_path / "a", {"text": 1.2, "constant": -1}) == (
        "All rows are references, so no model is compared."
    )
    assert sentence(tmp_path / "b", {"x": 0.5, "y": 0.6}) == (
        "Nothing was tested, as no row is called sft: build the board again with --baseline and a row of it (x or y)."
    )
    assert sentence(tmp_path / "e", {"a": 0.5, "text": 1.2}) == (
        "a is the only model: it scores 56.7 [48.3, 64.7] on micro_task0 (alias_match %)."
    )
    assert sentence(tmp_path / "f", {"a": 0.5}, 2) == "a is the only model, so it is compared with nothing."
    assert sentence(tmp_path / "c", {"sft": 0.5}) == "sft is compared with nothing, as it is the only model."
    assert sentence(tmp_path / "d", {"a": 0.5, "cascade": 0.1}, baseline="cascade") == (
        "a is better than cascade on micro_task0."
    )


def test_a_lower_error_rate_is_better(tmp_path: Path) -> None:
    made = settings(tmp_path, {"sft": 0.4, "rba": 0.8})
    group = made[0].group
    for run in group.runs:
        value = run.record.metrics[group.primary]
        run.record.metrics[group.primary] = value.model_copy(update={"higher_is_better": False})
    assert answer_of(made).sentence == "rba is worse than sft on micro_task0."


def test_how_many_tests_there_were_is_said(tmp_path: Path) -> None:
    alike = answer_of(settings(tmp_path / "a", {"sft": 0.5, "a": 0.5, "b": 0.5}, 5)).caution
    assert alike == (
        "These are 10 paired tests, each at the 5 % level: if all models were equal, up to 0.5 would be marked by "
        "chance; none is."
    )
    both = answer_of(settings(tmp_path / "d", {"sft": 0.3, "a": 0.9, "b": 0.9}, 1)).caution
    assert both.endswith("chance, and 2 are. After Holm's correction for all 2, both remain.")
    one = answer_of(settings(tmp_path / "b", {"sft": 0.5, "a": 0.95, "b": 0.5}, 1)).caution
    assert one.endswith("chance, and 1 is. After Holm's correction for all 2, it remains.")
    assert answer_of(settings(tmp_path / "c", {"sft": 0.3, "a": 0.9})).caution == (
        "This is one paired test at the 5 % level."
    )


@pytest.mark.parametrize(
    ("p_values", "remaining"),
    [
        ([], 0),
        ([0.04], 1),
        ([0.04, 0.04], 0),
        ([0.01, 0.04, 0.03], 1),
        ([0.001, 0.02, 0.02, 0.9], 1),
        ([0.0] * 9, 9),
    ],
)
def test_holms_procedure(p_values: list[float], remaining: int) -> None:
    assert remaining_after_holm(p_values) == remaining


def test_tallies_are_those_of_the_tables(tmp_path: Path) -> None:
    made = load_settings(write_board_records(tmp_path))
    tallies, p_values = tally(made)
    rows = {row.label: row for row in made[0].group.rows}
    assert len(p_values) == sum(each.total for each in tallies) and all(
        each.label != "sft" for each in tallies
    )
    better = {each.label for each in tallies if made[0].title in each.better}
    expected = {
        label
        for label, row in rows.items()
        if row.kind == "model" and row.versus and row.versus[made[0].group.primary].low > 0
    }
    assert better == expected == {"rba", "rba-again"}


def test_missing_references_come_with_the_command_that_makes_them(tmp_path: Path) -> None:
    missing = {
        each.what.split(" (")[0]: each for each in missing_references(settings(tmp_path, {"sft": 0.5}, 2))
    }
    assert missing["constant answer"].where == "any task"
    assert (
        missing["constant answer"].command
        == "rba-bench eval --model constant --task micro_task0 --task micro_task1"
    )
    assert set(missing) == {
        "text ceiling",
        "cascade",
        "constant answer",
    }  # sft has no training here: it is a base
    board = list(missing_references(load_settings(write_board_records(tmp_path / "board"))))
    assert [each.what for each in board] == ["constant answer"]


def test_words_are_joined_as_in_a_sentence() -> None:
    assert (
        join_words(["a"]) == "a"
        and join_words(["a", "b"]) == "a and b"
        and join_words("abc", "or") == "a, b or c"
    )
    assert Tally("x", ["a"], ["b", "c"], []).total == 3
