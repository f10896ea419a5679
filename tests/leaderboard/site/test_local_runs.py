"""`rba-bench view`: runs as their folders are, finished or not, served or written."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation import documents
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
        [version] = arguments(site.file(f"samples/{TASK}/live.js"), "rbaLive")
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


def test_a_damaged_run_is_an_error_at_first_and_a_note_later(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "done", qa_samples(0.5, n=6))
    other = write_run(tmp_path, "other", qa_samples(0.6, n=6))
    runs = LocalRuns([tmp_path])
    assert len(runs.read().sections[TASK + "_greedy"].models) == 2
    (folder / "run.json").write_text("{")
    now = runs.read()
    assert len(now.sections[TASK + "_greedy"].models) == 1 and "is not a run record" in now.notes[0]
    with pytest.raises(UserError, match="is not a run record"):
        LocalRuns([tmp_path]).read()
    assert len(LocalRuns([other]).read().sections) == 1


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
    assert b"live.js" in site.file("site/samples.js") and b'data-live="yes"' in site.file(
        f"samples/{TASK}/index.html"
    )


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
