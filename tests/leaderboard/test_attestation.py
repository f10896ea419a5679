"""`verify --rerun N --attest`: equal answers are kept beside the record, and whatever is done to that file voids it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.files import sha256_file, sha256_json
from rba_bench.leaderboard import verified_records
from rba_bench.leaderboard.attestation import attestation_of, drawn_items, write_attestation
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.loaded_runs import load_checked_run, open_run
from rba_bench.leaderboard.provenance import provenance_of
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard import forging
from tests.leaderboard.attested import attest, attestation
from tests.leaderboard.forging import Json
from tests.published import published_run
from tests.textlm.misbehaving_server import answer, serving

TASK = "micro_webquestions"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, list[Json]]:
    """A run of six items by the real model of the micro track."""
    out = tmp_path_factory.mktemp("eval")
    evaluate(EvalRequest(("micro_triviaqa_sampled",), "base", out=out, limit=6, device="cpu"))
    [folder] = out.glob("base/*")
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return json.loads((folder / "run.json").read_text()), [json.loads(line) for line in lines]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A published record without anything beside it."""
    folder = tmp_path / "runs" / "base" / "run"
    shutil.copytree(published_run("base", TASK), folder, ignore=shutil.ignore_patterns("*attestation*"))
    return folder


def verify(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "verify", *words])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def test_equal_answers_are_kept_and_stand_in_every_verdict(honest, tmp_path, capsys):
    folder = forging.write(tmp_path / "run", *honest)
    before = sha256_file(folder / "run.json")
    code, out, _ = verify(capsys, str(folder), "--rerun", "4", "--attest", "--by", "The maintainers")
    found = json.loads((folder / "attestation.json").read_text())
    assert code == 0 and "4 answers are equal; kept as attestation.json" in out
    assert found["record_sha256"] == before == sha256_file(folder / "run.json")
    assert found["samples_sha256"] == sha256_file(folder / "samples.jsonl")
    assert found["protocol_hash"] == honest[0]["protocol_hash"]
    assert (found["n"], found["equal"], len(set(found["items"]))) == (4, 4, 4)
    assert set(found["items"]) < {sample["id"] for sample in honest[1]}
    assert (
        found["hardware"]["device"] == "cpu" and {"rba-bench", "torch", "sampler"} < found["versions"].keys()
    )
    code, out, _ = verify(capsys, str(folder))
    day = found["created"][:10]
    facts = f"measured here; 4 of 4 items answered again with the same answers, {day}, by The maintainers"
    assert code == 0 and f"; {facts}" in out.splitlines()[0]
    code, out, _ = verify(capsys, str(folder), "--json")
    [shown] = json.loads(out)["records"]
    assert (shown["provenance"], shown["answered_again"], shown["origin"]) == (
        "reproduced",
        4,
        "measured here",
    )


def test_the_items_of_an_attestation_can_be_asked_again_by_its_seed(honest, tmp_path, capsys):
    folder = forging.write(tmp_path / "run", *honest)
    assert verify(capsys, str(folder), "--rerun", "3", "--attest")[0] == 0
    found = json.loads((folder / "attestation.json").read_text())
    _, out, _ = verify(capsys, str(folder), "--rerun", "3", "--seed", str(found["seed"]))
    assert f"rerun of 3 items (seed {found['seed']}): 3 answers are equal" in out
    assert [each.id for each in drawn_items(load_checked_run(folder), 3, found["seed"])] == found["items"]


def test_all_items_and_no_more_are_attested_where_n_is_larger(honest, tmp_path, capsys):
    folder = forging.write(tmp_path / "run", *honest)
    assert verify(capsys, str(folder), "--rerun", "99", "--attest")[0] == 0
    assert json.loads((folder / "attestation.json").read_text())["n"] == 6
    _, out, _ = verify(capsys, str(folder), "--rerun", "1", "--attest")
    assert "in place of an earlier one" in out


def test_nobody_can_foresee_which_items_are_drawn(honest, tmp_path, capsys):
    folder = forging.write(tmp_path / "run", *honest)
    seeds = set()
    for _ in range(2):
        assert verify(capsys, str(folder), "--rerun", "1", "--attest")[0] == 0
        seeds.add(json.loads((folder / "attestation.json").read_text())["seed"])
        _, out, _ = verify(capsys, str(folder), "--rerun", "1")  # nor without an attestation
        seeds.add(int(out.partition("(seed ")[2].partition(")")[0]))
    assert len(seeds) == 4
    draws = {tuple(each.id for each in drawn_items(load_checked_run(folder), 2, seed)) for seed in range(40)}
    assert len(draws) > 8  # of 15 pairs


def test_items_that_somebody_chose_are_not_attested(honest, tmp_path, capsys):
    folder = forging.write(tmp_path / "run", *honest)
    for words, said in {
        ("--attest",): "add --rerun N",
        ("--attest", "--item", "2"): "without --item",
        ("--attest", "--rerun", "2", "--seed", "0"): "leave out --seed",
        ("--rerun", "2", "--by", "me"): "add --attest",
        ("--attest", "--rerun", "2", "--by", "<script>alert(1)</script>"): "plain text",
        ("--attest", "--rerun", "2", "--by", "x" * 81): "at most 80 characters",
    }.items():
        code, _, err = verify(capsys, str(folder), *words)
        assert code == 2 and said in err and err.count("\n") == 1, err
    assert not (folder / "attestation.json").exists()


def wrong_answers(record: Json, samples: list[Json]) -> None:
    for sample in samples[:3]:
        sample["response"] = sample["extracted"] = sample["references"][-1] + " indeed"
    forging.rescore(samples)
    forging.settle(record, samples)


def test_a_failed_rerun_is_a_fault_and_never_kept(honest, tmp_path, capsys):
    folder = forging.edited(tmp_path / "run", honest, wrong_answers)
    assert verify_records([folder]).ok
    code, out, _ = verify(capsys, str(folder), "--rerun", "6", "--attest")
    assert code == 1 and "3 answers are equal, not those of" in out
    assert not (folder / "attestation.json").exists()
    forged = attest(folder, n=6).read_bytes()  # all in it fits, but nobody answered
    assert verify(capsys, str(folder))[0] == 0
    code, out, _ = verify(capsys, str(folder), "--rerun", "6", "--attest")
    assert (
        code == 1
        and "6 of 6 items answered again with the same answers, 2026-11-29, says attestation.json" in out
    )
    assert (folder / "attestation.json").read_bytes() == forged


def test_answers_of_another_sampler_that_differ_are_not_kept(honest, tmp_path, capsys):
    def older(record: Json, samples: list[Json]) -> None:
        del record["versions"]["sampler"]
        wrong_answers(record, samples)

    folder = forging.edited(tmp_path / "run", honest, older)
    code, out, _ = verify(capsys, str(folder), "--rerun", "6", "--attest")
    assert code == 0 and "proves nothing; not attested, as 3 of 6 answers differ" in out
    assert not (folder / "attestation.json").exists()


def test_what_a_server_answers_is_not_attested(tmp_path, capsys):
    with serving(lambda seen: answer("the dorn")) as server:
        evaluate(EvalRequest(("micro_triviaqa",), server.spec, out=tmp_path, limit=3, device="cpu"))
        words = (str(tmp_path), "--rerun", "2", "--attest", "--model", server.spec)
        code, out, _ = verify(capsys, *words)
    assert code == 0 and "not attested, as the weights that answered are not known" in out
    assert not list(tmp_path.rglob("attestation.json"))


def test_a_record_that_changes_meanwhile_is_not_attested(record):
    run = load_checked_run(record)
    (record / "run.json").write_text((record / "run.json").read_text() + " ")
    with pytest.raises(UserError, match="was changed meanwhile"):
        write_attestation(run, ["x"], 1, "cpu")
    assert not (record / "attestation.json").exists()


def one_byte_more(folder: Path) -> None:
    (folder / "run.json").write_text((folder / "run.json").read_text() + "\n")


def copied_from_another(folder: Path) -> None:
    other = folder.parent.parent / "other"
    shutil.copytree(published_run("base", "micro_triviaqa"), other)
    shutil.move(attest(other), folder / "attestation.json")
    shutil.rmtree(other)


def forged(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: attest(folder, **changes)


def larger(folder: Path) -> None:
    """More items than the record has."""
    found = attestation(folder, n=96)
    found |= {"n": 101, "equal": 101, "items": found["items"] + found["items"][:5]}
    (folder / "attestation.json").write_text(json.dumps(found))


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "attestation.json").write_text(content)


ITEMS = "names other items than its seed draws"
TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "one byte more in the record": (lambda folder: (attest(folder), one_byte_more(folder)), "is of another record"),
    "of another record": (copied_from_another, "is of another record"),
    "of other samples": (forged(samples_sha256="ab" * 32), "is of another record"),
    "of another protocol": (forged(protocol_hash="ab" * 32), "is of another record"),
    "a failure told as a pass": (forged(equal=4), "4 of 5 answers are equal, and 5 items are named"),
    "more equal than asked": (forged(equal=6), "6 of 5 answers are equal"),
    "counts without items": (forged(items=[]), "and 0 items are named"),
    "nothing asked": (forged(n=0), "is damaged (n: "),
    "items of the forger's choice": (forged(items=["a", "b", "c", "d", "e"]), ITEMS),
    "a seed that draws others": (lambda f: attest(f, seed=12, items=attestation(f)["items"]), ITEMS),
    "more items than the record has": (larger, ITEMS),
    "items twice": (lambda f: attest(f, items=attestation(f)["items"][:1] * 5), ITEMS),
    "another field": (forged(verified_by_the_hub=True), "verified_by_the_hub: Extra inputs are not permitted"),
    "a later schema": (forged(schema_version=2), "is damaged (schema_version: "),
    "a seed beyond any": (forged(seed=2**70), "is damaged (seed: "),
    "no date": (forged(created="<img src=x>"), "is damaged (created: "),
    "a book for a name": (forged(by="x" * 100_000), "is damaged (by: "),
    "a text for a number": (forged(equal="5"), "is damaged (equal: "),
    "no JSON": (text("{"), "is damaged"),
    "no number": (text('{"n": NaN}'), "NaN is no number"),
    "twice the same key": (text('{"n": 5, "n": 6}'), "occurs twice"),
    "too deep": (text("[" * 5000 + "]" * 5000), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_what_does_not_fit_is_a_fault_and_counts_for_nothing(record, name, tmp_path):
    tamper, fault = TAMPERED[name]
    tamper(record)
    [verdict] = verify_records([record]).verdicts
    assert not verdict.ok and any(fault in each for each in verdict.faults), verdict.faults
    assert all(len(each) < 500 and "<img" not in each for each in verdict.faults)
    assert provenance_of(open_run(record)).label == "measured here" or "items" in fault
    with pytest.raises(UserError, match=r"attestation\.json"):
        build_board([record], tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_link_or_a_huge_file_is_refused_unread(record, tmp_path):
    os.symlink("/etc/hostname", record / "attestation.json")
    with pytest.raises(UserError, match=r"attestation\.json is a link"):
        open_run(record)
    [verdict] = verify_records([record]).verdicts
    assert not verdict.ok and "is a link" in verdict.faults[0]
    (record / "attestation.json").unlink()
    with open(record / "attestation.json", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="larger than 32 MiB"):
        build_board([record], tmp_path / "board")


def test_an_attestation_that_takes_the_place_of_a_link_leaves_its_target(honest, tmp_path, capsys):
    folder = forging.write(tmp_path / "run", *honest)
    run = load_checked_run(folder)
    (tmp_path / "precious").write_text("x")
    os.symlink(tmp_path / "precious", folder / "attestation.json")
    assert verify(capsys, str(folder), "--rerun", "2", "--attest")[0] == 1  # already refused by `verify`
    (folder / "attestation.json").unlink()
    os.symlink(tmp_path / "precious", folder / "attestation.json")
    with pytest.raises(UserError, match="is a link"):
        write_attestation(run, ["x"], 1, "cpu")
    assert (tmp_path / "precious").read_text() == "x"


def test_a_good_one_passes_and_the_record_keeps_its_hashes(record, tmp_path):
    plain = open_run(record)
    test_set = verified_records._test_set_note(TASK)
    key = sha256_json([plain.record_sha256, plain.record.samples_sha256, test_set])
    assert verified_records.key_of(plain) == key  # as it was before there were attestations
    attest(record)
    run = open_run(record)
    assert run.record_sha256 == plain.record_sha256 and verified_records.key_of(run) != key
    assert verify_records([record]).ok and attestation_of(run) is not None
    assert provenance_of(run).label == "reproduced"
    assert build_board([record], tmp_path / "board").data["records"][0]["provenance"] == "reproduced"


def test_a_tampered_attestation_is_found_though_its_record_passed_before(record, tmp_path, monkeypatch):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    attest(record)
    build_board([record], tmp_path / "board")
    attest(record, items=["a", "b", "c", "d", "e"])
    with pytest.raises(UserError, match=ITEMS):
        build_board([record], tmp_path / "board")
