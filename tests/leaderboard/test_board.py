"""Building a board: what it refuses, what it computes, and that it can be built again from itself."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rba_bench.errors import UserError
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard.board import build_board, print_board
from rba_bench.leaderboard.board_files import board_differences, render_board
from rba_bench.leaderboard.verify import verify_records
from rba_bench.metrics.bootstrap import paired_difference
from tests.evaluation.conftest import ScriptedModel, write_task
from tests.leaderboard import board_records as made

TASK = "micro_triviaqa_greedy"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return made.quickstart_like(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def board(runs, tmp_path_factory):
    return build_board([runs], tmp_path_factory.mktemp("board"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def two_runs(root: Path, **changes) -> None:
    made.write_run(root, "sft", made.qa_samples(0.5, n=30))
    made.write_run(root, "rba-single", made.qa_samples(0.7, n=30), **changes)


def test_one_section_per_task_and_protocol(board):
    tasks = [f"micro_{name}_{way}" for name in ("triviaqa", "covost2") for way in ("greedy", "sampled")]
    assert [group.task for group in board.groups] == tasks
    page = (board.out / "index.md").read_text()
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == ["Summary", *tasks, "Runs"]
    assert all((board.out / f"{task}.csv").is_file() for task in tasks)


def test_paired_difference_is_the_metric_packages_own_on_the_aligned_items(board):
    group = next(group for group in board.groups if group.task == TASK)
    by_name = {row.label: row for row in group.rows}
    a, b = by_name["rba-group"], by_name["sft"]
    values = [[s.scores["alias_match"] for s in row.run.samples] for row in (a, b)]
    clusters = [s.cluster for s in a.run.samples]
    expected = paired_difference(*values, clusters=clusters)
    found = a.versus["alias_match"]
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert found.value == pytest.approx(np.mean(values[0]) - np.mean(values[1])) and found.value > 0.1
    assert b.versus == {} and b.is_baseline


def test_pairing_sees_more_than_the_two_intervals_do(tmp_path):
    """A little better on the very same items: overlapping intervals, yet a clear difference."""
    for name, skill in (("sft", 0.5), ("rba-single", 0.6)):
        made.write_run(tmp_path, name, made.qa_samples(skill))
    (group,) = build_board([tmp_path], tmp_path / "out").groups
    rows = {row.label: row for row in group.rows}
    single, sft = (rows[name].run.record.metrics["alias_match"] for name in ("rba-single", "sft"))
    assert single.low < sft.high
    assert rows["rba-single"].versus["alias_match"].excludes(0.0)
    assert [str(rows[name].bands["alias_match"]) for name in ("rba-single", "sft")] == ["1", "2"]


def test_four_more_right_answers_of_120_are_no_difference(board):
    """rba-single is right wherever sft is and on four items more, which chance does once in eight times."""
    group = next(group for group in board.groups if group.task == TASK)
    found = next(row for row in group.rows if row.label == "rba-single").versus["alias_match"]
    assert found.value == pytest.approx(4 / 120) and not found.excludes(0.0) and found.p >= 0.125


def test_references_are_marked_and_not_ranked(board):
    for group in board.groups:
        assert {row.label: row.kind for row in group.rows[-3:]} == {
            "text": "ceiling", "cascade": "cascade", "constant": "constant"
        }  # fmt: skip
        assert all(row.kind == "model" and row.bands for row in group.rows[:-3])
        assert all(not row.bands for row in group.rows[-3:])
        ceiling = group.rows[-3]
        assert ceiling.gap == {} and all(
            row.gap[group.primary].low >= 0 for row in group.rows if row.label == "base"
        )


def test_every_number_has_n_interval_hash_and_date(board):
    for group in board.groups:
        rows = rows_of(board.out / f"{group.task}.csv")
        assert len(rows) == len(group.rows) * len(group.metrics)
        for row in rows:
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
            assert (
                int(row["n"]) > 0 and len(row["protocol_hash"]) == 64 and row["date"].startswith("2026-11-20")
            )
            assert (row["versus_baseline"] == "") == (row["model"] == "sft")
            assert row["n_ok"] == row["n"]
    page = (board.out / "index.md").read_text()
    for text in ("`abababab`", "2026-11-20", "95 % interval", "micro track is a miniature world", "tok:13a"):
        assert text in page


def test_corpus_metrics_are_compared_as_corpus_metrics(board):
    group = next(group for group in board.groups if group.task == "micro_covost2_greedy")
    assert group.primary == "bleu"
    row = next(row for row in group.rows if row.label == "rba-group")
    base = next(row for row in group.rows if row.label == "sft")
    stated = [each.run.record.metrics["bleu"].value for each in (row, base)]
    difference = row.versus["bleu"]
    assert difference.value == pytest.approx(stated[0] - stated[1])
    assert difference.low < difference.value < difference.high
    parts = [line for line in rows_of(board.out / "breakdown.csv") if line["task"] == group.task]
    assert {line["group"] for line in parts} == {"de-en", "fr-en"}


def test_same_records_same_bytes_and_the_published_folder_rebuilds_itself(runs, board, tmp_path):
    before = contents(board.out)
    build_board([runs], tmp_path / "again")
    assert contents(tmp_path / "again") == before
    shutil.copytree(board.out, tmp_path / "published")
    build_board([tmp_path / "published"], tmp_path / "published")
    assert contents(tmp_path / "published") == before
    assert any(name.endswith("samples.jsonl.gz") for name in before)
    assert sorted(before) == sorted(json.loads(before["records.json"])["files"])


def test_a_board_that_is_built_again_keeps_its_options_and_another_takes_none(tmp_path):
    two_runs(tmp_path / "runs")
    options = {"baseline_row": "rba-single", "clips": 0, "reported_page": "../paper/index.html"}
    first = build_board([tmp_path / "runs"], tmp_path / "out", **options)
    before = contents(first.out)
    assert contents(build_board([first.out], first.out).out) == before
    made.write_run(tmp_path / "more", "grpo", made.qa_samples(0.6, n=30))
    added = build_board([first.out, tmp_path / "more"], first.out)
    assert (added.data["baseline"], len(added.groups[0].runs)) == ("rba-single", 3)
    assert build_board([first.out], first.out, baseline_row="sft").data["baseline"] == "sft"
    assert build_board([tmp_path / "runs"], first.out).data["options"].keys() == {
        "ceiling", "allow_partial", "equal_length",
    }  # fmt: skip
    (first.out / "records.json").write_text('{"baseline": 3}')
    with pytest.raises(UserError, match="records.json is not of a leaderboard"):
        build_board([first.out], first.out)


def test_a_board_inside_the_run_folder_does_not_read_itself(tmp_path):
    two_runs(tmp_path)
    first = build_board([tmp_path], tmp_path / "leaderboard")
    before = contents(first.out)
    second = build_board([tmp_path], tmp_path / "leaderboard")
    assert contents(second.out) == before


def test_what_no_longer_belongs_is_removed_and_nothing_else(tmp_path):
    two_runs(tmp_path / "runs")
    made.write_run(tmp_path / "runs", "sft", made.translation_samples(0.3, n=20), "micro_covost2_greedy")
    out = build_board([tmp_path / "runs"], tmp_path / "out").out
    (out / "notes.txt").write_text("mine")
    assert (out / "micro_covost2_greedy.csv").exists()
    build_board([tmp_path / "runs" / "rba-single", *(tmp_path / "runs" / "sft").glob(f"{TASK}*")], out)
    assert not (out / "micro_covost2_greedy.csv").exists() and (out / "notes.txt").exists()


def test_partial_runs_are_refused_or_marked(tmp_path):
    two_runs(tmp_path, partial=True, limit=30)
    with pytest.raises(UserError, match=r"partial \(--limit 30\)"):
        build_board([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = build_board([tmp_path], tmp_path / "out", allow_partial=True)
    assert any("partial" in warning for warning in result.warnings)
    assert "(partial)" in (result.out / "index.md").read_text()


def test_a_partial_run_on_fewer_items_has_no_paired_difference(tmp_path):
    made.write_run(tmp_path, "sft", made.qa_samples(0.5, n=30))
    made.write_run(tmp_path, "rba-single", made.qa_samples(0.7, n=10), partial=True, limit=10)
    (group,) = build_board([tmp_path], tmp_path / "out", allow_partial=True).groups
    assert all(row.versus == {} for row in group.rows) and all(row.bands for row in group.rows)


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol_hash": "cd" * 32},
        {"data": {"source": "x", "n_items": 30, "items_sha256": "11" * 32, "audio_set_sha256": "99" * 32}},
    ],
)
def test_another_protocol_or_test_set_never_shares_a_table(tmp_path, changes):
    two_runs(tmp_path, **changes)
    result = build_board([tmp_path], tmp_path / "out")
    assert [len(group.rows) for group in result.groups] == [1, 1]
    assert len(list((tmp_path / "out").glob(f"{TASK}.*.*.csv"))) == 2
    assert any("no paired differences" in warning for warning in result.warnings)


@pytest.mark.parametrize(("track", "both"), [("full", "full and micro"), ("small", "micro and small")])
def test_tracks_never_share_a_board(tmp_path, track, both):
    two_runs(tmp_path, track=track)
    with pytest.raises(UserError, match=f"tracks {both}"):
        build_board([tmp_path], tmp_path / "out")


def test_samples_that_were_changed_are_refused(tmp_path):
    two_runs(tmp_path)
    file = next(tmp_path.rglob("samples.jsonl"))
    file.write_text(file.read_text().replace("no idea", "no clue", 1))
    with pytest.raises(UserError, match="hash differs"):
        build_board([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda record: record["metrics"]["alias_match"].update(value=0.99),
            "alias_match is recorded as 0.99",
        ),
        (lambda record: record["statuses"].update(ok=29, empty=1), "statuses recorded"),
        (lambda record: record.update(n=31), "31 items recorded, 30 samples"),
        (lambda record: record["metrics"]["alias_match"].update(aggregation="magic"), "unknown aggregation"),
        (lambda record: record.pop("protocol_hash"), "not a run record"),
    ],
)
def test_a_record_that_does_not_follow_from_its_samples_is_refused(tmp_path, edit, message):
    two_runs(tmp_path)
    file = next((tmp_path / "rba-single").rglob("run.json"))
    record = json.loads(file.read_text())
    edit(record)
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        build_board([tmp_path], tmp_path / "out")


def test_other_items_under_the_same_name_are_refused(tmp_path):
    made.write_run(tmp_path, "sft", made.qa_samples(0.5, n=30))
    other = [s.model_copy(update={"audio_sha256": "0" * 64}) for s in made.qa_samples(0.5, n=30)]
    made.write_run(tmp_path, "rba-single", other)
    with pytest.raises(UserError, match="hold different items"):
        build_board([tmp_path], tmp_path / "out")


def test_unfinished_and_missing_runs_are_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        build_board([tmp_path / "nowhere"], tmp_path / "out")
    with pytest.raises(UserError, match="no finished run"):
        build_board([tmp_path], tmp_path / "out")
    two_runs(tmp_path)
    half = made.write_run(tmp_path, "rba-group", made.qa_samples(0.5, n=5))
    (half / "run.json").unlink()
    result = build_board([tmp_path], tmp_path / "out")
    assert any("unfinished" in warning and "rba-group" in warning for warning in result.warnings)


def test_statuses_are_counted_and_shown(tmp_path):
    samples = made.qa_samples(0.5, n=30)
    samples[0] = made.sample(0, "qa", "", ["word0"], "facts")
    samples[1] = samples[1].model_copy(update={"status": "truncated"})
    made.write_run(tmp_path, "sft", samples)
    result = build_board([tmp_path], tmp_path / "out")
    assert "2 (empty 1, truncated 1)" in (result.out / "index.md").read_text()
    assert {line["n_empty"] for line in rows_of(result.out / f"{TASK}.csv")} == {"1"}


def test_baseline_by_training_method_and_seed(tmp_path):
    """Replicates: every model is compared with the sft run of its own training seed."""
    for seed in (1, 2):
        for method, skill in (("sft", 0.4 + 0.2 * seed), ("rba-group", 0.6 + 0.2 * seed)):
            note = {"method": method, "seed": seed}
            name = f"{method}-{seed}"
            model = {"name": name, "spec": f"runs/{name}", "weights_sha256": "0", "training": note}
            made.write_run(tmp_path, name, made.qa_samples(skill, seed=seed), model=model)
    (group,) = build_board([tmp_path], tmp_path / "out").groups
    rows = {row.label: row for row in group.rows}
    assert rows["sft-1"].versus == rows["sft-2"].versus == {}
    for seed in (1, 2):
        pair = [
            rows[f"{method}-{seed}"].run.record.metrics["alias_match"].value
            for method in ("rba-group", "sft")
        ]
        assert rows[f"rba-group-{seed}"].versus["alias_match"].value == pytest.approx(pair[0] - pair[1])


def test_a_checkpoint_named_text_is_not_the_ceiling(tmp_path):
    two_runs(tmp_path, model={"name": "text", "spec": "runs/text", "weights_sha256": "0", "training": None})
    (group,) = build_board([tmp_path], tmp_path / "out").groups
    assert {row.kind for row in group.rows} == {"model"} and all(row.gap == {} for row in group.rows)


def test_two_seeds_of_one_model_are_told_apart(tmp_path):
    two_runs(tmp_path)
    made.write_run(tmp_path, "sft", made.qa_samples(0.6, n=30), seeds={"generation": 8, "bootstrap": 1234})
    (group,) = build_board([tmp_path], tmp_path / "out").groups
    assert {row.label for row in group.rows} == {"sft (seed 7)", "sft (seed 8)", "rba-single"}
    single = next(row for row in group.rows if row.label == "rba-single")
    assert single.versus  # compared with the one of its own seed


def test_one_run_under_two_contents_is_refused(tmp_path):
    two_runs(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert len(build_board([tmp_path / "a", tmp_path / "b"], tmp_path / "out").groups[0].rows) == 2
    file = next((tmp_path / "b" / "sft").rglob("run.json"))
    file.write_text(file.read_text().replace("2026-11-20", "2026-11-21"))
    with pytest.raises(UserError, match="different records of one run"):
        build_board([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_questions_are_ranked_by_alias_match_because_answers_are_sentences(board):
    group = next(group for group in board.groups if group.task == TASK)
    assert {"exact_match", "alias_match"} == set(group.metrics) and group.primary == "alias_match"
    ceiling = next(row for row in group.rows if row.kind == "ceiling").run.record.metrics
    assert ceiling["alias_match"].value == 1.0 and ceiling["exact_match"].value < 0.8


def test_records_of_the_real_runner_make_a_board(tmp_path, monkeypatch):
    """Every kind of task through `evaluate`, two models; the parrot repeats the question, the other says nothing."""
    for name, answer in (("sft", lambda request: request.transcript), ("mute", lambda request: "")):
        model = ScriptedModel(answer)
        model.name = name
        own = {
            **model.identity(),
            "weights_sha256": sha256_bytes(name.encode()),
        }  # answers are kept by weights
        monkeypatch.setattr(model, "identity", lambda own=own: own)
        monkeypatch.setattr(
            "rba_bench.speechlm.model_names.load_speech_model", lambda spec, model=model, **_: model
        )
        for benchmark in ("alpacaeval", "triviaqa", "covost2"):
            for sampled in (False, True):
                task = write_task(tmp_path / name, benchmark, sampled)
                evaluate(EvalRequest(tasks=(str(task),), model=name, out=tmp_path / "eval"))
    assert [verdict.faults for verdict in verify_records([tmp_path / "eval"]).verdicts] == [()] * 12
    result = build_board([tmp_path / "eval"], tmp_path / "board")
    assert [(group.primary, len(group.rows)) for group in result.groups] == [
        (metric, 2) for metric in ("win_rate", "asserted_match", "bleu") for _ in range(2)
    ]
    assert len({group.protocol_hash for group in result.groups}) == 6 and result.warnings == ()
    page = (result.out / "index.md").read_text()
    assert str(tmp_path) not in page and "rba_bench.micro.world.grade" in page
    assert "10 (empty 10)" in page and "Difference from sft, sampled decoding" in page


def test_a_section_says_that_its_task_is_not_one_of_ours(board):
    page = (board.out / "index.md").read_text()
    assert [
        group.task for group in board.groups if f"`{group.task}.csv`. This task does not come with" in page
    ] == [
        "micro_triviaqa_greedy",
        "micro_covost2_greedy",
    ]


@pytest.mark.parametrize(
    "edit",
    [lambda found: ["sft was disqualified", *found], lambda found: found[1:]],
    ids=["one more", "one less"],
)
def test_warnings_of_a_board_are_those_of_its_records(runs, tmp_path, edit):
    result = build_board([runs], tmp_path, baseline_row="nobody")
    assert result.warnings and not list(board_differences(tmp_path))
    stated = json.loads((tmp_path / "records.json").read_text())
    stated["warnings"] = edit(stated["warnings"])
    groups = list(result.groups)
    every = [run for group in groups for run in group.runs]
    contents, _ = render_board(every, groups, stated["warnings"], stated["options"])
    for name in ("index.md", "records.json"):
        (tmp_path / name).write_bytes(contents[name])
    assert "records.json has other warnings than the records give" in list(board_differences(tmp_path))


def test_the_terminal_shows_what_the_page_shows(board, capsys):
    print_board(board)
    shown = capsys.readouterr().out
    for group in board.groups:
        value = group.rows[0].run.record.metrics[group.primary]
        assert f"{value.value * 100 / value.scale:.1f} [{value.low * 100 / value.scale:.1f}," in shown
    assert "Difference from sft, sampled decoding" in shown and "(baseline)" in shown and "index.md" in shown
    narrow = Console(width=60, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_board(board, narrow)
    assert "rba-group" in narrow.export_text()


def test_the_published_board_is_what_its_records_give(tmp_path):
    """Records of earlier schemas included: whoever has only the folder can make it again (to rounding of the CPU)."""
    published = Path(__file__).parents[2] / "leaderboards" / "micro"
    assert not [
        verdict.line() for verdict in verify_records([published / "records"]).verdicts if not verdict.ok
    ]
    shutil.copytree(published, tmp_path / "micro")
    build_board([tmp_path / "micro"], tmp_path / "micro")
    before, after = contents(published), contents(tmp_path / "micro")
    assert before.keys() == after.keys() and before["index.md"] == after["index.md"]
    assert all(before[name] == after[name] for name in before if name.startswith("records/"))
    assert all(before[name] == after[name] for name in before if name.endswith((".html", ".js", ".css")))
    tables = [name for name in before if name.endswith(".csv") and not name.startswith("study/")]
    for name in tables:
        for old, new in zip(rows_of(published / name), rows_of(tmp_path / "micro" / name), strict=True):
            assert [close(cell) for cell in old.values()] == [close(cell) for cell in new.values()], name


def close(cell: str) -> object:
    """A number that allows for rounding; any other text as it is."""
    try:
        return pytest.approx(float(cell), rel=1e-9, abs=1e-9)
    except ValueError:
        return cell


def test_protocols_whose_hashes_begin_alike_have_sections_of_their_own(tmp_path):
    for end in "12":  # as somebody could make them who looks for one long enough
        made.write_run(
            tmp_path / end,
            "sft",
            made.qa_samples(0.5, 20),
            "micro_triviaqa",
            protocol_hash="ab" * 31 + "0" + end,
        )
    built = build_board([tmp_path / "1", tmp_path / "2"], tmp_path / "board")
    names = [section["name"] for section in built.data["sections"]]
    assert len(set(names)) == 2
    assert {f"{name}.csv" for name in names} <= {file.name for file in built.files}
    assert list(board_differences(built.out)) == []
