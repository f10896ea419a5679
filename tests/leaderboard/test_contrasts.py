"""Two runs in pairs: intervals, items left out, wins, what is refused and why, and how folders are matched."""

from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from rba_bench.errors import UserError
from rba_bench.evaluation.records import Sample
from rba_bench.leaderboard import loaded_runs
from rba_bench.leaderboard.compare_runs import compare_runs, run_headers
from rba_bench.leaderboard.pairing import Contrast, RunPair
from rba_bench.metrics.aggregate import MacroScore, macro_rows, score_function
from rba_bench.metrics.bootstrap import paired_difference
from tests.leaderboard import board_records as made

BLEU_TASK = "micro_covost2_greedy"


def unscored(samples: list[Sample], *doc_ids: int) -> list[Sample]:
    """The samples with the judge failed on some."""
    update = {"scores": {}, "status": "judge_failed", "error": "the judge did not answer"}
    return [s.model_copy(update=update) if s.doc_id in doc_ids else s for s in samples]


def the_contrast(a: Path, b: Path, metric: str) -> Contrast:
    (comparison,) = compare_runs(a, b).comparisons
    return next(found for found in comparison.metrics if found.metric == metric)


def test_the_difference_is_the_paired_bootstrap_of_the_aligned_items(tmp_path):
    a, b = made.qa_samples(0.56, seed=7), made.qa_samples(0.54, seed=8)
    found = the_contrast(made.write_run(tmp_path, "a", a), made.write_run(tmp_path, "b", b), "alias_match")
    values = [[s.scores["alias_match"] for s in side] for side in (a, b)]
    expected = paired_difference(*values, clusters=[s.cluster for s in a])
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert (found.a, found.b) == pytest.approx((np.mean(values[0]), np.mean(values[1])))
    gaps = np.subtract(*values)
    assert (found.wins, found.ties, found.losses) == (sum(gaps > 0), sum(gaps == 0), sum(gaps < 0))
    assert found.wins > found.losses > 0 and (found.n, found.n_left_out) == (120, 0)


def test_items_without_a_score_on_either_side_are_left_out_of_both(tmp_path):
    a, b = unscored(made.qa_samples(0.8), 0, 1, 2), unscored(made.qa_samples(0.5, seed=1), 2, 50)
    found = the_contrast(made.write_run(tmp_path, "a", a), made.write_run(tmp_path, "b", b), "exact_match")
    kept = [index for index in range(120) if index not in (0, 1, 2, 50)]
    values = [[side[index].scores["exact_match"] for index in kept] for side in (a, b)]
    expected = paired_difference(*values, clusters=[a[index].cluster for index in kept])
    assert (found.n, found.n_left_out) == (116, 4)
    assert (found.a, found.b) == pytest.approx((np.mean(values[0]), np.mean(values[1])))
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert "4 of 120 items not scored in both are left out" in found.difference.method
    assert found.wins + found.ties + found.losses == 116


def test_corpus_metrics_are_paired_as_corpora_and_won_by_sentences(tmp_path):
    a, b = made.translation_samples(0.2), made.translation_samples(0.5, seed=1)
    a, b = unscored(a, 3), unscored(b, 4)
    folders = [made.write_run(tmp_path, name, side, BLEU_TASK) for name, side in (("a", a), ("b", b))]
    found = the_contrast(*folders, "bleu")
    kept = [index for index in range(60) if index not in (3, 4)]
    groups, clusters = [a[i].group for i in kept], [a[i].cluster for i in kept]
    rows = [macro_rows([side[i].scores["bleu"] for i in kept], groups) for side in (a, b)]
    expected = paired_difference(*rows, MacroScore(score_function("bleu"), 10), clusters)
    assert found.difference.value == pytest.approx(expected.value)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    sentences = [
        [sacrebleu.sentence_bleu(side[i].response, side[i].references).score for i in kept] for side in (a, b)
    ]
    gaps = np.subtract(*sentences)
    assert (found.wins, found.losses) == (sum(gaps > 1e-9), sum(gaps < -1e-9)) and found.wins > 40


def asr_samples(lang: str, swap: int) -> list[Sample]:
    """Eight words each; every `swap`-th item has two of them wrong."""
    samples = []
    for sample in made.translation_samples(0.0, n=40):
        words = sample.response.split()
        wrong = sample.doc_id % swap == 0
        scores = {"wer": [2 * wrong, len(words)], "cer": [9 * wrong, 40]}
        update = {"kind": "asr", "target_lang": lang, "group": lang, "scores": scores}
        samples.append(sample.model_copy(update=update))
    return samples


def test_fewer_errors_win(tmp_path):
    good = made.write_run(tmp_path, "good", asr_samples("de", 4), "full_asr_greedy")
    bad = made.write_run(tmp_path, "bad", asr_samples("de", 2), "full_asr_greedy")
    found = the_contrast(good, bad, "wer")
    assert (found.a, found.b) == pytest.approx((100 * 20 / 320, 100 * 40 / 320))
    assert (found.wins, found.ties, found.losses) == (10, 30, 0) and not found.higher_is_better
    assert found.difference.high < 0 and found.relative.value == pytest.approx(-0.5)


def test_the_relative_drop_has_an_interval_and_is_absent_where_b_may_be_zero(tmp_path):
    sides = {"speech": made.qa_samples(0.4), "text": made.qa_samples(1.2), "none": made.qa_samples(-1)}
    places = {name: made.write_run(tmp_path, name, side) for name, side in sides.items()}
    found = the_contrast(places["speech"], places["text"], "alias_match")
    assert found.relative.value == pytest.approx((found.a - found.b) / found.b)
    assert found.relative.low < found.relative.value < found.relative.high < 0
    assert the_contrast(places["text"], places["none"], "alias_match").relative is None
    one = [s if s.doc_id else made.sample(0, "qa", "word0", ["word0"], "facts") for s in made.qa_samples(-1)]
    rare = the_contrast(places["text"], made.write_run(tmp_path, "rare", one), "alias_match")
    assert (
        rare.b == pytest.approx(1 / 120) and rare.relative is None
    )  # a third of the resamples have none right


def test_a_run_against_itself_is_all_ties(tmp_path):
    folder = made.write_run(tmp_path, "a", made.translation_samples(0.3), BLEU_TASK)
    found = the_contrast(folder, folder / "run.json", "bleu")
    assert found.difference.value == 0.0 and found.difference.p == 1.0
    assert found.difference.low == -found.difference.high < 0, "sixty equal answers leave room for others"
    assert (found.wins, found.ties, found.losses) == (0, 60, 0)


SPEC = {"task": "t", "decoding": {"temperature": 0.0}, "yaml": {"metric_list": [{"metric": "a"}]}}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"decoding": {"temperature": 0.7}}, "decoding.temperature (0.0 against 0.7)"),
        ({"yaml": {"metric_list": [{"metric": "b"}]}}, 'yaml.metric_list[0].metric ("a" against "b")'),
        ({"judge": {"name": "x"}}, 'judge (absent against {"name": "x"})'),
        ({"perturb": "noise=10dB"}, 'perturb (absent against "noise=10dB")'),
        ({f"k{i}": i for i in range(5)}, "k2 (absent against 2), 2 more"),
        ({}, "their hashes, though not in what they record"),
    ],
)
def test_other_protocols_are_refused_and_the_difference_is_named(tmp_path, changed, named):
    a = made.write_run(tmp_path, "a", made.qa_samples(0.5, n=10), protocol_spec=SPEC)
    other = {"protocol_hash": "cd" * 32, "protocol_spec": {**SPEC, **changed}}
    b = made.write_run(tmp_path, "b", made.qa_samples(0.5, n=10), **other)
    with pytest.raises(UserError) as refused:
        compare_runs(a, b)
    assert named in str(refused.value) and "their protocols differ in" in str(refused.value)


def test_other_test_sets_and_other_tasks_are_refused(tmp_path):
    a = made.write_run(tmp_path, "a", made.qa_samples(0.5, n=10))
    data = {"source": "x", "n_items": 9, "items_sha256": "11" * 32, "audio_set_sha256": "99" * 32}
    b = made.write_run(tmp_path, "b", made.qa_samples(0.5, n=10), data=data)
    with pytest.raises(UserError, match=r"number of items \(10 against 9\), clips"):
        compare_runs(a, b)
    other = made.write_run(tmp_path, "b", made.translation_samples(0.5, n=10), BLEU_TASK)
    with pytest.raises(UserError, match=f"different tasks, micro_triviaqa_greedy and {BLEU_TASK}"):
        compare_runs(a, other)


def test_other_items_under_one_name_are_refused(tmp_path):
    samples = made.qa_samples(0.5, n=10)
    a = made.write_run(tmp_path, "a", samples)
    b = made.write_run(tmp_path, "b", [s.model_copy(update={"audio_sha256": "0" * 64}) for s in samples])
    with pytest.raises(UserError, match="are complete but hold different items"):
        compare_runs(a, b)


def noisy(samples: list[Sample]) -> list[Sample]:
    """The same items with other clips and other clusters."""
    return [s.model_copy(update={"audio_sha256": "9" * 64, "cluster": f"x{s.doc_id}"}) for s in samples]


ACROSS = {"protocol_hash": "cd" * 32, "protocol_spec": {"task": "micro_triviaqa_greedy", "perturb": "noise"}}


def test_across_protocols_the_same_items_are_paired_and_what_differs_is_said(tmp_path):
    clean, changed = made.qa_samples(0.8), noisy(made.qa_samples(0.5, seed=1))[::-1]
    a = made.write_run(tmp_path, "clean", clean)
    b = made.write_run(tmp_path, "noisy", changed, **ACROSS)
    with pytest.raises(UserError, match="their protocols differ in perturb"):
        compare_runs(a, b)
    (comparison,) = compare_runs(a, b, across=True).comparisons
    assert "though their protocols differ in perturb (absent against" in comparison.heading()[-1]
    found = next(found for found in comparison.metrics if found.metric == "alias_match")
    values = [[s.scores["alias_match"] for s in side] for side in (clean, changed[::-1])]
    expected = paired_difference(*values, clusters=[s.cluster for s in clean])
    assert (found.n, found.n_left_out) == (120, 0)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))


def test_across_protocols_other_items_and_other_metrics_are_refused(tmp_path):
    samples = made.qa_samples(0.5, n=10)
    a = made.write_run(tmp_path, "a", samples)
    renamed = [s.model_copy(update={"references": [*s.references, "more"]}) for s in samples]
    b = made.write_run(tmp_path, "b", renamed, **ACROSS)
    with pytest.raises(UserError, match="hold different items"):
        compare_runs(a, b, across=True)
    metrics = {name: value.model_dump() for name, value in made.summarise_metrics(samples).items()}
    for value in metrics.values():
        value["signature"] = "another normaliser"
    c = made.write_run(tmp_path, "c", samples, metrics=metrics, **ACROSS)
    with pytest.raises(UserError, match="no metric of one signature and one judge"):
        compare_runs(a, c, across=True)
    with pytest.raises(UserError, match="two single runs"):
        compare_runs(tmp_path, a, across=True)


def test_a_partial_run_is_compared_on_the_items_that_it_has(tmp_path):
    a = made.write_run(tmp_path, "a", made.qa_samples(0.9))
    b = made.write_run(tmp_path, "b", made.qa_samples(0.5, n=30), partial=True, limit=30)
    found = the_contrast(a, b, "alias_match")
    assert (found.n, found.n_left_out) == (30, 90)
    assert found.a == pytest.approx(np.mean([s.scores["alias_match"] for s in made.qa_samples(0.9)[:30]]))
    (comparison,) = compare_runs(a, b).comparisons
    assert any("partial: 30 items" in line for line in comparison.heading())


def test_two_folders_are_compared_task_by_task(tmp_path):
    root = made.quickstart_like(tmp_path)
    made.write_run(root, "sft", made.qa_samples(0.5, n=20), "micro_webquestions_greedy")
    made.write_run(
        root, "text", made.qa_samples(0.5, n=20), "micro_alpacaeval_greedy", protocol_hash="ef" * 32
    )
    made.write_run(
        root, "sft", made.qa_samples(0.5, n=20), "micro_alpacaeval_greedy", protocol_spec={"task": "t"}
    )
    result = compare_runs(root / "sft", root / "text")
    tasks = [f"micro_{name}_{way}" for name in ("covost2", "triviaqa") for way in ("greedy", "sampled")]
    assert [each.first.record.task for each in result.comparisons] == tasks
    assert all((each.first.name, each.second.name) == ("sft", "text") for each in result.comparisons)
    assert len(result.left_out) == 2
    assert "micro_alpacaeval_greedy: their protocols differ in task" in result.left_out[0]
    assert "micro_webquestions_greedy under protocol abababab: only A has a run of it" in result.left_out[1]


def test_of_several_runs_those_of_equal_seed_are_paired(tmp_path):
    for name, skill in (("a", 0.8), ("b", 0.5)):
        for seed in (1, 2):
            seeds = {"generation": seed, "bootstrap": 1234}
            made.write_run(tmp_path, name, made.qa_samples(skill, seed=seed), seeds=seeds)
    made.write_run(tmp_path, "a", made.qa_samples(0.8, seed=3), seeds={"generation": 3, "bootstrap": 1234})
    result = compare_runs(tmp_path / "a", tmp_path / "b")
    seeds = [
        (c.first.record.seeds["generation"], c.second.record.seeds["generation"]) for c in result.comparisons
    ]
    assert sorted(seeds) == [(1, 1), (2, 2)]
    assert "of 3 and 2 runs not all have one counterpart" in result.left_out[0]


def test_several_models_on_one_side_are_refused(tmp_path):
    for name in ("a", "b", "text"):
        made.write_run(tmp_path, name, made.qa_samples(0.5, n=10))
    with pytest.raises(
        UserError, match="of 3 and 1 runs not all have one counterpart .* name one run folder each"
    ):
        compare_runs(tmp_path, tmp_path / "text")


def test_missing_unfinished_and_doubled_runs(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        run_headers(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no finished run"):
        run_headers(tmp_path)
    run = made.write_run(tmp_path / "x", "a", made.qa_samples(0.5, n=10))
    copy = tmp_path / "y" / run.name
    copy.mkdir(parents=True)
    (copy / "run.json").write_bytes((run / "run.json").read_bytes())
    assert len(run_headers(tmp_path)) == 1  # a published copy is the same run
    (copy / "run.json").write_text((run / "run.json").read_text().replace("2026-11-20", "2026-11-21"))
    with pytest.raises(UserError, match="different records of one run"):
        run_headers(tmp_path)


def test_a_damaged_run_is_refused(tmp_path):
    a = made.write_run(tmp_path, "a", made.qa_samples(0.5, n=10))
    b = made.write_run(tmp_path, "b", made.qa_samples(0.6, n=10))
    file = b / "samples.jsonl"
    file.write_text(file.read_text().replace("no idea", "no clue", 1))
    with pytest.raises(UserError, match="hash differs"):
        compare_runs(a, b)


def test_no_item_scored_on_both_sides(tmp_path):
    a, b = (
        unscored(made.qa_samples(0.5, n=10), *range(5)),
        unscored(made.qa_samples(0.5, n=10), *range(5, 10)),
    )
    places = made.write_run(tmp_path, "a", a), made.write_run(tmp_path, "b", b)
    assert RunPair(*map(loaded_runs.load_checked_run, places)).difference("alias_match") is None
    with pytest.raises(UserError, match="no item with a score in both"):
        compare_runs(*places)
