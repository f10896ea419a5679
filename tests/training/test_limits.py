"""Clips, prompts and answers that are more than the model takes: counted, told, left out, cut or refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import AudioRef, encode_flac
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.training.data.clips import ClipStore
from rba_bench.training.data.groups import TrainingData, choices
from rba_bench.training.preflight import ModelLimits
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train
from tests.training.conftest import write_set


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))


def opened(folder: Path) -> TrainingData:
    return TrainingData.open(choices(str(folder)))


def voices(data: TrainingData) -> dict[str, list[str]]:
    return {group: [row.voice for row in rows] for group, rows in data.all.items()}


@pytest.fixture
def with_long(rows: list[AlignmentRow], tmp_path: Path) -> Path:
    """The tiny set, one voice of g1 and all of g2 longer than 2.5 s, and one clip that does not say how long it is."""
    wave = np.tile(np.linspace(-0.1, 0.1, 400, dtype=np.float32), 110)  # 2.75 s
    path = tmp_path / "long.flac"
    path.write_bytes(encode_flac(wave, 16_000))
    audio = AudioRef.of(path.read_bytes(), path)
    long = {"g1-v2", "g2-v0", "g2-v1", "g2-v2"}
    made = [
        replace(row, audio=audio, duration=audio.duration) if row.id in long | {"g3-v1"} else row
        for row in rows
    ]
    unsaid: Any = None
    return write_set(
        tmp_path / "set", [replace(row, duration=unsaid) if row.id == "g3-v1" else row for row in made]
    )


def limits(family: Any, heard: float = 2.5, **keys: Any) -> ModelLimits:
    family.processor.feature_extractor.max_seconds = heard
    return ModelLimits(family, TrainingRecipe(method="sft", **keys))


def test_long_clips_are_left_out_counted_and_told(
    family: Any, with_long: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, mine = opened(with_long), limits(family)
    before = voices(data)
    mine.apply(data)
    assert mine.counts == {"long": 4, "unheard": 0, "context": 0, "answer": 0, "unanswered": 0}
    assert voices(data) == {name: v[:2] if name == "g1" else v for name, v in before.items() if name != "g2"}
    assert "g2" not in data.train and data.train.voices.tolist() == [3, 2, 3, 3, 3]
    said = capsys.readouterr().err
    assert (
        "4 of 21 clips are longer than the 2.5 s that the model can encode: left out (`long_clips: cut`"
        in said
    )


def test_long_clips_may_be_cut_or_refused(
    family: Any, with_long: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = opened(with_long)
    mine = limits(family, long_clips="cut")
    mine.apply(data)
    assert mine.counts["cut"] == 4 and "long" not in mine.counts and len(data.train) == 6
    assert "cut, but their answers are not" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"4 of 21 clips.*set long_clips to drop or cut"):
        limits(family, long_clips="error").apply(data)
    short = limits(family, heard=10.0, long_clips="error")
    short.apply(data)
    assert set(short.counts.values()) == {0} and not capsys.readouterr().err


def test_a_clip_longer_than_its_set_says_is_cut_and_counted(
    family: Any, with_long: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = opened(with_long)
    limits(family).apply(data, tell=False)
    store = ClipStore(family, data.all, frozen=False)
    clip, other = store.get([data.all["g3"][1], data.all["g3"][0]])
    assert clip.sound is not None and len(clip.sound) == 40_000
    assert store.misstated == {"g3-v1"}
    assert "clip g3-v1 has 2.8 s of sound, the set says None" in capsys.readouterr().err
    with pytest.raises(UserError, match="g3-v1 has 2.8 s"):
        ClipStore(family, data.all, frozen=False, strict=True).get(data.all["g3"])


def test_what_does_not_fit_the_context_is_left_out(
    family: Any, alignment_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured: the context is set to the length of the third longest prompt and answer together."""
    data = opened(alignment_dir)

    def length(row: AlignmentRow) -> int:
        prompt = family.expand(family.prompt_ids(row.prompt), family.n_tokens(round(row.duration * 16_000)))
        return len(prompt) + len(family.answer_ids(row.response))

    lengths = {row.id: length(row) for rows in data.all.values() for row in rows}
    family.context = sorted(lengths.values())[-4]
    mine = limits(family, 30.0)
    mine.apply(data)
    left = {row.id for rows in data.all.values() for row in rows}
    assert left == {name for name, size in lengths.items() if size <= family.context}
    assert mine.counts["context"] == len(lengths) - len(left) > 0
    assert f"context of {family.context} tokens" in capsys.readouterr().err
    family.context = 10
    with pytest.raises(UserError, match="no training rows that the model can take"):
        limits(family, 30.0).apply(opened(alignment_dir))


def test_room_for_samples_counts_as_an_answer(family: Any, alignment_dir: Path) -> None:
    data = opened(alignment_dir)
    family.context = 200
    fits = ModelLimits(family, TrainingRecipe(method="rba-single", max_new_tokens=20))
    fits.apply(data)
    assert fits.counts["context"] == 0
    with pytest.raises(UserError, match="no training rows"):
        ModelLimits(family, TrainingRecipe(method="rba-single", max_new_tokens=300)).apply(data)


def test_long_answers_are_left_out_where_a_bound_is_set(
    family: Any, alignment_dir: Path, rows: Sequence[AlignmentRow], capsys: pytest.CaptureFixture[str]
) -> None:
    data = opened(alignment_dir)
    sizes = {row.group_id: len(family.answer_ids(row.response)) for row in rows}
    bound = sorted(sizes.values())[-3]
    mine = limits(family, 30.0, max_answer_tokens=bound)
    mine.apply(data)
    assert set(data.all) == {group for group, size in sizes.items() if size <= bound} != set(sizes)
    assert mine.counts["answer"] == 3 * (len(sizes) - len(data.all))
    assert f"max_answer_tokens {bound}" in capsys.readouterr().err


def test_a_run_records_what_it_left_out(
    recipe_for: Callable[..., Any], with_long: Path, tiny_composite_dir: Path, tmp_path: Path
) -> None:
    from rba_bench.speechlm.audiolm.loading import load_family

    short = load_family(tiny_composite_dir)
    short.processor.feature_extractor.max_seconds = 2.5
    short.save(tmp_path / "base")
    changes = {"method": "sft", "steps": 1, "base": str(tmp_path / "base"), "alignment_set": str(with_long)}
    train(recipe_for(**changes, groups_per_step=5, voices_per_group=3), tmp_path / "run")
    run = read_json(tmp_path / "run" / "rba_run.json")
    assert run["clips_left_out"]["long"] == 4 and run["clips_misstated"] == 1
    assert run["data"]["sets"][0]["train_groups"] == 5
