"""What a board costs: work that grows with models and not with pairs, memory of one task, any number of processes."""

import gzip
import json
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation import records as records_module
from rba_bench.evaluation.records import Sample, parse_checked_items, parse_checked_samples, parse_samples
from rba_bench.evaluation.scorers import pairwise
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard import board, board_ranks, item_facts, loaded_runs, pairing, verified_records
from rba_bench.leaderboard.site import facts, sample_sections
from rba_bench.leaderboard.verify import verify_records
from rba_bench.metrics import bootstrap

ROOT = Path(__file__).resolve().parents[2]
MODELS, ITEMS = 6, 40


@pytest.fixture(scope="module")
def generator() -> Any:
    """The script that makes records for measuring boards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import board_generator

        return board_generator


@pytest.fixture(scope="module")
def records(generator: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tasks, one of each kind, by some models; two models more below `more`."""
    root = tmp_path_factory.mktemp("invented")
    for number in range(len(generator.KINDS)):
        task = generator.make_task(number, ITEMS, root / "votes")
        for model in range(MODELS):
            generator.write_record(root / "records", task, model, packed=bool(model % 2))
        for model in range(MODELS, 2 * MODELS):
            generator.write_record(root / "more", task, model)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / verified_records.FOLDER


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that pass unseen, where a test is about what comes after."""
    monkeypatch.setattr(verified_records, "fault_of", lambda run: None)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_invented_records_are_verified_as_real_ones(records, generator):
    checked = verify_records([records / "records"])
    assert checked.ok and len(checked.verdicts) == MODELS * len(generator.KINDS)
    metrics = Counter(name for run in checked.runs for name in run.record.metrics)
    assert set(metrics) == {
        "asserted_match",
        "exact_match",
        "alias_match",
        "bleu",
        "chrf++",
        "wer",
        "cer",
        "win_rate",
    }
    assert all(run.record.metrics[name].stderr > 0 for run in checked.runs for name in run.record.metrics)


def test_any_number_of_processes_makes_the_same_board(records, tmp_path):
    for workers in (1, 2):
        board.build_board([records / "records"], tmp_path / f"{workers}", workers=workers, verify_again=True)
    alone, together = files(tmp_path / "1"), files(tmp_path / "2")
    assert alone == together
    pages = [name for name in alone if name.startswith(("index.html", "site/", "samples/"))]
    assert len(alone) == len(pages) + 4 + 3 + 2 * 4 * MODELS
    data = json.loads(alone["records.json"])
    assert sorted(alone) == data["files"]
    ranks = {(row["rank_best"], row["rank_worst"]) for each in data["sections"] for row in each["rows"]}
    assert len(ranks) > 3  # models are told apart


def counted(patch: pytest.MonkeyPatch, *places: tuple[Any, str]) -> Counter[str]:
    """Calls of functions from now on."""
    calls: Counter[str] = Counter()

    def counting(name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        return call

    for module, name in places:
        patch.setattr(module, name, counting(name, getattr(module, name)))
    return calls


def forget_items() -> None:
    """What earlier tests have left of the items of these records."""
    for kept in (item_facts.fingerprint, item_facts.items_sha256, item_facts._score_once):
        kept.cache_clear()


@pytest.mark.parametrize("verify", ["build", "verify"])
def test_what_follows_from_the_items_is_computed_once_for_all_models(records, generator, monkeypatch, verify):
    """And the score of an answer once, whoever gave it; the samples of a record are read once."""
    paths, tasks = [records / "records", records / "more"], len(generator.KINDS)
    runs = [loaded_runs.load_checked_run(folder) for folder in loaded_runs.find_runs(paths)]
    answers = {(run.record.task, s.doc_id, s.response) for run in runs for s in run.samples}
    votes = [vote for run in runs for s in run.samples for vote in _votes(s)]
    forget_items()
    places = (
        (item_facts.documents, "set_fingerprint"),
        (item_facts, "sha256_json"),
        (item_facts.scoring, "score_item"),
        (loaded_runs, "sample_bytes"),
        (pairwise, "read_pair_vote"),
    )
    with monkeypatch.context() as patch:
        calls = counted(patch, *places)
        if verify == "build":
            opened = [loaded_runs.open_run(run.folder) for run in runs]
            verified_records.verify_once(opened, verified_records.VerifiedRecords(None), map)
        else:
            assert verify_records(paths).ok
    assert len(runs) == 2 * MODELS * tasks and len(answers) < sum(run.record.n for run in runs) / 2
    assert calls == {
        "set_fingerprint": tasks,
        "sha256_json": tasks,
        "score_item": len(answers),
        "sample_bytes": len(runs),
        "read_pair_vote": len(votes),
    }


def _votes(sample: Sample) -> list[Any]:
    judged = (sample.judge or {}).values()
    return [vote for each in judged if isinstance(each, dict) for vote in each.get("votes", ())]


def test_an_answer_to_another_item_is_scored_anew(records):
    """The same words are right for one question and wrong for another."""
    folder = next(iter(sorted((records / "records").glob("*/invented_qa_00-*"))))
    item = loaded_runs.load_checked_run(folder).item_facts[0]
    right, *_ = item.references
    assert item_facts.score_answer(item, right).scores["exact_match"] == 1.0
    other = item._replace(references=("something else",))
    assert item_facts.score_answer(other, right).scores["exact_match"] == 0.0
    assert item_facts.score_answer(item, right).scores["exact_match"] == 1.0


def test_records_on_one_test_set_are_verified_together(records, monkeypatch):
    runs = [loaded_runs.open_run(folder) for folder in loaded_runs.find_runs([records / "records"])]
    jobs = verified_records._jobs(runs)
    assert [len({run.record.task for run in job}) for job in jobs] == [1, 1, 1, 1]
    monkeypatch.setattr(verified_records, "TOGETHER", 2 * ITEMS)
    pairs = verified_records._jobs(runs)
    assert [len(job) for job in pairs] == [2] * (4 * MODELS // 2)
    assert {run for job in pairs for run in job} == set(runs)


def test_work_grows_with_models_and_not_with_pairs(records, tmp_path, monkeypatch, trusted):
    """Twice the models: twice the resamples and single differences, where there are four times the pairs."""
    places = (
        (pairing, "resampled_scores"),
        (bootstrap, "cluster_rows"),
        (pairing.paired, "difference_interval"),
        (board_ranks, "summed_up"),
        (loaded_runs, "parse_checked_items"),
        (sample_sections, "kind_of_run"),
    )
    monkeypatch.setattr(facts, "ALL_PAIRS", 0)  # a small board's page holds all pairs
    work = []
    for folders in ([records / "records"], [records / "records", records / "more"]):
        board.build_board(folders, tmp_path / "before")
        with monkeypatch.context() as patch:
            calls = counted(patch, *places, (pairing.RunPair, "__init__"))
            board.build_board(folders, tmp_path / f"{len(folders)}")
            work.append(calls)
    few, many = work
    assert min(few[name] for _, name in places) > 0 and few["__init__"] > 0
    for name in few:
        # references and the baseline are the same few: a little more than twice per model
        assert many[name] <= 2.5 * few[name], name
    # every model: against the baseline and from the ceiling; no pair of models needs a test of its own here
    assert many["__init__"] <= 2 * len(list((tmp_path / "2" / "records").glob("*/*")))


def test_a_new_record_is_compared_with_what_was_read_to_verify_it(records, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "ALL_PAIRS", 0)  # a small board's page holds all pairs
    calls = counted(
        monkeypatch, (loaded_runs, "parse_checked_items"), (records_module, "parse_untrusted_json")
    )
    n_records, n_samples = 4 * MODELS, 4 * MODELS * ITEMS
    board.build_board([records / "records"], tmp_path / "new")
    assert calls == {"parse_untrusted_json": n_records + n_samples}
    board.build_board([records / "records"], tmp_path / "known")
    assert calls == {"parse_untrusted_json": 2 * n_records + n_samples, "parse_checked_items": n_records}
    assert files(tmp_path / "new") == files(tmp_path / "known")


@pytest.mark.parametrize("place", [0, 1])
def test_a_faulty_record_among_new_ones_is_named(records, tmp_path, place):
    """Whether it is the first of its task or not; its samples, which cannot be read, are not compared."""
    runs = tmp_path / "runs"
    shutil.copytree(records / "records", runs)
    folder = loaded_runs.find_runs([runs])[place * 4]  # four tasks of each model
    for file in folder.glob("samples.jsonl*"):
        file.unlink()
    (folder / "samples.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=f"{folder}: the samples are not the ones"):
        board.build_board([runs], tmp_path / "board")


def test_samples_of_one_task_are_in_memory_at_a_time(generator, tmp_path, trusted):
    """The peak of four tasks is that of one, and what all records and tables need."""
    task = generator.make_task(2, 200, tmp_path / "votes")
    for model in range(8):
        folder = generator.write_record(tmp_path / "1", task, model)
        for number in range(4):  # the same under another name
            name = f"{task.name}{number}"
            copy = tmp_path / "4" / folder.parent.name / folder.name.replace(task.name, name)
            shutil.copytree(folder, copy)
            (copy / "run.json").write_text((folder / "run.json").read_text().replace(task.name, name))
    board.build_board([tmp_path / "1"], tmp_path / "before")  # loads what is loaded once
    peaks = {}
    for tasks in ("1", "4"):
        tracemalloc.start()
        board.build_board([tmp_path / tasks], tmp_path / f"board-{tasks}", verify_again=True)
        peaks[tasks] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    runs = [loaded_runs.load_checked_run(path) for path in loaded_runs.find_runs([tmp_path / "4"])]
    tracemalloc.start()
    held = [run.samples for run in runs if not run.release()]  # type: ignore[func-returns-value]
    of_all = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(map(len, held)) == 4 * 8 * 200
    pages = sum(path.stat().st_size for path in (tmp_path / "board-4" / "samples").rglob("*.*"))
    # pages are held until all are written; a page is a string, then bytes, then a file
    assert peaks["4"] < peaks["1"] + of_all / 8 + 3 * pages, (peaks, of_all, pages)


def test_a_record_is_verified_once(records, tmp_path, monkeypatch, cache):
    calls = counted(monkeypatch, (verified_records, "fault_of"))
    every = MODELS * 4
    build = board.build_board
    first = build([records / "records"], tmp_path / "a")
    assert calls["fault_of"] == every
    second = build([records / "records"], tmp_path / "b")
    assert calls["fault_of"] == every and first.data == second.data
    assert files(tmp_path / "a") == files(tmp_path / "b")
    build([tmp_path / "b"], tmp_path / "c")  # the published records are the same ones, wherever they lie
    assert calls["fault_of"] == every
    build([records / "records"], tmp_path / "d", verify_again=True)
    assert calls["fault_of"] == 2 * every
    build([records / "records", records / "more"], tmp_path / "e")
    assert calls["fault_of"] == 4 * every - every  # only the new ones
    [kept] = cache.iterdir()
    kept.write_text("{ damaged")
    build([records / "records"], tmp_path / "f")
    assert calls["fault_of"] == 4 * every
    kept.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    build([records / "records"], tmp_path / "g")
    assert calls["fault_of"] == 5 * every and files(tmp_path / "g") == files(tmp_path / "a")


def test_other_code_verifies_again(records, tmp_path, monkeypatch):
    calls = counted(monkeypatch, (verified_records, "fault_of"))
    for code in ("ab" * 32, "cd" * 32, "ab" * 32):
        monkeypatch.setattr(verified_records, "code_sha256", lambda code=code: code)
        board.build_board([records / "records"], tmp_path / code)
    assert calls["fault_of"] == 2 * 4 * MODELS


@pytest.mark.parametrize("what", ["score", "response", "record"])
def test_what_passed_before_does_not_cover_a_changed_record(records, tmp_path, what):
    runs = tmp_path / "runs"
    shutil.copytree(records / "records", runs)
    board.build_board([runs], tmp_path / "before")
    folder = sorted(runs.glob("model-002/invented_qa*"))[0]
    record = json.loads((folder / "run.json").read_text())
    lines = (folder / "samples.jsonl").read_text().splitlines()
    if what == "record":
        record["metrics"]["alias_match"]["low"] -= 0.2
    else:
        sample = json.loads(lines[3])
        if what == "score":
            sample["scores"]["exact_match"] = 1.0 - sample["scores"]["exact_match"]
        else:
            sample["response"] = "something else"
        lines[3] = json.dumps(sample)
        text = "".join(line + "\n" for line in lines)
        (folder / "samples.jsonl").write_text(text)
        record["samples_sha256"] = sha256_bytes(text.encode())
    (folder / "run.json").write_text(json.dumps(record))
    for _ in range(2):  # a fault is not remembered as a pass
        with pytest.raises(UserError, match=str(folder)):
            board.build_board([runs], tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_samples_that_are_not_those_of_a_known_record_are_refused(records, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(records / "records", runs)
    board.build_board([runs], tmp_path / "before")
    folder = sorted(runs.glob("model-002/invented_qa*"))[0]
    with open(folder / "samples.jsonl", "a") as handle:
        handle.write("\n")
    with pytest.raises(UserError, match="hash differs"):
        board.build_board([runs], tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_published_samples_are_packed_as_ever(records, tmp_path):
    """However they lie in the run folder: as lines, packed, or packed by another program."""
    runs = tmp_path / "runs"
    shutil.copytree(records / "records", runs)
    packed = sorted(runs.glob("*/*/samples.jsonl.gz"))
    text = gzip.decompress(packed[0].read_bytes())
    packed[0].write_bytes(gzip.compress(text, compresslevel=1, mtime=1234567))
    board.build_board([records / "records"], tmp_path / "a")
    board.build_board([runs], tmp_path / "b")
    published = files(tmp_path / "a")
    assert published == files(tmp_path / "b")
    for name, data in published.items():
        if name.endswith(".gz"):
            assert data == gzip.compress(gzip.decompress(data), compresslevel=9, mtime=0)


def test_a_board_whose_runs_lie_elsewhere_in_it_is_built_in_place(records, tmp_path, trusted):
    """Two runs in each other's folders; what they are named after decides where they come to lie."""
    out = tmp_path / "board"
    board.build_board([records / "records"], out)
    before = files(out)
    first, second = sorted((out / "records" / "sft").iterdir())[:2]
    first.rename(out / "swapped")
    second.rename(first)
    (out / "swapped").rename(second)
    board.build_board([out], out)
    assert files(out) == before


def test_known_lines_are_read_as_unknown_ones(records):
    for folder in loaded_runs.find_runs([records / "records"]):
        data = loaded_runs.open_run(folder).sample_bytes
        samples = list(parse_samples(data, folder))
        assert parse_checked_samples(data) == samples
        for item, sample in zip(parse_checked_items(data), samples, strict=True):
            assert all(getattr(item, name) == getattr(sample, name) for name in item.__slots__)


def test_a_run_is_read_again_after_it_was_released(records):
    folder = loaded_runs.find_runs([records / "records"])[0]
    run = loaded_runs.load_checked_run(folder)
    samples, items, metric = run.samples, run.items, next(iter(run.record.metrics))
    rows = run.item_rows(metric)
    run.condense()
    assert "samples" not in vars(run) and run.items == items and (run.item_rows(metric) == rows).all()
    run.release()
    assert run.samples == samples and run.items == items and (run.item_rows(metric) == rows).all()
    changed = loaded_runs.LoadedRun(run.record, run.folder, "00" * 32)
    with pytest.raises(UserError, match="was changed meanwhile"):
        assert changed.record_bytes
