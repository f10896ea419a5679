"""Which rows are references, and which text ceiling a modality gap is measured from."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_groups import BoardGroup
from tests.leaderboard import board_records as made

TASK = "micro_triviaqa_greedy"


def write(root: Path, name: str, skill: float, spec: str = "", task: str = TASK, **changes: object) -> None:
    model = {"name": name, "spec": spec or name, "weights_sha256": name, "training": None}
    model |= changes.pop("model", {})
    made.write_run(root, name.replace("/", "-"), made.qa_samples(skill, n=40), task, model=model, **changes)


def the_group(root: Path, ceiling: str | None = None) -> BoardGroup:
    (group,) = build_board([root], root / "board", ceiling=ceiling).groups
    return group


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("text", "ceiling"),
        ("text:meta/llama", "ceiling"),
        ("text:openai:https://host/v1#llama", "ceiling"),
        ("cascade", "cascade"),
        ("cascade:openai/whisper-small+meta/llama", "cascade"),
        ("constant", "constant"),
        ("openai:https://host/v1#gpt-audio", "model"),
        ("Qwen/Qwen2-Audio-7B-Instruct", "model"),
        ("runs/text", "model"),
        ("text:", "model"),
        ("constant:x", "model"),
    ],
)
def test_what_was_asked_for_decides_what_a_row_is(tmp_path, spec, kind):
    write(tmp_path, "anything", 0.5, spec)
    (row,) = the_group(tmp_path).rows
    assert row.kind == kind and bool(row.bands) == (kind == "model")


def test_the_modality_gap_is_text_minus_speech_on_the_same_items(tmp_path):
    write(tmp_path, "sft", 0.5)
    write(tmp_path, "llama", 1.2, "text:meta/llama")
    group = the_group(tmp_path)
    rows = {row.label: row for row in group.rows}
    values = {name: [s.scores["alias_match"] for s in rows[name].run.samples] for name in rows}
    gap = rows["sft"].gap["alias_match"]
    assert gap.value == pytest.approx(np.mean(values["llama"]) - np.mean(values["sft"])) and gap.low > 0
    assert rows["llama"].gap == {} and rows["sft"].ceiling == "llama"
    page = (tmp_path / "board" / "index.md").read_text()
    assert f"+{gap.value * 100:.1f} [" in page and "(ceiling)" in page and "Modality gap: `" not in page
    assert "### Modality gap, text minus speech, greedy decoding, same items" in page
    with open(tmp_path / "board" / f"{TASK}.csv", newline="") as handle:
        row = next(
            row for row in csv.DictReader(handle) if row["model"] == "sft" and row["primary"] == "True"
        )
    assert float(row["modality_gap"]) == pytest.approx(gap.value) and row["ceiling"] == "llama"
    assert float(row["modality_gap_low"]) <= gap.value <= float(row["modality_gap_high"])


def two_ceilings(root: Path) -> None:
    write(root, "sft", 0.5, "runs/sft", model={"training": {"base": "hub/Llama-8B", "method": "sft"}})
    write(root, "other", 0.6)
    write(root, "llama-8b", 1.0, "text:meta/llama-8b")
    write(root, "qwen", 1.2, "text:org/qwen")


def test_of_several_ceilings_the_training_base_decides_and_the_rest_is_said(tmp_path):
    two_ceilings(tmp_path)
    group = the_group(tmp_path)
    rows = {row.label: row for row in group.rows}
    assert rows["sft"].ceiling == "llama-8b" and rows["other"].ceiling == "" and rows["other"].gap == {}
    assert rows["llama-8b"].ceiling == rows["qwen"].ceiling == ""
    page = (tmp_path / "board" / "index.md").read_text()
    warning = f"{TASK}: no modality gap for other, as the ceiling could be any of llama-8b, qwen; "
    assert (
        warning + "choose one with --ceiling NAME" in page and "Modality gap: `sft` from `llama-8b`." in page
    )
    assert "`qwen`, `llama-8b` are references: the text LLM" in page


@pytest.mark.parametrize("name", ["qwen", "Qwen", "text:org/qwen", "org/qwen"])
def test_a_ceiling_can_be_chosen_by_any_of_its_names(tmp_path, name):
    two_ceilings(tmp_path)
    rows = {row.label: row for row in the_group(tmp_path, name).rows}
    assert rows["sft"].ceiling == rows["other"].ceiling == "qwen"
    assert "no modality gap" not in (tmp_path / "board" / "index.md").read_text()


def test_an_unknown_ceiling_is_refused_and_the_known_ones_are_named(tmp_path):
    two_ceilings(tmp_path)
    with pytest.raises(UserError, match=r"no text ceiling is called 'gpt' \(known: llama-8b, qwen\)"):
        the_group(tmp_path, "gpt")


def test_a_task_that_the_chosen_ceiling_was_not_run_on_is_said(tmp_path):
    two_ceilings(tmp_path)
    for name, spec in (("sft", "runs/sft"), ("llama-8b", "text:meta/llama-8b")):
        write(tmp_path, name, 0.7, spec, task="micro_webquestions_greedy")
    result = build_board([tmp_path], tmp_path / "board", ceiling="qwen")
    assert [warning.split(":")[0] for warning in result.warnings if "no modality gap" in warning] == [
        "micro_webquestions_greedy"
    ]


def test_a_cascade_is_measured_from_its_own_llm(tmp_path):
    two_ceilings(tmp_path)
    write(tmp_path, "by name", 0.3, "cascade:openai/whisper-small+org/qwen")
    write(tmp_path, "by weights", 0.3, "cascade", model={"text": {"weights_sha256": "llama-8b"}})
    rows = {row.label: row for row in the_group(tmp_path).rows}
    assert (rows["by name"].ceiling, rows["by weights"].ceiling) == ("qwen", "llama-8b")


def test_replicates_of_one_ceiling_go_by_seed(tmp_path):
    for seed in (1, 2):
        seeds = {"generation": seed, "bootstrap": 1234}
        write(tmp_path, "sft", 0.3 + 0.1 * seed, seeds=seeds)
        write(tmp_path, "llama", 0.7 + 0.1 * seed, "text:meta/llama", seeds=seeds)
    rows = {row.label: row for row in the_group(tmp_path).rows}
    for seed in (1, 2):
        assert rows[f"sft (seed {seed})"].ceiling == f"llama (seed {seed})"


def test_without_any_ceiling_there_is_no_gap_and_no_warning(tmp_path):
    write(tmp_path, "sft", 0.5)
    result = build_board([tmp_path], tmp_path / "board")
    assert all(row.gap == {} for row in result.groups[0].rows) and result.warnings == ()
    assert "### Modality gap" not in (tmp_path / "board" / "index.md").read_text()


def asr(lang: str, errors: tuple[int, int]) -> list:
    """Transcripts with the same errors everywhere: of words, of characters."""
    scores = {"wer": [errors[0], 10], "cer": [errors[1], 40]}
    update = {"kind": "asr", "target_lang": lang, "group": lang, "scores": scores}
    return [sample.model_copy(update=update) for sample in made.translation_samples(0.0, n=20)]


@pytest.mark.parametrize(("lang", "primary"), [("de", "wer"), ("zh-CN", "cer")])
def test_transcripts_are_ranked_by_fewest_errors_in_the_unit_of_the_language(tmp_path, lang, primary):
    for name, errors in (("sft", (4, 4)), ("worse", (5, 6)), ("best", (1, 1))):
        made.write_run(tmp_path, name, asr(lang, errors), f"micro_asr-{lang}_greedy")
    (group,) = build_board([tmp_path], tmp_path / "board").groups
    assert group.primary == primary
    assert [row.label for row in group.rows] == ["best", "sft", "worse"]
    assert [str(row.bands[primary]) for row in group.rows] == ["1", "2", "3"]
    assert f"{primary} (lower is better)" in (tmp_path / "board" / "index.md").read_text()


def test_several_tasks_of_one_benchmark_and_perturbed_ones_are_told_apart(tmp_path):
    changes = {"benchmark": "covost2"}
    for task in ("covost2_de_en", "covost2_fr_en"):
        made.write_run(tmp_path, "sft", made.translation_samples(0.3, n=20), task, **changes)
    noisy = {
        "protocol_hash": "ef" * 32,
        "protocol_spec": {"task": "covost2_de_en", "perturb": {"text": "noise=10dB", "version": 1}},
    }
    made.write_run(tmp_path, "sft", made.translation_samples(0.6, n=20), "covost2_de_en", **changes, **noisy)
    result = build_board([tmp_path], tmp_path / "board")
    columns = ["covost2_de_en bleu", "covost2_de_en (noise=10dB) bleu", "covost2_fr_en bleu"]
    assert sorted(result.tables[0].headings[1:]) == sorted(columns)
    assert "20 items, clips changed by noise=10dB;" in (tmp_path / "board" / "index.md").read_text()
