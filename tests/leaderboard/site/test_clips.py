"""Which clips lie beside the pages, and that a board that has them needs no test set to be built again."""

import io
import json
from pathlib import Path

import pytest
import soundfile

from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.evaluation import documents
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import board_differences
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.site import clips
from rba_bench.leaderboard.site.clips import (
    choose_clips,
    clip_faults,
    clip_file,
    licence_of,
    published_hashes,
)
from rba_bench.leaderboard.site.sample_sections import board_section, clip_name
from tests.leaderboard.board_records import qa_samples, write_run
from tests.leaderboard.site.answered import TASK, micro_runs
from tests.leaderboard.site.test_samples import groups

pytest.importorskip("espeakng_loader")


def board(root: Path) -> list[BoardGroup]:
    return list(groups(root).values())


def test_chosen_clips_are_those_of_the_items(tmp_path: Path) -> None:
    chosen = choose_clips(board(micro_runs(tmp_path)), per_task=8)
    section = board_section(TASK, groups(tmp_path)[TASK])
    for number, document in enumerate(documents.load_documents(TASK)[:8]):
        wave, rate = soundfile.read(io.BytesIO(chosen.files[clip_name(section, number)]))
        assert rate == SAMPLING_RATE and abs(len(wave) / rate - document["duration"]) < 0.01
    assert chosen.hashes == choose_clips(board(tmp_path), per_task=8).hashes and not chosen.notes
    assert not choose_clips(board(tmp_path), per_task=0).files


def test_items_on_which_models_differ_are_preferred(tmp_path: Path) -> None:
    """Items 2 to 4 of 8: of many draws they make up more than their share, and the others occur too."""
    drawn = [0] * 8
    for copy in range(12):
        root = micro_runs(tmp_path / str(copy))
        for run in root.glob("*/*/run.json"):  # another test set, so another draw
            run.write_text(run.read_text().replace("22" * 32, f"{copy:02d}" * 32))
        section = board_section(TASK, groups(root)[TASK])
        chosen = choose_clips(board(root), 3).files
        for number in section.numbers:
            drawn[number] += clip_name(section, number) in chosen
    assert sum(drawn) == 36 and sum(drawn[2:5]) > 18 and sum(drawn[:2] + drawn[5:])


def test_a_board_keeps_its_clips_where_they_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = board(micro_runs(tmp_path / "runs"))
    chosen = choose_clips(found, per_task=4)
    for name, data in chosen.files.items():
        (tmp_path / "board" / "clips").mkdir(parents=True, exist_ok=True)
        (tmp_path / "board" / "clips" / f"{name}.flac").write_bytes(data)
    monkeypatch.setattr(clips, "load_clips", lambda spec, folder: (None, "it cannot be spoken here"))
    assert not choose_clips(found, 4).files and choose_clips(found, 4).notes[0].endswith(
        "it cannot be spoken here"
    )
    assert choose_clips(found, 4, tmp_path / "board", chosen.hashes).files == chosen.files
    assert clip_faults(tmp_path / "board", chosen.hashes) == []
    changed = sorted(chosen.files)[0]
    (tmp_path / "board" / "clips" / f"{changed}.flac").write_bytes(b"another")
    assert changed not in choose_clips(found, 4, tmp_path / "board", chosen.hashes).files
    assert clip_faults(tmp_path / "board", chosen.hashes) == [
        f"clips/{changed}.flac is not the clip that was published"
    ]


def test_clips_end_where_a_site_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = board(micro_runs(tmp_path))
    whole = choose_clips(found, 4)
    monkeypatch.setattr(clips, "MOST_BYTES", sum(map(len, whole.files.values())) - 1)
    assert len(choose_clips(found, 4).files) == 3


def test_clips_without_a_licence_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = board(micro_runs(tmp_path))
    monkeypatch.setattr(clips, "licence_of", lambda task: "")
    assert not choose_clips(found, 4).files


def test_clips_of_other_items_are_not_copied(tmp_path: Path) -> None:
    write_run(tmp_path, "base", qa_samples(0.5, n=4), task=TASK)  # hashes that are no clips of the set
    chosen = choose_clips(board(tmp_path), 4)
    assert not chosen.files and len(chosen.notes) == 1 and "micro_triviaqa, item" in chosen.notes[0]


def test_each_licence_is_that_of_the_set() -> None:
    assert "espeak-ng" in licence_of(TASK) and "CC0" in licence_of("small_qa")
    assert licence_of("fleurs_en_de").endswith("CC BY 4.0") and "CC0" in licence_of("covost2_en_de")
    assert licence_of("triviaqa_fixie") == licence_of("mustc_en_de") == licence_of("nothing") == ""


@pytest.mark.parametrize("listed", [[], {"../x": "a" * 64}, {"a" * 20: "x"}, {"a" * 20: None}, "a"])
def test_what_lists_no_clips_is_refused(listed: object) -> None:
    with pytest.raises(ValueError):
        published_hashes(listed)


def test_a_board_lists_its_clips_and_is_built_again_without_the_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "board"
    built = build_board([micro_runs(tmp_path / "runs")], out, "base", clips=4)
    files = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    listed = built.data["clips"]
    assert len(listed) == 4 and sorted(built.data["files"]) == sorted(files)
    assert all(sha256_bytes(files[clip_file(name)]) == digest for name, digest in listed.items())
    assert list(board_differences(out)) == []
    monkeypatch.setattr(clips, "load_clips", lambda spec, folder: (None, "it cannot be spoken here"))
    build_board([out], out, "base", clips=4)
    again = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert again == files
    name = sorted(listed)[0]
    (out / clip_file(name)).write_bytes(b"another")
    page = out / "samples" / TASK / "items-0000.js"
    page.write_bytes(page.read_bytes().replace(b"no idea", b"an idea"))
    faults = list(board_differences(out))
    assert faults[0] == f"{clip_file(name)} is not the clip that was published"
    assert len(faults) == 2 and faults[1].startswith(
        f"samples/{TASK}/items-0000.js is not what the records give"
    )
    build_board([out], out, "base", clips=0)
    assert not list(out.rglob("*.flac")) and list(board_differences(out)) == []


def test_a_list_of_clips_that_leads_elsewhere_is_a_fault(tmp_path: Path) -> None:
    out = tmp_path / "board"
    build_board([micro_runs(tmp_path / "runs")], out, "base", clips=0)
    data = json.loads((out / "records.json").read_text())
    data["clips"] = {"../../etc/passwd": "a" * 64}
    (out / "records.json").write_text(json.dumps(data))
    assert [fault.split(":")[0] for fault in board_differences(out)] == ["cannot be made again"]
