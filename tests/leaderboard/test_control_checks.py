"""`leaderboard verify`, `--rerun` and `view` on controls: honest ones pass, and what was not played is found out."""

import copy
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.errors import UserError
from rba_bench.evaluation import documents
from rba_bench.evaluation.model_input import load_wave
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.model_card import _newest_records
from rba_bench.leaderboard.rerun import ModelLoader, rerun_items
from rba_bench.leaderboard.site.local_site import write_site
from rba_bench.leaderboard.test_sets import shipped_task
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard import forging
from tests.leaderboard.forging import Json

pytest.importorskip("espeakng_loader")
TASK = "micro_triviaqa"
Run = tuple[Json, list[Json]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, Run]:
    """Runs of the real runner under each control, whole and in part."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, request in (
            ("silence", {"audio": "silence"}),
            ("shuffle", {"audio": "shuffle"}),
            ("first", {"audio": "first=0.5s"}),
            ("noisy shuffle", {"audio": "shuffle", "perturb": "noise=10dB"}),
            ("part of shuffle", {"audio": "shuffle", "limit": 9}),
        ):
            out = tmp_path_factory.mktemp("eval")
            made[name] = forging.make(out, TASK, forging.half_right(TASK), patch, **request)
    return made


def faults(folder: Path) -> str:
    [verdict] = verify_records([folder]).verdicts
    return "; ".join(verdict.faults)


@pytest.mark.parametrize("name", ["silence", "shuffle", "first", "noisy shuffle", "part of shuffle"])
def test_an_honest_control_passes(honest, tmp_path, name):
    assert faults(forging.write(tmp_path / "run", *copy.deepcopy(honest[name]))) == ""


@pytest.mark.parametrize("name", ["shuffle", "noisy shuffle"])
def test_so_it_does_where_the_test_set_is_not_here(honest, tmp_path, monkeypatch, name):
    monkeypatch.setattr("rba_bench.leaderboard.test_sets.load_test_set", lambda *_: (None, "not here"))
    assert faults(forging.write(tmp_path / "run", *copy.deepcopy(honest[name]))) == ""


def own_clip(_: Json, samples: list[Json]) -> None:
    samples[0]["played_sha256"] = samples[0]["audio_sha256"]


def no_clip(_: Json, samples: list[Json]) -> None:
    del samples[0]["played_sha256"]


def two_swapped(_: Json, samples: list[Json]) -> None:
    a, b = samples[0], samples[1]
    a["played_sha256"], b["played_sha256"] = b["played_sha256"], a["played_sha256"]


def all_their_own(record: Json, samples: list[Json]) -> None:
    """A full run that poses as a control, to look as if hearing did not matter."""
    for sample in samples:
        sample["played_sha256"] = sample["audio_sha256"]
    forging.settle(record, samples)


def text_model(record: Json, samples: list[Json]) -> None:
    record["model"] |= {"kind": "text-oracle", "spec": "text:some/llm"}
    forging.settle(record, samples)


FORGED = {
    "own clip": own_clip,
    "no clip": no_clip,
    "two swapped": two_swapped,
    "all their own": all_their_own,
    "a text model": text_model,
}


@pytest.mark.parametrize("edit", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("is_here", [True, False])
def test_what_shuffle_would_not_have_played_is_a_fault(honest, tmp_path, monkeypatch, edit, is_here):
    if not is_here:
        monkeypatch.setattr("rba_bench.leaderboard.test_sets.load_test_set", lambda *_: (None, "not here"))
    said = faults(forging.edited(tmp_path / "run", honest["shuffle"], edit))
    assert "was not played the clip that shuffle gives" in said or "reads the transcript" in said


@pytest.mark.parametrize("edit", [own_clip, no_clip])
def test_so_is_a_clip_that_stayed_in_a_part_of_a_test_set_that_is_not_here(
    honest, tmp_path, monkeypatch, edit
):
    monkeypatch.setattr("rba_bench.leaderboard.test_sets.load_test_set", lambda *_: (None, "not here"))
    assert "kept its clip" in faults(forging.edited(tmp_path / "run", honest["part of shuffle"], edit))


def control(entry: object, **protocol: object) -> forging.Edit:
    def edit(record: Json, samples: list[Json]) -> None:
        record["protocol_spec"] |= {"audio": entry, **protocol}
        forging.settle(record, samples)

    return edit


def unmarked(record: Json, samples: list[Json]) -> None:
    """A control that poses as a full run."""
    del record["protocol_spec"]["audio"]
    forging.settle(record, samples)


NOISE = {"text": "noise=10dB", "version": 1}
SILENCE = {"text": "silence", "version": 1}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (unmarked, "has a seed that is not the run's"),
        (control({"text": "first=2s", "version": 1}), "has a seed that is not the run's"),
        (control({"text": "shuffle", "version": 1}), "was not played the clip"),
        (control(SILENCE, perturb=NOISE), "no sound that could be changed"),
        (control({"text": "silence", "version": 2}), "protocol_spec.audio is not what the task says"),
        (control({"text": "quiet", "version": 1}), "protocol_spec.audio is not what the task says"),
        (control("silence"), "protocol_spec.audio is not what the task says"),
        (control({"text": ["silence"], "version": 1}), "protocol_spec.audio is not what the task says"),
        (lambda _, samples: samples[3].update(played_sha256="ab" * 32), "though no clips were exchanged"),
    ],
    ids=range(9),
)  # fmt: skip
def test_a_control_that_was_not_or_cannot_be_is_a_fault(honest, tmp_path, edit, said):
    assert said in faults(forging.edited(tmp_path / "run", honest["silence"], edit))


@pytest.mark.parametrize("value", ["<script>", "x" * 64, "ab" * 40, 7])
def test_what_was_played_is_a_hash_or_the_record_is_refused(honest, tmp_path, value):
    folder = forging.edited(
        tmp_path / "run", honest["shuffle"], lambda _, samples: samples[0].update(played_sha256=value)
    )
    with pytest.raises(UserError, match="played_sha256"):
        load_checked_run(folder)


@pytest.fixture(scope="module")
def base_runs(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("base")
    for audio in ("silence", "shuffle"):
        evaluate(EvalRequest(tasks=(TASK,), model="base", out=out, limit=6, audio=audio, device="cpu"))
    return out


def test_the_model_of_a_control_says_the_same_again(base_runs):
    loader = ModelLoader(None, {"device": "cpu", "batch_size": 32})
    folders = sorted(base_runs.glob("base/*"))
    assert len(folders) == 2
    for folder in folders:
        run = load_checked_run(folder)
        result = rerun_items(run, shipped_task(TASK), 6, 1, loader)
        assert (result.n, result.differing) == (6, ()), run.record.audio_control


def test_the_page_plays_what_the_model_got(base_runs, tmp_path):
    write_site([base_runs], tmp_path / "view")
    pages = [path.read_text() for path in (tmp_path / "view" / "samples").glob("*/index.html")]
    for control in ("silence", "shuffle"):
        assert sum(f"control without the speech: {control}" in page for page in pages) == 1
    waves = [
        soundfile.read(file, dtype="float32")[0] for file in (tmp_path / "view" / "clips").glob("*.flac")
    ]
    silent = [len(wave) for wave in waves if not wave.any()]
    docs = documents.load_documents(TASK)
    assert sorted(silent) == sorted(round(doc["duration"] * SAMPLING_RATE) for doc in docs[:6])
    [folder] = [f for f in base_runs.glob("base/*") if load_checked_run(f).record.audio_control == "shuffle"]
    by_clip = {doc["audio"]["sha256"]: doc for doc in docs}
    for sample in load_checked_run(folder).samples:
        donor = by_clip[sample.played_sha256]
        expected = load_wave(donor["audio"])
        assert any(len(wave) == len(expected) and np.allclose(wave, expected, atol=1e-4) for wave in waves)


def test_a_model_card_shows_no_control(honest, tmp_path):
    folder = forging.write(tmp_path / "run", *copy.deepcopy(honest["silence"]))
    weights = honest["silence"][0]["model"]["weights_sha256"]
    assert _newest_records([folder], weights, "") == ([], ["1 is a control without the speech"])
