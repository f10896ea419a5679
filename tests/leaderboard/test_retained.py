"""Controls without the speech on boards: shares beside their full runs, never a rank, and in every output."""

import csv
import json
from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import metrics_of
from rba_bench.evaluation.plan import protocol_hash
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scoring import summarise_metrics
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import board_differences
from rba_bench.leaderboard.compare_runs import compare_runs
from rba_bench.metrics.bootstrap import paired_difference
from tests.leaderboard.board_records import qa_samples, sample, translation_samples, write_run

TASK = "micro_triviaqa_greedy"


def spec(task: str = TASK, audio: str = "") -> dict[str, object]:
    return {"task": task, **({"audio": {"text": audio, "version": 1}} if audio else {})}


def write(
    root: Path, name: str, samples: list[Sample], audio: str = "", task: str = TASK, **changes: object
) -> Path:
    """A run whose protocol hash is that of its protocol."""
    protocol = spec(task, audio)
    return write_run(
        root, name, samples, task, protocol_hash=protocol_hash(protocol), protocol_spec=protocol, **changes
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name, skill, silent in (("base", 0.6, 0.15), ("sft", 0.8, 0.1)):
        write(root, name, qa_samples(skill))
        write(root, name, qa_samples(silent, seed=1), "silence")
    write(root, "sft", qa_samples(0.2, seed=2), "shuffle")
    write(root, "constant", qa_samples(0.05, seed=3))
    write(root, "text", qa_samples(0.95, seed=4))
    return root


def test_a_control_is_a_share_of_its_full_run_and_never_a_row(runs, tmp_path):
    result = build_board([runs], tmp_path / "board")
    [group] = result.groups
    assert [row.label for row in group.rows if row.kind == "model"] == ["sft", "base"]
    assert group.controls == ["silence", "shuffle"]
    rows = {row.label: row for row in group.rows}
    assert set(rows["sft"].retained) == {"silence", "shuffle"} and set(rows["base"].retained) == {"silence"}
    full = [s.scores["alias_match"] for s in qa_samples(0.8)]
    silent = [s.scores["alias_match"] for s in qa_samples(0.1, seed=1)]
    share = rows["sft"].retained["silence"]["alias_match"]
    assert share.value == pytest.approx(sum(silent) / sum(full)) and share.n == 120
    assert 0 <= share.low < share.value < share.high < 1
    assert paired_difference(silent, full, clusters=[s.cluster for s in qa_samples(0.8)]).excludes(0.0)
    assert not rows["text"].retained and not rows["constant"].retained


def test_without_controls_nothing_changes(runs, tmp_path):
    """The other numbers of a board do not depend on whether there are controls."""
    first = build_board([runs], tmp_path / "with")
    second = build_board(
        [
            f
            for f in runs.glob("*/*")
            if "audio" not in json.loads((f / "run.json").read_text())["protocol_spec"]
        ],
        tmp_path / "without",
    )
    with_controls = first.data["sections"][0]["rows"]
    plain = second.data["sections"][0]["rows"]
    assert [{k: v for k, v in row.items() if k in plain[0]} for row in with_controls] == plain
    assert not any("retained" in key or "control" in key for key in plain[0])
    assert "retained" not in (tmp_path / "without" / "index.md").read_text()


def test_the_share_stands_on_the_page_in_csv_and_json(runs, tmp_path):
    board = tmp_path / "board"
    result = build_board([runs], board)
    page = (board / "index.md").read_text()
    [heading] = [line for line in page.splitlines() if line.startswith("| rank")]
    assert "| retained, silence % | retained, shuffle % |" in heading
    share = {row.label: row for row in result.groups[0].rows}["sft"].retained["silence"]["alias_match"]
    shown = f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
    rows = [line for line in page.splitlines() if line.startswith("| ") and "| sft |" in line]
    assert any(shown in line for line in rows)
    assert (
        next(line for line in page.splitlines() if line.startswith("| ref | text (ref) |")).count("(ceiling)")
        == 3
    )
    assert "### Retained without the speech (silence), greedy decoding" in page
    assert "| Without the speech | control |" in page and "| base | silence |" in page
    assert page.count(f"{TASK} (silence)") == 2 and page.count(f"{TASK} (shuffle)") == 1
    with open(board / f"{TASK}.csv", newline="") as handle:
        table = {(row["model"], row["metric"]): row for row in csv.DictReader(handle)}
    row = table["sft", "alias_match"]
    assert float(row["retained_silence"]) == pytest.approx(share.value)
    assert float(row["retained_silence_high"]) == pytest.approx(share.high)
    assert float(row["control_silence"]) < 0.3 and row["control_silence_run_id"].startswith(TASK)
    assert table["base", "alias_match"]["retained_shuffle"] == ""
    [section] = json.loads((board / "records.json").read_text())["sections"]
    assert any(each["retained_silence"] == pytest.approx(share.value) for each in section["rows"])


def test_a_task_keeps_its_name_where_it_alone_has_controls(runs, tmp_path):
    """A benchmark of several tasks does not lend its name to one of them."""
    write(runs, "sft", qa_samples(0.7), task="micro_triviaqa_other")
    page_groups = build_board([runs], tmp_path / "board").groups
    assert len({group.record.benchmark for group in page_groups}) == 1
    page = (tmp_path / "board" / "index.md").read_text()
    [table] = [
        part for part in page.split("### ") if part.startswith("Retained without the speech (silence)")
    ]
    assert f"| {TASK} alias_match %" in table


def test_a_board_with_controls_is_made_again_from_itself(runs, tmp_path):
    board = tmp_path / "board"
    build_board([runs], board)
    before = {file: file.read_bytes() for file in board.rglob("*") if file.is_file()}
    assert not list(board_differences(board))
    build_board([board], board)
    assert {file: file.read_bytes() for file in board.rglob("*") if file.is_file()} == before
    page = board / "index.md"
    page.write_text(page.read_text().replace("retained, silence", "retained, noise"))
    assert any("index.md" in fault for fault in board_differences(board))


def test_first_seconds_have_a_column_each_in_their_order(tmp_path):
    write(tmp_path, "sft", qa_samples(0.8))
    for audio in ("first=10s", "first=2s", "silence", "first=0.5s"):
        write(tmp_path, "sft", qa_samples(0.3, seed=5), audio)
    [group] = build_board([tmp_path], tmp_path / "board").groups
    assert group.controls == ["silence", "first=0.5s", "first=2s", "first=10s"]


def test_items_without_a_score_are_left_out_on_both_sides(tmp_path):
    full, silent = qa_samples(0.8), qa_samples(0.3, seed=1)
    blank = {"response": "", "extracted": "", "scores": {}, "status": "not_heard", "error": "no sound"}
    full[0], silent[1] = full[0].model_copy(update=blank), silent[1].model_copy(update=blank)
    write(tmp_path, "sft", full)
    write(tmp_path, "sft", silent, "silence")
    [row] = build_board([tmp_path], tmp_path / "board").groups[0].rows
    share = row.retained["silence"]["alias_match"]
    parts = [[s.scores["alias_match"] for s in side[2:]] for side in (silent, full)]
    assert share.n == 118 and share.value == pytest.approx(sum(parts[0]) / sum(parts[1]))


def test_an_error_rate_keeps_what_is_not_wrong(tmp_path):
    def transcripts(words: int) -> list[Sample]:
        text = "the cat sleeps near that very old red wooden house"
        return [
            sample(i, "asr", " ".join(text.split()[:words]), [text], group="en").model_copy(
                update={"cluster": f"c{i}"}
            )
            for i in range(20)
        ]

    pytest.importorskip("whisper")
    task = "librispeech_test"
    write(tmp_path, "sft", transcripts(9), task=task)
    write(tmp_path, "sft", transcripts(2), "first=1s", task=task)
    [row] = build_board([tmp_path], tmp_path / "board").groups[0].rows
    assert row.retained["first=1s"]["wer"].value == pytest.approx(20 / 90)


def test_a_rating_keeps_what_is_above_the_lowest(tmp_path):
    [rating] = metrics_of("rating")

    def rated(mean: float) -> list[Sample]:
        return [
            each.model_copy(update={"scores": {**each.scores, "rating": mean + (-1) ** each.doc_id}})
            for each in qa_samples(0.5)
        ]

    for samples, audio in ((rated(4.0), ""), (rated(2.5), "shuffle")):
        write(tmp_path, "sft", samples, audio, metrics=summarise_metrics(samples, [rating]))
    [row] = build_board([tmp_path], tmp_path / "board").groups[0].rows
    share = row.retained["shuffle"]["rating"]
    assert share.value == pytest.approx(1.5 / 3) and 0 < share.low < share.value < share.high < 1


def test_a_corpus_metric_has_a_share_too_and_a_score_of_nothing_has_none(tmp_path):
    task = "micro_covost2_greedy"
    write(tmp_path, "sft", translation_samples(0.1), task=task)
    write(tmp_path, "sft", translation_samples(0.9, seed=1), "silence", task=task)
    write(
        tmp_path,
        "mute",
        [
            s.model_copy(update={"scores": {**s.scores, "alias_match": 0.0, "exact_match": 0.0}})
            for s in qa_samples(-1)
        ],
    )
    write(tmp_path, "mute", qa_samples(-1), "silence")
    groups = {group.task: group for group in build_board([tmp_path], tmp_path / "board").groups}
    [translated], [mute] = groups[task].rows, groups[TASK].rows
    share = translated.retained["silence"]["bleu"]
    assert 0 <= share.low <= share.value <= share.high < 0.5
    assert mute.retained == {"silence": {}}
    with open(tmp_path / "board" / f"{TASK}.csv", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["model"] == "mute"]
    assert rows and all(row["control_silence"] == "0.0" and row["retained_silence"] == "" for row in rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "sft", "spec": "sft", "weights_sha256": "44" * 32, "training": None}},
        {"data": {"source": TASK, "n_items": 120, "items_sha256": "77" * 32, "audio_set_sha256": "22" * 32}},
        {"decoding": {"temperature": 1.0}, "seeds": {"generation": 8, "bootstrap": 1234}},
    ],
    ids=["other weights", "other items", "other seed"],
)
def test_a_control_without_its_full_run_is_refused_in_a_line(tmp_path, changes):
    write(tmp_path, "sft", qa_samples(0.8))
    write(tmp_path, "sft", qa_samples(0.2), "silence", **changes)
    with pytest.raises(
        UserError, match="no full run to compare it with: evaluate the model without --audio"
    ) as refused:
        build_board([tmp_path], tmp_path / "board")
    assert "\n" not in str(refused.value)


def test_controls_alone_are_no_board(tmp_path):
    write(tmp_path, "sft", qa_samples(0.2), "silence")
    with pytest.raises(UserError, match="no full run"):
        build_board([tmp_path], tmp_path / "board")


def test_sampled_runs_find_the_control_of_their_own_seed(tmp_path):
    for seed, skill in ((1, 0.9), (2, 0.3)):
        changes = {"decoding": {"temperature": 1.0}, "seeds": {"generation": seed, "bootstrap": 1234}}
        write(tmp_path, "sft", qa_samples(0.8, seed=seed), **changes)
        write(tmp_path, "sft", qa_samples(skill, seed=seed), "silence", **changes)
    [group] = build_board([tmp_path], tmp_path / "board").groups
    shares = {
        row.run.record.seeds["generation"]: row.retained["silence"]["alias_match"].value for row in group.rows
    }
    assert shares[1] > 0.9 > 0.7 > shares[2]


def test_of_two_controls_of_one_kind_the_newer_counts(tmp_path):
    write(tmp_path, "sft", qa_samples(0.8))
    write(tmp_path, "sft", qa_samples(0.6, seed=1), "silence", created="2026-11-20T10:00:00+00:00")
    newer = write(tmp_path, "sft", qa_samples(0.1, seed=1), "silence", created="2026-11-21T10:00:00+00:00")
    [row] = build_board([tmp_path], tmp_path / "board").groups[0].rows
    assert row.controls["silence"].folder.name == newer.name


HOSTILE = "<img src=x onerror=alert(1)>](javascript:alert(2))|\n# x \u202e=cmd() {metric.__class__} {0}"


def test_a_hostile_name_of_a_control_is_only_text(tmp_path):
    write(tmp_path, "sft", qa_samples(0.8))
    write(tmp_path, "sft", qa_samples(0.2, seed=1), HOSTILE)
    build_board([tmp_path], tmp_path / "board")
    for name in ("index.md", f"{TASK}.csv"):
        text = (tmp_path / "board" / name).read_text()
        assert "{metric.__class__} {0}" in text, "a heading is no template of a record"
        assert not any(part in text for part in ("<img", "](javascript", "\n# x", "\u202e"))


def test_compare_says_what_a_control_retains_of_its_full_run(tmp_path):
    full = write(tmp_path, "sft", qa_samples(0.8))
    silent = write(tmp_path, "sft", qa_samples(0.2, seed=1), "silence")
    with pytest.raises(UserError, match=r"protocols differ in audio .*; --across compares them all the same"):
        compare_runs(silent, full)
    [comparison] = compare_runs(silent, full, across=True).comparisons
    heading = "\n".join(comparison.heading())
    assert "control silence" in heading and "retained is A as a share of B" in heading
    [metric] = [each for each in comparison.to_dict()["metrics"] if each["metric"] == "alias_match"]
    assert metric["retained"]["value"] == pytest.approx(metric["a"] / metric["b"])
    assert comparison.table().headings[-1] == "retained % [95 %]"
    shuffled = write(tmp_path, "sft", qa_samples(0.1, seed=2), "shuffle")
    [controls] = compare_runs(silent, shuffled, across=True).comparisons
    assert controls.metrics and not controls.retained, "two controls have no full score"
    [reverse] = compare_runs(full, silent, across=True).comparisons
    assert not reverse.retained and all(each["retained"] is None for each in reverse.to_dict()["metrics"])
