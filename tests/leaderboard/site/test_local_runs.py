"""`rba-bench view`: runs as their folders are, finished or not, served or written."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import soundfile

from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation import documents, records
from rba_bench.leaderboard.site.local_runs import LocalRuns
from rba_bench.leaderboard.site.local_site import LocalSite, write_site
from tests.leaderboard.board_records import qa_samples, sample, write_run
from tests.leaderboard.site.answered import TASK, micro_runs, micro_samples
from tests.leaderboard.site.test_samples import arguments


def unfinished(root: Path, name: str, samples: list, task: str = TASK) -> Path:
    folder = write_run(root, name, samples, task=task)
    (folder / "run.json").unlink()
    return folder


def append(folder: Path, samples: list, torn: str = "") -> None:
    with open(folder / "samples.jsonl", "a") as handle:
        handle.write("".join(each.model_dump_json() + "\n" for each in samples) + torn)


def test_new_answers_of_an_unfinished_run_appear_beside_the_finished_ones(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    micro_runs(tmp_path)
    answers = micro_samples(8)
    folder = unfinished(tmp_path, "running", answers[:3])
    site = LocalSite(LocalRuns([tmp_path]))

    def now() -> tuple[str, dict]:
        version, sections = arguments(site.file("live.js"), "rbaLive")
        assert sections == [TASK]
        [summary] = arguments(site.file(f"samples/{TASK}/summary.js"), "rbaSummary")
        return version, summary["models"][-1] | {"status": summary["status"][-1]}

    first, model = now()
    assert (
        model["label"] == "running"
        and model["state"] == "unfinished: 3 items so far"
        and not model["command"]
    )
    assert model["status"] == [0, 0, 0, -1, -1, -1, -1, -1] and now()[0] == first
    append(folder, answers[3:5], torn='{"doc_id": 5, "id')
    second, model = now()
    assert second != first and model["status"] == [0] * 5 + [-1] * 3
    [_, _, items] = arguments(site.file(f"samples/{TASK}/items-0000.js"), "rbaItems")
    assert items[4]["answers"][-1]["extracted"] == answers[4].extracted and items[5]["answers"][-1] is None
    shutil.rmtree(folder)
    write_run(tmp_path, "running", answers, task=TASK)  # it has ended
    third, _ = now()
    [summary] = arguments(site.file(f"samples/{TASK}/summary.js"), "rbaSummary")
    assert third != second and [each["label"] for each in summary["models"]] == [
        "running",
        "better",
        "base",
        "cascade",
    ]
    assert not any(each["state"] for each in summary["models"])


def test_a_run_of_several_processes_and_one_on_other_clips_are_shown(tmp_path: Path) -> None:
    samples = qa_samples(0.5, n=6)
    write_run(tmp_path, "done", samples)
    folder = unfinished(tmp_path, "alone", samples[:2], task="micro_triviaqa_greedy")
    (folder / "samples.jsonl").rename(folder / "samples.rank-0.jsonl")
    (folder / "samples.rank-1.jsonl").write_text(samples[4].model_dump_json() + "\n")
    other = [each.model_copy(update={"audio_sha256": "ab" * 32}) for each in samples[:1]]
    unfinished(tmp_path, "elsewhere", other, task="micro_triviaqa_greedy")
    sections = LocalRuns([tmp_path]).read().sections
    assert [model.label for model in sections["micro_triviaqa_greedy"].models] == ["done", "alone"]
    assert sorted(sections["micro_triviaqa_greedy"].models[1].samples) == [0, 1, 4]
    apart = sections["micro_triviaqa_greedy.unfinished"]
    assert [model.label for model in apart.models] == ["elsewhere"] and apart.primary == "alias_match"


def test_an_unfinished_control_does_not_stand_among_answers_to_the_clips(tmp_path: Path) -> None:
    """Without a record nothing but the seeds of its items says that other sound was played."""
    samples = qa_samples(0.5, n=6)
    write_run(tmp_path, "done", samples)
    silent = [each.model_copy(update={"seed": each.seed + 100}) for each in samples[:2]]
    unfinished(tmp_path, "done-in-silence", silent, task="micro_triviaqa_greedy")
    sections = LocalRuns([tmp_path]).read().sections
    assert [model.label for model in sections["micro_triviaqa_greedy"].models] == ["done"]
    [apart] = sections["micro_triviaqa_greedy.unfinished"].models
    assert apart.label == "done-in-silence"


def test_only_unfinished_runs_are_enough_and_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        LocalRuns([tmp_path / "nothing"]).read()
    with pytest.raises(UserError, match="no finished run"):
        LocalRuns([tmp_path]).read()
    unfinished(tmp_path, "running", qa_samples(0.5, n=3))
    assert list(LocalRuns([tmp_path]).read().sections) == [TASK]


def test_a_damaged_run_is_a_note_beside_others_and_an_error_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "done", qa_samples(0.5, n=6))
    other = write_run(tmp_path, "other", qa_samples(0.6, n=6))
    runs = LocalRuns([tmp_path])
    assert len(runs.read().sections[TASK + "_greedy"].models) == 2
    (folder / "run.json").write_text("{")
    now = runs.read()
    assert len(now.sections[TASK + "_greedy"].models) == 1 and "is not a run record" in now.notes[0]
    again = LocalRuns([tmp_path]).read()
    assert again.faults == now.faults and len(again.sections[TASK + "_greedy"].models) == 1
    with pytest.raises(UserError, match="is not a run record"):
        LocalRuns([folder]).read()
    assert len(LocalRuns([other]).read().sections) == 1


def test_half_a_line_at_the_end_is_no_answer_yet_and_a_broken_one_before_it_is_a_fault(
    tmp_path: Path,
) -> None:
    answers = qa_samples(0.5, n=6)
    write_run(tmp_path, "done", answers)
    folder = unfinished(tmp_path, "killed", answers[:3], task="micro_triviaqa_greedy")
    append(folder, [], torn='{"doc_id": 3')
    runs = LocalRuns([tmp_path])
    assert runs.read().sections["micro_triviaqa_greedy"].models[1].state == "unfinished: 3 items so far"
    append(folder, answers[4:])  # behind the torn line
    now = runs.read()
    assert len(now.sections["micro_triviaqa_greedy"].models) == 1
    assert "killed" in now.faults[0] and "samples.jsonl is damaged" in now.faults[0]
    with pytest.raises(UserError, match=r"samples.jsonl is damaged"):
        LocalRuns([folder]).read()
    for hostile in ("[" * 10**6, '{"doc_id": 1e999}', '{"id": "\\ud800"}', "\x00", "null", '"x"'):
        (folder / "samples.jsonl").write_text(hostile + "\n")
        assert "killed" in runs.read().faults[0]


def test_new_lines_alone_are_read_and_a_file_that_was_written_anew_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []

    def counted(data: bytes, folder: Path) -> list:
        parsed.append(data.count(b"\n"))
        return list(records.parse_samples(data, folder))

    monkeypatch.setattr("rba_bench.leaderboard.site.local_runs.parse_samples", counted)
    answers = qa_samples(0.5, n=6)
    folder = unfinished(tmp_path, "running", answers[:3])
    runs = LocalRuns([tmp_path])
    runs.read()
    append(folder, answers[3:5])
    assert list(runs.read().sections[TASK].models[0].samples) == [0, 1, 2, 3, 4] and parsed == [3, 2]
    (folder / "samples.jsonl").write_text("")  # an attempt that drops what was not answered
    append(folder, answers[4:])
    assert list(runs.read().sections[TASK].models[0].samples) == [4, 5] and parsed[2:] == [2]


def test_a_link_to_another_file_is_not_followed(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "done", qa_samples(0.5, n=6))
    folder = unfinished(tmp_path / "runs", "linked", qa_samples(0.5, n=3))
    (folder / "samples.jsonl").rename(tmp_path / "private")
    (folder / "samples.jsonl").symlink_to(tmp_path / "private")
    [fault] = LocalRuns([tmp_path / "runs"]).read().faults
    assert "is a link" in fault


def test_runs_that_go_are_missed_and_come_back(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, name, qa_samples(0.5, n=6))
    runs = LocalRuns([tmp_path / "a", tmp_path / "b"])
    site = LocalSite(runs)
    first = arguments(site.file("live.js"), "rbaLive")
    (tmp_path / "a").rename(tmp_path / "away")
    now = runs.read()
    assert [model.label for model in now.sections["micro_triviaqa_greedy"].models] == ["b"]
    assert now.faults == (f"{tmp_path / 'a'} is no longer there",)
    shutil.rmtree(tmp_path / "b")
    version, sections = arguments(site.file("live.js"), "rbaLive")
    assert version != first[0] and sections == []
    assert b"is no longer there" in site.file("index.html")
    assert site.file("samples/micro_triviaqa_greedy/summary.js") is None
    (tmp_path / "away").rename(tmp_path / "a")
    assert arguments(site.file("live.js"), "rbaLive")[1] == ["micro_triviaqa_greedy"]


def test_a_page_that_is_open_keeps_its_name_when_another_protocol_comes(tmp_path: Path) -> None:
    write_run(tmp_path, "a", qa_samples(0.5, n=6), TASK)
    runs = LocalRuns([tmp_path])
    assert list(runs.read().sections) == [TASK]
    write_run(tmp_path, "b", qa_samples(0.5, n=6), TASK, protocol_hash="cd" * 32)
    names = list(runs.read().sections)
    assert len(names) == 2 and TASK in names and f"{TASK}.cdcdcdcd" in "".join(names)
    assert TASK not in LocalRuns([tmp_path]).read().sections


def test_records_that_contradict_each_other_leave_the_page_as_it_was(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "x", "a", qa_samples(0.5, n=6))
    runs = LocalRuns([tmp_path])
    before = runs.read()
    copy = shutil.copytree(folder, tmp_path / "y" / folder.name)
    text = (copy / "run.json").read_text()
    (copy / "run.json").write_text(text.replace("2026-11-20", "2026-11-21"))
    now = runs.read()
    assert now.sections == before.sections and "different records of one run" in now.faults[0]
    with pytest.raises(UserError, match="different records of one run"):
        LocalRuns([tmp_path]).read()


def test_requests_that_wait_share_one_look_at_the_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, "a", qa_samples(0.5, n=6))
    runs = LocalRuns([tmp_path])
    looks: list[int] = []
    read = runs.read

    def slowly() -> object:
        looks.append(1)
        time.sleep(0.3)
        return read()

    monkeypatch.setattr(runs, "read", slowly)
    site = LocalSite(runs)
    threads = [threading.Thread(target=site.file, args=("live.js",)) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(looks) <= 3
    site.file("live.js")
    assert len(looks) <= 4 and looks  # a request that comes later looks again


def test_written_pages_name_no_path_of_this_machine(tmp_path: Path) -> None:
    private = tmp_path / "home-of-somebody"
    model = {"name": "mine", "spec": "checkpoints/mine", "weights_sha256": "33" * 32, "training": None}
    write_run(private / "runs", "mine", qa_samples(0.5, n=4), model=model)
    (write_run(private / "runs", "damaged", qa_samples(0.5, n=4)) / "run.json").write_text("{")
    written = write_site([private / "runs"], tmp_path / "page")
    assert any("home-of-somebody" in note and "is not a run record" in note for note in written.notes)
    pages = [file for file in (tmp_path / "page").rglob("*") if file.is_file()]
    assert len(pages) > 8
    for file in pages:
        content = file.read_bytes()
        assert b"home-of-somebody" not in content and str(tmp_path).encode() not in content, file
    assert "cannot be read and are left out: 1." in written.page.read_text()


def test_runs_of_two_tracks_are_shown_apart(tmp_path: Path) -> None:
    write_run(tmp_path, "a", qa_samples(0.5, n=6))
    write_run(tmp_path, "b", qa_samples(0.5, n=6), task="small_qa", track="small", protocol_hash="cd" * 32)
    assert sorted(LocalRuns([tmp_path]).read().sections) == ["micro_triviaqa_greedy", "small_qa"]


def test_a_clip_is_made_when_it_is_played(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    site = LocalSite(LocalRuns([micro_runs(tmp_path)]))
    [_, _, items] = arguments(site.file(f"samples/{TASK}/items-0000.js"), "rbaItems")
    clip = site.file(items[3]["clip"])
    assert clip is not None and clip.startswith(b"fLaC")
    assert site.file("clips/" + "0" * 20 + ".flac") is None
    for name in (
        f"samples/{TASK}/items-0001.js",
        "samples/none/index.html",
        "records.json",
        "../x",
        "site/x.css",
    ):
        assert site.file(name) is None
    assert b'data-live="yes"' in site.file(f"samples/{TASK}/index.html")


def test_a_written_folder_holds_the_clips_and_says_what_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    micro_runs(tmp_path / "runs")
    written = write_site([tmp_path / "runs"], tmp_path / "page", limit=4)
    assert (written.items, written.clips) == (4, 4) and written.page == tmp_path / "page" / "index.html"
    assert written.notes == (f"{TASK}: the first 4 items; 4 more are left out",)
    [_, _, items] = arguments(
        (tmp_path / "page" / "samples" / TASK / "items-0000.js").read_bytes(), "rbaItems"
    )
    for item, document in zip(items, documents.load_documents(TASK)[:4], strict=True):
        wave, rate = soundfile.read(tmp_path / "page" / item["clip"])
        assert rate == SAMPLING_RATE and abs(len(wave) / rate - document["duration"]) < 0.01
    page = written.page.read_text()
    assert f'href="samples/{TASK}/index.html"' in page and 'data-live="yes"' not in page
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_site([tmp_path / "runs"], tmp_path / "file", limit=4)


def test_the_command_writes_a_folder_and_says_what_it_does_not_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def view(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["view", *words])
        return (int(end.value.code or 0), *capsys.readouterr())

    write_run(tmp_path / "runs", "model", [sample(0, "qa", "word0", ["word0"], "g")], task="somebodys_task")
    code, out, err = view(str(tmp_path / "runs"), "--out", str(tmp_path / "page"), "--json")
    assert code == 0 and "somebodys_task: no clips" in err
    assert json.loads(out)["page"] == str(tmp_path / "page" / "index.html")
    code, _, err = view(str(tmp_path / "nothing"))
    assert code == 2 and "does not exist" in err
    assert view(str(tmp_path / "runs"), "--out", str(tmp_path / "page"), "--port", "80")[0] == 2
    assert view(str(tmp_path / "runs"), "--port", "70000")[0] == 2


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_the_server_cleanly(tmp_path: Path) -> None:
    write_run(tmp_path, "model", qa_samples(0.5, n=3))
    words = [sys.executable, "-m", "rba_bench", "view", str(tmp_path), "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        told = "".join(process.stdout.readline() for _ in range(6))
        address = json.loads(told)["url"].removeprefix("http://").rstrip("/")
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("GET", "/")
        assert b"micro_triviaqa_greedy" in connection.getresponse().read()
        time.sleep(0.1)  # the connection stays open: the server must not wait for it
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0 and "Traceback" not in process.stderr.read()
        connection.close()
